//! The audit log of the control plane: who changed what, when, from where. Names of changed fields stand in it, never
//! their values, so that no secret can.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::id::{self, Digest, KeyId, TenantId};
use super::idempotency::Claim;
use super::time::Timestamp;

/// Characters of a note at the most; what is over is cut.
pub const NOTE_CHARS_MAX: usize = 500;

/// Who changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum By {
    /// The host by itself: a pause after 410, a suspension, the end of a canary.
    Host,
    /// Whoever holds this key.
    Key(KeyId),
}

impl TryFrom<String> for By {
    type Error = id::Error;

    fn try_from(given: String) -> Result<Self, id::Error> {
        if given == "host" { Ok(Self::Host) } else { given.parse().map(Self::Key) }
    }
}

impl From<By> for String {
    fn from(by: By) -> String {
        match by {
            By::Host => "host".into(),
            By::Key(key) => key.to_string(),
        }
    }
}

/// On whose behalf the control plane acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Who.
    pub by: By,
    /// The request it came with.
    pub request: Option<String>,
    /// The address the request came from: of the last proxy, where there is one.
    pub remote: Option<String>,
    /// If the request is to be carried out at most once: written down with what it changes.
    pub claim: Option<Claim>,
}

impl Actor {
    /// The host itself.
    pub const HOST: Actor = Actor { by: By::Host, request: None, remote: None, claim: None };
}

/// What is about to be done, for the log: written in the transaction that does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// On whose behalf.
    pub actor: Actor,
    /// `kind.verb`; none: what the change itself looks like.
    pub action: Option<&'static str>,
    /// A word on it, without secrets.
    pub note: Option<String>,
}

impl Deed {
    /// Something that the host does by itself.
    pub fn host(action: &'static str) -> Self {
        Self { actor: Actor::HOST, action: Some(action), note: None }
    }

    /// Something that the host does by itself, called by what the change looks like.
    pub const UNNAMED: Deed = Deed { actor: Actor::HOST, action: None, note: None };

    /// With a word on it.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        let note: String = note.into();
        self.note = Some(note.chars().take(NOTE_CHARS_MAX).collect());
        self
    }
}

/// What was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AuditObject")]
pub struct Object {
    /// `tenant`, `source`, `filter`, `subscription`, `table`, `key` or `delivery`.
    pub kind: String,
    /// Its name or id.
    pub id: String,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AuditOutcome")]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was tried and came to nothing, as a verification whose endpoint did not answer. What was refused before
    /// anything was tried is not in the log.
    Failed,
}

/// One change, as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AuditEntry")]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// Whose thing; none: the operator's.
    pub tenant: Option<TenantId>,
    /// Who.
    pub by: By,
    /// `kind.verb`, as `subscription.pause`.
    pub action: String,
    /// What.
    pub object: Object,
    /// How it ended.
    pub outcome: Outcome,
    /// Members of the document that differ, by name; empty where it was made or removed.
    #[serde(default)]
    pub changed: Vec<String>,
    /// Its version before.
    pub version_before: Option<u64>,
    /// Its version since.
    pub version: Option<u64>,
    /// A word on it.
    pub note: Option<String>,
    /// The request it came with.
    pub request: Option<String>,
    /// The address the request came from.
    pub remote: Option<String>,
    /// Not a part of the log: written beside it.
    #[serde(skip)]
    #[schemars(skip)]
    pub claim: Option<Claim>,
}

impl Entry {
    /// An entry about something that is no document of the registry.
    pub fn of(deed: Deed, at: Timestamp, tenant: Option<TenantId>, object: Object) -> Self {
        let Deed { actor: Actor { by, request, remote, claim }, action, note } = deed;
        let action = action.map_or_else(|| format!("{}.update", object.kind), str::to_owned);
        Self {
            at,
            tenant,
            by,
            action,
            object,
            outcome: Outcome::Done,
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

/// An entry with its place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "AuditRecord")]
pub struct Record {
    /// Its place: one more than the entry before, over all tenants.
    pub seq: i64,
    /// SHA-256 over the hash of the entry before, this place and this entry as it is stored.
    pub hash: Digest,
    /// The entry.
    #[serde(flatten)]
    pub entry: Entry,
}

/// Which entries; an absent field asks for nothing.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// About things of this kind.
    pub kind: Option<String>,
    /// About the thing of this name or id.
    pub object: Option<String>,
    /// Of this action.
    pub action: Option<String>,
    /// By the host or by this key.
    pub by: Option<By>,
    /// At or after.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

impl Query {
    /// Whether it asks for this entry.
    pub fn asks_for(&self, entry: &Entry) -> bool {
        self.kind.as_ref().is_none_or(|kind| *kind == entry.object.kind)
            && self.object.as_ref().is_none_or(|id| *id == entry.object.id)
            && self.action.as_ref().is_none_or(|action| *action == entry.action)
            && self.by.is_none_or(|by| by == entry.by)
            && self.since.is_none_or(|since| entry.at >= since)
            && self.until.is_none_or(|until| entry.at < until)
    }
}
