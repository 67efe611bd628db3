//! Receives pushed SETs (RFC 8935): verifies the token with the keys of its source, and makes it a durable event.

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, header};
use bytes::Bytes;
use setgate_base::clock::Clock;
use setgate_base::crypto::{MasterKey, constant_time_eq};
use setgate_base::telemetry::LogThrottle;
use setgate_dialects::normalize::{SignedSet, normalize_signed};
use setgate_domain::event::NewEvent;
use setgate_domain::id::{SourceName, TenantId};
use setgate_domain::secret::source_context;
use setgate_domain::source::{JwsProof, Source};
use setgate_jose::Jws;
use setgate_ledger::{Appended, Registry, Versioned};

use super::KeySets;
use super::push_refused::PushRefused;
use crate::pipeline::accept::{Acceptor, Receipt};
use crate::pipeline::prove::Unproven;
use crate::pipeline::refused::Refused;
use crate::pipeline::spans;

/// Anybody can push tokens, in any number, so the log lines are rate-limited.
static REFUSED: LogThrottle = LogThrottle::new(Duration::from_secs(10));
static REUSED: LogThrottle = LogThrottle::new(Duration::from_secs(10));

/// A pushed token.
pub struct Push {
    /// The source, if the path names one that accepts signed SETs.
    pub source: Option<Arc<Versioned<Source>>>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A token whose signature is valid, without the white space around it.
struct VerifiedToken {
    token: Bytes,
    payload: Vec<u8>,
}

fn version(source: Option<&Versioned<Source>>) -> Option<u64> {
    source.map(|source| source.version)
}

/// Receives pushed SETs.
pub struct PushReceiver {
    registry: Registry,
    master: Arc<MasterKey>,
    clock: Clock,
    keys: KeySets,
    acceptor: Arc<Acceptor>,
}

impl PushReceiver {
    pub(in crate::pipeline) fn new(
        registry: Registry,
        master: Arc<MasterKey>,
        clock: Clock,
        keys: KeySets,
        acceptor: Arc<Acceptor>,
    ) -> Self {
        Self { registry, master, clock, keys, acceptor }
    }

    /// The source of a push path. `None` if it does not exist or accepts no signed SETs.
    pub fn source(&self, tenant: &TenantId, name: &SourceName) -> Option<Arc<Versioned<Source>>> {
        let snapshot = self.registry.snapshot();
        let source = snapshot.tenant(tenant)?.sources.get(name)?;
        source.value.signed().is_some().then(|| Arc::clone(source))
    }

    /// Verifies, normalizes and appends one SET. If this returns `Ok`, the event is durable.
    pub async fn receive(&self, push: Push) -> Result<Receipt, PushRefused> {
        let Push { source, headers, body } = push;
        // It may have been changed or removed while the body arrived, and again while its keys are fetched.
        let mut source = source.and_then(|known| self.now(&known));
        let result = loop {
            let verified = self.verified(source.as_deref(), &headers, &body).await;
            let now = source.as_deref().and_then(|known| self.now(known));
            if version(now.as_deref()) != version(source.as_deref()) {
                source = now;
                continue;
            }
            break match (verified, source.as_deref()) {
                (Ok(verified), Some(source)) => self.append(&source.value, &headers, verified).await,
                (Ok(_), None) => Err(PushRefused::UnknownSource),
                (Err(refused), _) => Err(refused),
            };
        };
        if let Err(refused) = &result {
            self.refused(source.as_deref().map(|source| &source.value), refused);
        }
        result
    }

    /// Counts and logs a refused request. The log gets the full reason; the response may carry less.
    pub fn refused(&self, source: Option<&Source>, refused: &PushRefused) {
        let names = source.map(|source| (&source.tenant, &source.name));
        self.acceptor.counted(names, refused.code());
        if let Some(unsaid) = REFUSED.allow() {
            let (tenant, source) = names.map_or((None, None), |(tenant, source)| (Some(tenant), Some(source)));
            let (tenant, source) = (tenant.map(TenantId::as_str), source.map(SourceName::as_str));
            tracing::info!(tenant, source, unsaid, code = refused.code(), "pushed SET refused: {refused}");
        }
    }

    fn now(&self, known: &Versioned<Source>) -> Option<Arc<Versioned<Source>>> {
        self.source(&known.value.tenant, &known.value.name)
    }

    async fn verified(
        &self,
        source: Option<&Versioned<Source>>,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<VerifiedToken, PushRefused> {
        let jws = Jws::parse(body)?;
        let typ = jws.header().typ.clone();
        if let Some(typ) = &typ
            && !is_secevent(typ)
        {
            let why = "`typ` in the header of the token has to be `secevent+jwt` (RFC 8417 section 2.3)";
            return Err(PushRefused::Malformed(why.to_owned()));
        }
        let source = &source.ok_or(PushRefused::UnknownSource)?.value;
        let proof = source.signed().ok_or(PushRefused::UnknownSource)?;
        self.verify(source, proof, &jws).await?;
        self.check_authorization(source, proof, headers)?;
        if typ.is_none() && !source.compat.allow_missing_typ {
            return Err(PushRefused::NoType);
        }
        Ok(VerifiedToken { token: body.slice_ref(body.trim_ascii()), payload: jws.into_payload() })
    }

    async fn verify(&self, source: &Source, proof: &JwsProof, jws: &Jws<'_>) -> Result<(), PushRefused> {
        let known = self.keys.current(source, &proof.keys).await?;
        let refused = match jws.verify(&known.set, &proof.algorithms) {
            Ok(_) => return Ok(()),
            Err(refused) if refused.is_unknown_key() => refused,
            Err(refused) => return Err(refused.into()),
        };
        match self.keys.newer(source, &known).await? {
            Some(newer) => Ok(jws.verify(&newer.set, &proof.algorithms).map(drop)?),
            None => Err(refused.into()),
        }
    }

    fn check_authorization(&self, source: &Source, proof: &JwsProof, headers: &HeaderMap) -> Result<(), PushRefused> {
        let Some(sealed) = &proof.authorization else { return Ok(()) };
        let context = source_context(&source.tenant, &source.name);
        let opened = self.master.open(&context, sealed);
        let expected = opened.map_err(|_| Refused::Unproven(Unproven::SecretUnreadable))?;
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        match (given.next(), given.next()) {
            (Some(given), None) if constant_time_eq(given.as_bytes(), expected.expose().as_bytes()) => Ok(()),
            _ => Err(PushRefused::Authorization),
        }
    }

    async fn append(
        &self,
        source: &Source,
        headers: &HeaderMap,
        VerifiedToken { token, payload }: VerifiedToken,
    ) -> Result<Receipt, PushRefused> {
        let proof = source.signed().ok_or(PushRefused::UnknownSource)?;
        let (tenant, name) = (&source.tenant, &source.name);
        let (span, trace) = self.acceptor.spans().accepting(tenant, name, headers);
        let sent = SignedSet { token: &token, payload: &payload, now: self.clock.system_time() };
        let appended = self.acceptor.submit(source, token.len(), |now, id, limits| {
            let event = normalize_signed(source, proof, sent, now, id, limits)?;
            Ok::<_, PushRefused>(NewEvent { trace, ..event })
        });
        let appended = appended.await;
        let (outcome, event) = match &appended {
            Ok((id, Appended::New(_))) => ("accepted", Some(*id)),
            Ok((_, Appended::Duplicate { id })) => ("duplicate", Some(*id)),
            Ok((_, Appended::Conflict { id })) => ("jti_conflict", Some(*id)),
            Err(refused) => (refused.code(), None),
        };
        spans::accepted(span, event, outcome);
        let (id, appended) = appended?;
        self.acceptor.counted(Some((tenant, name)), outcome);
        Ok(match appended {
            Appended::New(_) => Receipt { event: id, duplicate: false },
            Appended::Duplicate { id } => Receipt { event: id, duplicate: true },
            Appended::Conflict { id } => {
                // A refusal would make the sender give up or retry for ever, although the first SET is stored.
                if let Some(unsaid) = REUSED.allow() {
                    tracing::warn!(%tenant, source = %name, event = %id, unsaid, "a SET with other claims has the \
                        `jti` of an earlier one: it is acknowledged and not delivered");
                }
                Receipt { event: id, duplicate: true }
            }
        })
    }
}

/// Whether `typ` names a SET: with or without `application/`, in any case (RFC 7515 section 4.1.9).
fn is_secevent(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    typ.strip_prefix("application/").unwrap_or(&typ) == "secevent+jwt"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_is_compared_without_case_and_prefix() {
        for (typ, expected) in [
            ("secevent+jwt", true),
            ("application/secevent+jwt", true),
            ("Application/SecEvent+JWT", true),
            ("JWT", false),
            ("secevent", false),
            ("text/secevent+jwt", false),
            ("application/application/secevent+jwt", false),
            ("", false),
        ] {
            assert_eq!(is_secevent(typ), expected, "{typ}");
        }
    }
}
