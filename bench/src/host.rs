//! Measures a host's start time from outside.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use setgate_tests::Host;

/// Time limit of a start.
const START: Duration = Duration::from_secs(120);
/// Interval of checks whether it is listening.
const LOOK: Duration = Duration::from_micros(500);

/// Starts the host on its existing data, and returns the time from the start of the process to `listening on`.
pub(crate) async fn start(host: &mut Host) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    host.launch();
    loop {
        match host.is_listening() {
            Ok(true) => return Ok(begin.elapsed()),
            Ok(false) => ensure!(begin.elapsed() < START, "the host does not listen after {START:?}"),
            Err(why) => bail!("{why}"),
        }
        tokio::time::sleep(LOOK).await;
    }
}
