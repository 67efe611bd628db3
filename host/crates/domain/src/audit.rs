//! Audit log of the control plane: who changed what, when, and from where. Contains the names of changed fields but not
//! their values, so that it cannot contain secrets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id::{self, Digest, KeyId, TenantId};
use super::idempotency::IdempotencyClaim;
use super::time::Timestamp;

/// Maximum length of a note in characters. Longer notes are truncated.
pub const NOTE_CHARS_MAX: usize = 500;

/// The originator of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Originator {
    /// The host itself: a pause after 410, a suspension, the end of a canary.
    Host,
    /// The holder of this API key.
    Key(KeyId),
}

impl TryFrom<String> for Originator {
    type Error = id::Error;

    fn try_from(given: String) -> Result<Self, id::Error> {
        if given == "host" { Ok(Self::Host) } else { given.parse().map(Self::Key) }
    }
}

impl From<Originator> for String {
    fn from(by: Originator) -> String {
        match by {
            Originator::Host => "host".into(),
            Originator::Key(key) => key.to_string(),
        }
    }
}

/// The originator of a control-plane request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Key or host.
    pub by: Originator,
    /// ID of the HTTP request.
    pub request: Option<String>,
    /// Remote address of the request. Behind proxies, the address of the last one.
    pub remote: Option<String>,
    /// Set if the request has an idempotency key. Recorded in the same transaction as the change.
    pub claim: Option<IdempotencyClaim>,
}

impl Actor {
    /// The host itself.
    pub const HOST: Actor = Actor { by: Originator::Host, request: None, remote: None, claim: None };

    /// The audit record of a change by this actor. `action` is `kind.verb`.
    pub fn action(&self, action: &'static str) -> AuditAction {
        AuditAction { actor: self.clone(), action: Some(action), note: None }
    }
}

/// The audit record of a pending change. The transaction that makes the change logs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditAction {
    /// The originator.
    pub actor: Actor,
    /// `kind.verb`. If `None`, derived from the change itself.
    pub action: Option<&'static str>,
    /// A short note, without secrets.
    pub note: Option<String>,
}

impl AuditAction {
    /// A change made by the host itself.
    pub fn host(action: &'static str) -> Self {
        Actor::HOST.action(action)
    }

    /// A change made by the host itself, with an action derived from the change.
    pub const HOST: AuditAction = AuditAction { actor: Actor::HOST, action: None, note: None };

    /// Sets the note.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        let note: String = note.into();
        self.note = Some(note.chars().take(NOTE_CHARS_MAX).collect());
        self
    }
}

/// The object of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditObject {
    /// `tenant`, `source`, `filter`, `subscription`, `table`, `key`, `issuer_key`, `delivery` or `replay`.
    pub kind: String,
    /// Name or ID of the object.
    pub id: String,
}

/// Outcome of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditOutcome {
    /// It succeeded.
    Done,
    /// It was attempted and failed, for example a verification without a response from the endpoint. Requests that were
    /// rejected before any attempt are not logged.
    Failed,
}

/// A logged change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// Time of the change.
    pub at: Timestamp,
    /// Owner of the object. Absent for the operator's objects.
    pub tenant: Option<TenantId>,
    /// Originator of the change.
    pub by: Originator,
    /// `kind.verb`, such as `subscription.pause`.
    pub action: String,
    /// The changed object.
    pub object: AuditObject,
    /// Outcome of the action.
    pub outcome: AuditOutcome,
    /// Names of the changed members. Empty if the object was created or deleted.
    #[serde(default)]
    pub changed: Vec<String>,
    /// Version before the change.
    pub version_before: Option<u64>,
    /// Version after the change.
    pub version: Option<u64>,
    /// A short note.
    pub note: Option<String>,
    /// ID of the HTTP request.
    pub request: Option<String>,
    /// Remote address of the request.
    pub remote: Option<String>,
    /// Not part of the log, but recorded in the same transaction.
    #[serde(skip)]
    #[schemars(skip)]
    pub claim: Option<IdempotencyClaim>,
}

impl AuditEntry {
    /// An entry for an object that is not a document of the registry.
    pub fn new(audit: AuditAction, at: Timestamp, tenant: Option<TenantId>, object: AuditObject) -> Self {
        let AuditAction { actor: Actor { by, request, remote, claim }, action, note } = audit;
        let action = action.map_or_else(|| format!("{}.update", object.kind), str::to_owned);
        Self {
            at,
            tenant,
            by,
            action,
            object,
            outcome: AuditOutcome::Done,
            changed: Vec::new(),
            version_before: None,
            version: None,
            note,
            request,
            remote,
            claim,
        }
    }
}

/// An entry and its position in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AuditRecord {
    /// Sequence number, incremented for each entry over all tenants.
    pub seq: i64,
    /// Hash chain: SHA-256 over the hash of the previous entry, this sequence number and this entry in its stored form.
    pub hash: Digest,
    /// The entry.
    #[serde(flatten)]
    pub entry: AuditEntry,
}

/// Filter for entries. Fields that are `None` match everything.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Kind of the object.
    pub kind: Option<String>,
    /// Name or ID of the object.
    pub object: Option<String>,
    /// Action.
    pub action: Option<String>,
    /// Originator.
    pub by: Option<Originator>,
    /// Entries at or after this time.
    pub since: Option<Timestamp>,
    /// Entries before this time.
    pub until: Option<Timestamp>,
}

impl AuditQuery {
    /// Whether the entry matches.
    pub fn matches(&self, entry: &AuditEntry) -> bool {
        self.kind.as_ref().is_none_or(|kind| *kind == entry.object.kind)
            && self.object.as_ref().is_none_or(|id| *id == entry.object.id)
            && self.action.as_ref().is_none_or(|action| *action == entry.action)
            && self.by.is_none_or(|by| by == entry.by)
            && self.since.is_none_or(|since| entry.at >= since)
            && self.until.is_none_or(|until| entry.at < until)
    }
}
