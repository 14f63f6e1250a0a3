//! Waiting for a condition: whoever changes something bumps, and all conditions are tried again.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::Failure;

#[derive(Clone)]
pub struct Signal(watch::Sender<u64>);

impl Signal {
    pub fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    pub fn bump(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    /// Returns what `check` gives once it gives something; fails, with what `seen` says, if it
    /// doesn't within `limit`.
    pub async fn until<T>(
        &self,
        limit: Duration,
        what: &str,
        mut check: impl FnMut() -> Option<T>,
        seen: impl Fn() -> String,
    ) -> Result<T, Failure> {
        // Before the first check, so that a bump between a check and the wait isn't missed.
        let mut changes = self.0.subscribe();
        let waiting = async {
            loop {
                if let Some(found) = check() {
                    return found;
                }
                // The sender is `self`, which outlives this future: it can't be gone.
                let _ = changes.changed().await;
            }
        };
        match timeout(limit, waiting).await {
            Ok(found) => Ok(found),
            Err(_) => Err(format!("no {what} within {limit:?}, but {}", seen()).into()),
        }
    }
}
