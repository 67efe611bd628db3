//! The `setgate` program.
fn main() {}
