//! The program of the crash suite; `cargo xtask crash` builds everything and runs it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks to a terminal")]

use std::process::ExitCode;

use setgate_tests::crash::first::first_starts;
use setgate_tests::crash::report::Summary;
use setgate_tests::crash::{Options, run};

/// Number of kills from which a run without power cuts must hit every phase.
const FULL_RUN_KILLS: usize = 100;
/// One interrupted first start is tested per this many kills, before the run.
const FIRST_START_EVERY: usize = 10;

#[tokio::main]
async fn main() -> ExitCode {
    let (options, json) = match options() {
        Ok(options) => options,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::FAILURE;
        }
    };
    println!("seed={} kills={} (repeat it with --seed)", options.seed, options.kills);
    if !options.no_fsync {
        let count = options.kills / FIRST_START_EVERY;
        if let Err(why) = first_starts(count, options.seed, options.power_cut).await {
            eprintln!("error: {why}");
            return ExitCode::FAILURE;
        }
        println!("{count} first starts were interrupted and repeated");
    }
    match run(options.clone(), |line| println!("{line}")).await {
        Ok(summary) => report(&options, &summary, json),
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn report(options: &Options, summary: &Summary, json: bool) -> ExitCode {
    for line in &summary.totals.said {
        println!("  {line}");
    }
    if let Some((undone, pending)) = summary.undone {
        println!("power cuts undid {undone} of {pending} writes that were not synced");
    }
    println!("phases: {}", summary.phases());
    println!("{summary}");
    if json {
        println!("{}", summary.json());
    }
    let lost = summary.totals.lost > 0;
    if options.no_fsync {
        let why = if lost { "events were lost without fsync, as expected" } else { "no event was lost without fsync" };
        println!("{why}");
        return if lost { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let missed = summary.missed();
    let whole = summary.kills < FULL_RUN_KILLS || options.power_cut || missed.is_empty();
    if !whole {
        println!("phases without a kill: {}", missed.join(", "));
    }
    if lost || !summary.is_sound() || !whole { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn options() -> Result<(Options, bool), String> {
    let mut options =
        Options::new(200, std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), "crash") >> 32);
    let mut json = false;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || -> Result<u64, String> {
            let given = words.next().ok_or_else(|| format!("{word} takes a number"))?;
            given.parse().map_err(|error| format!("{word} {given}: {error}"))
        };
        match word.as_str() {
            "--kills" => options.kills = usize::try_from(number()?).map_err(|error| error.to_string())?,
            "--sync-fails" => options.sync_fails = u32::try_from(number()?).map_err(|error| error.to_string())?,
            "--seed" => options.seed = number()?,
            "--power-cut" => options.power_cut = true,
            "--no-fsync" => options.no_fsync = true,
            "--json" => json = true,
            other => return Err(format!("there is no option `{other}`")),
        }
    }
    Ok((options, json))
}
