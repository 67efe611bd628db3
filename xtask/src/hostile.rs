//! `cargo xtask hostile`: runs hostile guests on a live host.

use anyhow::Result;

use crate::host;
use crate::run::run;

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
docs/reference/hostile.md says more.";

/// `cargo xtask hostile` with these arguments.
pub(crate) fn command(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|argument| matches!(argument.as_str(), "--help" | "-h")) {
        println!("{HELP}");
        return Ok(());
    }
    run(host::suite("hostile")?.args(arguments))
}
