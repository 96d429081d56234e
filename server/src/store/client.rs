//! Requests to web servers, each tried again as far as that helps.

use super::answer::{Fault, Head, Identity, Patience, content_range, judge, refusal, refusal_of_write};
use super::push::PART_TIME;
use super::redirect::{MAX_REDIRECTS, endless, target};
use super::xml::field;
use core::ops::Range;
use core::time::Duration;
use std::io::{self, ErrorKind, Read};
use ureq::Agent;
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// The wait before the second try.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// How much of the body of an error is read.
const MAX_ERROR_BYTES: u64 = 8 << 10;
/// The longest list that is read at once.
const MAX_TEXT_BYTES: u64 = 16 << 20;
/// Where Debian and Ubuntu keep the authorities that this machine trusts.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Makes requests.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    first_wait: Duration,
}

impl Client {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self::with(roots()?, FIRST_WAIT))
    }

    /// A client that trusts `roots` and waits for `first_wait` before the second try.
    pub(super) fn with(roots: RootCerts, first_wait: Duration) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent("slidecast")
            // What is signed or written goes to the server that was named; reading follows by itself.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections_per_host(8)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .timeout_resolve(Some(Duration::from_secs(20)))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_recv_body(Some(Duration::from_secs(300)))
            .timeout_per_read(Some(Duration::from_secs(30)))
            .build();
        Self { agent: Agent::new_with_config(config), first_wait }
    }

    /// The bytes of `asked`, or fewer where the object ends. `url` gives the address for each try.
    pub(super) fn fetch(
        &self,
        url: impl Fn() -> String,
        asked: Range<u64>,
        known: Option<&Identity>,
    ) -> io::Result<(Identity, Vec<u8>)> {
        let mut patience = Patience::new(self.first_wait);
        let mut identity = known.cloned();
        let mut got = Vec::new();
        loop {
            let before = got.len();
            match self.try_fetch(url(), &asked, &mut identity, &mut got) {
                Ok(()) => {}
                Err(fault) => {
                    if got.len() > before {
                        patience.progress();
                    }
                    std::thread::sleep(patience.after(fault, random())?);
                    continue;
                }
            }
            if let Some(identity) = identity.take() {
                return Ok((identity, got));
            }
        }
    }

    /// The text that `url` gives, of at most 16 MiB.
    pub(super) fn text(&self, url: impl Fn() -> String) -> io::Result<String> {
        self.send(|| {
            let (head, body) = opened(self.agent.get(url()).call().map_err(fault)?);
            if head.status != 200 {
                return Err(refusal(&head));
            }
            let mut text = String::new();
            let read = body.take(MAX_TEXT_BYTES).read_to_string(&mut text);
            read.map(|_| text).map_err(|error| Fault::Passing(error.to_string(), None))
        })
    }

    /// Puts `content` to `url`; `if_absent` only where nothing is. Gives the entity tag.
    pub(super) fn put(&self, url: impl Fn() -> String, content: &[u8], if_absent: bool) -> io::Result<Option<String>> {
        self.send(|| {
            let request = self.agent.put(url());
            let request = if if_absent { request.header("if-none-match", "*") } else { request };
            let response = request.config().timeout_send_body(Some(PART_TIME)).build().send(content).map_err(fault)?;
            let (head, _) = opened(response);
            if (200..300).contains(&head.status) { Ok(head.tag) } else { Err(refusal_of_write(&head)) }
        })
    }

    /// Posts `content` to `url`, and gives the answer; `if_absent` only where nothing is.
    pub(super) fn post(&self, url: impl Fn() -> String, content: &str, if_absent: bool) -> io::Result<String> {
        self.send(|| {
            let request = self.agent.post(url());
            let request = if if_absent { request.header("if-none-match", "*") } else { request };
            let (head, body) = opened(request.send(content).map_err(fault)?);
            if !(200..300).contains(&head.status) {
                return Err(refusal_of_write(&head));
            }
            let mut text = String::new();
            let read = body.take(MAX_TEXT_BYTES).read_to_string(&mut text);
            read.map_err(|error| Fault::Passing(error.to_string(), None))?;
            // An upload of parts may fail behind a head that says that all is well.
            match error_code(&text) {
                Some(code) => Err(refusal_of_write(&Head { status: 500, code: Some(code), ..head })),
                None => Ok(text),
            }
        })
    }

    /// Posts a form to `url`, and gives the text that it is answered with.
    pub(super) fn form(&self, url: &str, form: &str) -> io::Result<String> {
        self.send(|| {
            let request = self.agent.post(url).header("content-type", "application/x-www-form-urlencoded");
            let (head, body) = opened(request.send(form).map_err(fault)?);
            if head.status != 200 {
                return Err(refusal(&head));
            }
            let mut text = String::new();
            let read = body.take(MAX_TEXT_BYTES).read_to_string(&mut text);
            read.map(|_| text).map_err(|error| Fault::Passing(error.to_string(), None))
        })
    }

    /// Deletes what is at `url`.
    pub(super) fn delete(&self, url: impl Fn() -> String) -> io::Result<()> {
        self.send(|| {
            let (head, _) = opened(self.agent.delete(url()).call().map_err(fault)?);
            if (200..300).contains(&head.status) { Ok(()) } else { Err(refusal_of_write(&head)) }
        })
    }

    fn send<T>(&self, attempt: impl Fn() -> Result<T, Fault>) -> io::Result<T> {
        let mut patience = Patience::new(self.first_wait);
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(fault) => std::thread::sleep(patience.after(fault, random())?),
            }
        }
    }

    /// One try: asks for what `got` lacks.
    fn try_fetch(
        &self,
        mut url: String,
        asked: &Range<u64>,
        identity: &mut Option<Identity>,
        got: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let rest = asked.start + got.len() as u64..asked.end;
        // A weak tag may not be compared by the server; the answer's own tag is compared here anyway.
        let strong = identity.as_ref().and_then(|known| known.tag.as_deref()).filter(|tag| tag.starts_with('"'));
        let mut redirects = 0;
        let (head, mut body) = loop {
            let mut request = self.agent.get(&url).header("accept-encoding", "identity");
            request = request.header("range", format!("bytes={}-{}", rest.start, rest.end.saturating_sub(1)));
            if let Some(tag) = strong {
                request = request.header("if-match", tag);
            }
            let (head, body) = opened(request.call().map_err(fault)?);
            match target(&url, &head)? {
                None => break (head, body),
                Some(_) if redirects == MAX_REDIRECTS => return Err(endless()),
                Some(to) => (url, redirects) = (to, redirects + 1),
            }
        };
        let found = judge(&head, &rest, identity.as_ref())?;
        let want = rest.end.min(found.bytes).saturating_sub(rest.start);
        *identity = Some(found);
        let before = got.len() as u64;
        let read = body.by_ref().take(want).read_to_end(got);
        let came = got.len() as u64 - before;
        match read {
            _ if came == want => {
                // Whoever reads the end of an answer may use its connection again.
                let _ = body.read(&mut [0]);
                Ok(())
            }
            Ok(_) => Err(Fault::Passing(format!("the connection was cut after {came} of {want} bytes"), None)),
            Err(error) => Err(Fault::Passing(format!("after {came} of {want} bytes: {error}"), None)),
        }
    }
}

/// The head of a response, with the code of an S3 error, and its body.
fn opened(response: Response<ureq::Body>) -> (Head, impl Read) {
    let (parts, body) = response.into_parts();
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let status = parts.status.as_u16();
    let mut head = Head {
        status,
        range: text("content-range").and_then(|text| content_range(&text)),
        len: text("content-length").and_then(|text| text.parse().ok()),
        tag: text("etag").or_else(|| text("last-modified")),
        retry_after: text("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs),
        code: None,
        location: text("location"),
        region: text("x-amz-bucket-region").filter(|region| is_plain(region)),
    };
    let mut body = body.into_reader();
    if status >= 300 {
        let mut bytes = Vec::new();
        // Without the code the status has to do.
        let _ = body.by_ref().take(MAX_ERROR_BYTES).read_to_end(&mut bytes);
        head.code = error_code(&String::from_utf8_lossy(&bytes));
    }
    (head, body)
}

fn error_code(text: &str) -> Option<String> {
    let code = field(text, "Code")?;
    is_plain(&code).then_some(code)
}

/// Whether what a server says may stand in a message.
fn is_plain(word: &str) -> bool {
    word.len() <= 64 && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// What an error of the client means.
fn fault(error: ureq::Error) -> Fault {
    use ureq::Error;
    match error {
        // The library repeats the address, and there may be a signature in it.
        Error::BadUri(_) | Error::Http(_) => Fault::last(ErrorKind::InvalidInput, "this is no address of a web server"),
        Error::Rustls(error) => {
            Fault::Final(ErrorKind::PermissionDenied, format!("the server cannot be trusted: {error}"))
        }
        Error::Io(error) => match error.get_ref().map(ToString::to_string) {
            // What TLS says of a certificate comes as an error of the connection.
            Some(said) if said.contains("certificate") => {
                Fault::Final(ErrorKind::PermissionDenied, format!("the server cannot be trusted: {said}"))
            }
            _ => Fault::Passing(slidecast_net::text::os_error_text(&error), None),
        },
        other => Fault::Passing(other.to_string(), None),
    }
}

fn random() -> u8 {
    let mut byte = [128];
    // Without randomness all wait for the same time.
    let _ = getrandom::fill(&mut byte);
    byte[0]
}

/// The authorities that are trusted: those of a file that the environment names, those of this machine, or Mozilla's.
fn roots() -> io::Result<RootCerts> {
    let named = ["AWS_CA_BUNDLE", "SSL_CERT_FILE"].into_iter().find_map(std::env::var_os);
    let path = match &named {
        Some(path) => std::path::Path::new(path),
        None => std::path::Path::new(SYSTEM_ROOTS),
    };
    let wrong = |what: &str| {
        let path = path.display();
        io::Error::new(ErrorKind::InvalidInput, format!("the certificates in {path}: {what}"))
    };
    let pem = match std::fs::read(path) {
        Ok(pem) => pem,
        Err(_) if named.is_none() => return Ok(RootCerts::WebPki),
        Err(error) => return Err(wrong(&slidecast_net::text::os_error_text(&error))),
    };
    trusted(&pem).ok_or_else(|| wrong("there are none"))
}

/// The authorities in `pem`; `None` if there are none.
pub(super) fn trusted(pem: &[u8]) -> Option<RootCerts> {
    let certificates = parse_pem(pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<Certificate<'static>> = certificates.collect();
    (!certificates.is_empty()).then(|| certificates.into())
}
