//! The program of the hostile suite; `cargo xtask hostile` builds everything and runs it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks to a terminal")]

use std::process::ExitCode;

use setgate_tests::hostile::report::{RATIO_MAX, Shown};
use setgate_tests::hostile::{self, Options, artefact, cores, lift};

const HELP: &str = "\
hostile [--class NAME]... [--short] [--lift LIMIT] [--bite] [--restart FILTERS] [--list] [--json]

Runs each class of attack against a live host beside a well-behaved tenant.
  --class NAME       run only this class; may be repeated
  --short            few events and a short quiet phase; the neighbour's latency means nothing then
  --lift LIMIT       lift this limit; exits 0 if its class is reported as escaped
  --bite             run --lift for every limit, one after another
  --restart FILTERS  only upload this many filters, restart the host and check that none is compiled again
  --list             list the classes and the limits that can be lifted
  --json             print the report as one JSON object on the last line";

/// Filters in the restart at the end of a full run.
const FILTERS: usize = 1_000;

/// The command line arguments.
#[derive(Default)]
struct Asked {
    options: Options,
    bite: bool,
    list: bool,
    json: bool,
    help: bool,
    restart: Option<usize>,
}

fn main() -> ExitCode {
    let asked = match read(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(why) => {
            eprintln!("error: {why}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    cores::divide();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_start(cores::attack_here)
        .build()
        .expect("threads can be started");
    let good = runtime.block_on(Box::pin(act(asked)));
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read(arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut asked = Asked::default();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--class" => {
                let name = value()?;
                if !hostile::classes().iter().any(|class| class.name == name) {
                    return Err(format!("there is no class `{name}`: see --list"));
                }
                asked.options.classes.push(name);
            }
            "--lift" => {
                let limit = value()?;
                let found = lift::named(&limit).ok_or(format!("the limit `{limit}` cannot be lifted: see --list"))?;
                asked.options.lift = Some(found);
            }
            "--restart" => {
                let filters = value()?;
                asked.restart = Some(filters.parse().map_err(|_| format!("`{filters}` is no number of filters"))?);
            }
            "--short" => asked.options.short = true,
            "--bite" => asked.bite = true,
            "--list" => asked.list = true,
            "--json" => asked.json = true,
            "--help" | "-h" => asked.help = true,
            other => return Err(format!("there is no option `{other}`")),
        }
    }
    Ok(asked)
}

async fn act(asked: Asked) -> bool {
    if asked.help {
        println!("{HELP}");
        return true;
    }
    if asked.list {
        for class in hostile::classes() {
            println!("{:<9} {:<22} {:<55} {}", class.stage.as_str(), class.name, class.answer.words(), class.tried);
        }
        for lift in lift::LIFTS {
            println!("--lift {:<28} lets {} escape", lift.limit, lift.class);
        }
        return true;
    }
    if let Some(filters) = asked.restart {
        return restart(filters).await;
    }
    if asked.bite {
        let mut good = true;
        for lift in lift::LIFTS {
            good &= lifted(lift).await;
        }
        return good;
    }
    if let Some(lift) = asked.options.lift {
        return lifted(lift).await;
    }
    whole(asked).await
}

async fn whole(asked: Asked) -> bool {
    let everything = asked.options.classes.is_empty() && !asked.options.short;
    let options = Options { progress: Some(progress), ..asked.options };
    let report = hostile::run(&options).await;
    println!("\n{}\n{}", report.table(), report.neighbour_lines());
    let mut good = report.is_good();
    for loss in &report.neighbour.losses {
        println!("  ! {loss}");
    }
    if !report.same_process {
        println!("  ! the host has restarted or ended");
    }
    if everything {
        good &= restart(FILTERS).await;
    }
    if !options.short && report.neighbour.ratio().is_some_and(|ratio| ratio > RATIO_MAX) {
        println!("warning: the neighbour's p99 is more than {RATIO_MAX} times that of quiet times");
    }
    println!("{}", report.summary());
    if asked.json {
        println!("{}", report.json());
    }
    good
}

fn progress(shown: &Shown) {
    let result = if shown.escaped.is_empty() { "contained" } else { "ESCAPED" };
    eprintln!(
        "{:<9} {:<22} {result:<9} {:>6.1} s {:>+6.1} MiB",
        shown.class.stage.as_str(),
        shown.class.name,
        shown.took.as_secs_f64(),
        shown.growth_mib
    );
}

async fn restart(filters: usize) -> bool {
    let seen = artefact::restart_with(filters).await;
    println!(
        "restart with {} filters: {} ran, {} loaded from disk, {} compiled again",
        seen.filters, seen.ran, seen.loaded, seen.compiled
    );
    seen.ran == filters && seen.compiled == 0 && seen.loaded == filters
}

/// Lifts one limit and checks that its class escapes.
async fn lifted(lift: &'static lift::Lift) -> bool {
    let report = hostile::run(&lift.options()).await;
    let escaped = report.escaped();
    match escaped.first() {
        Some(shown) => println!("with {} lifted, {} escaped: {}", lift.limit, lift.class, shown.escaped.join("; ")),
        None => println!("with {} lifted, {} is still contained: the suite does not detect it", lift.limit, lift.class),
    }
    !escaped.is_empty() && report.same_process
}
