//! `cargo xtask crash`: kills the host repeatedly under load and checks that no accepted event is lost.

use anyhow::Result;

use crate::host;
use crate::run::run;

const HELP: &str = "\
cargo xtask crash [--kills N] [--seed S] [--power-cut] [--sync-fails N] [--no-fsync] [--json]

Builds everything, then kills a host under load and compares accepted events with received ones (docs/reference/crash.md).
  --kills N       number of kills (default 200)
  --seed S        seed of the run; by default a random one, which is printed
  --power-cut     at each kill, undo a random part of the writes that were not synced (Linux; needs `cc`)
  --sync-fails N  fail this many of a thousand syncs; later syncs do not recover the lost writes; implies --power-cut
  --no-fsync      the control: --power-cut with syncs that do nothing; fails if nothing is lost
  --json          print the results as one JSON object on the last line, before the control's verdict if there is one";

/// `cargo xtask crash` with these arguments.
pub(crate) fn command(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|argument| matches!(argument.as_str(), "--help" | "-h")) {
        println!("{HELP}");
        return Ok(());
    }
    run(host::suite("crash")?.args(arguments))
}
