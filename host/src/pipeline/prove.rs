//! A source proves that a request is its own, before anything of it is read as JSON or stored.

use std::sync::Arc;

use ::http::HeaderMap;
use bytes::Bytes;

use crate::crypto;
use crate::domain::id::{Digest, SourceName, TenantId};
use crate::domain::secret::source_context;
use crate::domain::source::{Proof, Source};
use crate::domain::tenant::{ApiKey, Scope};
use crate::ledger::Versioned;
use crate::signing::{MacError, MacRules, SourceSigned, signature_header, verify_mac};

use super::Pipeline;
use super::decode::{Coding, gunzip};

/// A request as it came to a source's address.
#[derive(Debug, Clone)]
pub struct Inbound {
    /// The tenant named in the path.
    pub tenant: TenantId,
    /// The source named in the path.
    pub source: SourceName,
    /// What its head has shown.
    pub head: Head,
    /// All headers.
    pub headers: HeaderMap,
    /// The raw body.
    pub body: Bytes,
    /// How it is coded.
    pub coding: Coding,
}

/// What the head of a request shows, before anything of its body is read.
#[derive(Debug, Clone)]
pub enum Head {
    /// That it is this source's own.
    Proven(Arc<Versioned<Source>>),
    /// Nothing yet: there is a signature, and the body decides. So too if there is no such source, since a stranger must
    /// not learn that from an answer that comes earlier.
    Signed(Option<Arc<Versioned<Source>>>),
}

/// What a request presents as its proof, whether it holds or not. An answer to a stranger depends on nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented {
    /// Nothing.
    Nothing,
    /// A signature in this header.
    Signature(&'static str),
    /// A key of this host.
    Key,
    /// Another `Authorization`.
    Token,
}

impl Presented {
    /// By the request's headers alone.
    pub fn of(headers: &HeaderMap) -> Self {
        if let Some(header) = signature_header(headers) {
            return Self::Signature(header);
        }
        match (headers.contains_key(::http::header::AUTHORIZATION), token(headers)) {
            (false, _) => Self::Nothing,
            (true, Some(token)) if token.starts_with(ApiKey::PREFIX) => Self::Key,
            (true, _) => Self::Token,
        }
    }
}

/// A request of a known source that has proven itself.
pub struct Proven {
    pub(super) source: Arc<Versioned<Source>>,
    pub(super) inbound: Inbound,
    /// The delivery's id, if it is among what was signed: then no header beside it counts.
    pub(super) signed_id: Option<String>,
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
    /// A MAC was expected, and there is no signature at all.
    #[error("this source asks for a signature, and the request has none")]
    Unsigned,
    /// A MAC was expected and is missing, malformed or wrong.
    #[error("{0}")]
    Mac(#[from] MacError),
    /// A bearer token was expected and is missing or wrong.
    #[error("this source asks for `Authorization: Bearer <token>`, and the request has none that it knows")]
    Bearer,
    /// A key was expected and is missing, unknown, another tenant's, or has ended.
    #[error(
        "this source asks for a key of its tenant with the scope `ingest`, as `Authorization: Bearer sgk_...`, and the \
         request has none that is good"
    )]
    Key,
    /// The key is the tenant's, but not for this.
    #[error("this key lacks the scope `ingest`: make one with it for senders")]
    KeyScope,
    /// A stored secret could not be opened: the host's own fault.
    #[error("a secret of this source cannot be opened with the host's master key")]
    SecretUnreadable,
}

impl Pipeline {
    /// Finds the source and checks the proofs that a head can bring; one that holds is enough.
    ///
    /// # Errors
    /// If the head rules out that any proof holds. Whether there is such a source then makes no difference: a request that
    /// presents no signature is refused here in either case, one that does has its body read in either case.
    pub fn prove_head(&self, tenant: &TenantId, name: &SourceName, headers: &HeaderMap) -> Result<Head, Unproven> {
        let source = self.source(tenant, name);
        let unknown = || Unproven::UnknownSource { tenant: tenant.clone(), source_name: name.clone() };
        let mut first_failure = source.is_none().then(unknown);
        for proof in source.iter().flat_map(|source| &source.value.proofs) {
            match self.check_head(tenant, proof, headers) {
                Ok(()) => return Ok(Head::Proven(source.expect("it has proofs"))),
                // The first proof is the one the source's owner thinks of: its failure is the one to note.
                Err(failure) => first_failure = first_failure.or(Some(failure)),
            }
        }
        if signature_header(headers).is_some() {
            return Ok(Head::Signed(source));
        }
        Err(first_failure.unwrap_or(Unproven::Bearer))
    }

    /// Checks what the head left open: the MAC over the body.
    ///
    /// The MAC of a compressed body is over its bytes as they were sent, or over those that were compressed: senders compress
    /// before they sign or after it, and no body can pass as another by that.
    pub(super) fn prove(&self, mut inbound: Inbound) -> Result<Proven, Unproven> {
        let (source, signed_id) = match &inbound.head {
            Head::Proven(source) => (source.clone(), None),
            Head::Signed(None) => {
                return Err(Unproven::UnknownSource { tenant: inbound.tenant, source_name: inbound.source });
            }
            Head::Signed(Some(source)) => {
                let source = source.clone();
                let checked = match self.check_macs(&source.value, &inbound.headers, &inbound.body) {
                    Err(Unproven::Mac(MacError::NoMatch)) if inbound.coding == Coding::Gzip => {
                        // What cannot be decoded is nobody's: a stranger learns no more than of another wrong signature.
                        let decoded = gunzip(&inbound.body, self.body_bytes_max()).map_err(|_| MacError::NoMatch)?;
                        (inbound.body, inbound.coding) = (decoded, Coding::Identity);
                        self.check_macs(&source.value, &inbound.headers, &inbound.body)
                    }
                    checked => checked,
                };
                (source, checked?.id)
            }
        };
        Ok(Proven { source, inbound, signed_id })
    }

    /// A source to which events may be sent; whoever could send to the host's own could speak in the host's name.
    fn source(&self, tenant: &TenantId, name: &SourceName) -> Option<Arc<Versioned<Source>>> {
        let snapshot = self.ledger.snapshot();
        snapshot.tenant(tenant)?.sources.get(name).filter(|_| !name.is_setgate()).cloned()
    }

    fn check_head(&self, tenant: &TenantId, proof: &Proof, headers: &HeaderMap) -> Result<(), Unproven> {
        match proof {
            Proof::Open => Ok(()),
            Proof::Bearer { tokens } => {
                let given = token(headers).ok_or(Unproven::Bearer)?;
                // Digests of random tokens: comparing them tells nothing about the tokens.
                let digest = Digest(crypto::sha256(given.as_bytes()));
                if tokens.contains(&digest) { Ok(()) } else { Err(Unproven::Bearer) }
            }
            Proof::Key => {
                let snapshot = self.ledger.snapshot();
                let given = token(headers).ok_or(Unproven::Key)?;
                let (id, secret) = ApiKey::parts(given).map_or((None, given), |(id, secret)| (Some(id), secret));
                let key = id.and_then(|id| snapshot.keys.get(&id)).map(|key| &key.value);
                let key = crypto::opened_by(key, secret).ok_or(Unproven::Key)?;
                if key.tenant.as_ref() != Some(tenant) || key.ended(self.clock.now()).is_some() {
                    return Err(Unproven::Key);
                }
                if key.scopes.contains(&Scope::Ingest) { Ok(()) } else { Err(Unproven::KeyScope) }
            }
            Proof::Hmac { .. } => Err(Unproven::Unsigned),
        }
    }

    fn body_bytes_max(&self) -> usize {
        self.settings.now().ingest.body_bytes_max
    }

    fn check_macs(&self, source: &Source, headers: &HeaderMap, body: &[u8]) -> Result<SourceSigned, Unproven> {
        let mut first_failure = None;
        for proof in &source.proofs {
            match self.check_mac(source, proof, (headers, body)) {
                Some(Ok(signed)) => return Ok(signed),
                Some(Err(failure)) => first_failure = first_failure.or(Some(failure)),
                None => {}
            }
        }
        // A signature was presented that this source does not ask for.
        Err(first_failure.unwrap_or(Unproven::Bearer))
    }

    /// None: the proof is no MAC.
    fn check_mac(
        &self,
        source: &Source,
        proof: &Proof,
        (headers, body): (&HeaderMap, &[u8]),
    ) -> Option<Result<SourceSigned, Unproven>> {
        let Proof::Hmac { header, secrets, encoding } = proof else { return None };
        let context = source_context(&source.tenant, &source.name);
        let open = |sealed| self.master.open(&context, sealed);
        let Ok(secrets) = secrets.iter().map(open).collect::<Result<Vec<_>, _>>() else {
            return Some(Err(Unproven::SecretUnreadable));
        };
        let rules = MacRules {
            header: *header,
            encoding: *encoding,
            tolerance_s: source.timestamp_tolerance_s,
            allow_sha1: source.allow_sha1,
        };
        let signed = verify_mac(rules, headers, body, &secrets, self.clock.wall());
        Some(signed.map_err(Unproven::from))
    }
}

fn token(headers: &HeaderMap) -> Option<&str> {
    headers.get(::http::header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer)
}

/// The token of an `Authorization: Bearer` value (RFC 6750 section 2.1; the scheme's case does not matter).
pub fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim()).filter(|token| !token.is_empty())
}
