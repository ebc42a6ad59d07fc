//! The data path, from a replication slot to committed Iceberg, top to bottom.
//!
//! ```text
//!  slot ──► receive ──► window ──► fold by key ──► Arrow ──► Parquet data + delete files
//!             │           │ segments of ~16 MiB        │ parallel per table      │
//!             │                                                                  ▼
//!             └── feedback runs by itself     acknowledge end_lsn ◄── ONE lake commit, P inside
//! ```
//!
//! One window fills while the one before is written and committed. WAL is not read while there is
//! no room for it; the server hears from us all the same. A window holds whole source transactions;
//! one too large for memory is written in segments, all of them in the same lake commit.
//!
//! Follow a row: `Flow::turn` here, `intake.rs` (frames and folds), `write.rs` (decode, Parquet),
//! `commit.rs` (the lake commit), and back here to `Flow::acknowledge`.

mod announced;
mod commit;
mod equal_rows;
mod facts;
mod held;
mod intake;
mod oversized;
mod past;
mod refresh;
mod rhythm;
mod start;
mod streamed;
mod tables;
mod toast;
mod write;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::config::Settings;
use crate::error::{Error, Result};
use crate::iceberg::lake::Lake;
use crate::ops::{Shutdown, Stats};
use crate::postgres::dsn::Source;
use crate::postgres::stream::ReplicationStream;
use crate::progress::{Lsn, Progress};

use commit::{Committed, Window};
use facts::Stale;
use refresh::Refreshes;
use tables::{Learned, Tables};
use write::Writers;

pub(crate) use commit::ledger_record;
pub(crate) use facts::{FACTS_KEY, SourceFacts, refuse_text};
pub(crate) use intake::{Intake, MESSAGE_PREFIX, Step};
pub(crate) use refresh::ResyncWish;
pub(crate) use start::Position;
pub(crate) use write::{
    BATCH_ROWS, DataWriter, ParquetTarget, key_arrays, key_decoder, row_decoder, write_deletes,
};

/// How long an idle position may lag before it is committed to the ledger (case 10).
const IDLE_POSITION_AGE: Duration = Duration::from_secs(300);
/// ... and how many bytes of WAL it may lag.
const IDLE_POSITION_BYTES: u64 = 64 << 20;
/// How long a clean stop waits for the end of a source transaction that is still arriving.
const LEAVE_GRACE: Duration = Duration::from_secs(10);
/// ... and for a lake commit while the catalog is in trouble.
pub(crate) const COMMIT_GRACE: Duration = Duration::from_secs(30);
/// How long the server may take to end the stream.
const FINISH_PATIENCE: Duration = Duration::from_secs(10);

/// Follows the stream from P until told to stop, or until the lake holds `until`. Errors are for
/// the caller to judge: a transient one means "again, from P".
pub async fn follow(
    source: &Source,
    lake: &Arc<Lake>,
    settings: &Settings,
    until: Option<Lsn>,
    ops: (&Shutdown, &Arc<Stats>),
) -> Result<()> {
    let mut flow = start::connect(source, lake, settings, until, ops).await?;
    let outcome = loop {
        match flow.turn().await {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    flow.end(outcome).await
}

/// Everything the loop turns on.
pub(crate) struct Flow {
    stream: ReplicationStream,
    intake: Intake,
    window: Window,
    committing: Option<JoinHandle<Result<Committed>>>,
    writers: Writers,
    tables: Tables,
    refreshes: Refreshes,
    progress: Progress,
    position: Position,
    last_commit: Instant,
    feedback: Interval,
    /// When the server was heard last, or was not listened to.
    heard: Instant,
    until: Option<Lsn>,
    leaving: Option<Instant>,
    shutdown: Shutdown,
    lake: Arc<Lake>,
    stats: Arc<Stats>,
}

impl Flow {
    /// One turn of the loop. `false` when the work is done. Priorities, first to last:
    /// a stop; a lake commit that ended (it frees memory at the server); feedback that is due (else
    /// the server drops us); a window that is due; a table that was copied afresh; room again; and
    /// only then more WAL.
    async fn turn(&mut self) -> Result<bool> {
        let may_read = !self.intake.is_cut();
        let has_room = self.writers.has_room(self.intake.bytes());
        let may_go_on = has_room && may_read;
        let replays = self.intake.is_replaying();
        tokio::select! {
            biased;
            // Somebody asked us to leave: what is complete is committed first.
            () = self.shutdown.requested(), if self.leaving.is_none() => self.leave()?,
            // A lake commit has ended: P moves, and the server may forget.
            done = ended(&mut self.committing), if self.committing.is_some() => {
                self.acknowledge(done?).await?;
            }
            // The server must hear from us in time, whatever else is going on.
            _ = self.feedback.tick() => self.feed_back(may_go_on && !replays).await?,
            // The window is old enough, and whole.
            () = self.window.due(), if self.may_commit() => {
                self.start_lake_commit().await?;
            }
            // A table was copied while the others went on: it comes back with a lake commit.
            done = self.refreshes.copied(), if self.refreshes.is_copying() => {
                done?;
                self.adopt_soon();
                self.send_status().await?;
            }
            // Nothing in the stream asks for a look at the catalog, but time does.
            () = self.tables.check_comes_due(), if self.may_look() => self.look().await?,
            // Files were written and memory is free again: look once more.
            () = self.writers.room(), if !has_room => {}
            // A streamed source transaction that has committed: read back before more WAL.
            () = tokio::task::yield_now(), if may_go_on && replays => {
                self.intake.refill()?;
                self.take_in().await?;
            }
            // WAL, as long as there is room for it.
            read = self.stream.read(self.intake.receive_buffer()), if may_go_on && !replays => {
                read?;
                self.heard = Instant::now();
                self.take_in().await?;
            }
            // A transaction that does not end must not hold up a stop.
            () = over(self.leaving, LEAVE_GRACE), if self.intake.in_transaction() => {
                self.abandon_open();
            }
            // Nor must a catalog that does not answer: whoever starts next finds it decided.
            () = over(self.leaving, COMMIT_GRACE), if self.committing.is_some() => {
                return Err(self.abandon_commit());
            }
        }
        Ok(!self.is_done())
    }

    /// Frames and folds what has arrived.
    async fn take_in(&mut self) -> Result<()> {
        loop {
            match self.intake.step()? {
                Step::Drained => return Ok(()),
                Step::SegmentFull => {
                    self.window.seal(&mut self.intake, &self.tables, &self.writers);
                }
                Step::Relation(wire) => {
                    let learned = self.tables.learn(&wire, &mut self.intake).await?;
                    self.change_shapes(vec![learned])?;
                }
                Step::Ddl(content) => {
                    let xid = self.intake.open_xid();
                    let learned = self.tables.announced(&content, xid).await?;
                    self.change_shapes(learned)?;
                }
                Step::Resync(wish) => {
                    let stale = self.tables.wished(&wish, &self.lake.pipeline_id);
                    self.refresh(stale);
                }
                Step::TransactionEnd(end) => {
                    self.progress.receive(end.end_lsn);
                    self.stats.received(end.end_lsn, end.commit_time_us);
                    self.window.add(&end);
                    self.adopt_soon();
                    if self.may_commit() && self.window.is_due() {
                        self.start_lake_commit().await?;
                    }
                    if self.leaving.is_some() {
                        self.intake.cut_open_transaction()?;
                    }
                }
                Step::Keepalive { wal_end, reply } => self.keepalive(wal_end, reply).await?,
                Step::Closed => {
                    return Err(Error::transient("SERVER_CLOSED", "the server ended the stream"));
                }
            }
        }
    }

    fn may_commit(&self) -> bool {
        self.committing.is_none() && !self.intake.in_transaction() && self.window.is_wanted()
    }

    /// Closes the window and starts its lake commit; the next window fills meanwhile.
    async fn start_lake_commit(&mut self) -> Result<()> {
        self.look().await?;
        self.window.seal(&mut self.intake, &self.tables, &self.writers);
        self.adopt()?;
        let next = self.window.next();
        let window = std::mem::replace(&mut self.window, next);
        self.committing = Some(tokio::spawn(commit::commit_window(
            Arc::clone(&self.lake),
            window,
            self.tables.states(),
            (self.progress.committed_lsn(), self.position.clone()),
        )));
        Ok(())
    }

    /// From here on tables have another shape, or their rows are in doubt.
    fn change_shapes(&mut self, all: Vec<Learned>) -> Result<()> {
        let mut stale = Vec::new();
        for learned in all {
            match learned {
                // The copy under way is compared with the stream once it is complete.
                Learned::Evolved(change) if self.refreshes.has(change.oid) => continue,
                Learned::Known => continue,
                Learned::Evolved(change) => {
                    self.window.seal(&mut self.intake, &self.tables, &self.writers);
                    self.window.evolve(*change, &mut self.tables, &mut self.intake)?;
                }
                Learned::Stale(one) => stale.push(one),
            }
            match self.intake.in_transaction() {
                true => self.intake.want(),
                false => self.window.idle(self.progress.received_lsn()),
            }
        }
        if !stale.is_empty() {
            // Together, for one copy at one position.
            self.refresh(stale);
        }
        Ok(())
    }

    /// Tables that must be copied afresh: their changes are held, and a copy begins.
    fn refresh(&mut self, stale: Vec<Stale>) {
        for stale in stale {
            self.refreshes.request(stale, &mut self.intake);
        }
        if self.leaving.is_none() {
            self.refreshes.begin(self.tables.bound());
        }
    }

    /// Makes tables that were copied, and that the window reaches, part of it.
    fn adopt(&mut self) -> Result<()> {
        let mut adopted = Vec::new();
        if self.leaving.is_none() {
            let (end_lsn, past) = (self.window.end_lsn(), self.window.past());
            let tables = (&mut self.tables, &mut self.intake);
            adopted = self.refreshes.adopt(end_lsn, tables, (&self.writers, &past))?;
            self.refreshes.begin(self.tables.bound());
        }
        let behind = self.refreshes.behind(self.progress.committed_lsn(), &self.tables);
        self.window.refreshed(adopted, behind);
        Ok(())
    }

    /// A copy that waits only for a lake commit gets one.
    fn adopt_soon(&mut self) {
        let received_lsn = self.progress.received_lsn();
        if self.refreshes.ready_at().is_some_and(|ready| received_lsn >= ready) {
            self.window.idle(received_lsn);
        }
    }

    fn may_look(&self) -> bool {
        self.leaving.is_none() && self.committing.is_none() && !self.intake.in_transaction()
    }

    /// Looks at the catalog, if it is time, for what the stream does not tell.
    async fn look(&mut self) -> Result<()> {
        let (refreshes, received_lsn) = (&self.refreshes, self.progress.received_lsn());
        let copied = |oid| refreshes.has(oid);
        let found = self.tables.check_catalog(copied, received_lsn, &mut self.intake).await?;
        self.change_shapes(found)
    }

    /// P has moved: now, and only now, the server may forget what lies before it.
    async fn acknowledge(&mut self, done: Committed) -> Result<()> {
        self.progress.write(done.committed_lsn)?;
        self.progress.commit(done.committed_lsn)?;
        self.tables.saved(&done.tables);
        self.last_commit = Instant::now();
        self.stats.committed(done.committed_lsn, done.changes, done.rows_written);
        self.window.previous_committed(done.number);
        let stale = done.stale.iter().map(|(&oid, behind)| {
            let (table, cause) = (behind.table.clone(), behind.cause.clone());
            Stale { oid, table, cause }
        });
        self.refresh(stale.collect());
        self.refreshes.resume(&done.stale);
        crate::ops::crash_point("before_acknowledge");
        self.send_status().await?;
        crate::ops::crash_point("after_acknowledge");
        Ok(())
    }

    /// Tells the server where we are, and asks it for a sign of life: a connection that is open on
    /// our side only would else be waited on for ever (case 13).
    async fn feed_back(&mut self, is_listening: bool) -> Result<()> {
        if !is_listening {
            self.heard = Instant::now();
        }
        if self.heard.elapsed() >= self.stream.patience() {
            let message = "the server has not answered for as long as wal_sender_timeout";
            return Err(Error::transient("SERVER_SILENT", message));
        }
        self.report(true).await
    }

    async fn send_status(&mut self) -> Result<()> {
        let asks = self.until.is_some() || self.refreshes.ready_at().is_some();
        self.report(asks).await
    }

    async fn report(&mut self, reply: bool) -> Result<()> {
        let received = self.progress.received_lsn();
        self.stream.send_status(received, self.progress.acknowledge(), reply).await
    }

    /// The server says where its WAL ends. With nothing open and nothing waiting, that is a
    /// position the lake holds already; it becomes P by a ledger-only lake commit, now and then
    /// (case 10).
    async fn keepalive(&mut self, wal_end: Lsn, reply: bool) -> Result<()> {
        self.stats.server_at(wal_end);
        if !self.intake.in_transaction() {
            self.progress.receive(wal_end);
            self.adopt_soon();
            let committed_lsn = self.progress.committed_lsn();
            let lag = wal_end.bytes_since(committed_lsn);
            let asked = self.until.is_some_and(|until| wal_end >= until && committed_lsn < until);
            if asked {
                self.window.hurry();
            }
            let old = lag > 0 && self.last_commit.elapsed() >= IDLE_POSITION_AGE;
            // A server that shuts down waits until all of its WAL is acknowledged (case 15).
            let awaited = reply && lag > 0;
            if self.window.is_empty() && (asked || awaited || old || lag >= IDLE_POSITION_BYTES) {
                self.window.idle(wal_end);
                if self.may_commit() {
                    self.start_lake_commit().await?;
                }
            }
        }
        if reply {
            self.send_status().await?;
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        self.leaving = Some(Instant::now());
        self.window.hurry();
        if !self.intake.cut_open_transaction()? {
            tracing::info!("waiting for the end of a large source transaction that is arriving");
        }
        Ok(())
    }

    /// The transaction that keeps us here is given up: nothing of it is visible, it comes again
    /// whole.
    fn abandon_open(&mut self) {
        self.window = self.window.next();
        self.intake.forget();
    }

    /// The lake commit under way is left to the catalog, decided or not. Nothing is acknowledged.
    fn abandon_commit(&mut self) -> Error {
        if let Some(task) = self.committing.take() {
            task.abort();
        }
        commit_open().with_lsn(self.progress.committed_lsn())
    }

    fn is_done(&self) -> bool {
        if self.committing.is_some() {
            return false;
        }
        let caught_up = self.until.is_some_and(|until| self.progress.committed_lsn() >= until)
            && self.refreshes.is_empty()
            && !self.tables.has_doubts()
            && !self.window.is_reshaping();
        let left =
            self.leaving.is_some() && self.window.is_empty() && !self.intake.in_transaction();
        caught_up || left
    }

    /// Ends the stream. A lake commit under way is waited for whatever happened: its outcome
    /// belongs to the lake, and a restart must find it decided.
    async fn end(mut self, outcome: Result<()>) -> Result<()> {
        if self.committing.is_some() {
            let done = tokio::select! {
                biased;
                // It is decided.
                done = ended(&mut self.committing) => done,
                // A catalog that does not answer must not hold up a stop.
                () = self.shutdown.overdue(COMMIT_GRACE) => return Err(self.abandon_commit()),
            };
            if outcome.is_ok() {
                self.acknowledge(done?).await?;
            }
        }
        outcome?;
        let received = self.progress.received_lsn();
        let committed = self.progress.acknowledge();
        self.stream.send_status(received, committed, false).await?;
        self.stream.finish(self.intake.unread(), FINISH_PATIENCE).await
    }
}

/// The outcome of the lake commit under way, which is over then. Cancel-safe.
async fn ended(committing: &mut Option<JoinHandle<Result<Committed>>>) -> Result<Committed> {
    let Some(task) = committing else { return std::future::pending().await };
    let done = task.await;
    *committing = None;
    done.map_err(|panic| {
        Error::fatal("COMMIT_TASK", "the lake commit broke off").with_source(panic)
    })?
}

/// A stop before a lake commit was decided.
pub(crate) fn commit_open() -> Error {
    Error::transient("COMMIT_OPEN", "stopped while a lake commit was not decided")
        .with_cure("is the catalog running? the next start goes on from what it holds")
}

async fn over(leaving: Option<Instant>, grace: Duration) {
    match leaving {
        Some(since) => tokio::time::sleep_until(since + grace).await,
        None => std::future::pending().await,
    }
}

fn feedback_every(interval: Duration) -> Interval {
    let mut feedback = tokio::time::interval(interval);
    feedback.set_missed_tick_behavior(MissedTickBehavior::Delay);
    feedback
}
