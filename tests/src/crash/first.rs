//! Interrupted first starts: from any partial data directory, the next start must create a working host.

use std::os::unix::fs::DirBuilderExt as _;
use std::time::Duration;

use super::powercut::PowerCut;
use super::random::Random;
use crate::host::Host;

/// Interrupts a number of first starts, each in a new directory, then restarts each host and sends it a request as its
/// operator. Returns an error message if anything fails.
pub async fn first_starts(count: usize, seed: u64, power_cut: bool) -> Result<(), String> {
    let mut random = Random::new(seed, 3);
    for number in 0..count {
        let mut host = Host::with().prepare();
        // The directory itself exists before the host starts, so a power cut does not undo it.
        std::fs::DirBuilder::new().mode(0o700).create(host.data()).map_err(|error| error.to_string())?;
        let cut = power_cut.then(|| PowerCut::build(&host.path(""), false)).transpose()?;
        if let Some(cut) = &cut {
            cut.prepare(&mut host, random.draw())?;
        }
        host.launch();
        let most = 16 << random.below(6);
        tokio::time::sleep(Duration::from_millis(random.below(most))).await;
        match &cut {
            None => host.kill9().await,
            Some(cut) => {
                let _pipe = cut.cut().map_err(|error| format!("the power cannot be cut: {error}"))?;
                host.ended().await;
                cut.report()?;
            }
        }
        host.set_env("LD_PRELOAD", "");
        host.start_again().await;
        host.take_operator_key();
        let answer = host.operator().get("/api/v1/tenants").await;
        if answer.status != 200 {
            return Err(format!("first start {number}: the operator's key is answered {}", answer.status));
        }
    }
    Ok(())
}
