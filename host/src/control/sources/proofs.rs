//! The proofs of a source: its secrets in requests and responses.

mod jws;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use setgate_base::crypto::{self, MasterKey};
use setgate_domain::algorithm::Algorithm;
use setgate_domain::id::{Digest, SourceName, TenantId};
use setgate_domain::secret::{Secret, SecretInput, source_context};
use setgate_domain::source::{KeyEncoding, MacHeader, Proof};
use setgate_egress::Egress;

use crate::control::read_only::{REDACTED, is_redacted};
use crate::control::{Error, TEXT_CHARS_MAX, changed};

/// Limit for the proofs of one source, and for the secrets of one proof.
pub const PROOFS_MAX: usize = 8;
/// Limit for the audiences of one proof.
pub const AUDIENCES_MAX: usize = 16;
/// Minimum length of a shared secret or token in bytes. Shorter ones are refused as guessable.
const SECRET_BYTES_MIN: usize = 8;

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
    /// See [`Proof::Jws`]. Signed SETs are pushed to the source's `push_path` (RFC 8935).
    Jws {
        /// Required `iss` of each SET, compared in every character.
        #[schemars(length(min = 1, max = TEXT_CHARS_MAX))]
        issuer: String,
        /// URL of the issuer's JWKS (RFC 7517). Give either this or `jwks`.
        #[serde(default)]
        #[schemars(length(max = TEXT_CHARS_MAX))]
        jwks_url: Option<String>,
        /// The issuer's public keys as a JWKS.
        #[serde(default)]
        jwks: Option<Map<String, Value>>,
        /// Accepted algorithms.
        #[serde(default = "all_algorithms")]
        #[schemars(length(min = 1, max = 4))]
        algorithms: Vec<Algorithm>,
        /// Accepted audiences. `aud` has to have one of them.
        #[schemars(length(min = 1, max = AUDIENCES_MAX), inner(length(min = 1, max = TEXT_CHARS_MAX)))]
        audience: Vec<String>,
        /// The whole value that the `Authorization` header must have, such as `Bearer ...`. If absent, the stored value is
        /// retained; `null` removes it. Without a value, the header is not checked.
        #[serde(default, deserialize_with = "changed")]
        #[schemars(with = "Option<SecretInput>")]
        authorization: Option<Option<SecretInput>>,
    },
}

fn all_algorithms() -> Vec<Algorithm> {
    Algorithm::ALL.to_vec()
}

/// A proof with each secret replaced by `***`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "as in `Proof`")]
pub enum ProofView {
    Hmac {
        header: MacHeader,
        secrets: Vec<&'static str>,
        encoding: KeyEncoding,
    },
    Bearer {
        tokens: Vec<&'static str>,
    },
    Key,
    Open,
    Jws {
        issuer: String,
        jwks_url: Option<String>,
        jwks: Option<Map<String, Value>>,
        algorithms: Vec<Algorithm>,
        audience: Vec<String>,
        authorization: Option<&'static str>,
    },
}

/// The proofs of a request, merged with the stored ones.
pub(super) fn take(
    (master, egress): (&MasterKey, &Egress),
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
            ProofInput::Jws { issuer, jwks_url, jwks, algorithms, audience, authorization } => {
                let known = stored.next(|proof| match proof {
                    Proof::Jws(proof) => Some(proof.authorization.as_ref()),
                    _ => None,
                });
                let authorization = jws::take_authorization(master, &context, authorization, known.flatten())?;
                let keys = jws::take_keys(egress, jwks_url, jwks)?;
                Proof::Jws(jws::take(issuer, keys, algorithms, audience, authorization)?)
            }
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
                    Ok(master.seal(&context, &secret))
                };
                let known = known.map(|(secrets, _)| secrets);
                let Some(secrets) = take_secrets("proofs/secrets", secrets, known, seal)? else { continue };
                if keeps {
                    with_encoding(master, &context, Proof::Hmac { header, secrets, encoding: before }, encoding)?
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
fn with_encoding(
    master: &MasterKey,
    context: &str,
    stored: Proof,
    encoding: Option<KeyEncoding>,
) -> Result<Proof, Error> {
    let Proof::Hmac { header, secrets, encoding: before } = stored else { return Ok(stored) };
    let Some(encoding) = encoding.filter(|encoding| *encoding != before.unwrap_or(encoding_of(header))) else {
        return Ok(Proof::Hmac { header, secrets, encoding: before });
    };
    for sealed in &secrets {
        let secret = master.open(context, sealed).map_err(|_| {
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

/// The view of a proof, without its secrets.
pub(super) fn show(proof: &Proof) -> ProofView {
    match proof {
        Proof::Hmac { header, secrets, encoding } => ProofView::Hmac {
            header: *header,
            secrets: vec![REDACTED; secrets.len()],
            encoding: encoding.unwrap_or(encoding_of(*header)),
        },
        Proof::Bearer { tokens } => ProofView::Bearer { tokens: vec![REDACTED; tokens.len()] },
        Proof::Key => ProofView::Key,
        Proof::Open => ProofView::Open,
        Proof::Jws(proof) => jws::show(proof),
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
    setgate_dialects::check_pasted_text(token)?;
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
