//! Compares the rows of the ledger with its model, and checks the invariants.

use super::*;

/// Compares everything that the public interface returns.
pub(crate) async fn compare(model: &Model, ledger: &Ledger) -> Result<(), TestCaseError> {
    let tenant: TenantId = TENANT.parse().unwrap();
    let journal = ledger.events.events_after(EventSeq(0), 1_000).await.unwrap();
    let journal: Vec<_> = journal.iter().map(|e| (e.seq.0, e.id)).collect();
    let expected: Vec<_> = model.events.iter().map(|(seq, (_, e))| (*seq, e.id)).collect();
    prop_assert_eq!(journal, expected);
    prop_assert_eq!(ledger.events.cursor().0, model.cursor);
    prop_assert_eq!(ledger.usage.backlog(&tenant), model.count(State::Due) + model.count(State::Held));
    let counts = Counts {
        due: model.count(State::Due),
        delivered: model.count(State::Delivered),
        dropped: model.count(State::Dropped),
        held: model.count(State::Held),
        dead: model.count(State::Dead),
    };
    prop_assert_eq!(ledger.history.counts(&tenant, None).await.unwrap(), counts);
    prop_assert_eq!(&hours(ledger).await.unwrap(), &model.hours);
    let lanes = ledger.deliveries.due_summary().await.unwrap();
    prop_assert_eq!(lanes.iter().map(|lane| lane.deliveries).sum::<u64>(), counts.due);
    let mut due = BTreeMap::new();
    for lane in &lanes {
        for row in
            ledger.deliveries.due(&tenant, lane.subscription, model.now.plus_millis(10_000), None, 1_000).await.unwrap()
        {
            due.insert(row.seq.0, row);
        }
    }
    let listed = ledger.history.deliveries(&tenant, DeliveryQuery::default(), None, 200).await.unwrap();
    prop_assert_eq!(listed.items.len(), model.deliveries.len());
    for record in &listed.items {
        let Some(expected) = model.deliveries.get(&record.seq.0) else {
            return Err(TestCaseError::fail(format!("{} is not in the model", record.id)));
        };
        prop_assert_eq!((record.id, record.state), (expected.id, expected.state));
        prop_assert_eq!((record.attempt_count, record.released), (expected.attempts, expected.released));
        let numbers: Vec<u32> =
            ledger.history.attempts(&tenant, record.seq).await.unwrap().iter().map(|a| a.number).collect();
        prop_assert_eq!(numbers, (1..=expected.attempts).collect::<Vec<_>>());
        let content = ledger.deliveries.load(&tenant, record.seq).await.unwrap().unwrap();
        prop_assert_eq!((content.filtered, &content.claims), (expected.filtered, &expected.claims));
        match due.get(&record.seq.0) {
            Some(row) => {
                prop_assert_eq!(expected.state, State::Due);
                prop_assert_eq!((row.due_at, row.filter_tries), (expected.due_at, expected.filter_tries));
                prop_assert_eq!((row.attempts, row.attempts_before), (expected.attempts, expected.attempts_before));
                prop_assert_eq!((row.filtered, row.plan), (expected.filtered, model.plan));
            }
            None => prop_assert!(expected.state != State::Due, "{} is due and not listed as due", record.id),
        }
    }
    prop_assert_eq!(violations(ledger).await.unwrap(), Vec::<String>::new());
    Ok(())
}

/// Statistics of each hour, over all subscriptions.
async fn hours(ledger: &Ledger) -> Result<BTreeMap<i64, (u64, [u64; State::ALL.len()])>, Error> {
    ledger
        .store
        .readers()
        .read(|conn| {
            let mut hours: BTreeMap<i64, (u64, [u64; State::ALL.len()])> = BTreeMap::new();
            let mut statement = conn.prepare("SELECT at, doc FROM statistic WHERE bucket_ms = ?1")?;
            let mut rows = statement.query([HOUR_MS])?;
            while let Some(row) = rows.next()? {
                let Json(counted): Json<Statistics> = row.get(1)?;
                let (attempts, rests) = hours.entry(row.get(0)?).or_default();
                *attempts += counted.attempts();
                rests.iter_mut().zip(counted.settled).for_each(|(sum, count)| *sum += count);
            }
            Ok(hours)
        })
        .await
}

/// Checks the invariants of the module documentation that depend on the rows alone.
async fn violations(ledger: &Ledger) -> Result<Vec<String>, Error> {
    const NONE: [(&str, &str); 5] = [
        (
            "tally is not the count of the rows",
            "SELECT count(*) FROM tally t WHERE due <> (SELECT count(*) FROM delivery d WHERE d.tenant = t.tenant
                 AND d.subscription = t.subscription AND state = 0)
              OR delivered + dropped + held + dead <> (SELECT count(*) FROM delivery d WHERE d.tenant = t.tenant
                 AND d.subscription = t.subscription AND state > 0)",
        ),
        (
            "refs is not the count of the rows",
            "SELECT count(*) FROM plan p WHERE refs <> (SELECT count(*) FROM delivery d WHERE d.plan = p.id)",
        ),
        (
            "a delivery without event or plan",
            "SELECT count(*) FROM delivery d WHERE d.event_seq NOT IN (SELECT seq FROM event)
                 OR d.plan NOT IN (SELECT id FROM plan)",
        ),
        (
            "an attempt or bytes without a delivery",
            "SELECT (SELECT count(*) FROM attempt WHERE id >> 20 NOT IN (SELECT seq FROM delivery))
                 + (SELECT count(*) FROM filter_output WHERE delivery NOT IN (SELECT seq FROM delivery))
                 + (SELECT count(*) FROM signed_set WHERE delivery NOT IN (SELECT seq FROM delivery))",
        ),
        ("the file is damaged", "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'"),
    ];
    ledger
        .store
        .readers()
        .read(|conn| {
            let mut found = Vec::new();
            for (what, sql) in NONE {
                let count: i64 = conn.query_row(sql, [], |row| row.get(0))?;
                if count > 0 {
                    found.push(format!("{what}: {count}"));
                }
            }
            Ok(found)
        })
        .await
}
