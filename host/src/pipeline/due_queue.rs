//! The queue between the stages that make deliveries due and the dispatcher.

use setgate_domain::delivery::DueDelivery;
use tokio::sync::mpsc;

/// Capacity of the queue in batches of due deliveries. If it is full, senders wait.
const BATCHES_MAX: usize = 256;

/// Notifies the dispatcher of due deliveries. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DueQueue(mpsc::Sender<Vec<DueDelivery>>);

impl DueQueue {
    /// A queue, and its receiver for the dispatcher.
    pub(super) fn new() -> (Self, mpsc::Receiver<Vec<DueDelivery>>) {
        let (sender, receiver) = mpsc::channel(BATCHES_MAX);
        (Self(sender), receiver)
    }

    /// Queues due deliveries. If the dispatcher has stopped, they are found in the ledger at the next start.
    pub(crate) async fn push(&self, deliveries: Vec<DueDelivery>) {
        if !deliveries.is_empty() {
            let _stopped = self.0.send(deliveries).await;
        }
    }
}
