//! Generates and imports private keys, off the threads that serve requests: an RSA key takes 20 to 60 ms of a core, and
//! sometimes several times as long.

use std::sync::Arc;

use setgate_domain::algorithm::Algorithm;
use setgate_domain::secret::Secret;
use setgate_jose::SigningKey;
use tokio::sync::Semaphore;

use super::PrivateJwk;
use crate::control::Error;

/// Number of keys that are generated or imported at once, for all tenants. Others wait in their order; a tenant's share
/// is bounded by `KEYS_PER_MINUTE_MAX`.
const KEYS_MADE_MAX: usize = 1;

/// A key to be made.
pub(super) enum Wanted {
    Generated(Algorithm),
    /// PEM text.
    Pem(Algorithm, Secret),
    /// The algorithm, if the request states one, and the JWK.
    Jwk(Option<Algorithm>, PrivateJwk),
}

impl Wanted {
    /// The action in the audit log.
    pub(super) fn action(&self) -> &'static str {
        match self {
            Self::Generated(_) => "issuer_key.create",
            Self::Pem(..) | Self::Jwk(..) => "issuer_key.import",
        }
    }

    fn make(self) -> Result<SigningKey, Error> {
        match self {
            Self::Generated(algorithm) => {
                SigningKey::generate(algorithm).map_err(|error| Error::invalid("algorithm", error))
            }
            Self::Pem(algorithm, pem) => {
                SigningKey::import_pem(algorithm, pem.expose()).map_err(|error| Error::invalid("pem", error))
            }
            Self::Jwk(algorithm, PrivateJwk(jwk)) => {
                let key = SigningKey::import_jwk(jwk.expose()).map_err(|error| Error::invalid("jwk", error))?;
                match algorithm.filter(|wanted| *wanted != key.algorithm()) {
                    Some(wanted) => {
                        let why = format!("{wanted} is not the algorithm of `jwk`, which is {}", key.algorithm());
                        Err(Error::invalid("algorithm", why))
                    }
                    None => Ok(key),
                }
            }
        }
    }
}

/// Makes keys, one at a time.
#[derive(Clone)]
pub(in crate::control) struct KeyMaker(Arc<Semaphore>);

impl Default for KeyMaker {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(KEYS_MADE_MAX)))
    }
}

impl KeyMaker {
    pub(super) async fn make(&self, wanted: Wanted) -> Result<SigningKey, Error> {
        let busy = || Error::Busy("the host is stopping: no key was made".to_owned());
        let permit = Arc::clone(&self.0).acquire_owned().await.map_err(|_| busy())?;
        let made = tokio::task::spawn_blocking(move || {
            let made = wanted.make();
            drop(permit);
            made
        });
        made.await.map_err(|_| busy())?
    }
}
