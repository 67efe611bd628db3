//! The hostile suite: all known ways in which a tenant's filter could harm the host or another tenant, tried on a host
//! in a separate process beside a quiet neighbour.
//!
//! A class of attack is contained if
//! 1. exactly the expected limit or rule has answered;
//! 2. the host is still the same process and answers;
//! 3. a well-behaved filter of the attacking tenant works afterwards;
//! 4. the neighbour lost nothing: each of its events arrived once, signed.
//!
//! Anything else is an escape. The results come from the host's own answers and records; lifting one limit at a time
//! ([`lift`]) proves that an escape would be detected.
//!
//! | stage | file | target of the attack |
//! |---|---|---|
//! | upload | `upload` | the inspection of the bytes |
//! | compile | `compile` | the compiler, and the number of compilations |
//! | artefact | `artefact` | compiled filters on disk |
//! | start | `start` | instantiation, which already runs the guest's code |
//! | run | `run`, `calls` | a call, by instructions, memory and host functions |
//! | return | `returns` | the return path: the guest's result |
//! | share | `shared`, `crash` | state that outlives a call: slots, the pool, fault policies |
//! | responses | `responses` | connections, bodies and answers that a client holds without using them |
//! | match | `matching` | matching a tenant's patterns against text of its senders |
//! | shares | `pools` | other shared resources: documents, the disk, ingest, slots for deliveries |

pub mod arena;
pub mod artefact;
mod calls;
mod compile;
pub mod cores;
mod crash;
pub mod encode;
mod flood;
pub mod guest;
pub mod lift;
mod matching;
pub mod neighbour;
mod pools;
pub mod report;
mod responses;
mod returns;
mod run;
mod shared;
mod start;
pub mod trial;
mod upload;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arena::{Arena, Attacker};
use lift::Lift;
use neighbour::{Neighbour, Phase};
use report::{Report, Shown};
use trial::{Observed, Trial};

/// All classes of attack, in the order of a filter's life cycle.
pub fn classes() -> Vec<Class> {
    [
        upload::CLASSES,
        compile::CLASSES,
        artefact::CLASSES,
        start::CLASSES,
        run::CLASSES,
        calls::CLASSES,
        returns::CLASSES,
        shared::CLASSES,
        flood::CLASSES,
        crash::CLASSES,
        responses::CLASSES,
        matching::CLASSES,
        pools::CLASSES,
    ]
    .concat()
}

/// A class of attack.
#[derive(Debug, Clone, Copy)]
pub struct Class {
    /// Its name, for `--class`.
    pub name: &'static str,
    /// The stage of the attack.
    pub stage: Stage,
    /// Description of the attack.
    pub tried: &'static str,
    /// The expected answer.
    pub answer: Answer,
    /// The method of the attack.
    pub how: How,
}

/// The stage of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "explained in the module's own table")]
pub enum Stage {
    Upload,
    Compile,
    Artefact,
    Start,
    Run,
    Return,
    Share,
    Responses,
    Match,
    Shares,
}

impl Stage {
    /// The stage in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Compile => "compile",
            Self::Artefact => "artefact",
            Self::Start => "start",
            Self::Run => "run",
            Self::Return => "return",
            Self::Share => "share",
            Self::Responses => "responses",
            Self::Match => "match",
            Self::Shares => "shares",
        }
    }
}

/// The answer to an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// A problem's code, a fault's kind, or a verdict.
    pub by: &'static str,
    /// The configuration key or constant, if the answer comes from a limit.
    pub limit: Option<&'static str>,
}

/// The method of an attack.
#[derive(Debug, Clone, Copy)]
pub enum How {
    /// An upload that must be refused.
    Upload(fn() -> Trial),
    /// A filter that must be accepted, and then processes events.
    Run(fn() -> Trial),
    /// Any other sequence of actions.
    Other(Attack),
}

/// An attack that consists of more than one upload or filter.
pub type Attack = fn(Arc<Arena>, Attacker) -> Pin<Box<dyn Future<Output = Observed>>>;

/// The answer of a limit.
const fn limit(by: &'static str, limit: &'static str) -> Answer {
    Answer { by, limit: Some(limit) }
}

/// The answer of a rule.
const fn rule(by: &'static str) -> Answer {
    Answer { by, limit: None }
}

/// Options of a run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Names of the classes; empty: all.
    pub classes: Vec<String>,
    /// Few events and hardly any quiet time, for tests that do not measure.
    pub short: bool,
    /// The limit to lift.
    pub lift: Option<&'static Lift>,
    /// Called with the result of each class.
    pub progress: Option<fn(&Shown)>,
}

/// Seconds after the last attack until the host has released freed memory. The host's pool of threads for blocking work
/// ends a thread after 10 s without work, and the allocator releases the memory that the thread kept one second later.
const MEMORY_RELEASE_S: u64 = 20;

/// Number of classes between two measurements of the neighbour without an attack.
const CLASSES_PER_QUIET: usize = 8;
/// Time limit of an attack. If it is exceeded, the attack counts as escaped, because it should have been answered.
const ATTACK: Duration = Duration::from_secs(180);

/// Tries all classes of `options` on one host.
///
/// # Panics
/// If a class does not exist, or the host cannot be set up.
pub async fn run(options: &Options) -> Report {
    let all = classes();
    for name in &options.classes {
        assert!(all.iter().any(|class| class.name == name), "there is no class `{name}`");
    }
    let chosen: Vec<_> =
        all.into_iter().filter(|c| options.classes.is_empty() || options.classes.iter().any(|n| n == c.name)).collect();
    let quiet = |seconds| if options.short { Duration::from_millis(200) } else { Duration::from_secs(seconds) };

    let arena = Arc::new(Arena::start(options).await);
    // On a separate thread and core, so that attacks do not delay the measurement.
    let measuring = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .on_thread_start(cores::measure_here)
        .build()
        .expect("a thread can be started");
    let measured = arena.clone();
    let neighbour = measuring.spawn(async move { Neighbour::move_in(&measured.host).await });
    let neighbour = neighbour.await.expect("the neighbour moves in");
    arena.warm_up().await;
    let (process, rss_before) = (arena.host.pid(), arena.rss_bytes());
    neighbour.during(Phase::Quiet, tokio::time::sleep(quiet(10))).await;
    let mut shown = Vec::with_capacity(chosen.len());
    for (number, class) in chosen.iter().enumerate() {
        if number > 0 && number % CLASSES_PER_QUIET == 0 {
            neighbour.during(Phase::Quiet, tokio::time::sleep(quiet(3))).await;
        }
        let (began, rss_began) = (Instant::now(), arena.rss_bytes());
        let (observed, mut escaped) = attack(&arena, class, &neighbour).await;
        escaped.extend(neighbour.lost_anything().await);
        let one = Shown {
            class: *class,
            observed,
            escaped,
            took: began.elapsed(),
            growth_mib: report::growth_mib(rss_began, arena.rss_bytes()),
        };
        if let Some(progress) = options.progress {
            progress(&one);
        }
        shown.push(one);
    }
    neighbour.during(Phase::Quiet, tokio::time::sleep(quiet(MEMORY_RELEASE_S))).await;
    let rss_after = arena.rss_bytes();
    let same_process = arena.host.pid() == process && arena.answers().await.is_ok();
    let neighbour = neighbour.move_out().await;
    measuring.shutdown_background();
    Report { shown, neighbour, rss_before, rss_after, same_process }
}

/// Runs one attack and checks its consequences. Returns the observation, and the reasons for which it counts as an
/// escape.
async fn attack(arena: &Arc<Arena>, class: &Class, neighbour: &Neighbour) -> (Observed, Vec<String>) {
    let trying = tokio::time::timeout(ATTACK, Caught(Box::pin(tried(arena.clone(), *class))));
    let (attacker, observed) = match neighbour.during(Phase::Attack, trying).await {
        Ok(Ok(done)) => done,
        Ok(Err(why)) => return (Observed::nothing(), vec![format!("the attack could not be made: {why}")]),
        Err(_) => return (Observed::nothing(), vec![format!("nothing answered within {} s", ATTACK.as_secs())]),
    };
    let mut escaped = observed.wrong.clone();
    if !observed.is(class.answer) {
        escaped.push(format!("{} was to answer, not {}", class.answer.words(), observed.answer_words()));
    }
    escaped.extend(arena.answers().await.err());
    match Caught(Box::pin(attacker.works(arena))).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => escaped.push(format!("afterwards a good filter of this tenant does not work: {why}")),
        Err(why) => escaped.push(format!("afterwards this tenant is not served: {why}")),
    }
    (observed, escaped)
}

async fn tried(arena: Arc<Arena>, class: Class) -> (Attacker, Observed) {
    let made = match class.how {
        How::Upload(trial) | How::Run(trial) => {
            // Some guests take a second to build, which would block a runtime thread.
            Some(tokio::task::spawn_blocking(trial).await.expect("a guest can be built"))
        }
        How::Other(_) => None,
    };
    let quota = made.as_ref().map(|trial| trial.quota.clone()).unwrap_or_default();
    let attacker = arena.attacker(class.name, &quota).await;
    let observed = match (class.how, made) {
        (How::Upload(_), Some(trial)) => trial::upload(&attacker, &trial).await,
        (How::Run(_), Some(trial)) => trial::run(&arena, &attacker, &trial).await,
        (How::Other(attack), _) => attack(arena.clone(), attacker.clone()).await,
        (How::Upload(_) | How::Run(_), None) => unreachable!("it was made above"),
    };
    (attacker, observed)
}

/// A future that turns a panic into an error message, so that a failure of a tenant is reported instead of ending the
/// suite.
struct Caught<T>(Pin<Box<T>>);

impl<T: Future> Future for Caught<T> {
    type Output = Result<T::Output, String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => {
                let words = panic.downcast_ref::<String>().map(String::as_str);
                Poll::Ready(Err(words.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()))
            }
        }
    }
}

impl Answer {
    /// The limit with its code or kind, or the rule, as text.
    pub fn words(&self) -> String {
        words(self.by, self.limit)
    }
}

/// A limit with the code or kind that comes with it.
pub(crate) fn words(by: &str, limit: Option<&str>) -> String {
    limit.map_or_else(|| by.to_owned(), |limit| format!("{limit} ({by})"))
}
