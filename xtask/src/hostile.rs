//! `cargo xtask hostile`: hostile guests against a live host.

use std::process::Command;

use anyhow::Result;

use crate::guests;
use crate::host;
use crate::run::{run, target_dir};

const HELP: &str = "\
cargo xtask hostile [--class NAME]... [--short] [--lift LIMIT] [--bite] [--restart FILTERS] [--list] [--json]

Builds the host, the neighbour's filter and the suite, then tries each class of attack against a live host with a quiet
neighbour tenant. Ends with a table by class (what was tried, which limit answered, what the tenant is told) and a line.
Not 0 where something escaped or the neighbour lost an event.
  --class NAME       only this class; may be given again
  --short            few events and hardly any quiet time: says nothing about the neighbour's latency
  --lift LIMIT       lift this limit: its class has to be reported as escaped, and the exit code is 0 where it is
  --bite             every --lift there is, one after the other
  --restart FILTERS  only upload so many filters, start the host again and see that none is compiled again
  --list             the classes and the limits that can be lifted
  --json             print the report as one JSON object on the last line
host/docs/hostile.md says more.";

/// `cargo xtask hostile` with these arguments.
pub(crate) fn command(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|argument| matches!(argument.as_str(), "--help" | "-h")) {
        println!("{HELP}");
        return Ok(());
    }
    guests::build_all()?;
    let setgate = host::build_with_program("hostile")?;
    let program = target_dir().join("debug").join(format!("hostile{}", std::env::consts::EXE_SUFFIX));
    let mut suite = Command::new(program);
    suite.args(arguments).env("SETGATE_BIN", setgate).env("SETGATE_FILTERS", guests::filters_dir());
    run(&mut suite)
}
