//! Parses an endpoint from a request: its URL, headers and certificates.
//!
//! On replacement, a secret that is absent or redacted keeps its stored value, and `null` removes it. Stored values are
//! retained only if the origin stays the same: otherwise anyone who may change a subscription could send its secrets to
//! an endpoint of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use setgate_base::clock::Clock;
use setgate_base::crypto::MasterKey;
use setgate_domain::endpoint::{self, ClientCertificate, Destination, Endpoint, EndpointTls};
use setgate_domain::id::{SubscriptionId, TenantId};
use setgate_domain::secret::{REDACTED, Sealed, Secret, SecretInput, endpoint_context};
use setgate_domain::subscription::Subscription;
use setgate_egress::Egress;
use setgate_egress::{Certificates, TlsIdentity};

use super::{EndpointInput, TlsInput};
use crate::control::Error;

/// Limit for the headers of one endpoint.
pub const HEADERS_MAX: usize = 32;
/// Limit for the name of a header in bytes, because it is stored with every attempt.
pub const HEADER_NAME_BYTES_MAX: usize = 128;
/// Limit for the value of a header in bytes.
pub const HEADER_BYTES_MAX: usize = 4 << 10;

/// Checks endpoints, and encrypts their secrets.
#[derive(Clone)]
pub(in crate::control) struct Endpoints {
    pub(in crate::control) master: Arc<MasterKey>,
    pub(in crate::control) clock: Clock,
    pub(in crate::control) egress: Egress,
}

impl Endpoints {
    /// The endpoint and headers of a request, merged with the stored ones.
    pub(super) fn take(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        given: EndpointInput,
        before: Option<&Subscription>,
    ) -> Result<(Endpoint, BTreeMap<String, Sealed>), Error> {
        let endpoint = self.take_url(tenant, id, given.url, before)?;
        if !endpoint.origin().https && !self.egress.allows_http() {
            let why = "this host sends to https:// only; the operator can open http:// with `egress.allow_http`";
            return Err(Error::invalid("endpoint/url", why));
        }
        let known = before.and_then(|before| before.endpoint.as_ref());
        let elsewhere = known.is_some_and(|known| known.origin() != endpoint.origin());
        let context = endpoint_context(tenant, &id);
        let stored = before.map(|before| &before.headers);
        let headers = self.take_headers(&context, given.headers, stored, elsewhere)?;
        let (host, stored) = (endpoint.origin().host, known.map(Endpoint::tls));
        let tls = self.take_tls(&context, given.tls, &host, stored, elsewhere)?;
        let endpoint = endpoint.with_tls(tls).map_err(|why| Error::invalid("endpoint/tls", why))?;
        Ok((endpoint, headers))
    }

    /// Whether a verification of one subscription's endpoint is valid for the other's.
    pub(super) fn has_same_origin_and_path(&self, one: &Subscription, other: &Subscription) -> bool {
        let (Some(a), Some(b)) = (&one.endpoint, &other.endpoint) else {
            return one.endpoint.is_none() && other.endpoint.is_none();
        };
        if a.origin() != b.origin() {
            return false;
        }
        if a.target() == b.target() {
            return true;
        }
        let open = |of: &Subscription, endpoint| self.master.open_destination(&of.tenant, &of.id, endpoint);
        matches!((open(one, a), open(other, b)), (Ok(one), Ok(other)) if one.has_same_origin_and_path(&other))
    }

    /// The endpoint without TLS settings.
    fn take_url(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        given: Option<Option<String>>,
        before: Option<&Subscription>,
    ) -> Result<Endpoint, Error> {
        let invalid = |why: &str| Err(Error::invalid("endpoint/url", why));
        let stored = before.and_then(|before| before.endpoint.as_ref()).map(Endpoint::without_tls);
        let url = match (given, &stored) {
            (None, Some(stored)) => return Ok(stored.clone()),
            (Some(Some(url)), Some(stored)) if url == stored.redacted_url() => return Ok(stored.clone()),
            (Some(Some(url)), _) => url,
            (None, None) => return invalid("give the URL to send to"),
            (Some(None), None) => return invalid("an endpoint has a URL"),
            (Some(None), Some(_)) => return invalid("an endpoint has a URL: leave it out to keep the stored one"),
        };
        let destination = Destination::parse(&url).map_err(|why| Error::invalid("endpoint/url", why))?;
        // An unchanged URL keeps its stored ciphertext, since a new ciphertext would count as a change.
        let known = |stored: &Endpoint| self.master.open_destination(tenant, &id, stored).ok();
        match stored.filter(|stored| known(stored).as_ref() == Some(&destination)) {
            Some(stored) => Ok(stored),
            None => Ok(self.master.seal_destination(tenant, &id, &destination)),
        }
    }

    fn take_headers(
        &self,
        context: &str,
        given: Option<Option<BTreeMap<String, Option<SecretInput>>>>,
        stored: Option<&BTreeMap<String, Sealed>>,
        elsewhere: bool,
    ) -> Result<BTreeMap<String, Sealed>, Error> {
        let invalid = |why: String| Error::invalid("endpoint/headers", why);
        let Some(given) = given.unwrap_or_else(|| Some(BTreeMap::new())) else { return Ok(BTreeMap::new()) };
        let mut headers = stored.cloned().unwrap_or_default();
        let mut fresh = BTreeMap::new();
        for (name, value) in given {
            let lower = name.to_lowercase();
            if lower.len() > HEADER_NAME_BYTES_MAX {
                return Err(invalid(format!("the name of a header has at most {HEADER_NAME_BYTES_MAX} bytes")));
            }
            match value {
                None => drop(headers.remove(&lower)),
                Some(SecretInput::Stored) if headers.contains_key(&lower) => {}
                Some(SecretInput::Stored) => {
                    return Err(invalid(format!(
                        "no value of `{name}` is stored, so `{REDACTED}` keeps nothing: give one"
                    )));
                }
                Some(SecretInput::New(value)) if value.expose().len() > HEADER_BYTES_MAX => {
                    return Err(invalid(format!("the value of `{name}` is longer than {HEADER_BYTES_MAX} bytes")));
                }
                Some(SecretInput::New(value)) => {
                    endpoint::check_header(&name, value.expose(), setgate_dialects::is_set_by_scheme)
                        .map_err(|why| Error::invalid("endpoint/headers", why))?;
                    headers.remove(&lower);
                    fresh.insert(lower, self.master.seal(context, &value));
                }
            }
        }
        if let Some(name) = headers.keys().next().filter(|_| elsewhere) {
            let why = format!("the endpoint is another one: give the value of `{name}` again, or `null` to remove it");
            return Err(invalid(why));
        }
        headers.extend(fresh);
        if headers.len() > HEADERS_MAX {
            return Err(invalid(format!("at most {HEADERS_MAX}")));
        }
        Ok(headers)
    }

    fn take_tls(
        &self,
        context: &str,
        given: Option<Option<TlsInput>>,
        host: &str,
        before: Option<&EndpointTls>,
        elsewhere: bool,
    ) -> Result<EndpointTls, Error> {
        let stored = before.cloned().unwrap_or_default();
        let given = match given {
            Some(given) => given.unwrap_or_default(),
            None if elsewhere && !stored.is_empty() => {
                let why = "the endpoint is another one: give `tls` again, or `null` for nothing";
                return Err(Error::invalid("endpoint/tls", why));
            }
            None => return Ok(stored),
        };
        let ca_pem = match given.ca_pem {
            // An unchanged certificate was valid when it was stored. If it has expired since, that must not block other
            // changes.
            Some(pem) if !elsewhere && stored.ca_pem.as_ref() == Some(&pem) => Some(pem),
            Some(pem) => {
                let now_s = self.clock.now().as_millis() / 1_000;
                let read = Certificates::parse_trusted(&pem, host, now_s);
                Some(read.map_err(|why| Error::invalid("endpoint/tls/ca_pem", why))?.pem())
            }
            None => None,
        };
        let (field, key_field) = ("endpoint/tls/client_certificate_pem", "endpoint/tls/client_key_pem");
        let key = match given.client_key_pem {
            Some(None) => None,
            Some(Some(SecretInput::New(key))) => Some(Key::New(key)),
            None | Some(Some(SecretInput::Stored)) => Some(Key::Stored),
        };
        let client = match (given.client_certificate_pem, key) {
            (None, Some(Key::New(_))) => return Err(Error::invalid(field, "give the certificate that the key is of")),
            (None, None | Some(Key::Stored)) => None,
            (Some(_), None) => {
                return Err(Error::invalid(key_field, "a certificate needs its key: remove both, or none"));
            }
            (Some(pem), Some(key)) => {
                let certificates = Certificates::parse(&pem).map_err(|why| Error::invalid(field, why))?;
                let (key, sealed) = self.take_client_key(context, key, stored.client, elsewhere)?;
                TlsIdentity::check_key(&certificates, &key).map_err(|why| Error::invalid(key_field, why))?;
                Some(ClientCertificate { certificate_pem: certificates.pem(), key: sealed })
            }
        };
        Ok(EndpointTls { ca_pem, client })
    }

    fn take_client_key(
        &self,
        context: &str,
        given: Key,
        stored: Option<ClientCertificate>,
        elsewhere: bool,
    ) -> Result<(Secret, Sealed), Error> {
        let invalid = |why: &str| Err(Error::invalid("endpoint/tls/client_key_pem", why));
        match (given, stored) {
            (Key::New(key), _) => {
                let sealed = self.master.seal(context, &key);
                Ok((key, sealed))
            }
            (Key::Stored, Some(_)) if elsewhere => invalid("the endpoint is another one: give the key again"),
            (Key::Stored, Some(client)) => match self.master.open(context, &client.key) {
                Ok(key) => Ok((key, client.key)),
                Err(why) => invalid(&format!("the one that is stored cannot be opened ({why}): give it")),
            },
            (Key::Stored, None) => invalid("none is stored: give it"),
        }
    }
}

/// The private key of a client certificate.
enum Key {
    Stored,
    New(Secret),
}
