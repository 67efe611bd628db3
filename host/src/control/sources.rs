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
use setgate_domain::source::{Compat, Form, Proof, Source, TIMESTAMP_TOLERANCE_S_DEFAULT, TIMESTAMP_TOLERANCE_S_MAX};
use setgate_domain::subscription::glob;
use setgate_domain::tenant::Quota;
use setgate_domain::time::Timestamp;
use setgate_egress::Egress;
use setgate_ledger::Registry;

use super::checks::{check_length, check_quota, expect_any, expect_version, find_tenant, quota_of, retried};
use super::read_only::{ReadOnly, check_name};
use super::warnings::{self, Warning};
use super::{Error, Page, PageQuery, TEXT_CHARS_MAX};

pub use proofs::{AUDIENCES_MAX, PROOFS_MAX, ProofInput, ProofView};

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
    /// Accepted deviations from the standards of signed SETs. Only for sources with a `jws` proof.
    #[serde(default)]
    pub compat: Compat,
    /// The name in the path. Optional.
    #[serde(default)]
    pub name: Option<SourceName>,
    /// Read-only; ignored.
    #[serde(default)]
    pub ingest_path: ReadOnly,
    /// Read-only; ignored.
    #[serde(default)]
    pub push_path: ReadOnly,
    /// Read-only; ignored.
    #[serde(default)]
    pub warnings: ReadOnly,
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
    pub compat: Compat,
    /// The path for events of this source, relative to the host's address. A source with a `jws` proof accepts none there.
    pub ingest_path: String,
    /// The path for signed SETs of this source (RFC 8935). `null` if it has no `jws` proof.
    pub push_path: Option<String>,
    /// Settings that have no effect. Absent if there are none, and in lists.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    pub created_at: Timestamp,
}

/// The sources of all tenants.
#[derive(Clone)]
pub struct Sources {
    pub(super) registry: Registry,
    pub(super) clock: Clock,
    pub(super) master: Arc<MasterKey>,
    /// Checks the URLs of key sets against the address rules.
    pub(super) egress: Egress,
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
            given => {
                let given = given.unwrap_or_default();
                proofs::take((&self.master, &self.egress), tenant, &name, given, stored)?
            }
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
            compat: input.compat,
            created_at: existing.map_or_else(|| self.clock.now(), |source| source.value.created_at),
        };
        check_signed(&source)?;
        let action = if existing.is_some() { "source.replace" } else { "source.create" };
        let intent = (expect_version(expected, existing), actor.action(action));
        let version = self.registry.put_source(source.clone(), intent).await?;
        Ok((self.view(&source, version), existing.is_none()))
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
        let source = view.sources.get(name).ok_or_else(|| not_found(name))?;
        Ok(self.view(&source.value, source.version))
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

    /// A single document, with its warnings.
    fn view(&self, source: &Source, version: u64) -> SourceView {
        SourceView { warnings: warnings::of_source(source, &self.egress), ..show(source, version) }
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

/// Checks the settings of signed SETs together.
fn check_signed(source: &Source) -> Result<(), Error> {
    if !source.proofs.iter().any(|proof| matches!(proof, Proof::Jws(_))) {
        return match source.compat.is_strict() {
            true => Ok(()),
            false => Err(Error::invalid("compat", "it is for signed SETs: the source has no `jws` proof")),
        };
    }
    if source.proofs.len() > 1 {
        let why = "a `jws` proof is the only one of its source: make another source for other senders";
        return Err(Error::invalid("proofs", why));
    }
    if source.form != Form::Set {
        return Err(Error::invalid("form", "a source with a `jws` proof has the form `set`"));
    }
    if !source.issuers_allowed.is_empty() {
        let why = "the `issuer` of the `jws` proof is the only one that is accepted: leave this out";
        return Err(Error::invalid("issuers_allowed", why));
    }
    Ok(())
}

fn not_found(name: &SourceName) -> Error {
    Error::NotFound(format!("source `{name}`"))
}

fn show(source: &Source, version: u64) -> SourceView {
    let (tenant, name) = (&source.tenant, &source.name);
    SourceView {
        version,
        name: name.clone(),
        form: source.form,
        proofs: source.proofs.iter().map(proofs::show).collect(),
        issuer: source.issuer.clone(),
        issuers_allowed: source.issuers_allowed.clone(),
        websub_topics: source.websub_topics.clone(),
        timestamp_tolerance_s: source.timestamp_tolerance_s,
        allow_sha1: source.allow_sha1,
        allow_plain_event_names: source.allow_plain_event_names,
        replace_lone_surrogates: source.replace_lone_surrogates,
        compat: source.compat,
        ingest_path: format!("/ingest/{tenant}/{name}"),
        push_path: source.signed().map(|_| format!("/t/{tenant}/push/{name}")),
        warnings: Vec::new(),
        created_at: source.created_at,
    }
}
