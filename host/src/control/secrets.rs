//! Checks that all stored secrets can be decrypted with a master key. Reports the location of a secret, never its
//! value.

use setgate_base::crypto::MasterKey;
use setgate_dialects::Signer;
use setgate_domain::issuer_key::IssuerKey;
use setgate_domain::secret::{binding_context, endpoint_context, issuer_key_context, signing_context, source_context};
use setgate_domain::source::{Proof, Source};
use setgate_domain::subscription::Subscription;
use setgate_ledger::Snapshot;

/// The locations of secrets that cannot be decrypted.
pub fn shut(snapshot: &Snapshot, master: &MasterKey, signer: &Signer) -> Vec<String> {
    let mut shut = Vec::new();
    for view in snapshot.tenants.values() {
        for source in view.sources.values() {
            of_source(&source.value, master, &mut shut);
        }
        for subscription in view.subscriptions.values() {
            of_subscription(&subscription.value, master, signer, &mut shut);
        }
        for key in view.issuer_keys.values() {
            of_issuer_key(&key.value, master, &mut shut);
        }
    }
    shut
}

fn of_source(source: &Source, master: &MasterKey, shut: &mut Vec<String>) {
    let context = source_context(&source.tenant, &source.name);
    let mut secrets = source.proofs.iter().flat_map(|proof| match proof {
        Proof::Hmac { secrets, .. } => secrets.as_slice(),
        Proof::Jws(proof) => proof.authorization.as_slice(),
        Proof::Bearer { .. } | Proof::Key | Proof::Open => &[],
    });
    if secrets.any(|sealed| master.open(&context, sealed).is_err()) {
        shut.push(format!("{}/sources/{}: a secret of its proofs does not open", source.tenant, source.name));
    }
}

fn of_issuer_key(key: &IssuerKey, master: &MasterKey, shut: &mut Vec<String>) {
    if master.open(&issuer_key_context(&key.tenant, &key.kid), &key.private).is_err() {
        shut.push(format!("{}/issuer-keys/{}: its private key does not open", key.tenant, key.kid));
    }
}

fn of_subscription(subscription: &Subscription, master: &MasterKey, signer: &Signer, shut: &mut Vec<String>) {
    let (tenant, id) = (&subscription.tenant, &subscription.id);
    let mut tell = |what: String| shut.push(format!("{tenant}/subscriptions/{id}: {what} does not open"));
    let context = signing_context(tenant, id);
    for key in subscription.signing.iter().flat_map(|signing| &signing.keys) {
        if signer.open_key(&context, key.id, &key.secret).is_err() {
            tell(format!("its signing key {}", key.id));
        }
        if key.v1.as_ref().is_some_and(|v1| signer.open_v1(&context, key.id, v1).is_err()) {
            tell(format!("the `v1` secret of its signing key {}", key.id));
        }
    }
    let endpoint = subscription.endpoint.as_ref();
    if endpoint.is_some_and(|endpoint| master.open_destination(tenant, id, endpoint).is_err()) {
        tell("the URL of its endpoint".to_owned());
    }
    let context = endpoint_context(tenant, id);
    for (name, sealed) in &subscription.headers {
        if master.open(&context, sealed).is_err() {
            tell(format!("its header `{name}`"));
        }
    }
    if let Some(client) = endpoint.and_then(|endpoint| endpoint.tls().client.as_ref())
        && master.open(&context, &client.key).is_err()
    {
        tell("the key of its client certificate".to_owned());
    }
    let context = binding_context(tenant, id);
    for binding in &subscription.chain {
        for (name, sealed) in &binding.secrets {
            if master.open(&context, sealed).is_err() {
                tell(format!("the secret `{name}` of its filter `{}`", binding.filter));
            }
        }
    }
}
