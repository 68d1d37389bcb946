//! Who Ambra is to the node: a cookie that changes with each start of bitcoind, or a user's name and
//! password.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::RpcError;

/// How to log in. Its `Debug` shows no password.
#[derive(Clone)]
pub enum RpcAuth {
    /// bitcoind's `.cookie`, read again whenever the node refuses it.
    CookieFile(PathBuf),
    /// User and password.
    UserPass(String, String),
}

impl fmt::Debug for RpcAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RpcAuth::CookieFile(path) => f.debug_tuple("CookieFile").field(path).finish(),
            RpcAuth::UserPass(..) => f.write_str("UserPass(..)"),
        }
    }
}

/// The value of the header `Authorization`, kept until the node refuses it.
pub(super) struct Credentials {
    auth: RpcAuth,
    known: Mutex<Option<Arc<str>>>,
}

impl Credentials {
    pub fn new(auth: RpcAuth) -> Credentials {
        Credentials {
            auth,
            known: Mutex::new(None),
        }
    }

    pub fn header(&self) -> Result<Arc<str>, RpcError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(header) = &*known {
            return Ok(Arc::clone(header));
        }
        let header: Arc<str> = self.read()?.into();
        *known = Some(Arc::clone(&header));
        Ok(header)
    }

    /// What to try after `refused`: an error where nothing else is to be had.
    pub fn after(&self, refused: &str) -> Result<Arc<str>, RpcError> {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let header = self.header()?;
        if *header != *refused {
            return Ok(header);
        }
        Err(self.refused())
    }

    /// The node refused all there is.
    pub fn refused(&self) -> RpcError {
        match &self.auth {
            // The cookie of a node that starts is there before the node takes it.
            RpcAuth::CookieFile(path) => RpcError::Unavailable(format!(
                "the node refuses the cookie in {}: is it another node's?",
                path.display()
            )),
            RpcAuth::UserPass(..) => {
                RpcError::WrongLogin("the node refuses the user name or the password".into())
            }
        }
    }

    fn read(&self) -> Result<String, RpcError> {
        let pair = match &self.auth {
            RpcAuth::CookieFile(path) => {
                let cookie = std::fs::read_to_string(path).map_err(|error| {
                    let hint = match error.kind() {
                        std::io::ErrorKind::NotFound => {
                            "there is none: is bitcoind running?".to_owned()
                        }
                        std::io::ErrorKind::PermissionDenied => {
                            "permission denied: run as bitcoind's user, or see its option rpccookieperms"
                                .to_owned()
                        }
                        _ => error.to_string(),
                    };
                    RpcError::Unavailable(format!("the cookie file {}: {hint}", path.display()))
                })?;
                cookie.trim().to_owned()
            }
            RpcAuth::UserPass(user, password) => format!("{user}:{password}"),
        };
        Ok(format!("Basic {}", BASE64_STANDARD.encode(pair)))
    }
}
