//! Sources: where a tenant's events come from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Control, Error, TEXT_CHARS_MAX, any_or, over_expected, retried, room, short};
use crate::crypto;
use crate::domain::id::{Digest, SourceName, TenantId};
use crate::domain::secret::{Secret, source_context};
use crate::domain::source::{Form, MacHeader, Proof, Source};
use crate::domain::subscription::glob;
use crate::domain::time::Timestamp;
use crate::signing;

/// Proofs of one source, and secrets of one proof, at the most.
pub const PROOFS_MAX: usize = 8;
/// Issuers, and topics, of one source at the most.
const TEXTS_MAX: usize = 100;
/// Bytes of a shared secret or token; less is refused as guessable.
const SECRET_BYTES_MIN: usize = 8;

/// What is asked for: the whole source, also when it is replaced.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceInput {
    /// How its bodies look.
    pub form: Form,
    /// Ways it may prove itself; one has to hold.
    #[schemars(length(min = 1, max = PROOFS_MAX))]
    pub proofs: Vec<ProofInput>,
    /// `iss` for forms that carry none.
    #[serde(default)]
    #[schemars(length(max = TEXT_CHARS_MAX))]
    pub issuer: Option<String>,
    /// Issuers taken from forms that carry one; empty: any.
    #[serde(default)]
    #[schemars(length(max = TEXTS_MAX), inner(length(max = TEXT_CHARS_MAX)))]
    pub issuers_allowed: Vec<String>,
    /// Topics whose WebSub verification is answered.
    #[serde(default)]
    #[schemars(length(max = TEXTS_MAX), inner(length(max = TEXT_CHARS_MAX)))]
    pub websub_topics: Vec<String>,
}

/// A proof with its secrets in the clear, as it is sent in.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ProofInput {
    /// See [`Proof::Hmac`].
    Hmac {
        /// Which header.
        header: MacHeader,
        /// The shared secrets.
        #[schemars(length(min = 1, max = PROOFS_MAX), inner(length(min = SECRET_BYTES_MIN)))]
        secrets: Vec<Secret>,
    },
    /// See [`Proof::Bearer`].
    Bearer {
        /// The tokens.
        #[schemars(length(min = 1, max = PROOFS_MAX), inner(length(min = SECRET_BYTES_MIN)))]
        tokens: Vec<Secret>,
    },
    /// See [`Proof::Key`].
    Key {},
    /// See [`Proof::Open`].
    Open {},
}

/// A source as it is shown: without its secrets.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(missing_docs, reason = "as in `Source`")]
pub struct SourceView {
    /// The version, for `If-Match`.
    #[serde(skip)]
    pub version: u64,
    pub name: SourceName,
    pub form: Form,
    pub proofs: Vec<ProofView>,
    pub issuer: Option<String>,
    pub issuers_allowed: Vec<String>,
    pub websub_topics: Vec<String>,
    /// Where its events are sent to, below the host's address.
    pub ingest_path: String,
    pub created_at: Timestamp,
}

/// A proof without its secrets.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "as in `Proof`")]
pub enum ProofView {
    Hmac { header: MacHeader, secrets: usize },
    Bearer { tokens: usize },
    Key,
    Open,
}

impl Control {
    /// Makes a source, or replaces it whole. Tells whether it is new.
    pub async fn put_source(
        &self,
        tenant: &TenantId,
        name: &SourceName,
        input: SourceInput,
        expected: Option<u64>,
    ) -> Result<(SourceView, bool), Error> {
        retried(expected, || self.put_source_once(tenant, name.clone(), input.clone(), expected)).await
    }

    async fn put_source_once(
        &self,
        tenant: &TenantId,
        name: SourceName,
        input: SourceInput,
        expected: Option<u64>,
    ) -> Result<(SourceView, bool), Error> {
        let view = self.tenant(tenant)?;
        if name.is_setgate() {
            return Err(Error::invalid(
                "name",
                format!("`{name}` is the source of Setgate's own events: use another name"),
            ));
        }
        let existing = view.sources.get(&name);
        if existing.is_none() {
            room(view.sources.len(), self.quota_of(&view).sources_max, "sources_max")?;
        }
        if input.issuers_allowed.len() > TEXTS_MAX || input.websub_topics.len() > TEXTS_MAX {
            let why = format!("`issuers_allowed` and `websub_topics` have at most {TEXTS_MAX} entries each");
            return Err(Error::invalid("issuers_allowed", why));
        }
        short("issuer", &input.issuer)?;
        short("issuers_allowed", &input.issuers_allowed)?;
        short("websub_topics", &input.websub_topics)?;
        let proofs = self.take_proofs(tenant, &name, input.proofs)?;
        let source = Source {
            tenant: tenant.clone(),
            name,
            form: input.form,
            proofs,
            issuer: input.issuer,
            issuers_allowed: input.issuers_allowed,
            websub_topics: input.websub_topics,
            created_at: existing.map_or_else(|| self.clock.now(), |source| source.value.created_at),
        };
        let action = if existing.is_some() { "source.replace" } else { "source.create" };
        let intent = (over_expected(expected, existing), self.deed(action));
        let version = self.ledger.put_source(source.clone(), intent).await?;
        Ok((show(&source, version), existing.is_none()))
    }

    fn take_proofs(&self, tenant: &TenantId, name: &SourceName, given: Vec<ProofInput>) -> Result<Vec<Proof>, Error> {
        if given.is_empty() || given.len() > PROOFS_MAX {
            let why = format!(
                "give 1 to {PROOFS_MAX} proofs; a source without any proof has to be opened with {{\"kind\": \"open\"}}"
            );
            return Err(Error::invalid("proofs", why));
        }
        let context = source_context(tenant, name);
        let mut proofs = Vec::with_capacity(given.len());
        for proof in given {
            proofs.push(match proof {
                ProofInput::Key {} => Proof::Key,
                ProofInput::Open {} => Proof::Open,
                ProofInput::Bearer { tokens } => {
                    check_secrets("proofs/tokens", &tokens)?;
                    let digest = |token: &Secret| Digest(crypto::sha256(token.expose().as_bytes()));
                    Proof::Bearer { tokens: tokens.iter().map(digest).collect() }
                }
                ProofInput::Hmac { header, secrets } => {
                    check_secrets("proofs/secrets", &secrets)?;
                    for secret in &secrets {
                        signing::check_source_secret(header, secret)
                            .map_err(|why| Error::invalid("proofs/secrets", why))?;
                    }
                    let secrets = secrets.iter().map(|secret| self.master.seal(&context, secret)).collect();
                    Proof::Hmac { header, secrets }
                }
            });
        }
        Ok(proofs)
    }

    /// A tenant's sources, by name.
    pub fn list_sources(&self, tenant: &TenantId) -> Result<Vec<SourceView>, Error> {
        Ok(self.tenant(tenant)?.sources.values().map(|source| show(&source.value, source.version)).collect())
    }

    /// One source.
    pub fn show_source(&self, tenant: &TenantId, name: &SourceName) -> Result<SourceView, Error> {
        let view = self.tenant(tenant)?;
        view.sources.get(name).map(|source| show(&source.value, source.version)).ok_or_else(|| not_found(name))
    }

    /// Removes a source. What it sent stays.
    pub async fn remove_source(
        &self,
        tenant: &TenantId,
        name: &SourceName,
        expected: Option<u64>,
    ) -> Result<(), Error> {
        if !self.tenant(tenant)?.sources.contains_key(name) {
            return Err(not_found(name));
        }
        self.ledger.remove_source(tenant, name, (any_or(expected), self.deed("source.remove"))).await?;
        Ok(())
    }

    /// Whether there is such a source.
    pub fn has_source(&self, tenant: &TenantId, name: &SourceName) -> bool {
        self.tenant(tenant).is_ok_and(|view| view.sources.contains_key(name))
    }

    /// Whether a WebSub verification of this topic is expected by this source (W3C WebSub section 5.3).
    pub fn expects_topic(&self, tenant: &TenantId, name: &SourceName, topic: &str) -> bool {
        self.tenant(tenant).is_ok_and(|view| {
            view.sources
                .get(name)
                .is_some_and(|source| source.value.websub_topics.iter().any(|pattern| glob(pattern, topic)))
        })
    }
}

fn check_secrets(field: &'static str, secrets: &[Secret]) -> Result<(), Error> {
    if secrets.is_empty() || secrets.len() > PROOFS_MAX {
        return Err(Error::invalid(field, format!("give 1 to {PROOFS_MAX}")));
    }
    if secrets.iter().any(|secret| secret.expose().len() < SECRET_BYTES_MIN) {
        return Err(Error::invalid(field, format!("each has at least {SECRET_BYTES_MIN} bytes")));
    }
    Ok(())
}

fn not_found(name: &SourceName) -> Error {
    Error::NotFound(format!("source `{name}`"))
}

fn show(source: &Source, version: u64) -> SourceView {
    SourceView {
        version,
        name: source.name.clone(),
        form: source.form,
        proofs: source
            .proofs
            .iter()
            .map(|proof| match proof {
                Proof::Hmac { header, secrets } => ProofView::Hmac { header: *header, secrets: secrets.len() },
                Proof::Bearer { tokens } => ProofView::Bearer { tokens: tokens.len() },
                Proof::Key => ProofView::Key,
                Proof::Open => ProofView::Open,
            })
            .collect(),
        issuer: source.issuer.clone(),
        issuers_allowed: source.issuers_allowed.clone(),
        websub_topics: source.websub_topics.clone(),
        ingest_path: format!("/ingest/{}/{}", source.tenant, source.name),
        created_at: source.created_at,
    }
}
