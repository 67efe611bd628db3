//! A source proves that a request is its own, before anything of it is read as JSON or stored.

use ::http::HeaderMap;
use bytes::Bytes;

use crate::crypto;
use crate::domain::id::{Digest, SourceName, TenantId};
use crate::domain::secret::source_context;
use crate::domain::source::{Proof, Source};
use crate::ledger::Versioned;
use crate::signing::{MacError, verify_mac};

use super::Pipeline;

/// A request as it came to a source's address.
#[derive(Debug, Clone)]
pub struct Inbound {
    /// The tenant named in the path.
    pub tenant: TenantId,
    /// The source named in the path.
    pub source: SourceName,
    /// All headers.
    pub headers: HeaderMap,
    /// The raw body.
    pub body: Bytes,
}

/// A request of a known source that has proven itself.
pub struct Proven {
    pub(super) source: std::sync::Arc<Versioned<Source>>,
    pub(super) inbound: Inbound,
}

/// Why a request was not taken as the source's own.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    /// No such tenant or source; the two are not told apart, so that names cannot be probed.
    #[error("there is no source `{source_name}` of tenant `{tenant}`: check the path, /ingest/{{tenant}}/{{source}}")]
    UnknownSource {
        /// The tenant in the path.
        tenant: TenantId,
        /// The source in the path.
        source_name: SourceName,
    },
    /// A MAC was expected and is missing, malformed or wrong.
    #[error("{0}")]
    Mac(#[from] MacError),
    /// A bearer token was expected and is missing or wrong.
    #[error("this source asks for `Authorization: Bearer <token>`, and the request has none that it knows")]
    Bearer,
    /// A stored secret could not be opened: the host's own fault.
    #[error("a secret of this source cannot be opened with the host's master key")]
    SecretUnreadable,
}

impl Pipeline {
    /// Finds the source and checks its proofs; one that holds is enough.
    pub fn prove(&self, inbound: Inbound) -> Result<Proven, Unproven> {
        let unknown =
            || Unproven::UnknownSource { tenant: inbound.tenant.clone(), source_name: inbound.source.clone() };
        if inbound.source.is_setgate() {
            // Whoever could send here could speak in the host's name.
            return Err(unknown());
        }
        let snapshot = self.ledger.snapshot();
        let tenant = snapshot.tenant(&inbound.tenant).ok_or_else(unknown)?;
        let source = tenant.sources.get(&inbound.source).ok_or_else(unknown)?.clone();

        let mut first_failure = None;
        for proof in &source.value.proofs {
            match self.check(&source.value, proof, &inbound) {
                Ok(()) => return Ok(Proven { source, inbound }),
                // The first proof is the one the source's owner thinks of: its failure is the one to tell.
                Err(failure) => first_failure = first_failure.or(Some(failure)),
            }
        }
        Err(first_failure.unwrap_or(Unproven::Bearer))
    }

    fn check(&self, source: &Source, proof: &Proof, inbound: &Inbound) -> Result<(), Unproven> {
        match proof {
            Proof::Open => Ok(()),
            Proof::Bearer { tokens } => {
                let given = inbound
                    .headers
                    .get(::http::header::AUTHORIZATION)
                    .and_then(|value| value.to_str().ok())
                    .and_then(bearer)
                    .ok_or(Unproven::Bearer)?;
                // Digests of random tokens: comparing them tells nothing about the tokens.
                let digest = Digest(crypto::sha256(given.as_bytes()));
                if tokens.contains(&digest) { Ok(()) } else { Err(Unproven::Bearer) }
            }
            Proof::Hmac { header, secrets } => {
                let context = source_context(&source.tenant, &source.name);
                let secrets = secrets
                    .iter()
                    .map(|sealed| self.master.open(&context, sealed))
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|_| Unproven::SecretUnreadable)?;
                Ok(verify_mac(*header, &inbound.headers, &inbound.body, &secrets, self.clock.now())?)
            }
        }
    }
}

/// The token of an `Authorization: Bearer` value (RFC 6750 section 2.1; the scheme's case does not matter).
pub fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim()).filter(|token| !token.is_empty())
}
