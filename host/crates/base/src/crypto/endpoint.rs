//! Encryption of the path and query of endpoints.

use setgate_domain::endpoint::{Destination, Endpoint};
use setgate_domain::id::{SubscriptionId, TenantId};
use setgate_domain::secret::target_context;

use super::{Error, MasterKey};

impl MasterKey {
    /// Encrypts a destination for storage in a subscription.
    pub fn seal_destination(&self, tenant: &TenantId, id: &SubscriptionId, destination: &Destination) -> Endpoint {
        Endpoint::new(destination, self.seal(&target_context(tenant, id), &destination.target()))
    }

    /// Decrypts a URL from [`MasterKey::seal_destination`].
    ///
    /// # Errors
    /// As [`MasterKey::open`].
    pub fn open_destination(
        &self,
        tenant: &TenantId,
        id: &SubscriptionId,
        endpoint: &Endpoint,
    ) -> Result<Destination, Error> {
        let target = self.open(&target_context(tenant, id), endpoint.target())?;
        // Only targets of URLs are encrypted with this context.
        endpoint.with_target(&target).map_err(|_| Error::MalformedCiphertext)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use setgate_domain::time::Timestamp;

    #[test]
    fn target_decrypts_only_for_its_subscription() {
        let key = MasterKey::generate();
        let tenant: TenantId = "acme".parse().unwrap();
        let id = |n| SubscriptionId::new(Timestamp::from_millis(0), n);
        let destination = Destination::parse("https://h/in?token=hush").unwrap();
        let endpoint = key.seal_destination(&tenant, &id(1), &destination);
        assert_eq!(key.open_destination(&tenant, &id(1), &endpoint).unwrap(), destination);
        assert!(matches!(key.open_destination(&tenant, &id(2), &endpoint), Err(Error::DecryptionFailed)));
        assert!(!serde_json::to_string(&endpoint).unwrap().contains("hush"));
    }
}
