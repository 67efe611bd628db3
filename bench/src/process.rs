//! Statistics of a process. Linux only: `/proc`.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use anyhow::Context as _;

/// Ticks per second in `/proc/PID/stat`: `USER_HZ`, 100 on every Linux.
const TICKS_PER_S: u64 = 100;

/// CPU time used by a process so far, including its threads but not its children.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the CPU time of a process")?;
    // The second field is the program's name, which may contain any character.
    let (_, fields) = stat.rsplit_once(')').context("a line of /proc/PID/stat")?;
    let mut times = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let mut next = || times.next().context("utime and stime")?.context("a number");
    let ticks: u64 = next()? + next()?;
    Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_S))
}

/// CPU time used by this process so far, with nanosecond resolution.
pub(crate) fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Resident bytes of memory, and those of them that are not backed by a file: `VmRSS` and `RssAnon`.
pub(crate) fn resident(pid: u32) -> anyhow::Result<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the memory of a process")?;
    let field = |name: &str| {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{name} of a process"))?;
        let kilobytes: u64 = line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse()?;
        anyhow::Ok(kilobytes << 10)
    };
    Ok((field("VmRSS")?, field("RssAnon")?))
}

/// Bytes of the process's memory-backed files, mapped or not. Their mapped pages are included in [`resident`].
pub(crate) fn files_of_memory(pid: u32) -> anyhow::Result<u64> {
    let mut blocks = 0;
    for descriptor in std::fs::read_dir(format!("/proc/{pid}/fd")).context("the files of a process")? {
        let path = descriptor?.path();
        // A file that was closed meanwhile has no name any more.
        if std::fs::read_link(&path).is_ok_and(|name| name.as_os_str().as_encoded_bytes().starts_with(b"/memfd:")) {
            blocks += std::fs::metadata(&path).map_or(0, |file| file.blocks());
        }
    }
    Ok(blocks * 512)
}
