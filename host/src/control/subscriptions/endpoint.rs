//! An endpoint as it is sent in: its URL, the values of its headers, its certificates.

use std::collections::BTreeMap;

use url::Url;

use super::{Control, EndpointInput, Error, TlsInput};
use crate::domain::endpoint::{ClientCertificate, Endpoint, EndpointTls};
use crate::domain::id::{SubscriptionId, TenantId};
use crate::domain::secret::{Sealed, Secret, endpoint_context};
use crate::domain::subscription::Subscription;
use crate::egress::{Certificates, Identity};

/// Headers of one endpoint at the most.
pub const HEADERS_MAX: usize = 32;
/// Bytes of one header's name at the most: it is kept with every attempt.
pub const HEADER_NAME_BYTES_MAX: usize = 128;
/// Bytes of one header's value at the most.
pub const HEADER_BYTES_MAX: usize = 4 << 10;

impl Control {
    /// What is given, over what is stored. Secrets that are not given again are kept for the same origin alone: whoever
    /// may change a subscription could otherwise have them sent to an endpoint of their own.
    pub(super) fn take_endpoint(
        &self,
        tenant: &TenantId,
        id: SubscriptionId,
        given: EndpointInput,
        before: Option<&Subscription>,
    ) -> Result<(Endpoint, BTreeMap<String, Sealed>), Error> {
        let endpoint = Endpoint::new(&given.url, BTreeMap::new()).map_err(|why| Error::invalid("endpoint/url", why))?;
        if endpoint.url().scheme() == "http" && !self.settings.now().egress.allow_http {
            let why = "this host sends to https:// only; the operator can open http:// with `egress.allow_http`";
            return Err(Error::invalid("endpoint/url", why));
        }
        let context = endpoint_context(tenant, &id);
        let mut stored = BTreeMap::new();
        if let Some(before) = before {
            // Values from before they were sealed are sealed now.
            let seal = |value: &String| self.master.seal(&context, &Secret::new(value.clone()));
            stored.extend(before.endpoint.headers().iter().map(|(name, value)| (name.to_lowercase(), seal(value))));
            stored.extend(before.headers.clone());
        }
        let elsewhere = before.is_some_and(|before| before.endpoint.origin() != endpoint.origin());
        let (given, tls) = (given.headers, given.tls);
        let given = given.unwrap_or_else(|| stored.keys().map(|name| (name.clone(), None)).collect());
        if given.len() > HEADERS_MAX {
            return Err(Error::invalid("endpoint/headers", format!("at most {HEADERS_MAX}")));
        }
        let mut headers = BTreeMap::new();
        for (name, value) in given {
            let lower = name.to_lowercase();
            if lower.len() > HEADER_NAME_BYTES_MAX {
                let why = format!("the name of a header has at most {HEADER_NAME_BYTES_MAX} bytes");
                return Err(Error::invalid("endpoint/headers", why));
            }
            let sealed = match value {
                Some(value) if value.expose().len() > HEADER_BYTES_MAX => {
                    let why = format!("the value of `{name}` is longer than {HEADER_BYTES_MAX} bytes");
                    return Err(Error::invalid("endpoint/headers", why));
                }
                Some(value) => {
                    Endpoint::new(endpoint.url().as_str(), BTreeMap::from([(name, value.expose().to_owned())]))
                        .map_err(|why| Error::invalid("endpoint/headers", why))?;
                    self.master.seal(&context, &value)
                }
                None if elsewhere => {
                    let why = format!("the endpoint is another one: give the value of `{name}` again, or leave it out");
                    return Err(Error::invalid("endpoint/headers", why));
                }
                None => stored.remove(&lower).ok_or_else(|| {
                    Error::invalid("endpoint/headers", format!("no value of `{name}` is stored: give one"))
                })?,
            };
            headers.insert(lower, sealed);
        }
        let tls =
            self.take_tls(&context, tls, endpoint.url(), before.map(|before| before.endpoint.tls()), elsewhere)?;
        let endpoint = endpoint.with_tls(tls).map_err(|why| Error::invalid("endpoint/tls", why))?;
        Ok((endpoint, headers))
    }

    fn take_tls(
        &self,
        context: &str,
        given: Option<TlsInput>,
        url: &Url,
        before: Option<&EndpointTls>,
        elsewhere: bool,
    ) -> Result<EndpointTls, Error> {
        let stored = before.cloned().unwrap_or_default();
        let Some(given) = given else {
            if elsewhere && !stored.is_empty() {
                let why = "the endpoint is another one: give `tls` again, or `{}` for nothing";
                return Err(Error::invalid("endpoint/tls", why));
            }
            return Ok(stored);
        };
        let invalid = |field| move |why| Error::invalid(field, why);
        let ca_pem = match given.ca_pem {
            // It was good when it was given, and is no reason to refuse another change now.
            Some(pem) if !elsewhere && stored.ca_pem.as_ref() == Some(&pem) => Some(pem),
            Some(pem) => {
                let (host, now_s) = (url.host_str().unwrap_or_default(), self.clock.now().as_millis() / 1_000);
                let read = Certificates::read_trusted(&pem, host, now_s).map_err(invalid("endpoint/tls/ca_pem"))?;
                Some(read.pem())
            }
            None => None,
        };
        let (field, key_field) = ("endpoint/tls/client_certificate_pem", "endpoint/tls/client_key_pem");
        let client = match (given.client_certificate_pem, given.client_key_pem) {
            (None, None) => None,
            (None, Some(_)) => return Err(Error::invalid(field, "give the certificate that the key is of")),
            (Some(pem), key) => {
                let certificates = Certificates::read(&pem).map_err(invalid(field))?;
                let (key, sealed) = match (key, stored.client) {
                    (Some(key), _) => {
                        let sealed = self.master.seal(context, &key);
                        (key, sealed)
                    }
                    (None, Some(_)) if elsewhere => {
                        return Err(Error::invalid(key_field, "the endpoint is another one: give the key again"));
                    }
                    (None, Some(client)) => {
                        let opened = self.master.open(context, &client.key);
                        let key = opened.map_err(|why| {
                            Error::invalid(
                                key_field,
                                format!("the one that is stored cannot be opened ({why}): give it"),
                            )
                        })?;
                        (key, client.key)
                    }
                    (None, None) => return Err(Error::invalid(key_field, "none is stored: give it")),
                };
                Identity::check_key(&certificates, &key).map_err(invalid(key_field))?;
                Some(ClientCertificate { certificate_pem: certificates.pem(), key: sealed })
            }
        };
        Ok(EndpointTls { ca_pem, client })
    }
}
