//! The `setgate` program: see `setgate --help`.

use std::process::ExitCode;

/// For many threads that allocate small objects per event, mimalloc takes half the CPU time of the C library's
/// allocator (decision 0021).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    setgate::commands::main()
}
