//! `cargo xtask hostile`: runs hostile guests on a live host.

use anyhow::Result;

use crate::host;
use crate::run::run;

const HELP: &str = "\
cargo xtask hostile [--class NAME]... [--short] [--lift LIMIT] [--bite] [--restart FILTERS] [--list] [--json]

Builds the host, the neighbour's filter and the suite, then runs each class of attack against a live host beside a
well-behaved tenant. Prints a table by class (the attack, the limit that stopped it, the error shown to the tenant) and a
summary. Exits non-zero if an attack escaped or the neighbour lost an event.
  --class NAME       run only this class; may be repeated
  --short            few events and a short quiet phase; the neighbour's latency means nothing then
  --lift LIMIT       lift this limit; exits 0 if its class is reported as escaped
  --bite             run --lift for every limit, one after another
  --restart FILTERS  only upload this many filters, restart the host and check that none is compiled again
  --list             list the classes and the limits that can be lifted
  --json             print the report as one JSON object on the last line
See docs/reference/hostile.md.";

/// `cargo xtask hostile` with these arguments.
pub(crate) fn command(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|argument| matches!(argument.as_str(), "--help" | "-h")) {
        println!("{HELP}");
        return Ok(());
    }
    run(host::suite("hostile")?.args(arguments))
}
