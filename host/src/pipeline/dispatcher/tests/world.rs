//! The host of the simulation: all components from the journal to the HTTP client, driven step by step.

use std::collections::BTreeMap;
use std::sync::Arc;

use setgate_base::clock::Clock;
use setgate_base::crypto::{MasterKey, sha256};
use setgate_base::live::Live;
use setgate_dialects::Signer;
use setgate_domain::delivery::DueDelivery;
use setgate_domain::endpoint::Destination;
use setgate_domain::event::{Dedupe, NewEvent};
use setgate_domain::id::{EventId, SigningKeyId, SourceName};
use setgate_domain::json::JsonLimits;
use setgate_domain::pacing::{Ordering, Pacing};
use setgate_domain::retry::RetrySchedule;
use setgate_domain::secret::signing_context;
use setgate_domain::set::SetToken;
use setgate_domain::subscription::{
    Format, Pattern, Pause, PauseCause, Signing, SigningKey, SigningScheme, Subscription,
};
use setgate_domain::tenant::Quota;
use setgate_domain::tenant::Tenant;
use setgate_egress::Egress;
use setgate_ledger::{Ledger, Precondition};
use setgate_sandbox::Sandbox;

use super::receivers::Receiver;
use super::*;
use crate::pipeline::{Components, Stages, compose};
use crate::traces::Traces;

/// The indexes of the subscriptions.
pub(super) const ORDERED: usize = 1;
pub(super) const PACED: usize = 2;
pub(super) const IMPATIENT: usize = 3;
pub(super) const NOTICES: usize = 4;
/// Attempts per second at [`PACED`].
pub(super) const PER_SECOND: u32 = 5;
/// Seconds of failures after which [`IMPATIENT`] is paused.
pub(super) const PAUSE_AFTER_S: u32 = 3_600;

/// A key with its validity.
pub(super) struct KeyTime {
    pub(super) secret: String,
    pub(super) from: Timestamp,
    pub(super) until: Option<Timestamp>,
}

pub(super) struct World {
    folder: tempfile::TempDir,
    pub(super) clock: Clock,
    master: Arc<MasterKey>,
    sandbox: Sandbox,
    pub(super) ledger: Ledger,
    stages: Option<Stages>,
    pub(super) tenant: TenantId,
    pub(super) subscriptions: Vec<SubscriptionId>,
    pub(super) receivers: Vec<Receiver>,
    pub(super) keys: Vec<Vec<KeyTime>>,
    /// Times of restarts, because breakers are kept in memory.
    pub(super) restarts: Vec<Timestamp>,
    /// `jti` and subject of the accepted events, in order.
    pub(super) accepted: Vec<(String, String)>,
    tasks: Tasks,
}

impl World {
    pub(super) async fn new(random: &mut Random) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(START);
        let master = Arc::new(MasterKey::generate());
        let nothing: setgate_sandbox::ComponentSource = Arc::new(|_, _| Box::pin(std::future::ready(None)));
        let mut options = setgate_sandbox::Options::new(folder.path().join("compiled"), [7; 32], nothing);
        (options.instances_max, options.concurrent_slices_max, options.guest_threads) = (1, 1, 1);
        let sandbox = Sandbox::new(options).unwrap();
        let ledger = open(&folder, &clock);
        let mut world = Self {
            stages: None,
            tenant: "acme".parse().unwrap(),
            subscriptions: Vec::new(),
            receivers: Vec::new(),
            keys: Vec::new(),
            accepted: Vec::new(),
            restarts: Vec::new(),
            tasks: Tasks::default(),
            folder,
            clock,
            master,
            sandbox,
            ledger,
        };
        let tenant =
            Tenant { id: world.tenant.clone(), display_name: None, quota: None, issuer: None, created_at: START };
        world.ledger.registry.put_tenant(tenant, Precondition::Absent).await.unwrap();
        for number in 0..=NOTICES {
            // The receiver of operational events has no outages.
            let outages = if number == NOTICES { Vec::new() } else { outages(random) };
            world.receivers.push(Receiver::start(world.clock.clone(), outages).await);
            world.subscribe(number).await;
        }
        world.start().await;
        world
    }

    async fn subscribe(&mut self, number: usize) {
        let id = SubscriptionId::new(START, number as u128 + 1);
        let (key, secret) = self.key(id);
        self.keys.push(vec![KeyTime { secret, from: START, until: None }]);
        self.subscriptions.push(id);
        let pacing = match number {
            ORDERED => Pacing { ordering: Ordering::Subject, ..Pacing::default() },
            PACED => Pacing { per_second: PER_SECOND.try_into().ok(), ..Pacing::default() },
            IMPATIENT => Pacing { pause_after_s: Some(PAUSE_AFTER_S), ..Pacing::default() },
            _ => Pacing::default(),
        };
        let subscription = Subscription {
            id,
            tenant: self.tenant.clone(),
            name: None,
            description: None,
            endpoint: Some(self.master.seal_destination(
                &self.tenant,
                &id,
                &Destination::parse(&self.receivers[number].url).unwrap(),
            )),
            poll: None,
            headers: BTreeMap::new(),
            events: vec![Pattern::try_from("*".to_owned()).unwrap()],
            sources: if number == NOTICES { vec![SourceName::setgate()] } else { vec![] },
            chain: vec![],
            format: Format::Set,
            signed_set: None,
            signing: Some(Signing { scheme: SigningScheme::Standard, keys: vec![key] }),
            retry: RetrySchedule::default(),
            pacing,
            paused: None,
            metadata: BTreeMap::new(),
            verified_at: None,
            created_at: START,
            updated_at: START,
        };
        self.ledger.registry.put_subscription(subscription, Precondition::Absent).await.unwrap();
    }

    fn key(&self, subscription: SubscriptionId) -> (SigningKey, String) {
        let now = self.clock.now();
        let made = setgate_dialects::generate(SigningScheme::Standard, setgate_dialects::KeyKind::Symmetric).unwrap();
        let id = SigningKeyId::new(now, setgate_base::crypto::random_u128());
        let context = signing_context(&self.tenant, &subscription);
        let sealed = Signer::new(self.master.clone()).seal_key(&context, id, &made.secret);
        let (activates_at, expires_at) = (None, None);
        let key = SigningKey { id, secret: sealed, public: None, created_at: now, activates_at, expires_at, v1: None };
        (key, made.secret.expose().to_owned())
    }

    /// Builds the data plane over the current ledger.
    async fn start(&mut self) {
        let options = setgate_egress::Options {
            allow: vec!["127.0.0.0/8".parse().unwrap()],
            allow_http: true,
            ..setgate_egress::Options::default()
        };
        let egress = Egress::new(options, self.clock.clone(), vec![]).unwrap();
        let signer = Arc::new(Signer::new(self.master.clone()));
        let mut stages = compose(Components {
            ledger: self.ledger.clone(),
            sandbox: self.sandbox.clone(),
            signer,
            master: self.master.clone(),
            egress,
            clock: self.clock.clone(),
            ingest: Live::new(Ingest::default()),
            delivery: Live::new(Delivery::default()),
            default_quota: Live::new(Quota::default()),
            traces: Traces::default(),
        });
        stages.dispatcher.find_what_is_due().await.unwrap();
        self.stages = Some(stages);
    }

    pub(super) async fn restart(&mut self) {
        self.restarts.push(self.clock.now());
        self.stages = None;
        self.ledger.shutdown().await;
        self.ledger = open(&self.folder, &self.clock);
        self.start().await;
    }

    /// Completes all work that is due at this instant.
    pub(super) async fn settle(&mut self) {
        let Stages { fanout, dispatcher, .. } = self.stages.as_mut().expect("it runs");
        loop {
            while fanout.one_batch().await.unwrap() > 0 {}
            dispatcher.take_new();
            dispatcher.open_lanes();
            while let Ok(deliveries) = dispatcher.new_due.try_recv() {
                dispatcher.take_in(deliveries);
            }
            dispatcher.query(&mut self.tasks);
            dispatcher.start(&mut self.tasks);
            tokio::select! {
                Some(ended) = self.tasks.deliveries.join_next() => dispatcher.advance(ended, &mut self.tasks),
                Some(answer) = self.tasks.queries.join_next() => dispatcher.take_rows(answer),
                else => break,
            }
        }
    }

    /// Advances the clock to each due time in turn, up to `end`.
    pub(super) async fn until(&mut self, end: Timestamp) {
        loop {
            self.settle().await;
            // A due delivery that cannot start yet waits for a time that the lanes report.
            let next = self.stages().dispatcher.lanes.next_due().filter(|at| *at < end);
            match next {
                Some(at) => self.clock.set(at.max(self.clock.now().plus_millis(1))),
                None => break,
            }
        }
        self.clock.set(end);
    }

    pub(super) async fn events(&mut self, random: &mut Random, count: u64) {
        for _ in 0..count {
            let now = self.clock.now();
            let jti = format!("event-{}", self.accepted.len());
            let subject = format!("user-{}", random.below(4));
            let claims = serde_json::json!({
                "iss": "https://idp.example",
                "jti": jti,
                "iat": now.as_seconds(),
                "events": { "https://schemas.openid.net/secevent/caep/event-type/session-revoked": {} },
            });
            let set = SetToken::parse(claims.to_string(), JsonLimits { depth_max: 9, bytes_max: 9_999 }).unwrap();
            let key = sha256(jti.as_bytes());
            let event = NewEvent {
                id: EventId::new(now, setgate_base::crypto::random_u128()),
                tenant: self.tenant.clone(),
                source: "idp".parse().unwrap(),
                original: set.text.clone().into_bytes().into(),
                set,
                subject: Some(subject.clone()),
                content_type: "application/json".into(),
                accepted_at: now,
                dedupe: Dedupe { key, body: key, window_ms: None },
                trace: None,
            };
            // Most events are appended with their deliveries, and some without, for loop A.
            if !self.accepted.len().is_multiple_of(3) {
                self.stages().acceptor.appender.append(event, now).await.unwrap();
            } else {
                self.ledger.events.append(event).await.unwrap();
            }
            self.accepted.push((jti, subject));
        }
    }

    pub(super) fn stages(&self) -> &Stages {
        self.stages.as_ref().expect("it runs")
    }

    /// Fans out the accepted events, and returns the first delivery of a subscription.
    pub(super) async fn first_due(&self, number: usize) -> DueDelivery {
        while self.stages().fanout.one_batch().await.unwrap() > 0 {}
        let due = self
            .ledger
            .deliveries
            .due(&self.tenant, self.subscriptions[number], self.clock.now(), None, 1)
            .await
            .unwrap();
        due.into_iter().next().expect("a delivery is due")
    }

    async fn change(&self, number: usize, change: impl FnOnce(&mut Subscription)) {
        let snapshot = self.ledger.registry.snapshot();
        let stored = &snapshot.tenant(&self.tenant).unwrap().subscriptions[&self.subscriptions[number]];
        let mut subscription = stored.value.clone();
        change(&mut subscription);
        self.ledger.registry.put_subscription(subscription, Precondition::Version(stored.version)).await.unwrap();
    }

    pub(super) async fn rotate(&mut self, number: usize) {
        let now = self.clock.now();
        let ends = now.plus_millis(2 * HOUR);
        let (key, secret) = self.key(self.subscriptions[number]);
        for known in &mut self.keys[number] {
            known.until = Some(known.until.map_or(ends, |at| at.min(ends)));
        }
        self.keys[number].push(KeyTime { secret, from: now, until: None });
        self.change(number, |subscription| {
            let signing = subscription.signing.as_mut().unwrap();
            for old in &mut signing.keys {
                old.expires_at = Some(old.expires_at.map_or(ends, |at| at.min(ends)));
            }
            signing.keys.insert(0, key);
            signing.keys.retain(|key| key.expires_at.is_none_or(|at| at > now));
        })
        .await;
    }

    pub(super) async fn pause(&self, number: usize, paused: bool) {
        let since = self.clock.now();
        let pause = paused.then(|| Pause { cause: PauseCause::Request, reason: "by the script".into(), since });
        self.change(number, |subscription| subscription.paused = pause).await;
    }

    pub(super) async fn resume_all(&self) {
        for number in 0..self.subscriptions.len() {
            self.pause(number, false).await;
        }
    }

    pub(super) async fn retain(&self) {
        self.ledger.upkeep.retain(self.clock.now()).await.unwrap();
    }
}

fn open(folder: &tempfile::TempDir, clock: &Clock) -> Ledger {
    // Longer than the simulation, so that its whole history can be checked.
    let retention_ms = 365 * 24 * HOUR;
    let options =
        setgate_ledger::Options { retention_ms, ..setgate_ledger::Options::new(folder.path().join("ledger")) };
    Ledger::open(options, clock.clone()).unwrap()
}
