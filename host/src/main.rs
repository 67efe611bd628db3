//! The `setgate` program: see `setgate --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    setgate::cli::main()
}
