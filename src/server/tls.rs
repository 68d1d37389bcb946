//! The certificate: given by the owner and read again when its file changes, or made on first start.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::{self, ServerConfig};

use super::expiry::{self, Validity};

/// The files are looked at this often at most, and only when a client comes.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);

/// File names in the data directory.
const OWN_CERTIFICATE: &str = "tls-certificate.pem";
const OWN_KEY: &str = "tls-key.pem";

/// Where the certificate and its key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read or write {} for TLS: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: no PEM certificate in it", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{}: no PEM private key in it", path.display())]
    NoKey { path: PathBuf },
    #[error("the certificate {} and the key {} do not work together: {source}", files.certificate.display(), files.key.display())]
    Mismatch {
        files: TlsFiles,
        source: rustls::Error,
    },
    #[error("a certificate could not be made: {0}")]
    Making(rcgen::Error),
}

impl TlsFiles {
    /// The server's own certificate in `directory`, made if it is not there. It is valid for `names`
    /// and for a long time, since wallets remember it on first use.
    pub fn own(directory: &Path, names: &[String]) -> Result<TlsFiles, TlsError> {
        if let Some(files) = TlsFiles::made(directory) {
            files.close_key()?;
            return Ok(files);
        }
        let files = TlsFiles::own_names(directory);
        let mut parameters =
            rcgen::CertificateParams::new(names.to_vec()).map_err(TlsError::Making)?;
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, "Ambra");
        let key = rcgen::KeyPair::generate().map_err(TlsError::Making)?;
        let certificate = parameters.self_signed(&key).map_err(TlsError::Making)?;
        // The key first: a certificate without its key is made anew, a key without its certificate too.
        write_private(&files.key, key.serialize_pem().as_bytes())?;
        write_private(&files.certificate, certificate.pem().as_bytes())?;
        Ok(files)
    }

    /// The server's own certificate in `directory`, where it has been made.
    pub fn made(directory: &Path) -> Option<TlsFiles> {
        let files = TlsFiles::own_names(directory);
        (files.certificate.exists() && files.key.exists()).then_some(files)
    }

    fn own_names(directory: &Path) -> TlsFiles {
        TlsFiles {
            certificate: directory.join(OWN_CERTIFICATE),
            key: directory.join(OWN_KEY),
        }
    }

    /// When the certificate is valid; `None` where that cannot be read.
    pub fn validity(&self) -> Option<Validity> {
        expiry::validity(self.read_certificates().ok()?.first()?)
    }

    /// SHA-256 of the certificate, as wallets show it.
    pub fn fingerprint(&self) -> Result<String, TlsError> {
        let certificates = self.read_certificates()?;
        let digest = Sha256::digest(&certificates[0]);
        let pairs: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(pairs.join(":"))
    }

    fn read_certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let path = &self.certificate;
        let pem = read(path)?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            _ => Err(TlsError::NoCertificate { path: path.clone() }),
        }
    }

    fn load(&self) -> Result<ServerConfig, TlsError> {
        let certificates = self.read_certificates()?;
        let pem = read(&self.key)?;
        if self.is_key_readable_by_all() {
            tracing::warn!(
                "every user of this machine can read the private key {0}: chmod 600 {0}",
                self.key.display()
            );
        }
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| TlsError::NoKey {
            path: self.key.clone(),
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder
                    .with_no_client_auth()
                    .with_single_cert(certificates, key)
            })
            .map_err(|source| TlsError::Mismatch {
                files: self.clone(),
                source,
            })
    }

    /// A mounted secret often is, so it is no error.
    fn is_key_readable_by_all(&self) -> bool {
        fs::metadata(&self.key).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
    }

    /// # Security
    /// A key of our own is the owner's alone, also where a backup was laid back with other permissions.
    fn close_key(&self) -> Result<(), TlsError> {
        let close = || {
            let mut permissions = fs::metadata(&self.key)?.permissions();
            if permissions.mode() & 0o077 == 0 {
                return Ok(());
            }
            tracing::warn!(
                "others could read the private key {}; now they cannot",
                self.key.display()
            );
            permissions.set_mode(0o600);
            fs::set_permissions(&self.key, permissions)
        };
        close().map_err(|source| TlsError::File {
            path: self.key.clone(),
            source,
        })
    }

    fn changed_at(&self) -> [Option<SystemTime>; 2] {
        [&self.certificate, &self.key].map(|path| {
            fs::metadata(path)
                .and_then(|metadata| metadata.modified())
                .ok()
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::File {
        path: path.to_owned(),
        source,
    })
}

/// Writes beside, then renames: a file is there whole or not at all, and readable by its owner alone.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), TlsError> {
    let beside = path.with_extension("new");
    let write = || {
        let _ = fs::remove_file(&beside);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|source| TlsError::File {
        path: path.to_owned(),
        source,
    })
}

/// Takes TLS clients, with the certificate as it is now. Cheap to clone.
#[derive(Clone)]
pub struct TlsAcceptor {
    shared: Arc<Reloading>,
}

struct Reloading {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
    looked: Mutex<Looked>,
}

struct Looked {
    at: Instant,
    changed_at: [Option<SystemTime>; 2],
}

impl TlsAcceptor {
    pub fn new(files: TlsFiles) -> Result<TlsAcceptor, TlsError> {
        // Looked at before it is read, so that a change in between is seen next time.
        let changed_at = files.changed_at();
        let config = files.load()?;
        Ok(TlsAcceptor {
            shared: Arc::new(Reloading {
                files,
                config: ArcSwap::from_pointee(config),
                looked: Mutex::new(Looked {
                    at: Instant::now(),
                    changed_at,
                }),
            }),
        })
    }

    pub(super) fn current(&self) -> tokio_rustls::TlsAcceptor {
        self.shared.reload();
        self.shared.config.load_full().into()
    }
}

impl Reloading {
    /// A certificate that cannot be used is told, and the old one stays.
    fn reload(&self) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.at.elapsed() < RELOAD_PAUSE {
            return;
        }
        looked.at = Instant::now();
        let changed_at = self.files.changed_at();
        if changed_at == looked.changed_at {
            return;
        }
        looked.changed_at = changed_at;
        match self.files.load() {
            Ok(config) => {
                self.config.store(Arc::new(config));
                tracing::info!("the TLS certificate changed and was read again");
            }
            Err(error) => {
                tracing::warn!("the TLS certificate changed, but the old one is kept: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["localhost".to_owned(), "127.0.0.1".to_owned()]
    }

    #[test]
    fn a_certificate_is_made_once_and_its_key_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let files = TlsFiles::own(dir.path(), &names()).unwrap();
        let mode = fs::metadata(&files.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let fingerprint = files.fingerprint().unwrap();
        assert_eq!(fingerprint.len(), 32 * 3 - 1);
        let again = TlsFiles::own(dir.path(), &names()).unwrap();
        assert_eq!(again.fingerprint().unwrap(), fingerprint);
        assert!(TlsAcceptor::new(files).is_ok());
    }

    #[test]
    fn a_key_that_others_can_read_is_closed_if_it_is_our_own_and_told_if_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let files = TlsFiles::own(dir.path(), &names()).unwrap();
        assert!(!files.is_key_readable_by_all());
        let mode = |mode| PermissionsExt::from_mode(mode);
        fs::set_permissions(&files.key, mode(0o644)).unwrap();
        assert!(files.is_key_readable_by_all());
        assert!(TlsAcceptor::new(files.clone()).is_ok());
        TlsFiles::own(dir.path(), &names()).unwrap();
        assert!(!files.is_key_readable_by_all());
        // A group of those who serve TLS is usual.
        fs::set_permissions(&files.key, mode(0o640)).unwrap();
        assert!(!files.is_key_readable_by_all());
    }

    #[test]
    fn a_half_made_certificate_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let files = TlsFiles::own(dir.path(), &names()).unwrap();
        fs::remove_file(&files.certificate).unwrap();
        let files = TlsFiles::own(dir.path(), &names()).unwrap();
        assert!(TlsAcceptor::new(files).is_ok());
    }

    #[test]
    fn files_that_do_not_fit_are_refused_in_words() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let one = TlsFiles::own(one.path(), &names())
            .map(|files| (files, one))
            .unwrap();
        let other = TlsFiles::own(other.path(), &names())
            .map(|files| (files, other))
            .unwrap();
        let mixed = TlsFiles {
            certificate: one.0.certificate.clone(),
            key: other.0.key.clone(),
        };
        assert!(matches!(
            TlsAcceptor::new(mixed),
            Err(TlsError::Mismatch { .. })
        ));
        fs::write(&one.0.key, "nothing").unwrap();
        assert!(matches!(
            TlsAcceptor::new(one.0.clone()),
            Err(TlsError::NoKey { .. })
        ));
        fs::write(&one.0.certificate, "nothing").unwrap();
        assert!(matches!(
            TlsAcceptor::new(one.0.clone()),
            Err(TlsError::NoCertificate { .. })
        ));
        fs::remove_file(&one.0.certificate).unwrap();
        assert!(matches!(
            TlsAcceptor::new(one.0.clone()),
            Err(TlsError::File { .. })
        ));
    }
}
