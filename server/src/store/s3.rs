//! Objects of S3 and of servers that speak as it does: where they are, and how requests for them are signed.
//!
//! What the environment and the files of the AWS tools say is read once; every request is signed anew, so that none is older than it
//! takes.

use super::identity::{Renewed, WebIdentity};
use core::time::Duration;
use rusty_s3::actions::{DeleteObject, ListObjectsV2, ListParts, S3Action};
use rusty_s3::{Bucket, Credentials, UrlStyle};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// For how long a signed address is good.
const SIGNED_FOR: Duration = Duration::from_secs(3600);

/// An object, or a prefix of objects, in a bucket.
#[derive(Clone, Debug)]
pub(super) struct Object {
    bucket: Arc<Bucket>,
    signer: Signer,
    key: String,
}

/// What requests are signed with.
#[derive(Clone, Debug)]
enum Signer {
    Nothing,
    Keys(Arc<Credentials>),
    Renewed(Arc<Renewed>),
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, what.into())
}

impl Object {
    /// What `s3://bucket/key` names, with what the environment of this process says.
    pub(super) fn of(text: &str) -> io::Result<Self> {
        Self::with(text, &Settings::of_process()?)
    }

    /// What `text` names on the server at `endpoint`, without credentials.
    #[cfg(test)]
    pub(super) fn at(endpoint: &str, text: &str) -> io::Result<Self> {
        let variable = |name: &str| (name == "AWS_ENDPOINT_URL").then(|| endpoint.to_owned());
        Self::with(text, &Settings::from(variable, "", "")?)
    }

    fn with(text: &str, settings: &Settings) -> io::Result<Self> {
        let rest = text.strip_prefix("s3://").unwrap_or(text);
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(invalid("expected s3://BUCKET/KEY"));
        }
        // What is joined to the address of a bucket must not lead out of it.
        if key.starts_with('/') || key.split('/').any(|piece| matches!(piece, "." | "..")) {
            return Err(invalid(format!(
                "{key:?} is no key of an object: it begins with / or has a . or .. in its path"
            )));
        }
        let endpoint = settings.endpoint();
        let url = endpoint.parse().map_err(|_| invalid(format!("{endpoint} is no address of a server")))?;
        let bucket = Bucket::new(url, settings.style(bucket), bucket.to_owned(), settings.region.clone());
        let bucket = bucket.map_err(|_| invalid(format!("{endpoint} is no address of a server")))?;
        let signer = match (&settings.keys, &settings.web) {
            (Some(Keys { key, secret, token }), _) => Signer::Keys(Arc::new(match token {
                Some(token) => Credentials::new_with_token(key.clone(), secret.clone(), token.clone()),
                None => Credentials::new(key.clone(), secret.clone()),
            })),
            (None, Some(web)) => Signer::Renewed(Renewed::of_process(web)?),
            (None, None) => Signer::Nothing,
        };
        Ok(Self { bucket: Arc::new(bucket), signer, key: key.to_owned() })
    }

    fn credentials(&self) -> Option<Arc<Credentials>> {
        match &self.signer {
            Signer::Nothing => None,
            Signer::Keys(keys) => Some(Arc::clone(keys)),
            Signer::Renewed(renewed) => Some(renewed.credentials()),
        }
    }

    /// The address to get it from.
    pub(super) fn url(&self) -> String {
        self.bucket.get_object(self.credentials().as_deref(), &self.key).sign(SIGNED_FOR).into()
    }

    /// The address to put the whole object to.
    pub(super) fn put_url(&self) -> String {
        self.bucket.put_object(self.credentials().as_deref(), &self.key).sign(SIGNED_FOR).into()
    }

    /// The address that begins an upload of several parts.
    pub(super) fn begin_url(&self) -> String {
        self.bucket.create_multipart_upload(self.credentials().as_deref(), &self.key).sign(SIGNED_FOR).into()
    }

    /// The address to put part `number` to, counted from 1.
    pub(super) fn part_url(&self, number: u16, upload: &str) -> String {
        self.bucket.upload_part(self.credentials().as_deref(), &self.key, number, upload).sign(SIGNED_FOR).into()
    }

    /// The address that lists the parts of an upload that are there, behind part number `after`.
    pub(super) fn parts_url(&self, upload: &str, after: Option<u16>) -> String {
        let credentials = self.credentials();
        let mut list = ListParts::new(&self.bucket, credentials.as_deref(), &self.key, upload);
        if let Some(after) = after {
            list.set_part_number_marker(after);
        }
        list.sign(SIGNED_FOR).into()
    }

    /// The address that makes the object of its parts, and what to send there.
    pub(super) fn complete(&self, upload: &str, tags: &[String]) -> (String, String) {
        let (tags, credentials) = (tags.iter().map(String::as_str), self.credentials());
        let action = self.bucket.complete_multipart_upload(credentials.as_deref(), &self.key, upload, tags);
        (action.sign(SIGNED_FOR).into(), action.body())
    }

    /// The address that gives an upload up.
    pub(super) fn abort_url(&self, upload: &str) -> String {
        self.bucket.abort_multipart_upload(self.credentials().as_deref(), &self.key, upload).sign(SIGNED_FOR).into()
    }

    /// The object called `name` in the folder of this one.
    pub(super) fn beside(&self, name: &str) -> Self {
        let folder = self.key.rfind('/').map_or("", |at| &self.key[..=at]);
        Self { key: format!("{folder}{name}"), ..self.clone() }
    }

    /// The address to remove it at.
    pub(super) fn delete_url(&self) -> String {
        DeleteObject::new(&self.bucket, self.credentials().as_deref(), &self.key).sign(SIGNED_FOR).into()
    }

    /// The address that lists what lies in the folder of this object, `after` the page that this token ends.
    pub(super) fn list_url(&self, after: Option<&str>) -> String {
        let folder = self.key.rfind('/').map_or("", |at| &self.key[..=at]);
        let credentials = self.credentials();
        let mut list = ListObjectsV2::new(&self.bucket, credentials.as_deref());
        list.with_prefix(folder);
        list.with_delimiter("/");
        if let Some(token) = after {
            list.with_continuation_token(token);
        }
        list.sign(SIGNED_FOR).into()
    }
}

/// An object in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) key: String,
    pub(super) bytes: u64,
    /// Its entity tag.
    pub(super) tag: String,
    /// When it was put there, as the server says it.
    pub(super) changed: String,
}

impl Listed {
    /// Its name in its folder.
    pub(super) fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }
}

/// A page of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) objects: Vec<Listed>,
    /// What to ask the next page with.
    pub(super) next: Option<String>,
}

/// Reads a page of a list.
pub(super) fn listed(text: &str) -> Option<Page> {
    let page = ListObjectsV2::parse_response(text).ok()?;
    let objects = page.contents.into_iter().map(|object| Listed {
        key: object.key,
        bytes: object.size,
        tag: object.etag,
        changed: object.last_modified,
    });
    Some(Page { objects: objects.collect(), next: page.next_continuation_token })
}

/// What a secret is signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Keys {
    key: String,
    secret: String,
    token: Option<String>,
}

/// What the environment and the files say.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settings {
    keys: Option<Keys>,
    /// What keys are got for, where there are none.
    web: Option<WebIdentity>,
    region: String,
    endpoint: Option<String>,
    style: Option<String>,
}

impl Settings {
    fn of_process() -> io::Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = variable("HOME").map(PathBuf::from).unwrap_or_default().join(".aws");
        let file = |name: &str, usual: &str| {
            let path = variable(name).map_or_else(|| home.join(usual), PathBuf::from);
            read_file(&path, variable(name).is_some())
        };
        let credentials = file("AWS_SHARED_CREDENTIALS_FILE", "credentials")?;
        let config = file("AWS_CONFIG_FILE", "config")?;
        Self::from(variable, &credentials, &config)
    }

    fn from(variable: impl Fn(&str) -> Option<String>, credentials: &str, config: &str) -> io::Result<Self> {
        let asked = variable("AWS_PROFILE");
        let profile = asked.as_deref().unwrap_or("default");
        let section = if profile == "default" { "default".to_owned() } else { format!("profile {profile}") };
        let keys_of = |name: &str| entry(credentials, profile, name).or_else(|| entry(config, &section, name));
        let of_env = variable("AWS_ACCESS_KEY_ID").zip(variable("AWS_SECRET_ACCESS_KEY"));
        let first = |names: &[&str]| names.iter().find_map(|name| variable(name));
        let region = first(&["AWS_REGION", "AWS_DEFAULT_REGION"]).or_else(|| entry(config, &section, "region"));
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        let web = WebIdentity::from(&variable, &region);
        let keys = match of_env {
            Some((key, secret)) => Some(Keys { key, secret, token: variable("AWS_SESSION_TOKEN") }),
            None if web.is_some() => None,
            None => keys_of("aws_access_key_id").zip(keys_of("aws_secret_access_key")).map(|(key, secret)| Keys {
                key,
                secret,
                token: keys_of("aws_session_token"),
            }),
        };
        if keys.is_none() && web.is_none() && asked.is_some() {
            return Err(invalid(format!("no keys are found for the profile {profile:?} that AWS_PROFILE names")));
        }
        let endpoint = first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]);
        let style = variable("AWS_S3_ADDRESSING_STYLE");
        Ok(Self {
            keys,
            web,
            region,
            endpoint: endpoint.or_else(|| entry(config, &section, "endpoint_url")),
            style: style.or_else(|| entry(config, &section, "addressing_style")),
        })
    }

    fn endpoint(&self) -> String {
        let usual = || format!("https://s3.{}.amazonaws.com", self.region);
        let endpoint = self.endpoint.clone().unwrap_or_else(usual);
        format!("{}/", endpoint.trim_end_matches('/'))
    }

    /// Servers other than Amazon's rarely have a name for each bucket; a name with dots fits no certificate.
    fn style(&self, bucket: &str) -> UrlStyle {
        match self.style.as_deref() {
            Some("path") => UrlStyle::Path,
            Some("virtual") => UrlStyle::VirtualHost,
            _ if self.endpoint.is_some() || bucket.contains('.') => UrlStyle::Path,
            _ => UrlStyle::VirtualHost,
        }
    }
}

/// A file of settings; one that is not named and not there is empty.
fn read_file(path: &Path, is_named: bool) -> io::Result<String> {
    match std::fs::read_to_string(path) {
        Err(error) if is_named => {
            let why = slidecast_net::text::os_error_text(&error);
            Err(io::Error::new(error.kind(), format!("reading {}: {why}", path.display())))
        }
        read => Ok(read.unwrap_or_default()),
    }
}

/// The value of `name` in the section `[section]`.
fn entry(text: &str, section: &str, name: &str) -> Option<String> {
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if let Some(title) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = title.trim() == section;
        } else if let Some((key, value)) = line.split_once('=').filter(|_| inside)
            && key.trim() == name
            && !value.trim().is_empty()
        {
            return Some(value.trim().to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)], credentials: &str, config: &str) -> io::Result<Settings> {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Settings::from(find, credentials, config)
    }

    fn url(text: &str, settings: &Settings) -> String {
        Object::with(text, settings).unwrap().url()
    }

    #[test]
    fn the_environment_comes_before_the_profile_and_without_keys_nothing_is_signed() {
        let files = (
            "[default]\naws_access_key_id = A\naws_secret_access_key=S\n[lab]\naws_access_key_id=L\naws_secret_access_key=M\naws_session_token=T",
            "[profile lab]\nregion = eu-1\nendpoint_url = http://s3.lab:9000\n",
        );
        let read = |variables: &[(&str, &str)]| settings(variables, files.0, files.1).unwrap();
        let lab = read(&[("AWS_PROFILE", "lab")]);
        let keys = Keys { key: "L".into(), secret: "M".into(), token: Some("T".into()) };
        assert_eq!((lab.keys.clone(), lab.region.as_str()), (Some(keys), "eu-1"));
        assert!(url("s3://images/a b/c.slide", &lab).starts_with("http://s3.lab:9000/images/a%20b/c.slide?X-Amz-"));
        let variables = [("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "F"), ("AWS_REGION", "r")];
        assert_eq!(read(&variables).keys.unwrap().key, "E");
        let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "r")];
        assert!(read(&web).keys.is_none() && read(&web).web.is_some(), "it comes before the profile");
        assert!(read(&[web, [variables[0], variables[1]]].concat()).keys.is_some(), "keys come first");
        assert!(url("s3://images/c", &read(&variables)).starts_with("https://images.s3.r.amazonaws.com/c?X-Amz-"));
        assert!(url("s3://my.images/c", &read(&variables)).starts_with("https://s3.r.amazonaws.com/my.images/c?"));
        let anonymous = settings(&[("AWS_ENDPOINT_URL", "http://h:1")], "", "").unwrap();
        assert_eq!(url("s3://images/c.slide", &anonymous), "http://h:1/images/c.slide");
        let virtual_host =
            settings(&[("AWS_ENDPOINT_URL", "http://h:1"), ("AWS_S3_ADDRESSING_STYLE", "virtual")], "", "");
        assert_eq!(url("s3://images/c", &virtual_host.unwrap()), "http://images.h:1/c");
        assert!(settings(&[("AWS_PROFILE", "none")], files.0, files.1).is_err());
        for wrong in ["s3://", "s3://b/../c/a.slide", "s3://b//a.slide", "s3://b/d/./a.slide"] {
            assert!(Object::with(wrong, &lab).is_err(), "{wrong}");
        }
        assert_eq!(url("s3://b/http://x/y:1", &anonymous), "http://h:1/b/http%3A//x/y%3A1");
    }

    #[test]
    fn a_list_is_read_page_by_page_and_only_of_the_folder() {
        let text = "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><Prefix>d/</Prefix>\
            <MaxKeys>2</MaxKeys><KeyCount>1</KeyCount><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>\
            <Contents><Key>d/a.slide</Key><LastModified>2026-01-01T00:00:00Z</LastModified><ETag>x</ETag><Size>5</Size></Contents>\
            </ListBucketResult>";
        let object =
            Listed { key: "d/a.slide".into(), bytes: 5, tag: "x".into(), changed: "2026-01-01T00:00:00Z".into() };
        assert_eq!(object.name(), "a.slide");
        let page = Page { objects: vec![object], next: Some("t".to_owned()) };
        assert_eq!(listed(text).unwrap(), page);
        assert!(listed("<html>").is_none());
        let anonymous = settings(&[("AWS_ENDPOINT_URL", "http://h:1")], "", "").unwrap();
        let url = Object::with("s3://b/d/e/a.slide", &anonymous).unwrap().list_url(Some("t"));
        let beside = Object::with("s3://b/d/e/a.slide", &anonymous).unwrap().beside("50%25?.slide");
        assert_eq!((beside.url(), beside.delete_url()), ("http://h:1/b/d/e/50%2525%3F.slide".to_owned(), beside.url()));
        assert!(url.contains("prefix=d%2Fe%2F") && url.contains("continuation-token=t"), "{url}");
    }
}
