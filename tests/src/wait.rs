//! Waits for a condition.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Time limit of a story's wait. Far longer than anything takes on a busy machine with two cores.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Polls until there is a result.
///
/// # Panics
/// With `what` in the message, if there is no result before [`DEADLINE`].
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out after {} s: {what}", DEADLINE.as_secs());
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}
