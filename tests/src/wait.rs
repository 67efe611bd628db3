//! Waiting for something to become true.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a story waits before it fails. Far longer than anything takes on a busy machine with two cores.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Asks again until there is something.
///
/// # Panics
/// With `what` in its words, where nothing came before [`DEADLINE`].
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {} s in vain: {what}", DEADLINE.as_secs());
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}
