//! Authenticates a request as coming from its source, before its body is parsed as JSON or stored.

use std::sync::Arc;

use super::settings::Ingest;
use ::http::HeaderMap;
use bytes::Bytes;
use setgate_base::authenticate::{authenticate, bearer_token};
use setgate_base::clock::Clock;
use setgate_base::crypto::{self, MasterKey};
use setgate_base::live::Live;
use setgate_dialects::{MacError, MacOptions, Verified, signature_header, verify_mac};
use setgate_domain::id::{Digest, KeyId, SourceName, TenantId};
use setgate_domain::secret::source_context;
use setgate_domain::source::{Proof, Source};
use setgate_domain::tenant::{ApiKey, Scope};
use setgate_ledger::{Registry, Versioned};

use super::decode::{Coding, gunzip};

/// A request to a source's ingest path.
#[derive(Debug, Clone)]
pub struct Inbound {
    /// The tenant named in the path.
    pub tenant: TenantId,
    /// The source named in the path.
    pub source: SourceName,
    /// Result of the checks on the request head.
    pub head: Head,
    /// All headers.
    pub headers: HeaderMap,
    /// The raw body.
    pub body: Bytes,
    /// Content coding of the body.
    pub coding: Coding,
}

/// Result of authentication by the request head, before the body is read.
#[derive(Debug, Clone)]
pub enum Head {
    /// Authenticated as this source.
    Proven(Arc<Versioned<Source>>),
    /// Undecided: the request carries a signature, which is verified over the body. Also used if the source does not
    /// exist, so that the time of the answer does not reveal that.
    Signed {
        /// Whether the source existed.
        known: bool,
    },
}

/// The kind of credential that a request presents, valid or not. The response to an unauthenticated request depends on
/// nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented {
    /// No credential.
    Nothing,
    /// A signature in this header.
    Signature(&'static str),
    /// An API key of this host.
    Key,
    /// Any other `Authorization` header.
    Token,
}

impl Presented {
    /// Determined from the request headers alone.
    pub fn of(headers: &HeaderMap) -> Self {
        if let Some(header) = signature_header(headers) {
            return Self::Signature(header);
        }
        match (headers.contains_key(::http::header::AUTHORIZATION), bearer_token(headers)) {
            (false, _) => Self::Nothing,
            (true, Some(token)) if token.starts_with(ApiKey::PREFIX) => Self::Key,
            (true, _) => Self::Token,
        }
    }
}

/// An authenticated request of an existing source.
pub(super) struct Proven {
    pub(super) source: Arc<Versioned<Source>>,
    pub(super) inbound: Inbound,
    /// The delivery id, if the signature covers it. Unsigned id headers are ignored in that case.
    pub(super) signed_id: Option<String>,
}

/// Why a request was not accepted as coming from the source.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    /// The tenant or the source does not exist. The two cases share one error, so that names cannot be probed.
    #[error("there is no source `{source_name}` of tenant `{tenant}`: check the path, /ingest/{{tenant}}/{{source}}")]
    UnknownSource {
        /// The tenant in the path.
        tenant: TenantId,
        /// The source in the path.
        source_name: SourceName,
    },
    /// The source requires a signature and the request has none.
    #[error("this source asks for a signature, and the request has none")]
    Unsigned,
    /// The signature is malformed or wrong.
    #[error("{0}")]
    Mac(#[from] MacError),
    /// The source requires a bearer token, which is missing or wrong.
    #[error("this source asks for `Authorization: Bearer <token>`, and the request has none that it knows")]
    Bearer,
    /// The source requires an API key, which is missing, unknown, expired, revoked, or belongs to another tenant.
    #[error(
        "this source asks for a key of its tenant with the scope `ingest`, as `Authorization: Bearer sgk_...`, and the \
         request has none that is good"
    )]
    Key,
    /// The key belongs to the tenant but lacks the `ingest` scope.
    #[error("this key lacks the scope `ingest`: make one with it for senders")]
    KeyScope,
    /// The source accepts only signed SETs.
    #[error("this source accepts only signed SETs, at its `push_path`")]
    PushOnly,
    /// A stored secret could not be decrypted, which is a fault of the host.
    #[error("a secret of this source cannot be opened with the host's master key")]
    SecretUnreadable,
}

/// Authenticates ingest requests. Cheap to clone.
#[derive(Clone)]
pub struct Prover {
    registry: Registry,
    /// Decrypts the secrets of sources.
    master: Arc<MasterKey>,
    clock: Clock,
    settings: Live<Ingest>,
}

impl Prover {
    pub(super) fn new(registry: Registry, master: Arc<MasterKey>, clock: Clock, settings: Live<Ingest>) -> Self {
        Self { registry, master, clock, settings }
    }

    /// Looks up the source and checks the proofs that need only the request head. One valid proof is sufficient.
    ///
    /// # Errors
    /// If no proof can succeed with this head. The result does not depend on whether the source exists: a request
    /// without a signature is refused here in both cases, and the body of a request with a signature is read in both
    /// cases.
    pub fn prove_head(&self, tenant: &TenantId, name: &SourceName, headers: &HeaderMap) -> Result<Head, Unproven> {
        let source = self.source(tenant, name);
        let unknown = || Unproven::UnknownSource { tenant: tenant.clone(), source_name: name.clone() };
        let mut first_failure = source.is_none().then(unknown);
        for proof in source.iter().flat_map(|source| &source.value.proofs) {
            match self.check_head(tenant, proof, headers) {
                Ok(()) => return Ok(Head::Proven(source.expect("it has proofs"))),
                // Report the failure of the first proof, because it is most likely the intended one.
                Err(failure) => first_failure = first_failure.or(Some(failure)),
            }
        }
        if signature_header(headers).is_some() {
            return Ok(Head::Signed { known: source.is_some() });
        }
        Err(first_failure.unwrap_or(Unproven::Bearer))
    }

    /// Verifies the MAC over the body, if the request head was not sufficient.
    ///
    /// The MAC of a compressed body may cover either the compressed or the decompressed bytes, since senders differ in
    /// the order of signing and compressing. This does not allow one body to pass as another.
    pub(super) fn prove(&self, mut inbound: Inbound) -> Result<Proven, Unproven> {
        let (source, signed_id) = match &inbound.head {
            Head::Proven(source) => (self.still_proven(&inbound, source)?, None),
            &Head::Signed { known } => {
                // The body of a request to an unknown source was discarded.
                let source = self.source(&inbound.tenant, &inbound.source).filter(|_| known);
                let Some(source) = source else {
                    return Err(Unproven::UnknownSource { tenant: inbound.tenant, source_name: inbound.source });
                };
                let checked = match self.check_macs(&source.value, &inbound.headers, &inbound.body) {
                    Err(Unproven::Mac(MacError::NoMatch)) if inbound.coding == Coding::Gzip => {
                        // A body that cannot be decompressed gets the same error as any other wrong signature.
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

    /// The source, after its body has arrived. It may have been changed or removed meanwhile, even together with its
    /// tenant, and a key may have been revoked or have expired.
    fn still_proven(
        &self,
        inbound: &Inbound,
        known: &Arc<Versioned<Source>>,
    ) -> Result<Arc<Versioned<Source>>, Unproven> {
        let now = self.source(&inbound.tenant, &inbound.source);
        let is_same = now.is_some_and(|now| now.version == known.version);
        if is_same && !known.value.proofs.iter().any(|proof| matches!(proof, Proof::Key)) {
            return Ok(known.clone());
        }
        match self.prove_head(&inbound.tenant, &inbound.source, &inbound.headers)? {
            Head::Proven(source) => Ok(source),
            Head::Signed { .. } => Err(Unproven::Unsigned),
        }
    }

    /// The source of an ingest request. The host's own source is excluded, because anyone able to send to it could
    /// forge the host's operational events.
    fn source(&self, tenant: &TenantId, name: &SourceName) -> Option<Arc<Versioned<Source>>> {
        let snapshot = self.registry.snapshot();
        snapshot.tenant(tenant)?.sources.get(name).filter(|_| !name.is_setgate()).cloned()
    }

    fn check_head(&self, tenant: &TenantId, proof: &Proof, headers: &HeaderMap) -> Result<(), Unproven> {
        match proof {
            Proof::Open => Ok(()),
            Proof::Bearer { tokens } => {
                let given = bearer_token(headers).ok_or(Unproven::Bearer)?;
                // These are digests of random tokens, so the timing of the comparison reveals nothing about the tokens.
                let digest = Digest(crypto::sha256(given.as_bytes()));
                if tokens.contains(&digest) { Ok(()) } else { Err(Unproven::Bearer) }
            }
            Proof::Key => {
                let snapshot = self.registry.snapshot();
                let stored = |id: &KeyId| snapshot.keys.get(id).map(|key| &key.value);
                let key = authenticate(bearer_token(headers), stored, self.clock.now()).map_err(|_| Unproven::Key)?;
                if key.tenant.as_ref() != Some(tenant) {
                    return Err(Unproven::Key);
                }
                if key.scopes.contains(&Scope::Ingest) { Ok(()) } else { Err(Unproven::KeyScope) }
            }
            Proof::Hmac { .. } => Err(Unproven::Unsigned),
            Proof::Jws(_) => Err(Unproven::PushOnly),
        }
    }

    fn body_bytes_max(&self) -> usize {
        self.settings.now().body_bytes_max
    }

    fn check_macs(&self, source: &Source, headers: &HeaderMap, body: &[u8]) -> Result<Verified, Unproven> {
        let mut first_failure = None;
        for proof in &source.proofs {
            match self.check_mac(source, proof, (headers, body)) {
                Some(Ok(signed)) => return Ok(signed),
                Some(Err(failure)) => first_failure = first_failure.or(Some(failure)),
                None => {}
            }
        }
        // The request presents a signature but the source does not accept signatures.
        Err(first_failure.unwrap_or(Unproven::Bearer))
    }

    /// `None` if the proof does not depend on the body.
    fn check_mac(
        &self,
        source: &Source,
        proof: &Proof,
        (headers, body): (&HeaderMap, &[u8]),
    ) -> Option<Result<Verified, Unproven>> {
        let Proof::Hmac { header, secrets, encoding } = proof else {
            return matches!(proof, Proof::Jws(_)).then_some(Err(Unproven::PushOnly));
        };
        let context = source_context(&source.tenant, &source.name);
        let open = |sealed| self.master.open(&context, sealed);
        let Ok(secrets) = secrets.iter().map(open).collect::<Result<Vec<_>, _>>() else {
            return Some(Err(Unproven::SecretUnreadable));
        };
        let rules = MacOptions {
            header: *header,
            encoding: *encoding,
            tolerance_s: source.timestamp_tolerance_s,
            allow_sha1: source.allow_sha1,
        };
        let signed = verify_mac(rules, headers, body, &secrets, self.clock.system_time());
        Some(signed.map_err(Unproven::from))
    }
}
