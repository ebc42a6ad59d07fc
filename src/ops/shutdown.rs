//! Ctrl-C and SIGTERM: the first asks for a clean stop, the second leaves at once.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::error::{Error, Result};

/// Exit status after a second signal: 128 + SIGINT, as shells report it.
const LEFT_AT_ONCE: i32 = 130;

/// Whether somebody asked the process to stop. Clones see the same.
#[derive(Debug, Clone)]
pub struct Shutdown {
    requested: watch::Sender<bool>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { requested: watch::Sender::new(false) }
    }
}

impl Shutdown {
    /// Listens to SIGINT and SIGTERM.
    pub fn on_signals() -> Result<Self> {
        let shutdown = Self::default();
        let (interrupt, terminate) =
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        tokio::spawn(shutdown.clone().watch(interrupt, terminate));
        Ok(shutdown)
    }

    async fn watch(self, mut interrupt: Signal, mut terminate: Signal) {
        loop {
            tokio::select! {
                biased;
                // Ctrl-C.
                _ = interrupt.recv() => {}
                // What a service manager sends.
                _ = terminate.recv() => {}
            }
            if self.requested.send_replace(true) {
                tracing::warn!(
                    "a second signal: leaving at once; the next start goes on where the lake stands"
                );
                std::process::exit(LEFT_AT_ONCE);
            }
            tracing::info!(
                "stopping: what is complete is committed first (a second signal leaves at once)"
            );
        }
    }

    /// Asks for a clean stop from within.
    pub fn request(&self) {
        self.requested.send_replace(true);
    }

    /// Whether a stop was asked for.
    pub fn is_requested(&self) -> bool {
        *self.requested.borrow()
    }

    /// Returns once a stop was asked for.
    pub async fn requested(&self) {
        let mut requested = self.requested.subscribe();
        if requested.wait_for(|requested| *requested).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns once a stop was asked for and `grace` has passed since.
    pub async fn overdue(&self, grace: Duration) {
        self.requested().await;
        tokio::time::sleep(grace).await;
    }
}

fn listen(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|e| Error::fatal("SIGNALS", "cannot listen to signals").with_source(e))
}
