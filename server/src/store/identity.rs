//! Credentials for S3 that a program in a cluster gets for the token of its workload (`AssumeRoleWithWebIdentity`), and gets anew before
//! they end.

use super::client::Client;
use super::xml::field;
use core::time::Duration;
use form_urlencoded::Serializer;
use jiff::Timestamp;
use rusty_s3::Credentials;
use slidecast_net::text::os_error_text;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// How long before their end credentials are renewed.
const AHEAD: Duration = Duration::from_secs(300);
/// How long after a try that failed the next one is made.
const AGAIN: Duration = Duration::from_secs(30);

/// What is exchanged for credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WebIdentity {
    endpoint: String,
    role: String,
    session: String,
    /// A file with the token, which changes from time to time.
    token: PathBuf,
}

impl WebIdentity {
    /// What the environment says; `None` if it says nothing of this.
    pub(super) fn from(variable: impl Fn(&str) -> Option<String>, region: &str) -> Option<Self> {
        let (token, role) = variable("AWS_WEB_IDENTITY_TOKEN_FILE").zip(variable("AWS_ROLE_ARN"))?;
        let named = variable("AWS_ENDPOINT_URL_STS").or_else(|| variable("AWS_ENDPOINT_URL"));
        let endpoint = named.unwrap_or_else(|| format!("https://sts.{region}.amazonaws.com"));
        let session = variable("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "slidecast".to_owned());
        Some(Self { endpoint, role, session, token: token.into() })
    }

    fn exchange(&self, client: &Client) -> io::Result<Lent> {
        let failed = |error: io::Error| {
            let (why, token) = (os_error_text(&error), self.token.display());
            io::Error::new(
                error.kind(),
                format!("exchanging the token in {token} for credentials of {}: {why}", self.role),
            )
        };
        let token = std::fs::read_to_string(&self.token).map_err(failed)?;
        let mut form = Serializer::new(String::new());
        form.append_pair("Action", "AssumeRoleWithWebIdentity").append_pair("Version", "2011-06-15");
        form.append_pair("RoleArn", &self.role).append_pair("RoleSessionName", &self.session);
        let form = form.append_pair("WebIdentityToken", token.trim()).finish();
        let text = client.form(&format!("{}/", self.endpoint.trim_end_matches('/')), &form).map_err(failed)?;
        let lent = Lent::of(&text);
        lent.ok_or_else(|| failed(io::Error::new(ErrorKind::InvalidData, "the server sends no credentials")))
    }
}

/// Credentials with their end.
#[derive(Clone, Debug)]
struct Lent {
    keys: Arc<Credentials>,
    ends: Timestamp,
}

impl Lent {
    fn of(text: &str) -> Option<Self> {
        let [key, secret, token] = ["AccessKeyId", "SecretAccessKey", "SessionToken"].map(|name| field(text, name));
        let ends = field(text, "Expiration")?.parse().ok()?;
        Some(Self { keys: Arc::new(Credentials::new_with_token(key?, secret?, token?)), ends })
    }

    /// Whether others are wanted `now`, where the last try that failed was made at `failed`.
    fn is_due(&self, now: Timestamp, failed: Option<Timestamp>) -> bool {
        let soon = self.ends.checked_sub(AHEAD).is_ok_and(|soon| now >= soon);
        soon && failed.is_none_or(|failed| failed.checked_add(AGAIN).is_ok_and(|again| now >= again))
    }
}

/// Credentials that are renewed.
#[derive(Debug)]
pub(super) struct Renewed {
    web: WebIdentity,
    client: Client,
    now: Mutex<(Lent, Option<Timestamp>)>,
}

/// Those of this process: an image has many layers, and all are read with the same ones.
static OF_PROCESS: Mutex<Option<Arc<Renewed>>> = Mutex::new(None);

impl Renewed {
    /// The credentials for `web`, which are got the first time.
    pub(super) fn of_process(web: &WebIdentity) -> io::Result<Arc<Self>> {
        let mut known = OF_PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|known| known.web == *web) {
            return Ok(Arc::clone(known));
        }
        let renewed = Self::new(web.clone(), Client::new()?)?;
        Ok(Arc::clone(known.insert(Arc::new(renewed))))
    }

    fn new(web: WebIdentity, client: Client) -> io::Result<Self> {
        let lent = web.exchange(&client)?;
        Ok(Self { web, client, now: Mutex::new((lent, None)) })
    }

    /// Those to sign with now. If others cannot be had it is tried again later, and the server says so if they have ended.
    pub(super) fn credentials(&self) -> Arc<Credentials> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let (lent, failed) = &mut *now;
        if lent.is_due(Timestamp::now(), *failed) {
            match self.web.exchange(&self.client) {
                Ok(others) => (*lent, *failed) = (others, None),
                Err(error) => {
                    log::warn!("{error}");
                    *failed = Some(Timestamp::now());
                }
            }
        }
        Arc::clone(&lent.keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use ureq::tls::RootCerts;

    fn answer(number: u32, ends: &str) -> String {
        format!(
            "<R><Credentials><AccessKeyId>K{number}</AccessKeyId><SecretAccessKey>S</SecretAccessKey>\
             <SessionToken>T</SessionToken><Expiration>{ends}</Expiration></Credentials></R>"
        )
    }

    #[test]
    fn credentials_are_got_for_the_token_as_it_is_then_and_renewed_before_they_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let mut asked = Vec::new();
            // The first ones have ended when they come.
            for (number, ends) in [(1, "2020-01-01T00:00:00Z"), (2, "2099-01-01T00:00:00Z")] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let fields: Vec<_> =
                    reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                let len = fields
                    .iter()
                    .find_map(|field| field.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
                let mut form = vec![0; len.unwrap()];
                reader.read_exact(&mut form).unwrap();
                asked.push(String::from_utf8(form).unwrap());
                let body = answer(number, ends);
                write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                    .unwrap();
            }
            asked
        });
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, "first\n").unwrap();
        let variables = [
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
            ("AWS_ROLE_ARN", "arn:aws:iam::1:role/x"),
            ("AWS_ENDPOINT_URL", &endpoint),
        ];
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let web = WebIdentity::from(variable, "eu-1").unwrap();
        let renewed = Renewed::new(web, Client::with(RootCerts::WebPki, Duration::from_millis(1))).unwrap();
        std::fs::write(&token, "second").unwrap();
        assert_eq!(renewed.credentials().key(), "K2");
        assert_eq!(renewed.credentials().key(), "K2", "they last");
        let asked = server.join().unwrap();
        assert!(
            asked[0].contains("RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fx")
                && asked[0].ends_with("WebIdentityToken=first")
        );
        assert!(asked[1].ends_with("WebIdentityToken=second"));
    }

    #[test]
    fn credentials_that_end_soon_are_renewed_and_a_failure_is_not_repeated_at_once() {
        let lent = Lent::of(&answer(1, "2030-01-01T12:00:00Z")).unwrap();
        let at = |time: &str| format!("2030-01-01T{time}Z").parse::<Timestamp>().unwrap();
        assert!(!lent.is_due(at("11:54:59"), None) && lent.is_due(at("11:55:00"), None));
        let failed = Some(at("11:56:00"));
        assert!(!lent.is_due(at("11:56:29"), failed) && lent.is_due(at("11:56:30"), failed));
        assert!(Lent::of("<Error/>").is_none());
    }
}
