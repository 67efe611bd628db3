//! Sources: the senders of a tenant's events.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use setgate_base::crypto;
use setgate_domain::id::{Digest, SourceName, TenantId};
use setgate_domain::secret::{Secret, source_context};
use setgate_domain::source::{
    Form, KeyEncoding, MacHeader, Proof, Source, TIMESTAMP_TOLERANCE_S_DEFAULT, TIMESTAMP_TOLERANCE_S_MAX,
};
use setgate_domain::subscription::glob;
use setgate_domain::time::Timestamp;

use super::checks::{check_length, check_quota, expect_any, expect_version, retried};
use super::read_only::{REDACTED, ReadOnly, check_name, is_redacted};
use super::{Control, Error, Page, PageQuery, TEXT_CHARS_MAX, changed};

/// Limit for the proofs of one source, and for the secrets of one proof.
pub const PROOFS_MAX: usize = 8;
/// Limit for the issuers and for the topics of one source.
const TEXTS_MAX: usize = 100;
/// Minimum length of a shared secret or token in bytes. Shorter ones are refused as guessable.
const SECRET_BYTES_MIN: usize = 8;

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

/// A proof with its secrets in plain text. On replacement, absent secrets are taken from the stored proof of the same
/// kind (and header): the first such proof from the first stored one, and so on. A secret of `***` stands for the
/// stored secret at the same position, so that another secret can be added beside it. `null` removes the secrets
/// together with the proof.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum ProofInput {
    /// See [`Proof::Hmac`].
    Hmac {
        /// The header with the signature.
        header: MacHeader,
        /// The shared secrets.
        #[serde(default, deserialize_with = "changed")]
        #[schemars(with = "Option<Vec<Secret>>", length(min = 1, max = PROOFS_MAX))]
        secrets: Option<Option<Vec<Secret>>>,
        /// The encoding of the secrets. If absent: base64 after the prefix `whsec_`, otherwise text. For `standard` it
        /// is required unless each secret begins with `whsec_`. If stored secrets are retained, their encoding is the
        /// default.
        #[serde(default)]
        encoding: Option<KeyEncoding>,
    },
    /// See [`Proof::Bearer`].
    Bearer {
        /// The tokens.
        #[serde(default, deserialize_with = "changed")]
        #[schemars(with = "Option<Vec<Secret>>", length(min = 1, max = PROOFS_MAX))]
        tokens: Option<Option<Vec<Secret>>>,
    },
    /// See [`Proof::Key`].
    Key {},
    /// See [`Proof::Open`].
    Open {},
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

/// A proof with each secret replaced by `***`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "as in `Proof`")]
pub enum ProofView {
    Hmac { header: MacHeader, secrets: Vec<&'static str>, encoding: KeyEncoding },
    Bearer { tokens: Vec<&'static str> },
    Key,
    Open,
}

impl Control {
    /// Creates or replaces a source. The returned flag is true if it is new.
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
        check_name("name", input.name.as_ref(), &name)?;
        let existing = view.sources.get(&name);
        if existing.is_none() {
            check_quota(view.sources.len(), self.quota_of(&view).sources_max, "sources_max")?;
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
            given => self.take_proofs(tenant, &name, given.unwrap_or_default(), stored)?,
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
        let intent = (expect_version(expected, existing), self.audit(action));
        let version = self.ledger.registry.put_source(source.clone(), intent).await?;
        Ok((show(&source, version), existing.is_none()))
    }

    fn take_proofs(
        &self,
        tenant: &TenantId,
        name: &SourceName,
        given: Vec<ProofInput>,
        stored: &[Proof],
    ) -> Result<Vec<Proof>, Error> {
        if given.len() > PROOFS_MAX {
            return Err(Error::invalid("proofs", format!("give at most {PROOFS_MAX} proofs")));
        }
        let context = source_context(tenant, name);
        let mut stored = Stored(stored.iter().collect());
        let mut proofs = Vec::with_capacity(given.len());
        for proof in given {
            proofs.push(match proof {
                ProofInput::Key {} => Proof::Key,
                ProofInput::Open {} => Proof::Open,
                ProofInput::Bearer { tokens } => {
                    let known = stored.next(|proof| match proof {
                        Proof::Bearer { tokens } => Some(tokens.as_slice()),
                        _ => None,
                    });
                    let digest = |token: Secret| {
                        check_token(token.expose()).map_err(|why| Error::invalid("proofs/tokens", why))?;
                        Ok(Digest(crypto::sha256(token.expose().as_bytes())))
                    };
                    match take_secrets("proofs/tokens", tokens, known, digest)? {
                        Some(tokens) => Proof::Bearer { tokens },
                        None => continue,
                    }
                }
                ProofInput::Hmac { header, secrets, encoding } => {
                    let known = stored.next(|proof| match proof {
                        Proof::Hmac { header: known, secrets, encoding } if *known == header => {
                            Some((secrets.as_slice(), *encoding))
                        }
                        _ => None,
                    });
                    // A new secret beside a retained one uses the encoding of the retained one, unless the request
                    // gives an encoding.
                    let keeps = keeps_any(secrets.as_ref());
                    let before = known.and_then(|(_, encoding)| encoding);
                    let written = encoding.or(keeps.then(|| before.unwrap_or(encoding_of(header))));
                    let seal = |secret: Secret| {
                        setgate_dialects::check_source_secret(header, written, &secret)
                            .map_err(|why| Error::invalid("proofs/secrets", why))?;
                        Ok(self.master.seal(&context, &secret))
                    };
                    let known = known.map(|(secrets, _)| secrets);
                    let Some(secrets) = take_secrets("proofs/secrets", secrets, known, seal)? else { continue };
                    if keeps {
                        self.with_encoding(&context, Proof::Hmac { header, secrets, encoding: before }, encoding)?
                    } else {
                        Proof::Hmac { header, secrets, encoding: Some(encoding.unwrap_or(encoding_of(header))) }
                    }
                }
            });
        }
        if proofs.is_empty() {
            let why = format!(
                "give 1 to {PROOFS_MAX} proofs; a source without any proof has to be opened with {{\"kind\": \"open\"}}"
            );
            return Err(Error::invalid("proofs", why));
        }
        Ok(proofs)
    }

    /// A stored proof with retained secrets and the requested encoding. If the encoding does not change, the proof is
    /// returned as stored.
    fn with_encoding(&self, context: &str, stored: Proof, encoding: Option<KeyEncoding>) -> Result<Proof, Error> {
        let Proof::Hmac { header, secrets, encoding: before } = stored else { return Ok(stored) };
        let Some(encoding) = encoding.filter(|encoding| *encoding != before.unwrap_or(encoding_of(header))) else {
            return Ok(Proof::Hmac { header, secrets, encoding: before });
        };
        for sealed in &secrets {
            let secret = self.master.open(context, sealed).map_err(|_| {
                Error::invalid(
                    "proofs/secrets",
                    "a stored secret cannot be opened with the host's master key: give it anew",
                )
            })?;
            setgate_dialects::check_source_secret(header, Some(encoding), &secret)
                .map_err(|why| Error::invalid("proofs/encoding", why))?;
        }
        Ok(Proof::Hmac { header, secrets, encoding: Some(encoding) })
    }

    /// A tenant's sources, by name.
    pub fn list_sources(&self, tenant: &TenantId, page: PageQuery) -> Result<Page<SourceView>, Error> {
        let view = self.tenant(tenant)?;
        page.of(view.sources.iter().map(|(name, stored)| (name.clone(), stored)), |stored| {
            show(&stored.value, stored.version)
        })
    }

    /// Returns one source.
    pub fn show_source(&self, tenant: &TenantId, name: &SourceName) -> Result<SourceView, Error> {
        let view = self.tenant(tenant)?;
        view.sources.get(name).map(|source| show(&source.value, source.version)).ok_or_else(|| not_found(name))
    }

    /// Removes a source. Its events remain.
    pub async fn remove_source(
        &self,
        tenant: &TenantId,
        name: &SourceName,
        expected: Option<u64>,
    ) -> Result<(), Error> {
        if !self.tenant(tenant)?.sources.contains_key(name) {
            return Err(not_found(name));
        }
        self.ledger.registry.remove_source(tenant, name, (expect_any(expected), self.audit("source.remove"))).await?;
        Ok(())
    }

    /// Whether the source exists.
    pub fn has_source(&self, tenant: &TenantId, name: &SourceName) -> bool {
        self.tenant(tenant).is_ok_and(|view| view.sources.contains_key(name))
    }

    /// Whether this source expects a WebSub verification of this topic (W3C WebSub section 5.3).
    pub fn expects_topic(&self, tenant: &TenantId, name: &SourceName, topic: &str) -> bool {
        self.tenant(tenant).is_ok_and(|view| {
            view.sources
                .get(name)
                .is_some_and(|source| source.value.websub_topics.iter().any(|pattern| glob(pattern, topic)))
        })
    }
}

/// Stored proofs that have not been matched to a proof of the request yet.
struct Stored<'a>(Vec<&'a Proof>);

impl<'a> Stored<'a> {
    /// Removes and returns the next stored proof that `of` accepts.
    fn next<T>(&mut self, of: impl Fn(&'a Proof) -> Option<T>) -> Option<T> {
        let at = self.0.iter().position(|proof| of(proof).is_some())?;
        of(self.0.remove(at))
    }
}

/// Whether a stored secret is retained: it is given as `***`, or no secrets are given.
fn keeps_any(given: Option<&Option<Vec<Secret>>>) -> bool {
    given.is_none_or(|given| given.iter().flatten().any(is_redacted))
}

/// The secrets of a proof to be stored, from the request and from the stored proof. `None` if the request removes them.
fn take_secrets<T: Clone>(
    field: &'static str,
    given: Option<Option<Vec<Secret>>>,
    stored: Option<&[T]>,
    make: impl Fn(Secret) -> Result<T, Error>,
) -> Result<Option<Vec<T>>, Error> {
    let given = match given {
        None => {
            let missing = || Error::invalid(field, format!("give 1 to {PROOFS_MAX}: there are none stored to keep"));
            return stored.map(|stored| Some(stored.to_vec())).ok_or_else(missing);
        }
        Some(None) => return Ok(None),
        Some(Some(given)) => given,
    };
    if given.is_empty() || given.len() > PROOFS_MAX {
        return Err(Error::invalid(field, format!("give 1 to {PROOFS_MAX}")));
    }
    let mut taken = Vec::with_capacity(given.len());
    for (at, secret) in given.into_iter().enumerate() {
        if is_redacted(&secret) {
            let kept = stored.and_then(|stored| stored.get(at)).cloned();
            taken.push(kept.ok_or_else(|| {
                let place = at + 1;
                Error::invalid(
                    field,
                    format!("`{REDACTED}` stands for a stored secret, and there is none in place {place}"),
                )
            })?);
            continue;
        }
        if secret.expose().len() < SECRET_BYTES_MIN {
            return Err(Error::invalid(field, format!("each has at least {SECRET_BYTES_MIN} bytes")));
        }
        taken.push(make(secret)?);
    }
    Ok(Some(taken))
}

/// The default encoding of a secret.
fn encoding_of(header: MacHeader) -> KeyEncoding {
    setgate_dialects::scheme_of_proof(header).secret_encoding()
}

/// Checks that a token is long enough and can be sent as `Authorization: Bearer <token>`.
fn check_token(token: &str) -> Result<(), String> {
    setgate_dialects::check_text(token)?;
    if token.len() < SECRET_BYTES_MIN {
        return Err(format!("each has at least {SECRET_BYTES_MIN} bytes"));
    }
    if token.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer ")) {
        return Err("it begins with `Bearer `, which is the scheme: give what comes after it".to_owned());
    }
    match token.chars().position(|c| !c.is_ascii_graphic()) {
        None => Ok(()),
        Some(index) => Err(format!(
            "its character {} cannot stand in a header: a token is printable ASCII without spaces (RFC 6750 section 2.1)",
            index + 1
        )),
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
        proofs: source
            .proofs
            .iter()
            .map(|proof| match proof {
                Proof::Hmac { header, secrets, encoding } => ProofView::Hmac {
                    header: *header,
                    secrets: vec![REDACTED; secrets.len()],
                    encoding: encoding.unwrap_or(encoding_of(*header)),
                },
                Proof::Bearer { tokens } => ProofView::Bearer { tokens: vec![REDACTED; tokens.len()] },
                Proof::Key => ProofView::Key,
                Proof::Open => ProofView::Open,
            })
            .collect(),
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
