//! What the system says about a process. Linux only: `/proc`.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use anyhow::Context as _;

/// Ticks of `/proc/PID/stat` in a second: `USER_HZ`, 100 on every Linux.
const TICKS_PER_S: u64 = 100;

/// CPU time that a process has used so far, its threads included, children not.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the CPU time of a process")?;
    // The second field is the program's name and may have anything in it.
    let (_, fields) = stat.rsplit_once(')').context("a line of /proc/PID/stat")?;
    let mut times = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let mut next = || times.next().context("utime and stime")?.context("a number");
    let ticks: u64 = next()? + next()?;
    Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_S))
}

/// CPU time that this process has used so far, to the nanosecond.
pub(crate) fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Bytes of memory that are resident, and of them those that belong to no file: `VmRSS` and `RssAnon`.
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

/// Bytes of the process's files that are in memory only, mapped or not: of what [`resident`] counts, their mapped pages.
pub(crate) fn files_of_memory(pid: u32) -> anyhow::Result<u64> {
    let mut blocks = 0;
    for descriptor in std::fs::read_dir(format!("/proc/{pid}/fd")).context("the files of a process")? {
        let path = descriptor?.path();
        // What was closed meanwhile has no name any more.
        if std::fs::read_link(&path).is_ok_and(|name| name.as_os_str().as_encoded_bytes().starts_with(b"/memfd:")) {
            blocks += std::fs::metadata(&path).map_or(0, |file| file.blocks());
        }
    }
    Ok(blocks * 512)
}
