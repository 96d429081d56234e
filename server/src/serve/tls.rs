//! TLS: the certificate, one that the server makes for itself at its first start or one that it is given, and a connection's handshake.
//!
//! Files that are given may be renewed while the server runs: they are looked at every few seconds, and read again when they have changed.

use super::ServeError;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::fs::Permissions;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How often files that were given are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Files {
    /// PEM: the server's certificate, then those that lead to the authority.
    pub(super) certificate: PathBuf,
    /// PEM.
    pub(super) key: PathBuf,
}

/// What is wrong with a certificate or its key.
#[derive(Debug)]
pub(super) enum TlsError {
    /// A file can't be read, or has none of what it should have.
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::pki_types::pem::Error,
    },
    /// The two do not belong together, or are of a kind that is not known.
    Refused {
        /// The files.
        files: Files,
        /// What is wrong.
        source: rustls::Error,
    },
    /// A certificate can't be made.
    Make(rcgen::Error),
    /// The made certificate can't be kept.
    Keep {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem { path, .. } => write!(f, "reading {} as PEM", path.display()),
            Self::Refused { files, .. } => {
                write!(f, "using the certificate {} with the key {}", files.certificate.display(), files.key.display())
            }
            Self::Make(_) => f.write_str("making a certificate"),
            Self::Keep { path, .. } => write!(f, "keeping the certificate in {}", path.display()),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Pem { source, .. } => Some(source),
            Self::Refused { source, .. } => Some(source),
            Self::Make(source) => Some(source),
            Self::Keep { source, .. } => Some(source),
        }
    }
}

impl From<TlsError> for ServeError {
    fn from(error: TlsError) -> Self {
        Self::Tls(Box::new(error))
    }
}

/// A certificate with its key, as connections use it.
struct Loaded {
    config: Arc<ServerConfig>,
    fingerprint: String,
    changed: Changed,
}

/// What connections are encrypted with.
pub(super) struct Tls {
    files: Files,
    now: Mutex<Loaded>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).field("fingerprint", &self.fingerprint()).finish()
    }
}

impl Tls {
    /// Reads certificate and key.
    pub(super) fn of_files(files: Files) -> Result<Self, TlsError> {
        let changed = changed(&files);
        let now = Mutex::new(load(&files, changed)?);
        Ok(Self { files, now })
    }

    /// The certificate that this server has made for itself; it is made if there is none yet.
    pub(super) fn own(state: &Path, address: IpAddr) -> Result<Self, TlsError> {
        let path = state.join("tls.pem");
        if !path.exists() {
            make(state, &path, address)?;
        }
        Self::of_files(Files { certificate: path.clone(), key: path })
    }

    /// The SHA-256 of the certificate, as browsers show it.
    pub(super) fn fingerprint(&self) -> String {
        self.lock().fingerprint.clone()
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.lock().config.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Loaded> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the files again if they have changed. What can't be used is not taken: the one that there is stays.
    fn look(&self) {
        self.look_with(load);
    }

    fn look_with(&self, load: impl FnOnce(&Files, Changed) -> Result<Loaded, TlsError>) {
        // Before they are read: what changes while they are is seen at the next look.
        let changed = changed(&self.files);
        if self.lock().changed == changed {
            return;
        }
        match load(&self.files, changed) {
            Ok(loaded) => {
                log::info!("the certificate {} was read again", self.files.certificate.display());
                *self.lock() = loaded;
            }
            Err(error) => {
                // Once for each change: the two files may be replaced one after the other.
                self.lock().changed = changed;
                log::error!("{}; the one that was read before is used", crate::failure::one_line(&error));
            }
        }
    }

    /// Looks at the files for ever.
    pub(super) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let tls = self.clone();
            // It reads files.
            let _ = tokio::task::spawn_blocking(move || tls.look()).await;
        }
    }
}

/// When certificate and key were changed last.
type Changed = [Option<SystemTime>; 2];

fn changed(files: &Files) -> Changed {
    [&files.certificate, &files.key].map(|path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok())
}

/// Reads files that were `changed` then.
fn load(files: &Files, changed: Changed) -> Result<Loaded, TlsError> {
    let pem = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path: path.clone(), source }
    };
    let failed = pem(&files.certificate);
    let chain = CertificateDer::pem_file_iter(&files.certificate).map_err(&failed)?;
    let chain: Vec<CertificateDer<'static>> = chain.collect::<Result<_, _>>().map_err(&failed)?;
    let first = chain.first().ok_or_else(|| failed(rustls::pki_types::pem::Error::NoItemsFound))?;
    let fingerprint = fingerprint(first);
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(pem(&files.key))?;
    let refused = |source| TlsError::Refused { files: files.clone(), source };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(refused)?;
    let mut config = config.with_no_client_auth().with_single_cert(chain, key).map_err(refused)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Loaded { config: Arc::new(config), fingerprint, changed })
}

/// The SHA-256 of a certificate in hexadecimal digits, with a colon between bytes.
pub(crate) fn fingerprint(certificate: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// Makes a certificate for the names of this machine. Key and certificate are in one file, so that there are never two that do not belong
/// together; the certificate alone is beside it, for clients.
fn make(state: &Path, path: &Path, address: IpAddr) -> Result<(), TlsError> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.extend(host_name());
    if !address.is_unspecified() {
        names.push(address.to_string());
    }
    names.dedup();
    let key = KeyPair::generate().map_err(TlsError::Make)?;
    let mut params = CertificateParams::new(names).map_err(TlsError::Make)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "SlideCast");
    // Whoever trusts it trusts this one, by its fingerprint; a clock that is wrong must not shut the pages.
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 12, 31);
    let certificate = params.self_signed(&key).map_err(TlsError::Make)?.pem();
    keep(state, path, &format!("{certificate}{}", key.serialize_pem()), 0o600)?;
    keep(state, &state.join("tls.crt"), &certificate, 0o644)
}

fn keep(state: &Path, path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    let kept = || {
        let mut file = tempfile::Builder::new().prefix(".tls").tempfile_in(state)?;
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error).map(drop)
    };
    kept().map_err(|source| TlsError::Keep { path: path.to_owned(), source })
}

/// The name of this machine.
pub(super) fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    let good = |sign: u8| sign.is_ascii_alphanumeric() || matches!(sign, b'-' | b'.');
    (!name.is_empty() && name.bytes().all(good)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_certificate_is_made_once_and_its_key_is_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Tls::own(dir.path(), [0, 0, 0, 0].into()).unwrap();
        let again = Tls::own(dir.path(), [10, 0, 0, 1].into()).unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert_eq!((first.fingerprint().len(), first.fingerprint().matches(':').count()), (95, 31));
        let mode = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("tls.pem"), mode("tls.crt")), (0o600, 0o644));
        let public = std::fs::read_to_string(dir.path().join("tls.crt")).unwrap();
        assert!(public.contains("BEGIN CERTIFICATE") && !public.contains("PRIVATE"), "{public}");
    }

    #[test]
    fn files_that_were_renewed_are_used_and_what_is_no_certificate_is_not() {
        let (here, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let tls = Tls::own(here.path(), [127, 0, 0, 1].into()).unwrap();
        let renewed = Tls::own(other.path(), [127, 0, 0, 1].into()).unwrap().fingerprint();
        let before = tls.fingerprint();
        let path = here.path().join("tls.pem");
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let put = |text: &[u8], seconds| {
            std::fs::write(&path, text).unwrap();
            std::fs::File::options().write(true).open(&path).unwrap().set_modified(at(seconds)).unwrap();
            tls.look();
            tls.fingerprint()
        };
        assert_eq!(put(b"-----BEGIN CERTIFICATE-----\nAAAA\n", 1), before);
        assert_eq!(put(&std::fs::read(other.path().join("tls.pem")).unwrap(), 2), renewed);
    }

    #[test]
    fn a_file_that_is_renewed_while_the_one_before_it_is_found_wrong_is_read() {
        let (here, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let tls = Tls::own(here.path(), [127, 0, 0, 1].into()).unwrap();
        let renewed = Tls::own(other.path(), [127, 0, 0, 1].into()).unwrap().fingerprint();
        let path = here.path().join("tls.pem");
        let put = |text: &[u8], seconds| {
            std::fs::write(&path, text).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        };
        put(b"half a certificate", 1);
        tls.look_with(|files, changed| {
            let read = load(files, changed);
            put(&std::fs::read(other.path().join("tls.pem")).unwrap(), 2);
            read
        });
        assert_ne!(tls.fingerprint(), renewed);
        tls.look();
        assert_eq!(tls.fingerprint(), renewed);
    }

    #[test]
    fn a_file_without_a_certificate_and_a_key_of_another_are_named() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("empty"), "").unwrap();
        let said = |certificate: PathBuf, key: PathBuf| {
            let error = Tls::of_files(Files { certificate, key }).unwrap_err();
            crate::failure::one_line(&error)
        };
        let error = said(path("empty"), path("empty"));
        assert!(error.starts_with(&format!("reading {} as PEM: ", path("empty").display())), "{error}");
        drop((Tls::own(dir.path(), [127, 0, 0, 1].into()), Tls::own(other.path(), [127, 0, 0, 1].into())));
        let error = said(path("tls.crt"), other.path().join("tls.pem"));
        assert!(error.starts_with("using the certificate ") && error.contains("with the key"), "{error}");
    }
}
