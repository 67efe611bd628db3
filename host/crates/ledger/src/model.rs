//! Compares the ledger with a model made of plain maps: any sequence of requests, restarts and crashes gives the same
//! results and rows, and the derived counts stay correct.

mod compare;

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use setgate_domain::audit::AuditAction;
use setgate_domain::delivery::{DeliverySeq, DueDelivery, NewDelivery, Redrive, Settlement, State, Step};
use setgate_domain::event::{Event, EventSeq, NewEvent};
use setgate_domain::filter::Plan;
use setgate_domain::id::{DeliveryId, Digest, EventId, TenantId};
use setgate_domain::replay::ReplayPosition;
use setgate_domain::statistics::{HOUR_MS, Statistics};
use setgate_domain::time::Timestamp;
use tempfile::TempDir;

use crate::commit::queue::Batch;
use crate::events::replays::tests::replay;
use crate::schema::sql_types::{Json, state_number};
use crate::tests::{
    NOW, TENANT, attempt, block_on, copy, event, in_one_batch, new_delivery, open, open_at, reopen, run, with_tenant,
};
use crate::{Appended, Counts, DeliveryQuery, Error, FanOut, Ledger, PlanChange, RedriveOutcome, ReplayStep};
use compare::compare;

/// One operation. Numbers select among the existing rows.
#[derive(Debug, Clone)]
enum Op {
    Append {
        key: u64,
        body: u8,
    },
    AppendWith {
        key: u64,
        body: u8,
        subscriptions: u8,
    },
    /// In one batch with a request that changes rows of all kinds and then fails.
    AppendBesideFailure {
        key: u64,
        body: u8,
        subscriptions: u8,
    },
    FanOut {
        subscriptions: u8,
    },
    FanOutAgain,
    Replay {
        pick: usize,
    },
    Settle {
        pick: usize,
        kind: Kind,
        twice: bool,
    },
    Redrive {
        pick: usize,
        redrive: Redrive,
    },
    Rerun {
        pick: usize,
    },
    Wait {
        days: i64,
    },
    Retain,
    Restart,
    Crash,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Filtered,
    FilterRetry,
    Dropped,
    Held,
    Delivered,
    Retry,
    Dead,
}

fn op() -> impl Strategy<Value = Op> {
    let kind = prop::sample::select(vec![
        Kind::Filtered,
        Kind::FilterRetry,
        Kind::Dropped,
        Kind::Held,
        Kind::Delivered,
        Kind::Retry,
        Kind::Dead,
    ]);
    let redrive = prop::sample::select(vec![Redrive::Again, Redrive::Release, Redrive::Discard]);
    prop_oneof![
        6 => (0..8_u64, 0..2_u8).prop_map(|(key, body)| Op::Append { key, body }),
        6 => (0..8_u64, 0..2_u8, 0..8_u8)
            .prop_map(|(key, body, subscriptions)| Op::AppendWith { key, body, subscriptions }),
        2 => (0..8_u64, 0..2_u8, 0..8_u8)
            .prop_map(|(key, body, subscriptions)| Op::AppendBesideFailure { key, body, subscriptions }),
        4 => (0..8_u8).prop_map(|subscriptions| Op::FanOut { subscriptions }),
        1 => Just(Op::FanOutAgain),
        1 => any::<usize>().prop_map(|pick| Op::Replay { pick }),
        10 => (any::<usize>(), kind, any::<bool>()).prop_map(|(pick, kind, twice)| Op::Settle { pick, kind, twice }),
        4 => (any::<usize>(), redrive).prop_map(|(pick, redrive)| Op::Redrive { pick, redrive }),
        2 => any::<usize>().prop_map(|pick| Op::Rerun { pick }),
        1 => (1..40_i64).prop_map(|days| Op::Wait { days }),
        1 => Just(Op::Retain),
        1 => Just(Op::Restart),
        1 => Just(Op::Crash),
    ]
}

#[derive(Debug, Clone)]
struct Delivery {
    id: DeliveryId,
    event: i64,
    state: State,
    due_at: Timestamp,
    filtered: bool,
    released: bool,
    claims: Option<String>,
    filter_tries: u32,
    attempts: u32,
    attempts_before: u32,
    /// Time of the last change; only compared for resting deliveries.
    updated_at: Timestamp,
}

/// Expected content of the ledger.
struct Model {
    now: Timestamp,
    plan: Digest,
    /// By seq; the number determines the event's id.
    events: BTreeMap<i64, (u64, NewEvent)>,
    last: i64,
    /// Last event that was appended without deliveries.
    left: i64,
    cursor: i64,
    deliveries: BTreeMap<i64, Delivery>,
    last_delivery: i64,
    last_fan_out: Option<FanOut>,
    /// Attempts and final states by start of their hour.
    hours: BTreeMap<i64, (u64, [u64; State::ALL.len()])>,
}

impl Model {
    /// The expected result of an append, with the event.
    fn append(&mut self, number: u64, key: u64, body: u8) -> (NewEvent, Appended) {
        let mut new = event(number);
        new.dedupe.key = event(key).dedupe.key;
        new.dedupe.body = [body; 32];
        new.accepted_at = self.now;
        let seen = self.events.values().find(|(_, e)| e.dedupe.key == new.dedupe.key);
        let appended = match seen {
            Some((_, seen)) if seen.dedupe.body == new.dedupe.body => Appended::Duplicate { id: seen.id },
            Some((_, seen)) => Appended::Conflict { id: seen.id },
            None => {
                self.last += 1;
                self.events.insert(self.last, (number, new.clone()));
                Appended::New(EventSeq(self.last))
            }
        };
        (new, appended)
    }

    /// Advances the cursor after all events up to `through` have their deliveries.
    fn through(&mut self, through: i64) {
        self.cursor = self.cursor.max(through);
        if self.cursor >= self.left {
            self.cursor = self.last;
        }
    }

    /// After a start, all events count as left to the fan-out loop.
    fn started(&mut self) {
        self.left = self.events.last_key_value().map_or(0, |(seq, _)| *seq);
    }

    /// Deliveries of an event to those of the three subscriptions whose bit is set.
    fn deliveries_of(&self, event: EventSeq, id: EventId, subscriptions: u8) -> Vec<NewDelivery> {
        let picked = (0..3_u8).filter(|bit| subscriptions & (1 << bit) != 0);
        picked
            .map(|subscription| {
                let mut new = new_delivery(1, u128::from(subscription), self.plan);
                (new.event, new.id.event, new.due_at) = (event, id, self.now);
                new
            })
            .collect()
    }

    fn made(&mut self, id: DeliveryId, event: i64) -> DeliverySeq {
        self.last_delivery += 1;
        let delivery = Delivery {
            id,
            event,
            state: State::Due,
            due_at: self.now,
            filtered: false,
            released: false,
            claims: None,
            filter_tries: 0,
            attempts: 0,
            attempts_before: 0,
            updated_at: self.now,
        };
        self.deliveries.insert(self.last_delivery, delivery);
        DeliverySeq(self.last_delivery)
    }

    fn pick(&self, pick: usize) -> Option<(i64, Delivery)> {
        let count = self.deliveries.len().max(1);
        self.deliveries.iter().nth(pick % count).map(|(seq, delivery)| (*seq, delivery.clone()))
    }

    /// The step that the pipeline would produce for the delivery in its current state.
    fn step(&self, delivery: &Delivery, kind: Kind) -> Step {
        let again = self.now.plus_millis(5_000);
        let number = delivery.attempts + 1;
        match kind {
            Kind::Filtered => {
                let claims = (delivery.event % 2 == 0).then(|| format!("{{\"after\":{}}}", delivery.event));
                Step::Filtered { claims, runs: vec![run()] }
            }
            Kind::FilterRetry => Step::FilterRetry { runs: vec![run()], due_at: again },
            Kind::Dropped => Step::Dropped { runs: vec![run()], reason: "dropped".into() },
            Kind::Held => Step::Held { runs: vec![run()], reason: "held".into() },
            Kind::Delivered => Step::Delivered { attempt: attempt(number, 200) },
            Kind::Retry => Step::Retry { attempt: attempt(number, 500), due_at: again },
            Kind::Dead => Step::Dead { attempt: Some(attempt(number, 500)), reason: "dead".into() },
        }
    }

    /// Counts an attempt, a final state, or both.
    fn count_now(&mut self, attempt: bool, rested: Option<State>) {
        let hour = self.now.as_millis() / HOUR_MS * HOUR_MS;
        let (attempts, rests) = self.hours.entry(hour).or_default();
        *attempts += u64::from(attempt);
        if let Some(state) = rested {
            rests[state_number(state) as usize] += 1;
        }
    }

    fn settle(&mut self, seq: i64, step: &Step) {
        if !self.deliveries.get(&seq).is_some_and(|d| d.state == State::Due) {
            return;
        }
        match step {
            Step::Filtered { .. } | Step::FilterRetry { .. } => {}
            Step::Dropped { .. } => self.count_now(false, Some(State::Dropped)),
            Step::Held { .. } => self.count_now(false, Some(State::Held)),
            Step::Delivered { .. } => self.count_now(true, Some(State::Delivered)),
            Step::Retry { .. } => self.count_now(true, None),
            Step::Dead { .. } => self.count_now(true, Some(State::Dead)),
        }
        let Some(delivery) = self.deliveries.get_mut(&seq).filter(|d| d.state == State::Due) else { return };
        delivery.updated_at = self.now;
        match step {
            Step::Filtered { claims, .. } if !delivery.filtered => {
                delivery.filtered = true;
                delivery.claims = claims.clone();
            }
            Step::FilterRetry { due_at, .. } if !delivery.filtered => {
                delivery.filter_tries += 1;
                delivery.due_at = *due_at;
            }
            Step::Filtered { .. } | Step::FilterRetry { .. } => {}
            Step::Dropped { .. } => delivery.state = State::Dropped,
            Step::Held { .. } => delivery.state = State::Held,
            Step::Delivered { attempt } => {
                delivery.attempts = attempt.number;
                delivery.state = State::Delivered;
            }
            Step::Retry { attempt, due_at } => {
                delivery.attempts = attempt.number;
                delivery.due_at = *due_at;
            }
            Step::Dead { .. } => {
                delivery.attempts += 1;
                delivery.state = State::Dead;
            }
        }
    }

    fn redrive(&mut self, seq: i64, redrive: Redrive) -> &'static str {
        let now = self.now;
        let Some(delivery) = self.deliveries.get_mut(&seq) else { return "none" };
        match (redrive, delivery.state) {
            (Redrive::Discard, State::Held | State::Dead) => {
                delivery.state = State::Dropped;
                delivery.updated_at = now;
                self.count_now(false, Some(State::Dropped));
                return "discarded";
            }
            (Redrive::Release, State::Held) => {
                delivery.filtered = true;
                delivery.released = true;
                delivery.claims = None;
            }
            (Redrive::Again, State::Held | State::Dead) => {}
            _ => return "not applicable",
        }
        delivery.state = State::Due;
        delivery.due_at = now;
        delivery.filter_tries = 0;
        delivery.attempts_before = delivery.attempts;
        "due"
    }

    fn retain(&mut self) {
        let before = self.now.plus_millis(-30 * 24 * 3600 * 1000);
        let kept = |deliveries: &BTreeMap<i64, Delivery>, event: i64| {
            let keeps = |d: &Delivery| matches!(d.state, State::Due | State::Held) || d.updated_at >= before;
            deliveries.values().any(|d| d.event == event && keeps(d))
        };
        let gone: Vec<i64> = self
            .events
            .iter()
            .filter(|(seq, (_, event))| {
                **seq <= self.cursor && event.accepted_at < before && !kept(&self.deliveries, **seq)
            })
            .map(|(seq, _)| *seq)
            .collect();
        self.events.retain(|seq, _| !gone.contains(seq));
        self.deliveries.retain(|_, delivery| !gone.contains(&delivery.event));
        let oldest = self.now.as_millis() - (7 * 24 + 1) * HOUR_MS;
        self.hours.retain(|hour, _| *hour >= oldest);
    }

    fn count(&self, state: State) -> u64 {
        self.deliveries.values().filter(|d| d.state == state).count() as u64
    }
}

async fn apply(
    model: &mut Model,
    folder: &mut TempDir,
    ledger: Ledger,
    op: Op,
    number: u64,
) -> Result<Ledger, TestCaseError> {
    let tenant: TenantId = TENANT.parse().unwrap();
    match op {
        Op::Append { key, body } => {
            let (new, expected) = model.append(number, key, body);
            prop_assert_eq!(ledger.events.append(new).await.unwrap(), expected);
            if let Appended::New(seq) = expected {
                model.left = seq.0;
            }
        }
        Op::AppendWith { key, body, subscriptions } | Op::AppendBesideFailure { key, body, subscriptions } => {
            let (new, expected) = model.append(number, key, body);
            let deliveries = model.deliveries_of(EventSeq::default(), new.id, subscriptions);
            let append = ledger.events.append_with(new, deliveries.clone());
            let taken = if matches!(op, Op::AppendWith { .. }) {
                append.await.unwrap()
            } else {
                let failing = ledger.store.queue().write_named(fail_after_writing);
                let (taken, failed) = in_one_batch(&ledger, async { tokio::join!(biased; append, failing) }).await;
                prop_assert!(matches!(failed, Err(Error::InvalidCursor)));
                taken.unwrap()
            };
            prop_assert_eq!(taken.appended, expected);
            let mut made = Vec::new();
            if let Appended::New(seq) = expected {
                prop_assert!(taken.fanned_out);
                made = deliveries.iter().map(|new| (model.made(new.id, seq.0), new.id)).collect();
                if model.cursor >= model.left {
                    model.cursor = seq.0;
                }
            }
            let told = ledger.deliveries.take_new();
            prop_assert_eq!(told.due.iter().map(|due| (due.seq, due.id)).collect::<Vec<_>>(), made);
            prop_assert!(told.on_disk.is_empty());
        }
        Op::FanOut { subscriptions } => {
            let news = ledger.events.events_after(EventSeq(model.cursor), 3).await.unwrap();
            let Some(through) = news.last().map(|event| event.seq) else { return Ok(ledger) };
            let of = |event: &Event| model.deliveries_of(event.seq, event.id, subscriptions);
            let fan_out = FanOut { through, deliveries: news.iter().flat_map(of).collect() };
            let made = ledger.events.fan_out(fan_out.clone()).await.unwrap();
            // Some already have deliveries from their append; the ignored insert still uses up a seq.
            let there: HashSet<DeliveryId> = model.deliveries.values().map(|delivery| delivery.id).collect();
            let mut expected = Vec::new();
            for new in &fan_out.deliveries {
                if there.contains(&new.id) {
                    model.last_delivery += 1;
                } else {
                    expected.push((model.made(new.id, new.event.0), new.id));
                }
            }
            prop_assert_eq!(made.iter().map(|due| (due.seq, due.id)).collect::<Vec<_>>(), expected);
            model.through(through.0);
            model.last_fan_out = Some(fan_out);
        }
        Op::FanOutAgain => {
            if let Some(fan_out) = model.last_fan_out.clone() {
                // Regardless of later changes to its deliveries, including retention.
                prop_assert!(ledger.events.fan_out(fan_out).await.unwrap().is_empty());
            }
        }
        Op::Replay { pick } => {
            let Some((_, delivery)) = model.pick(pick) else { return Ok(ledger) };
            let runs = model
                .deliveries
                .values()
                .filter(|d| d.event == delivery.event && d.id.subscription == delivery.id.subscription);
            let run = runs.map(|d| d.id.run).max().unwrap_or(0) + 1;
            let mut new = new_delivery(1, 1, model.plan);
            new.event = EventSeq(delivery.event);
            new.id = delivery.id;
            new.due_at = model.now;
            let made = replay_one(&ledger, new, number).await.unwrap();
            let id = DeliveryId { run, ..delivery.id };
            prop_assert_eq!((made[0].id, made[0].seq), (id, model.made(id, delivery.event)));
        }
        Op::Settle { pick, kind, twice } => {
            let Some((seq, delivery)) = model.pick(pick) else { return Ok(ledger) };
            let step = model.step(&delivery, kind);
            model.settle(seq, &step);
            let settlement = Settlement::new(DeliverySeq(seq), model.now, step);
            ledger.deliveries.settle(settlement.clone()).await.unwrap();
            if twice {
                ledger.deliveries.settle(settlement).await.unwrap();
            }
            // Makes the next settlement distinct from this one.
            model.now = model.now.plus_millis(1);
        }
        Op::Redrive { pick, redrive } => {
            let Some((seq, delivery)) = model.pick(pick) else { return Ok(ledger) };
            let expected = model.redrive(seq, redrive);
            let got = match ledger.deliveries.redrive(&tenant, delivery.id, redrive, model.now).await.unwrap() {
                None => "none",
                Some(RedriveOutcome::Discarded(_)) => "discarded",
                Some(RedriveOutcome::NotApplicable(state)) => {
                    prop_assert_eq!(state, delivery.state);
                    "not applicable"
                }
                Some(RedriveOutcome::Due(due)) => {
                    prop_assert_eq!(due.attempts_before, delivery.attempts);
                    "due"
                }
            };
            prop_assert_eq!(got, expected);
        }
        Op::Rerun { pick } => {
            let Some((seq, delivery)) = model.pick(pick) else { return Ok(ledger) };
            let applies =
                matches!(delivery.state, State::Held | State::Dead) && !delivery.filtered && delivery.attempts == 0;
            let expected = if applies { model.redrive(seq, Redrive::Again) } else { "not applicable" };
            let change = PlanChange { id: delivery.id, plan: model.plan };
            let due =
                ledger.deliveries.requeue_with_plan(&tenant, vec![change, change], model.now, None).await.unwrap();
            prop_assert_eq!(due.len(), usize::from(expected == "due"));
        }
        Op::Wait { days } => model.now = model.now.plus_millis(days * 24 * 3600 * 1000),
        Op::Retain => {
            model.retain();
            ledger.upkeep.retain(model.now).await.unwrap();
            // Interned again, as the fan-out does after `UnknownPlan`.
            ledger.plans.intern(&Plan::default()).await.unwrap();
        }
        Op::Restart => {
            let ledger = reopen(folder, ledger).await;
            ledger.store.clock().set(model.now);
            model.started();
            return Ok(ledger);
        }
        Op::Crash => {
            let left = copy(folder);
            drop(ledger);
            *folder = left;
            let ledger = open_at(folder);
            ledger.store.clock().set(model.now);
            model.started();
            return Ok(ledger);
        }
    }
    ledger.store.clock().set(model.now);
    Ok(ledger)
}

/// Changes rows and then fails: all of it must be rolled back.
fn fail_after_writing(batch: &mut Batch<'_>) -> Result<(), Error> {
    batch.conn.execute_batch(
        "DELETE FROM attempt; DELETE FROM delivery; UPDATE event SET accepted_at = 0; UPDATE plan SET refs = 9;
         UPDATE tally SET due = 9; INSERT INTO meta VALUES ('half', x'01');",
    )?;
    Err(Error::InvalidCursor)
}

/// Inserts one further run of a delivery by a separate replay.
async fn replay_one(ledger: &Ledger, new: NewDelivery, number: u64) -> Result<Vec<DueDelivery>, Error> {
    let replay = replay(u128::from(number));
    let begun = ledger.replays.begin(replay, usize::MAX, AuditAction::HOST).await?.expect("not too many run");
    let step = ReplayStep {
        id: begun.replay.id,
        from: begun.position,
        to: ReplayPosition { event: new.event, ..begun.position },
        deliveries: vec![new],
        passed_over: 0,
        done: false,
    };
    let advanced = ledger.replays.advance(step.clone()).await?.expect("it runs and stands there");
    assert!(ledger.replays.advance(step).await?.is_none(), "a step that is taken twice is taken once");
    assert_eq!(advanced.made, 1);
    Ok(advanced.due)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ledger_matches_model(ops in prop::collection::vec(op(), 1..60)) {
        block_on(async {
            let (mut folder, mut ledger) = open();
            with_tenant(&ledger).await;
            let plan = ledger.plans.intern(&Plan::default()).await.unwrap();
            let mut model = Model {
                now: NOW,
                plan,
                events: BTreeMap::new(),
                last: 0,
                left: 0,
                cursor: 0,
                deliveries: BTreeMap::new(),
                last_delivery: 0,
                last_fan_out: None,
                hours: BTreeMap::new(),
            };
            for (number, op) in (100..).zip(ops) {
                ledger = apply(&mut model, &mut folder, ledger, op, number).await?;
            }
            compare(&model, &ledger).await?;
            let ledger = reopen(&folder, ledger).await;
            compare(&model, &ledger).await
        })?;
    }
}
