//! Cache of decrypted endpoints: URL and headers in plain text, the TLS client identity, and the redactor that removes
//! these secrets from responses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use setgate_base::crypto::{self, MasterKey};
use setgate_dialects::Signer;
use setgate_domain::endpoint::{ClientCertificate, Destination};
use setgate_domain::id::SubscriptionId;
use setgate_domain::redact::Redactor;
use setgate_domain::redact::exchange::ExchangeSecrets;
use setgate_domain::secret::{endpoint_context, signing_context};
use setgate_domain::subscription::Subscription;
use setgate_egress::TlsIdentity;
use setgate_ledger::Versioned;

/// Memory limit of the cache in bytes. If an insert would exceed it, the whole cache is cleared.
const OPENED_BYTES_MAX: usize = 16 << 20;

/// An endpoint that is ready for requests.
pub(super) struct OpenEndpoint {
    pub(super) destination: Destination,
    pub(super) identity: TlsIdentity,
    /// Removes secrets that the receiver echoes in its responses.
    pub(super) secrets: Redactor,
}

/// Why there is no endpoint to send to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unopened {
    /// The receiver polls.
    #[error("the subscription has no endpoint: its receiver polls")]
    None,
    /// A secret cannot be decrypted.
    #[error("a secret of the endpoint: {0}")]
    Secret(#[from] crypto::Error),
}

/// Cache of decrypted endpoints, so that an attempt does not have to decrypt them again.
pub(super) struct EndpointCache {
    master: Arc<MasterKey>,
    signer: Arc<Signer>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    bytes: usize,
    /// Each entry carries the version of its subscription. Version numbers are never reused, so a stale entry is never
    /// returned.
    endpoints: HashMap<SubscriptionId, (u64, Arc<OpenEndpoint>)>,
}

impl EndpointCache {
    pub(super) fn new(master: Arc<MasterKey>, signer: Arc<Signer>) -> Self {
        Self { master, signer, held: Mutex::default() }
    }

    pub(super) fn get(&self, subscription: &Versioned<Subscription>) -> Result<Arc<OpenEndpoint>, Unopened> {
        let id = subscription.value.id;
        let known = self.lock().endpoints.get(&id).cloned();
        if let Some((_, endpoint)) = known.filter(|(version, _)| *version == subscription.version) {
            return Ok(endpoint);
        }
        let endpoint = Arc::new(OpenEndpoint::open(&subscription.value, &self.master, &self.signer)?);
        self.hold(id, subscription.version, &endpoint);
        Ok(endpoint)
    }

    fn hold(&self, id: SubscriptionId, version: u64, endpoint: &Arc<OpenEndpoint>) {
        let bytes = endpoint.bytes();
        // One large endpoint would only evict the others.
        if bytes > OPENED_BYTES_MAX / 4 {
            return;
        }
        let mut held = self.lock();
        if held.bytes + bytes > OPENED_BYTES_MAX {
            *held = Held::default();
        }
        held.bytes += bytes;
        if let Some((_, before)) = held.endpoints.insert(id, (version, Arc::clone(endpoint))) {
            held.bytes = held.bytes.saturating_sub(before.bytes());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        // No code can panic between two dependent changes, so a poisoned lock still guards consistent data.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenEndpoint {
    /// Decrypts all secrets of an endpoint.
    pub(super) fn open(subscription: &Subscription, master: &MasterKey, signer: &Signer) -> Result<Self, Unopened> {
        let (tenant, id) = (&subscription.tenant, &subscription.id);
        let endpoint = subscription.endpoint.as_ref().ok_or(Unopened::None)?;
        let destination = master.open_destination(tenant, id, endpoint)?;
        let mut secrets = ExchangeSecrets::default();
        secrets.url(destination.url());
        let context = endpoint_context(tenant, id);
        let mut headers = Vec::with_capacity(subscription.headers.len());
        for (name, sealed) in &subscription.headers {
            let value = master.open(&context, sealed)?;
            secrets.header(name, value.expose());
            headers.push((name.clone(), value.expose().to_owned()));
        }
        let context = signing_context(tenant, id);
        let signing = subscription.signing.as_ref();
        for secret in signing.into_iter().flat_map(|signing| signer.symmetric_secrets(&context, signing)) {
            secrets.signing(secret.expose());
        }
        let tls = endpoint.tls();
        let context = endpoint_context(tenant, id);
        let opened = |client: &ClientCertificate| {
            Ok::<_, crypto::Error>((client.certificate_pem.clone(), master.open(&context, &client.key)?))
        };
        let client = tls.client.as_ref().map(opened).transpose()?;
        Ok(Self {
            destination: destination.with_headers(headers),
            identity: TlsIdentity { ca_pem: tls.ca_pem.clone(), client },
            secrets: secrets.redactor(),
        })
    }

    fn bytes(&self) -> usize {
        let client = self.identity.client.as_ref().map_or(0, |(pem, key)| pem.len() + key.expose().len());
        let headers: usize = self.destination.headers().iter().map(|(name, value)| name.len() + value.len()).sum();
        self.secrets.bytes() + self.identity.ca_pem.as_ref().map_or(0, String::len) + client + headers + 512
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use setgate_domain::endpoint::EndpointTls;
    use setgate_domain::subscription::{Format, Signing, SigningScheme};
    use setgate_domain::time::Timestamp;

    fn subscription(master: &MasterKey, n: u128, url: &str, headers: &[(&str, String)]) -> Subscription {
        let (tenant, at) = ("acme".parse().unwrap(), Timestamp::from_millis(0));
        let id = SubscriptionId::new(at, n);
        let context = endpoint_context(&tenant, &id);
        let seal = |value: &String| master.seal(&context, &setgate_domain::secret::Secret::new(value.clone()));
        let endpoint = master.seal_destination(&tenant, &id, &Destination::parse(url).unwrap());
        Subscription {
            id,
            name: None,
            description: None,
            endpoint: Some(endpoint.with_tls(EndpointTls::default()).unwrap()),
            poll: None,
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), seal(value))).collect(),
            events: Vec::new(),
            sources: Vec::new(),
            chain: Vec::new(),
            format: Format::Set,
            signed_set: None,
            signing: Some(Signing { scheme: SigningScheme::Standard, keys: Vec::new() }),
            retry: Default::default(),
            pacing: Default::default(),
            paused: None,
            metadata: Default::default(),
            verified_at: None,
            created_at: at,
            updated_at: at,
            tenant,
        }
    }

    #[test]
    fn an_endpoint_is_opened_once_for_each_version() {
        let master = Arc::new(MasterKey::generate());
        let opened = EndpointCache::new(master.clone(), Arc::new(Signer::new(master.clone())));
        let of = |version, url: &str| Versioned { version, bytes: 0, value: subscription(&master, 1, url, &[]) };
        let first = opened.get(&of(1, "https://h/one?token=4711")).unwrap();
        let again = opened.get(&of(1, "https://h/other")).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let changed = opened.get(&of(2, "https://h/other")).unwrap();
        assert_eq!(changed.destination.url().as_str(), "https://h/other");
        assert_eq!(first.secrets.redact("/one?token=4711"), "[secret endpoint url]");
        assert_eq!(opened.lock().endpoints.len(), 1);
        assert_eq!(opened.lock().bytes, changed.bytes());
    }

    #[test]
    fn opened_endpoints_take_no_more_than_their_room() {
        let master = Arc::new(MasterKey::generate());
        let opened = EndpointCache::new(master.clone(), Arc::new(Signer::new(master.clone())));
        let headers: Vec<_> = (0..32).map(|n| ["x", &n.to_string()].concat()).collect();
        let headers: Vec<_> =
            headers.iter().map(|name| (name.as_str(), format!("{name}{}", "4711".repeat(500)))).collect();
        let mut dropped = false;
        for n in 0..40 {
            let value = subscription(&master, n, "https://h/in", &headers);
            let before = opened.lock().endpoints.len();
            opened.get(&Versioned { version: 1, bytes: 0, value }).unwrap();
            let held = opened.lock();
            dropped |= held.endpoints.len() <= before;
            assert!(held.bytes <= OPENED_BYTES_MAX);
        }
        assert!(dropped, "the limit was reached");
    }
}
