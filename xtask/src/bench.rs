//! `cargo xtask bench`: measures the host's performance against baselines from the same run.

use std::process::Command;

use anyhow::Result;

use crate::run::{cargo, run, target_dir};
use crate::{guests, host};

const HELP: &str = "\
cargo xtask bench [--quick | --full] [--only SECTION]... [--compare OLD.json]

Builds the host in release mode, then measures it in turns with baselines of the same run. Prints a table of the results
and their targets, and writes all results to target/bench.json.
  --quick             check only that it runs, with the build of the tests; takes seconds, and the results mean nothing
  --full              also measure the long rows: 10,000 tenants, 10 million events of history; takes hours and 30 GB
                      The tenants are created once, which takes half an hour, and stored in target/bench/crowd (4.5 GB)
                      until that directory is removed
  --only SECTION      measure only this section: filter, path, ledger, scale, fairness or jose; may be repeated
  --compare OLD.json  also print the differences from an earlier run, given a copy of its target/bench.json
bench/README.md describes the method of each measurement.";

/// `cargo xtask bench` with these arguments.
pub(crate) fn command(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|argument| matches!(argument.as_str(), "--help" | "-h")) {
        println!("{HELP}");
        return Ok(());
    }
    let only: Vec<&String> = arguments.windows(2).filter(|pair| pair[0] == "--only").map(|pair| &pair[1]).collect();
    let with_filters = only.is_empty() || only.iter().any(|section| *section == "filter");
    guests::build_bench()?;
    let mut bench = if arguments.iter().any(|argument| argument == "--quick") {
        host::suite("bench")?
    } else {
        in_release(with_filters)?
    };
    run(bench.args(arguments).arg("--out").arg(target_dir().join("bench.json")))
}

/// Builds the bench in release mode, and returns a command that runs it. `with_filters` also builds the programs that
/// only the filter stage is compared with, if their toolchains are available.
fn in_release(with_filters: bool) -> Result<Command> {
    guests::build_all()?;
    let built = |name: &str| target_dir().join("release").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    eprintln!("bench: building in release, about fifteen minutes on two cores the first time");
    run(cargo().args(["build", "--release", "--workspace", "--bin", "setgate", "--bin", "bench"]))?;
    let mut bench = Command::new(built("bench"));
    bench.env("SETGATE_BIN", built("setgate")).env("SETGATE_FILTERS", guests::filters_dir());
    if with_filters {
        if let Err(error) = guests::build_javascript() {
            eprintln!("bench: no rows of a guest in JavaScript: {error:#}");
        }
        match guests::build_peers() {
            Ok(peers) => drop(bench.env("BENCH_PEERS", peers)),
            Err(error) => eprintln!("bench: no rows of other engines: {error:#}"),
        }
    }
    Ok(bench)
}
