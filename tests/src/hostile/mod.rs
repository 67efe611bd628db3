//! The hostile suite: every way we know of in which a tenant's filter could hurt the host or another tenant, tried
//! against a host in a process of its own, while a quiet neighbour goes about its business.
//!
//! A class of attack is contained where
//! 1. the limit or rule that is there against it answered, and no other;
//! 2. the host is the same process and still answers;
//! 3. a well-behaved filter of the very tenant that attacked works afterwards;
//! 4. the neighbour lost nothing: each of its events arrived once, signed.
//!
//! Anything else is an escape. What the suite shows comes from the host's own answers and records; that it would show
//! an escape is proved by lifting one limit at a time ([`lift`]).
//!
//! | stage | file | what is attacked |
//! |---|---|---|
//! | upload | `upload` | the look at the bytes |
//! | compile | `compile` | the compiler, and how many compiles there are |
//! | artefact | `artefact` | compiled filters on disk |
//! | start | `start` | instantiation, which is the guest's code already |
//! | run | `run`, `calls` | a call, by instructions, memory and host functions |
//! | return | `returns` | the way back: what the guest says that it answered |
//! | share | `shared`, `crash` | what outlives a call: slots, the pool, fault policies |
//! | responses | `responses` | connections, bodies and answers: who holds them and does nothing |
//! | match | `matching` | matching: text of a tenant's against text of its senders |
//! | shares | `pools` | what tenants share besides: documents, the disk, the way in, places for deliveries |

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

/// Every class of attack, in the order of a filter's life.
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
    /// Its name, one for `--class`.
    pub name: &'static str,
    /// When it strikes.
    pub stage: Stage,
    /// What is tried.
    pub tried: &'static str,
    /// What has to answer.
    pub answer: Answer,
    /// How it is tried.
    pub how: How,
}

/// When an attack strikes.
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
    /// The word for people.
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

/// What answers an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// A problem's code, a fault's kind, or a verdict.
    pub by: &'static str,
    /// The configuration key of the limit, where it is one.
    pub limit: Option<&'static str>,
}

/// How an attack is made.
#[derive(Debug, Clone, Copy)]
pub enum How {
    /// An upload that must be refused.
    Upload(fn() -> Trial),
    /// A filter that must pass the upload, and then meets events.
    Run(fn() -> Trial),
    /// More than that.
    Other(Attack),
}

/// An attack of more than one upload or filter.
pub type Attack = fn(Arc<Arena>, Attacker) -> Pin<Box<dyn Future<Output = Observed>>>;

/// A limit answers.
const fn limit(by: &'static str, limit: &'static str) -> Answer {
    Answer { by, limit: Some(limit) }
}

/// A rule answers.
const fn rule(by: &'static str) -> Answer {
    Answer { by, limit: None }
}

/// What is run, and how long.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Classes by name; none: all.
    pub classes: Vec<String>,
    /// Few events, hardly any quiet time: for tests, which do not measure.
    pub short: bool,
    /// The limit that is lifted.
    pub lift: Option<&'static Lift>,
    /// Told about each class when it is done.
    pub progress: Option<fn(&Shown)>,
}

/// Classes between two looks at how the neighbour fares without an attack.
const CLASSES_PER_QUIET: usize = 8;
/// How long one attack may take. Then it counts as escaped: it should have been answered.
const ATTACK: Duration = Duration::from_secs(180);

/// Tries all classes of `options` against one host.
///
/// # Panics
/// Where a class is not there, or the host cannot be set up.
pub async fn run(options: &Options) -> Report {
    let all = classes();
    for name in &options.classes {
        assert!(all.iter().any(|class| class.name == name), "there is no class `{name}`");
    }
    let chosen: Vec<_> =
        all.into_iter().filter(|c| options.classes.is_empty() || options.classes.iter().any(|n| n == c.name)).collect();
    let quiet = |seconds| if options.short { Duration::from_millis(200) } else { Duration::from_secs(seconds) };

    let arena = Arc::new(Arena::start(options).await);
    // On a thread and a core of its own, so that no attack delays what is measured.
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
        let began = Instant::now();
        let (observed, mut escaped) = attack(&arena, class, &neighbour).await;
        escaped.extend(neighbour.lost_anything().await);
        let one = Shown { class: *class, observed, escaped, took: began.elapsed() };
        if let Some(progress) = options.progress {
            progress(&one);
        }
        shown.push(one);
    }
    neighbour.during(Phase::Quiet, tokio::time::sleep(quiet(5))).await;
    let rss_after = arena.rss_bytes();
    let same_process = arena.host.pid() == process && arena.answers().await.is_ok();
    let neighbour = neighbour.move_out().await;
    measuring.shutdown_background();
    Report { shown, neighbour, rss_before, rss_after, same_process }
}

/// Makes one attack and looks at what it left. Gives what was seen, and why it counts as an escape.
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
            // Some guests take a second to build, on a thread that others need.
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

/// A future whose panic is an error in words: what a tenant cannot do any more is found, not died of.
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
    /// For people: the limit and who names it, or the rule.
    pub fn words(&self) -> String {
        words(self.by, self.limit)
    }
}

/// A limit and the code or kind that comes with it.
pub(crate) fn words(by: &str, limit: Option<&str>) -> String {
    limit.map_or_else(|| by.to_owned(), |limit| format!("{limit} ({by})"))
}
