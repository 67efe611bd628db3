use setgate_domain::audit::{Actor, Originator};
use setgate_domain::endpoint::{Destination, Endpoint};
use setgate_domain::filter::{Binding, empty_object};
use setgate_domain::id::Digest;
use setgate_domain::secret::Sealed;
use setgate_domain::source::{Compat, Form, Proof};
use setgate_domain::subscription::{Format, Pattern, Signing, SigningScheme};
use setgate_domain::tenant::Quota;
use setgate_domain::verdict::FaultPolicy;

use super::*;
use crate::tests::{NOW, TENANT, block_on, open, reopen, tenant};
use crate::{DOCUMENT_BYTES, Ledger};
use std::collections::BTreeMap;

fn source(name: &str) -> Source {
    Source {
        tenant: TENANT.parse().unwrap(),
        name: name.parse().unwrap(),
        form: Form::Wso2,
        proofs: vec![Proof::Open],
        issuer: None,
        issuers_allowed: vec![],
        websub_topics: vec![],
        timestamp_tolerance_s: 300,
        allow_sha1: false,
        allow_plain_event_names: false,
        replace_lone_surrogates: false,
        compat: Compat::default(),
        created_at: NOW,
    }
}

fn key(tenant: Option<TenantId>, random: u128) -> ApiKey {
    ApiKey {
        id: KeyId::new(NOW, random),
        tenant,
        label: None,
        scopes: [].into(),
        secret: Digest([0; 32]),
        created_at: NOW,
        expires_at: None,
    }
}

#[test]
fn version_mismatch_is_refused() {
    block_on(async {
        let (_folder, ledger) = open();
        ledger.registry.put_tenant(tenant(), Precondition::Absent).await.unwrap();
        let first = ledger.registry.put_source(source("idp"), Precondition::Absent).await.unwrap();
        let again = ledger.registry.put_source(source("idp"), Precondition::Absent).await;
        assert!(matches!(again, Err(Error::VersionMismatch { current: Some(v) }) if v == first));
        let second = ledger.registry.put_source(source("idp"), Precondition::Version(first)).await.unwrap();
        assert!(ledger.registry.put_source(source("idp"), Precondition::Version(first)).await.is_err());
        let (tenant, name) = (TENANT.parse().unwrap(), "idp".parse().unwrap());
        assert!(ledger.registry.remove_source(&tenant, &name, Precondition::Version(first)).await.is_err());
        assert!(ledger.registry.remove_source(&tenant, &name, Precondition::Version(second)).await.unwrap());
        assert!(!ledger.registry.remove_source(&tenant, &name, Precondition::Any).await.unwrap());
        // Recreated, it does not match the versions of its predecessor.
        let third = ledger.registry.put_source(source("idp"), Precondition::Absent).await.unwrap();
        assert!(third > second);
    });
}

#[test]
fn snapshot_follows_changes() {
    block_on(async {
        let (folder, ledger) = open();
        let changed = ledger.registry.changed();
        let early = ledger.registry.put_source(source("idp"), Precondition::Any).await;
        assert!(matches!(early, Err(Error::NoTenant(_))));
        ledger.registry.put_tenant(tenant(), Precondition::Any).await.unwrap();
        let version = ledger.registry.put_source(source("idp"), Precondition::Any).await.unwrap();
        let mine = key(Some(TENANT.parse().unwrap()), 1);
        let operator = key(None, 2);
        ledger.registry.put_key(mine.clone(), Precondition::Any).await.unwrap();
        ledger.registry.put_key(operator.clone(), Precondition::Any).await.unwrap();
        assert!(changed.has_changed().unwrap());

        let ledger = reopen(&folder, ledger).await;
        let snapshot = ledger.registry.snapshot();
        let view = snapshot.tenant(&TENANT.parse().unwrap()).unwrap();
        assert_eq!(view.sources[&"idp".parse().unwrap()].version, version);
        assert_eq!(snapshot.keys.len(), 2);

        ledger.registry.remove_tenant(&TENANT.parse().unwrap(), Precondition::Any).await.unwrap();
        let after = ledger.registry.snapshot();
        assert!(after.tenants.is_empty() && after.revision > snapshot.revision);
        assert_eq!(after.keys.keys().copied().collect::<Vec<_>>(), [operator.id]);
        // A holder of the old snapshot can still read all of it.
        assert_eq!(view.sources.len(), 1);
        let ledger = reopen(&folder, ledger).await;
        assert_eq!(ledger.registry.snapshot().keys.len(), 1);
        ledger.registry.put_tenant(tenant(), Precondition::Absent).await.unwrap();
        assert!(ledger.registry.snapshot().tenants[&TENANT.parse().unwrap()].sources.is_empty());
    });
}

fn filter(active: bool) -> Filter {
    let active = active.then_some(Digest([1; 32]));
    let (tenant, name) = (TENANT.parse().unwrap(), "redact".parse().unwrap());
    let (previous, versions, releasing) = (vec![], vec![], [].into());
    Filter { tenant, name, active, previous, versions, rollout: None, last_rollout: None, releasing }
}

fn bound() -> Subscription {
    let binding = Binding {
        filter: "redact".parse().unwrap(),
        config: empty_object(),
        secrets: BTreeMap::new(),
        grants: [].into(),
        on_fault: FaultPolicy::default(),
        reuse: None,
    };
    Subscription {
        id: SubscriptionId::new(NOW, 1),
        tenant: TENANT.parse().unwrap(),
        name: None,
        description: None,
        endpoint: Some(Endpoint::new(&Destination::parse("https://h/").unwrap(), Sealed("v1.target".to_owned()))),
        poll: None,
        headers: BTreeMap::new(),
        events: vec![],
        sources: vec![],
        chain: vec![binding],
        format: Format::Set,
        signed_set: None,
        signing: Some(Signing { scheme: SigningScheme::Standard, keys: vec![] }),
        retry: Default::default(),
        pacing: Default::default(),
        paused: None,
        metadata: Default::default(),
        verified_at: None,
        created_at: NOW,
        updated_at: NOW,
    }
}

#[test]
fn chain_requires_active_filters() {
    block_on(async {
        let (_folder, ledger) = open();
        ledger.registry.put_tenant(tenant(), Precondition::Any).await.unwrap();
        let (id, name): (TenantId, FilterName) = (TENANT.parse().unwrap(), "redact".parse().unwrap());
        let put = || ledger.registry.put_subscription(bound(), Precondition::Any);
        let removed = || ledger.registry.remove_filter(&id, &name, Precondition::Any);
        assert!(matches!(put().await, Err(Error::FilterNotActive(filter)) if filter == name));
        ledger.registry.put_filter(filter(false), Precondition::Any).await.unwrap();
        assert!(matches!(put().await, Err(Error::FilterNotActive(_))));
        ledger.registry.put_filter(filter(true), Precondition::Any).await.unwrap();
        put().await.unwrap();
        assert!(matches!(removed().await, Err(Error::InUse(_))));
        assert!(ledger.registry.remove_subscription(&id, bound().id, Precondition::Any).await.unwrap());
        assert!(removed().await.unwrap());

        // Both in one batch: the first one wins, although the snapshot does not have its change yet.
        ledger.registry.put_filter(filter(true), Precondition::Any).await.unwrap();
        let filter = Name::Filter(id.clone(), name.clone());
        let both = ledger.store.queue().write(move |batch| {
            write::put(batch, Doc::Subscription(Box::new(bound())), Precondition::Any.into(), &Quota::default(), NOW)?;
            write::remove(batch, filter, Precondition::Any.into(), NOW)
        });
        assert!(matches!(both.await, Err(Error::InUse(_))));
        let filter = Name::Filter(id.clone(), name.clone());
        let both = ledger.store.queue().write(move |batch| {
            write::remove(batch, filter, Precondition::Any.into(), NOW)?;
            write::put(batch, Doc::Subscription(Box::new(bound())), Precondition::Any.into(), &Quota::default(), NOW)
        });
        assert!(matches!(both.await, Err(Error::FilterNotActive(_))));
        // Removing a tenant removes everything it has, bound or not.
        put().await.unwrap();
        assert!(ledger.registry.remove_tenant(&id, Precondition::Any).await.unwrap());
    });
}

fn sized_source(name: &str, topics: usize) -> Source {
    Source { websub_topics: vec!["t".repeat(1_000); topics], ..source(name) }
}

/// As requested with a tenant's API key.
fn named() -> (Precondition, AuditAction) {
    let actor = Actor { by: Originator::Key(KeyId::new(NOW, 1)), ..Actor::HOST };
    (Precondition::Any, actor.action("source.replace"))
}

fn bound_to_nothing(patterns: &[&str]) -> Subscription {
    let events = patterns.iter().map(|text| Pattern::try_from((*text).to_owned()).unwrap()).collect();
    Subscription { chain: vec![], events, ..bound() }
}

/// The running total equals the sum over the documents after any put, replacement, removal or restart.
#[test]
fn document_usage_is_sum_of_documents() {
    block_on(async {
        let (folder, ledger) = open();
        ledger.registry.put_tenant(tenant(), Precondition::Absent).await.unwrap();
        let usage =
            |ledger: &Ledger| ledger.registry.snapshot().tenant(&TENANT.parse().unwrap()).unwrap().document_usage;
        let empty = usage(&ledger);
        let key = key(Some(TENANT.parse().unwrap()), 7);
        ledger.registry.put_source(sized_source("idp", 3), Precondition::Any).await.unwrap();
        ledger.registry.put_key(key.clone(), Precondition::Any).await.unwrap();
        ledger.registry.put_subscription(bound_to_nothing(&["a*b", "c"]), Precondition::Any).await.unwrap();
        let full = usage(&ledger);
        assert!(full.documents_bytes > empty.documents_bytes + 3_000 + 3 * DOCUMENT_BYTES);
        assert_eq!((full.patterns, full.patterns_bytes), (2, 4));
        let ledger = reopen(&folder, ledger).await;
        assert_eq!(usage(&ledger), full, "a restart weighs the same");
        ledger.registry.put_source(sized_source("idp", 30), Precondition::Any).await.unwrap();
        assert!(usage(&ledger).documents_bytes > full.documents_bytes + 26_000);
        ledger.registry.put_source(sized_source("idp", 3), Precondition::Any).await.unwrap();
        assert_eq!(usage(&ledger), full);
        let of = TENANT.parse().unwrap();
        ledger.registry.remove_source(&of, &"idp".parse().unwrap(), Precondition::Any).await.unwrap();
        ledger.registry.remove_key(key.id, Precondition::Any).await.unwrap();
        ledger.registry.remove_subscription(&of, bound_to_nothing(&["c"]).id, Precondition::Any).await.unwrap();
        assert_eq!(usage(&ledger), empty);
    });
}

#[test]
fn quota_holds_under_concurrent_changes() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let quota = Quota { documents_bytes_max: 30_000, ..Quota::default() };
        let ledger = Ledger::open(
            crate::Options { quota, ..crate::Options::new(folder.path()) },
            setgate_base::clock::Clock::manual(NOW),
        )
        .unwrap();
        ledger.registry.put_tenant(tenant(), Precondition::Absent).await.unwrap();
        let all = (0..20).map(|n| ledger.registry.put_source(sized_source(&format!("s{n}"), 5), named()));
        let results = futures_util::future::join_all(all).await;
        let made = results.iter().filter(|made| made.is_ok()).count();
        assert!((2..=5).contains(&made), "{made} of 6 KiB and more fit into 30,000 bytes");
        let refused = results.into_iter().find_map(Result::err).unwrap();
        assert!(matches!(refused, Error::QuotaExceeded { quota: "documents_bytes_max", max: 30_000, .. }), "{refused}");
        let usage = ledger.registry.snapshot().tenant(&TENANT.parse().unwrap()).unwrap().document_usage;
        assert!(usage.documents_bytes <= 30_000, "{usage:?}");
        // Changes by the host itself are exempt, and a change that reduces the usage is always accepted.
        ledger.registry.put_source(sized_source("host", 30), Precondition::Any).await.unwrap();
        ledger.registry.put_source(sized_source("host", 29), named()).await.unwrap();
        assert!(ledger.registry.put_source(sized_source("host", 30), named()).await.is_err());
        let long = Source { websub_topics: vec!["t".repeat(1_000); 1_100], ..source("long") };
        assert!(matches!(ledger.registry.put_source(long, named()).await, Err(Error::DocumentTooLarge { .. })));
    });
}
