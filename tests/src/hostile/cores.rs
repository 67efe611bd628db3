//! Assigns CPU cores. With two or more cores, the attacks and the measurement of the neighbour use different ones: the
//! latency of an attack that occupies a core would otherwise be attributed to the host. The host may use all cores.

use std::process::Command;
use std::sync::OnceLock;

/// The cores of this process, divided.
struct Divided {
    all: String,
    measuring: String,
    attacking: String,
}

static DIVIDED: OnceLock<Divided> = OnceLock::new();

/// Divides the cores. With a single core, this and the other functions do nothing.
pub fn divide() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    let cores = listed(allowed.trim());
    let [first, rest @ ..] = cores.as_slice() else { return };
    if rest.is_empty() {
        return;
    }
    let rest: Vec<_> = rest.iter().map(ToString::to_string).collect();
    let divided = Divided { all: allowed.trim().to_owned(), measuring: first.to_string(), attacking: rest.join(",") };
    let _ = DIVIDED.set(divided);
    attack_here();
}

/// Pins this thread to the cores of the attacks.
pub fn attack_here() {
    if let (Some(divided), Some(thread)) = (DIVIDED.get(), this_thread()) {
        bind(&["-pc", &divided.attacking, &thread]);
    }
}

/// Pins this thread to the core of the measurement.
pub fn measure_here() {
    if let (Some(divided), Some(thread)) = (DIVIDED.get(), this_thread()) {
        bind(&["-pc", &divided.measuring, &thread]);
    }
}

/// Allows a host all cores; otherwise it would inherit the restriction of the thread that started it.
pub fn free(host: u32) {
    if let Some(divided) = DIVIDED.get() {
        bind(&["-apc", &divided.all, &host.to_string()]);
    }
}

/// Parses `0-2,5`.
fn listed(text: &str) -> Vec<usize> {
    text.split(',')
        .filter_map(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            Some(from.trim().parse().ok()?..=to.trim().parse().ok()?)
        })
        .flatten()
        .collect()
}

fn this_thread() -> Option<String> {
    let link = std::fs::read_link("/proc/thread-self").ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// Uses `taskset` of util-linux; without it, nothing is pinned.
fn bind(arguments: &[&str]) {
    let _ = Command::new("taskset").args(arguments).output();
}
