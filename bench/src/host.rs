//! A host's start, as exactly as it can be seen from outside.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use setgate_tests::Host;

/// How long a start may take.
const START: Duration = Duration::from_secs(120);
/// Between two looks at whether it listens.
const LOOK: Duration = Duration::from_micros(500);

/// Starts it over the data that it has, and gives the time from the process's start to `listening on`.
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
