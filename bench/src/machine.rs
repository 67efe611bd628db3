//! Describes the machine of a measurement.

use std::fmt;
use std::fs;

use serde::{Deserialize, Serialize};

/// Everything besides the program that affects the figures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    /// The file system of the run's ledgers.
    pub(crate) file_system: String,
    /// `release`, or `dev`, whose figures are meaningless.
    pub(crate) profile: String,
}

impl Machine {
    /// This machine.
    pub(crate) fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kilobytes: u64 = memory.trim_end_matches("kB").trim().parse().unwrap_or(0);
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_mib: kilobytes >> 10,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(&read("/proc/mounts"), &std::env::temp_dir().display().to_string()),
            profile: if cfg!(debug_assertions) { "dev" } else { "release" }.to_owned(),
        }
    }
}

/// The file system of the mount that contains `path`: the longest matching mount point, or the last one of equal
/// length.
fn file_system(mounts: &str, path: &str) -> String {
    let mut found = ("", "unknown");
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        if let (Some(at), Some(kind)) = (fields.next(), fields.next())
            && std::path::Path::new(path).starts_with(at)
            && at.len() >= found.0.len()
        {
            found = (at, kind);
        }
    }
    found.1.to_owned()
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, cores, memory_mib, kernel, file_system, profile } = self;
        write!(f, "{cpu}, {cores} cores, {memory_mib} MiB, Linux {kernel}, {file_system}; {profile} build")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_nearest_mount() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmpfoo xfs rw 0 0\n";
        assert_eq!(file_system(mounts, "/tmp/x"), "tmpfs");
        assert_eq!(file_system(mounts, "/var"), "ext4");
        assert_eq!(file_system("", "/var"), "unknown");
    }

    #[test]
    fn this_machine_says_something() {
        let machine = Machine::this();
        assert!(machine.cores > 0 && !machine.to_string().is_empty());
    }
}
