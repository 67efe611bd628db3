//! Generates the table of the documentation from [`interpret`], for every status, error and header.

use std::fmt::Write as _;
use std::path::Path;

use super::*;

const FILE: &str = "../../../docs/reference/delivery.md";
const BEGIN: &str = "<!-- generated from host/crates/domain/src/attempt_effects.rs: begin -->\n";
const END: &str = "<!-- generated: end -->\n";

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

const CLASSES: [ErrorClass; 8] = [
    ErrorClass::Resolve,
    ErrorClass::Forbidden,
    ErrorClass::Proxy,
    ErrorClass::Connect,
    ErrorClass::Tls,
    ErrorClass::Timeout,
    ErrorClass::Broken,
    ErrorClass::Unsendable,
];

/// An answer, reduced to the parts that may change its meaning.
#[derive(Debug, Clone, Copy)]
enum Case {
    Status { status: u16, retry_after: bool, directive: Option<DeliveryDirective> },
    Error(ErrorClass),
    HostShortage,
}

impl Case {
    fn all() -> Vec<Self> {
        let mut cases = vec![Self::HostShortage];
        cases.extend(CLASSES.map(Self::Error));
        for status in 100..=999 {
            for retry_after in [false, true] {
                for directive in [None, Some(DeliveryDirective::Abort), Some(DeliveryDirective::Disable)] {
                    cases.push(Self::Status { status, retry_after, directive });
                }
            }
        }
        cases
    }

    fn consequences(self) -> AttemptEffects {
        let outcome = match self {
            Self::Status { status, retry_after, directive } => Outcome::Answered {
                status,
                body_head: String::new(),
                retry_after_s: retry_after.then_some(60),
                headers: Vec::new(),
                directive,
                body_incomplete: None,
            },
            Self::Error(class) => Outcome::Failed { class, detail: String::new() },
            Self::HostShortage => Outcome::Failed { class: ErrorClass::Connect, detail: String::new() },
        };
        let answer = AttemptResult {
            outcome: &outcome,
            host_shortage: matches!(self, Self::HostShortage),
            protocol: Protocol::Webhook,
        };
        let retries = RetryState { schedule: &RetrySchedule::default(), failed_before: 0, jitter: 0.5 };
        interpret(answer, retries, NOW)
    }

    fn cells(self) -> [&'static str; 3] {
        let AttemptEffects { delivery, endpoint, subscription } = self.consequences();
        let delivery = match delivery {
            NextState::Delivered => "delivered",
            NextState::Retry { .. } => "retried",
            NextState::Dead { .. } => "dead",
            NextState::NotAttempted { .. } => "stays due; no attempt is recorded",
        };
        let endpoint = match endpoint {
            Some(Signal::Alive) => "success: the breaker closes",
            Some(Signal::Failing) => "failure: counted",
            Some(Signal::Throttled { .. }) => "the breaker opens at once, for as long as requested, up to an hour",
            None => "not counted",
        };
        [delivery, endpoint, if subscription.is_some() { "paused" } else { "-" }]
    }
}

/// A row: its label, and the answers that it covers.
type Row = (&'static str, fn(Case) -> bool);

/// The rows for answers without `webhook-delivery`. Each answer is in exactly one.
const ROWS: [Row; 7] = [
    ("2xx", |case| matches!(case, Case::Status { status: 200..=299, .. })),
    ("410", |case| matches!(case, Case::Status { status: 410, .. })),
    ("429, 502, 504; 503 with `Retry-After`", is_throttled),
    ("408, other 5xx, no answer", |case| match case {
        Case::Status { status: 408 | 500..=599, .. } => !is_throttled(case),
        Case::Error(class) => !matches!(class, ErrorClass::Forbidden | ErrorClass::Unsendable),
        _ => false,
    }),
    ("all others, including redirects", |case| match case {
        Case::Status { status, .. } => !matches!(status, 200..=299 | 408 | 410 | 429 | 500..=599),
        _ => false,
    }),
    ("none: blocked address (`forbidden`), or no request could be made (`unsendable`)", |case| {
        matches!(case, Case::Error(ErrorClass::Forbidden | ErrorClass::Unsendable))
    }),
    ("none: [shortage of this host](#shortages-of-this-host)", |case| matches!(case, Case::HostShortage)),
];

fn is_throttled(case: Case) -> bool {
    matches!(case, Case::Status { status: 429 | 502 | 504, .. } | Case::Status { status: 503, retry_after: true, .. })
}

/// The rows for the values of `webhook-delivery`. A cell that is that of the same answer without the header is rendered
/// as "as above".
const HEADER_ROWS: [Row; 2] = [
    ("any but 2xx, with `webhook-delivery: abort`", |case| match case {
        Case::Status { status, directive, .. } => {
            directive == Some(DeliveryDirective::Abort) && !matches!(status, 200..=299)
        }
        _ => false,
    }),
    ("any, with `webhook-delivery: disable`", |case| {
        matches!(case, Case::Status { directive: Some(DeliveryDirective::Disable), .. })
    }),
];

fn without_directive(case: Case) -> Case {
    match case {
        Case::Status { status, retry_after, .. } => Case::Status { status, retry_after, directive: None },
        other => other,
    }
}

fn has_directive(case: &Case) -> bool {
    matches!(case, Case::Status { directive: Some(_), .. })
}

fn cell(cases: &[Case], column: usize, label: &str) -> &'static str {
    let first = cases[0].cells()[column];
    if cases.iter().all(|case| case.cells()[column] == first) {
        return first;
    }
    for case in cases {
        let is_unchanged = has_directive(case) && case.cells()[column] == without_directive(*case).cells()[column];
        assert!(is_unchanged, "the row `{label}` has several meanings: {case:?} is {}", case.cells()[column]);
    }
    "as above"
}

fn render() -> String {
    let (with_header, plain): (Vec<_>, Vec<_>) = Case::all().into_iter().partition(has_directive);
    let mut text = "| answer | the delivery | its endpoint | its subscription |\n|---|---|---|---|\n".to_owned();
    for (rows, cases) in [(&ROWS[..], &plain), (&HEADER_ROWS[..], &with_header)] {
        for (label, covers) in rows {
            let covered: Vec<Case> = cases.iter().copied().filter(|case| covers(*case)).collect();
            let [delivery, endpoint, subscription] = [0, 1, 2].map(|column| cell(&covered, column, label));
            writeln!(text, "| {label} | {delivery} | {endpoint} | {subscription} |").unwrap();
        }
    }
    text
}

#[test]
fn documented_table_matches_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let page = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has the begin of the generated table");
    let (_, after) = rest.split_once(END).expect("the page has the end of the generated table");
    let expected = [before, BEGIN, &render(), END, after].concat();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &expected).unwrap();
        return;
    }
    assert!(
        page == expected,
        "the table in docs/reference/delivery.md is outdated: run `UPDATE=1 cargo test -p setgate-domain attempt_effects::`"
    );
}

#[test]
fn each_outcome_matches_one_row() {
    for case in Case::all().into_iter().filter(|case| !has_directive(case)) {
        let rows: Vec<_> = ROWS.iter().filter(|(_, covers)| covers(case)).map(|(label, _)| label).collect();
        assert_eq!(rows.len(), 1, "{case:?}: {rows:?}");
    }
    // A successful delivery is delivered, even if the receiver asks to abort it.
    for case in Case::all() {
        if let Case::Status { status: 200..=299, directive: Some(DeliveryDirective::Abort), .. } = case {
            assert_eq!(case.cells(), without_directive(case).cells());
        }
    }
}
