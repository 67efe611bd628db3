//! Sources: the senders of a tenant's events.

mod proofs;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setgate_base::clock::Clock;
use setgate_base::crypto::MasterKey;
use setgate_base::live::Live;
use setgate_domain::audit::Actor;
use setgate_domain::id::{SourceName, TenantId};
use setgate_domain::source::{Form, Source, TIMESTAMP_TOLERANCE_S_DEFAULT, TIMESTAMP_TOLERANCE_S_MAX};
use setgate_domain::subscription::glob;
use setgate_domain::tenant::Quota;
use setgate_domain::time::Timestamp;
use setgate_ledger::Registry;

use super::checks::{check_length, check_quota, expect_any, expect_version, find_tenant, quota_of, retried};
use super::read_only::{ReadOnly, check_name};
use super::{Error, Page, PageQuery, TEXT_CHARS_MAX};

pub use proofs::{PROOFS_MAX, ProofInput, ProofView};

/// Limit for the issuers and for the topics of one source.
const TEXTS_MAX: usize = 100;
/// A request to create or replace a source. It contains the complete source.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceInput {
    /// The format of the request bodies.
    pub form: Form,
    /// Accepted ways to authenticate a request. One of them must succeed. On replacement, the stored proofs are
    /// retained if this is absent.
    #[serde(default)]
    #[schemars(length(min = 1, max = PROOFS_MAX))]
    pub proofs: Option<Vec<ProofInput>>,
    /// `iss` for forms that carry none.
    #[serde(default)]
    #[schemars(length(max = TEXT_CHARS_MAX))]
    pub issuer: Option<String>,
    /// Accepted issuers for forms that carry one. Empty accepts any issuer.
    #[serde(default)]
    #[schemars(length(max = TEXTS_MAX), inner(length(max = TEXT_CHARS_MAX)))]
    pub issuers_allowed: Vec<String>,
    /// Topics for which WebSub verification requests are answered.
    #[serde(default)]
    #[schemars(length(max = TEXTS_MAX), inner(length(max = TEXT_CHARS_MAX)))]
    pub websub_topics: Vec<String>,
    /// Accepted difference between a signed timestamp and the current time in either direction, in seconds.
    #[serde(default = "timestamp_tolerance_s_default")]
    #[schemars(range(min = 1, max = TIMESTAMP_TOLERANCE_S_MAX))]
    pub timestamp_tolerance_s: u32,
    /// Accept signatures that use only SHA-1, for senders that support nothing better.
    #[serde(default)]
    pub allow_sha1: bool,
    /// Accept event names that are not URIs. They are mapped to URIs of this host.
    #[serde(default)]
    pub allow_plain_event_names: bool,
    /// Replace an unpaired surrogate (`\\ud83d` without its other half) with U+FFFD. Otherwise such a body is refused.
    #[serde(default)]
    pub replace_lone_surrogates: bool,
    /// The name in the path. Optional.
    #[serde(default)]
    pub name: Option<SourceName>,
    /// Read-only; ignored.
    #[serde(default)]
    pub ingest_path: ReadOnly,
    /// Read-only; ignored.
    #[serde(default)]
    pub created_at: ReadOnly,
}

fn timestamp_tolerance_s_default() -> u32 {
    TIMESTAMP_TOLERANCE_S_DEFAULT
}

/// A source as returned by the API, without its secrets.
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
    pub timestamp_tolerance_s: u32,
    pub allow_sha1: bool,
    pub allow_plain_event_names: bool,
    pub replace_lone_surrogates: bool,
    /// The path for events of this source, relative to the host's address.
    pub ingest_path: String,
    pub created_at: Timestamp,
}

/// The sources of all tenants.
#[derive(Clone)]
pub struct Sources {
    pub(super) registry: Registry,
    pub(super) clock: Clock,
    pub(super) master: Arc<MasterKey>,
    pub(super) default_quota: Live<Quota>,
}

impl Sources {
    /// Creates or replaces a source. The returned flag is true if it is new.
    pub async fn put(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: &SourceName,
        input: SourceInput,
        expected: Option<u64>,
    ) -> Result<(SourceView, bool), Error> {
        retried(expected, || self.put_once(actor, tenant, name.clone(), input.clone(), expected)).await
    }

    async fn put_once(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: SourceName,
        input: SourceInput,
        expected: Option<u64>,
    ) -> Result<(SourceView, bool), Error> {
        let view = find_tenant(&self.registry, tenant)?;
        if name.is_setgate() {
            return Err(Error::invalid(
                "name",
                format!("`{name}` is the source of Setgate's own events: use another name"),
            ));
        }
        check_name("name", input.name.as_ref(), &name)?;
        let existing = view.sources.get(&name);
        if existing.is_none() {
            check_quota(view.sources.len(), quota_of(&self.default_quota, &view).sources_max, "sources_max")?;
        }
        if input.issuers_allowed.len() > TEXTS_MAX || input.websub_topics.len() > TEXTS_MAX {
            let why = format!("`issuers_allowed` and `websub_topics` have at most {TEXTS_MAX} entries each");
            return Err(Error::invalid("issuers_allowed", why));
        }
        check_length("issuer", &input.issuer)?;
        check_length("issuers_allowed", &input.issuers_allowed)?;
        check_length("websub_topics", &input.websub_topics)?;
        let tolerance_s = input.timestamp_tolerance_s;
        if !(1..=TIMESTAMP_TOLERANCE_S_MAX).contains(&tolerance_s) {
            let why = format!("from 1 to {TIMESTAMP_TOLERANCE_S_MAX} seconds, not {tolerance_s}");
            return Err(Error::invalid("timestamp_tolerance_s", why));
        }
        let stored = existing.map(|source| source.value.proofs.as_slice()).unwrap_or_default();
        let proofs = match input.proofs {
            None if !stored.is_empty() => stored.to_vec(),
            given => proofs::take(&self.master, tenant, &name, given.unwrap_or_default(), stored)?,
        };
        let source = Source {
            tenant: tenant.clone(),
            name,
            form: input.form,
            proofs,
            issuer: input.issuer,
            issuers_allowed: input.issuers_allowed,
            websub_topics: input.websub_topics,
            timestamp_tolerance_s: tolerance_s,
            allow_sha1: input.allow_sha1,
            allow_plain_event_names: input.allow_plain_event_names,
            replace_lone_surrogates: input.replace_lone_surrogates,
            created_at: existing.map_or_else(|| self.clock.now(), |source| source.value.created_at),
        };
        let action = if existing.is_some() { "source.replace" } else { "source.create" };
        let intent = (expect_version(expected, existing), actor.action(action));
        let version = self.registry.put_source(source.clone(), intent).await?;
        Ok((show(&source, version), existing.is_none()))
    }

    /// A tenant's sources, by name.
    pub fn list(&self, tenant: &TenantId, page: &PageQuery) -> Result<Page<SourceView>, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        page.of(view.sources.iter().map(|(name, stored)| (name.clone(), stored)), |stored| {
            show(&stored.value, stored.version)
        })
    }

    /// Returns one source.
    pub fn show(&self, tenant: &TenantId, name: &SourceName) -> Result<SourceView, Error> {
        let view = find_tenant(&self.registry, tenant)?;
        view.sources.get(name).map(|source| show(&source.value, source.version)).ok_or_else(|| not_found(name))
    }

    /// Removes a source. Its events remain.
    pub async fn remove(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        name: &SourceName,
        expected: Option<u64>,
    ) -> Result<(), Error> {
        if !find_tenant(&self.registry, tenant)?.sources.contains_key(name) {
            return Err(not_found(name));
        }
        self.registry.remove_source(tenant, name, (expect_any(expected), actor.action("source.remove"))).await?;
        Ok(())
    }

    /// Whether this source expects a WebSub verification of this topic (W3C WebSub section 5.3).
    pub fn expects_topic(&self, tenant: &TenantId, name: &SourceName, topic: &str) -> bool {
        find_tenant(&self.registry, tenant).is_ok_and(|view| {
            view.sources
                .get(name)
                .is_some_and(|source| source.value.websub_topics.iter().any(|pattern| glob(pattern, topic)))
        })
    }
}

fn not_found(name: &SourceName) -> Error {
    Error::NotFound(format!("source `{name}`"))
}

fn show(source: &Source, version: u64) -> SourceView {
    SourceView {
        version,
        name: source.name.clone(),
        form: source.form,
        proofs: source.proofs.iter().map(proofs::show).collect(),
        issuer: source.issuer.clone(),
        issuers_allowed: source.issuers_allowed.clone(),
        websub_topics: source.websub_topics.clone(),
        timestamp_tolerance_s: source.timestamp_tolerance_s,
        allow_sha1: source.allow_sha1,
        allow_plain_event_names: source.allow_plain_event_names,
        replace_lone_surrogates: source.replace_lone_surrogates,
        ingest_path: format!("/ingest/{}/{}", source.tenant, source.name),
        created_at: source.created_at,
    }
}
