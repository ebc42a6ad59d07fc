//! `frazil verify`: is the lake the source, at one exact position, over all tables?
//!
//! ```text
//!  walsender W                     SQL connection                     lake
//!  temporary slot at L ──exports──► snapshot of everything
//!     │                             that commits before L             P >= L ? wait
//!     │ START_REPLICATION           ACCESS SHARE, file nodes          pin all tables at P
//!     ▼                                  │ COPY, text                     │ merge on read
//!  changes with L <= commit_lsn < P ─────┴──► expected rows ◄──hashes──►  live rows
//! ```
//!
//! LSN order is not visibility order: only a slot's snapshot is exactly the source transactions
//! with a commit_lsn below its consistent point L (case 178). Nothing is written at the source, and
//! no lock is taken but ACCESS SHARE. The stream's client and decoder, COPY's text and the
//! rendering of lake values are code of their own (`follow`, `wire`, `source`, `forms`): a
//! defect of the path that is proved is not repeated by the proof.
//!
//! Where the lake stands before L and nothing moves it (an idle source: frazil commits an idle
//! position every few minutes), a temporary copy of frazil's own slot is read from P to L: if no
//! table that is verified changed between, the state at P is the state at L.

mod cells;
mod compare;
mod duckdb;
mod follow;
mod forms;
mod json;
mod lake;
mod overlay;
mod parts;
mod render;
mod repair;
pub mod report;
mod source;
mod spill;
mod wire;
mod wkb;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use tokio_postgres::Client;

use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::iceberg::lake::Lake;
use crate::iceberg::ledger::LedgerRecord;
use crate::postgres::dsn::Source;
use crate::postgres::sql::connect_sql;
use crate::progress::Lsn;

use cells::RowHasher;
use compare::{Differing, Job};
use follow::{Begins, Follower, Step};
pub use lake::Reader;
use lake::{Columns, Pinned};
use overlay::Overlay;
use report::{Repaired, Report, TableReport};
use source::{Expected, Locked, Subject};

/// How often it begins again because a table was rewritten or altered meanwhile.
const ATTEMPTS: usize = 5;
/// How often it repairs what is still wrong: a live lake may move under a repair.
const REPAIRS_MAX: usize = 3;
/// How often the ledger is read.
const POLL_EVERY: Duration = Duration::from_millis(75);
/// How often it is looked whether anything changed since P, while the lake does not move.
const IDLE_EVERY: Duration = Duration::from_secs(5);

/// How to compare.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long the lake may take to reach the snapshot's position.
    pub timeout: Duration,
    /// How long the temporary slot may wait for source transactions that are writing.
    pub slot_timeout: Duration,
    /// Compare only a part of the keys.
    pub sample: Option<Sample>,
    /// Rewrite what differs, and compare again.
    pub repair: bool,
    /// Who reads the lake.
    pub reader: Reader,
}

impl Default for Options {
    fn default() -> Self {
        let (timeout, slot_timeout) = (Duration::from_secs(60), Duration::from_secs(30));
        let reader = Reader::default();
        Self { timeout, slot_timeout, sample: None, repair: false, reader }
    }
}

/// One part of all keys: the same keys every time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Which part, from 1.
    pub part: u64,
    /// How many parts there are.
    pub of: u64,
}

impl FromStr for Sample {
    type Err = Error;

    /// `3/10`
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::config("BAD_SETTING", format!("--sample: `{text}` is not a part of a whole"))
                .with_cure("write 3/10 for the third of ten parts")
        };
        let (part, of) = text.split_once('/').ok_or_else(bad)?;
        let (part, of) = (part.parse().map_err(|_| bad())?, of.parse().map_err(|_| bad())?);
        match (1..=of).contains(&part) {
            true => Ok(Self { part, of }),
            false => Err(bad()),
        }
    }
}

/// Compares source and lake; differences are in the report, not an error. With `repair` they are
/// rewritten and compared again: the report is then of what is left.
///
/// # Errors
/// `SLOT_BLOCKED`, `TIMEOUT`, `TABLES_REWRITTEN`, `VERIFY_LOCKED` (transient), `OTHER_SYSTEM`
/// (fatal), `REPAIR` (table), and those of the source and the lake.
pub async fn verify(
    source: &Source,
    lake: &Arc<Lake>,
    settings: &Settings,
    options: &Options,
    bar: &ProgressBar,
) -> Result<Report> {
    let mut repaired: Option<Repaired> = None;
    for _ in 0..REPAIRS_MAX {
        let (report, done) = once(source, lake, settings, (options, bar)).await?;
        let Some(done) = done else { return Ok(Report { repaired, ..report }) };
        repaired = Some(repaired.map_or(done, |before| before.and(done)));
    }
    let last = Options { repair: false, ..options.clone() };
    let (report, _) = once(source, lake, settings, (&last, bar)).await?;
    Ok(Report { repaired, ..report })
}

/// Compares, and repairs if that is wanted and needed.
async fn once(
    source: &Source,
    lake: &Arc<Lake>,
    settings: &Settings,
    (options, bar): (&Options, &ProgressBar),
) -> Result<(Report, Option<Repaired>)> {
    let mut last = Error::transient(
        "TABLES_REWRITTEN",
        "tables were rewritten during every attempt to compare them",
    )
    .with_cure("wait until VACUUM FULL, CLUSTER, TRUNCATE or ALTER TABLE are done");
    for _ in 0..ATTEMPTS {
        let mut session = Session::begin(source, lake, settings, options, bar).await?;
        let compared = Box::pin(session.compare_and_repair(lake, options, bar)).await;
        session.close().await;
        match compared {
            Ok(Some(compared)) => return Ok(compared),
            Ok(None) => {}
            Err(error) if error.code() == "SCHEMA_MOVED" => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Source and lake were compared.
struct Compared {
    report: Report,
    pinned: Pinned,
    overlay: Overlay,
    hasher: RowHasher,
    /// By place among the subjects: the keys that differ.
    wrong: Vec<(usize, Differing)>,
}

/// What a table is compared in.
struct View<'a> {
    lake: (&'a Lake, &'a Reader),
    pinned: &'a Pinned,
    overlay: &'a Overlay,
    hasher: &'a RowHasher,
}

/// The source's side of one attempt: slot, snapshot, tables.
struct Session<'a> {
    source: &'a Source,
    settings: &'a Settings,
    publications: Vec<String>,
    follower: Follower,
    begins: Begins,
    client: Client,
    subjects: Vec<Subject>,
}

impl<'a> Session<'a> {
    async fn begin(
        source: &'a Source,
        lake: &Lake,
        settings: &'a Settings,
        options: &Options,
        bar: &ProgressBar,
    ) -> Result<Self> {
        let ledger = lake::position(lake).await?;
        // First of all, by our own login: it sends no password where others may listen.
        let sql = connect_sql(source, "verify").await?;
        let publications = source::publications(&sql, settings).await?;
        let mut follower = Follower::connect(source, &publications).await?;
        check_system(follower.identify().await?, &ledger)?;
        bar.set_message("making a temporary slot");
        let begins = match follower.create_slot(&sql, options.slot_timeout).await {
            Ok(begins) => begins,
            Err(error) => {
                follower.close().await;
                return Err(error);
            }
        };
        let client = source::import(source, &begins.snapshot).await?;
        let subjects = source::subjects(&client, &publications, settings).await?;
        Ok(Self { source, settings, publications, follower, begins, client, subjects })
    }

    async fn compare_and_repair(
        &mut self,
        lake: &Arc<Lake>,
        options: &Options,
        bar: &ProgressBar,
    ) -> Result<Option<(Report, Option<Repaired>)>> {
        let Some(mut compared) = self.compare(lake, options, bar).await? else { return Ok(None) };
        if !options.repair || compared.report.equal {
            return Ok(Some((compared.report, None)));
        }
        bar.set_message("repairing");
        let repaired = Box::pin(repair::repair(self, lake, &mut compared)).await?;
        Ok(Some((compared.report, Some(repaired))))
    }

    /// `None` where a table was rewritten since the snapshot.
    async fn compare(
        &mut self,
        lake: &Lake,
        options: &Options,
        bar: &ProgressBar,
    ) -> Result<Option<Compared>> {
        if self.lock(options.slot_timeout, bar).await? == Locked::Rewritten {
            return Ok(None);
        }
        bar.set_message(format!("waiting for the lake to hold {}", self.begins.consistent_point));
        let pinned = self.reach(lake, options.timeout).await?;
        let (position, start) = (pinned.ledger.committed_lsn, self.begins.consistent_point);
        let mut overlay = Overlay::new(&self.subjects, start);
        if position > start {
            bar.set_message(format!("reading what changed up to {position}"));
            self.follower.start().await?;
            overlay.follow(&mut self.follower, position).await?;
        }
        let hasher = RowHasher::new(options.sample);
        let keys_max = if options.repair { repair::KEYS_MAX } else { EXAMPLE_KEYS };
        let (mut tables, mut wrong) = (Vec::with_capacity(self.subjects.len()), Vec::new());
        for (at, subject) in self.subjects.iter().enumerate() {
            let name = subject.name();
            bar.set_message(name.clone());
            let lake = (lake, &options.reader);
            let view = View { lake, pinned: &pinned, overlay: &overlay, hasher: &hasher };
            let compared = self.table(&view, subject, (bar, keys_max)).await;
            let (table, differing) = compared.map_err(|e| e.with_table(&name))?;
            if !table.equal {
                wrong.push((at, differing));
            }
            tables.push(table);
        }
        let report = Report {
            equal: tables.iter().all(|table| table.equal),
            position,
            snapshot_position: start,
            sample: options.sample.map(|sample| format!("{}/{}", sample.part, sample.of)),
            tables,
            repaired: None,
        };
        Ok(Some(Compared { report, pinned, overlay, hasher, wrong }))
    }

    /// Locks all tables, at one moment at which all are free.
    async fn lock(&mut self, patience: Duration, bar: &ProgressBar) -> Result<Locked> {
        let since = tokio::time::Instant::now();
        loop {
            let locked = source::lock(&self.client, &self.subjects).await?;
            if locked != Locked::Busy {
                return Ok(locked);
            }
            if since.elapsed() >= patience {
                let what = "a table is locked by an ALTER, TRUNCATE, VACUUM FULL or the like";
                return Err(Error::transient("VERIFY_LOCKED", what)
                    .with_cure("verify again once that is done"));
            }
            bar.set_message("waiting for a lock");
            tokio::time::sleep(POLL_EVERY).await;
            // A new transaction, so that nobody waits for the locks of this one.
            self.client = source::import(self.source, &self.begins.snapshot).await?;
        }
    }

    async fn table(
        &self,
        view: &View<'_>,
        subject: &Subject,
        (bar, keys_max): (&ProgressBar, usize),
    ) -> Result<(TableReport, Differing)> {
        let table = view.pinned.table(subject.oid());
        let columns = Columns::new(subject, table)?;
        let mut expected = Expected::new(&self.client, subject, view.overlay)?;
        let (lake, hasher) = (view.lake, view.hasher);
        let job = Job { lake, table, columns: &columns, hasher, bar };
        let (mut report, differing) = job.compare(&subject.name(), &mut expected, keys_max).await?;
        if subject.insert_only {
            let note = "only inserts are published: the lake does not follow UPDATE and DELETE";
            report.notes.push(note.to_owned());
        }
        Ok((report, differing))
    }

    /// Waits until the lake stands at L or later, or stands where nothing changed until L; pins all
    /// tables there.
    async fn reach(&self, lake: &Lake, timeout: Duration) -> Result<Pinned> {
        let mut last = None;
        let waiting = self.wait(lake, &mut last);
        match tokio::time::timeout(timeout, waiting).await {
            Ok(pinned) => pinned,
            Err(_) => {
                let stands = last.map_or("unknown".to_owned(), |lsn: Lsn| lsn.to_string());
                let (wanted, waited) =
                    (self.begins.consistent_point, humantime::format_duration(timeout));
                let what = format!(
                    "the lake stands at {stands}, the source's snapshot is of {wanted}, and tables \
                     changed between or are being copied afresh; after {waited} it is still so"
                );
                Err(Error::transient("TIMEOUT", what).with_cure(
                    "frazil run is not running, or is behind: start it, or wait longer with \
                     --timeout; see: frazil status",
                ))
            }
        }
    }

    async fn wait(&self, lake: &Lake, last: &mut Option<Lsn>) -> Result<Pinned> {
        let mut looked: Option<(Lsn, tokio::time::Instant)> = None;
        loop {
            let ledger = lake::position(lake).await?;
            let position = ledger.committed_lsn;
            *last = Some(position);
            // A table that is copied afresh is not at P: that ends by itself.
            if self.subjects.iter().any(|subject| ledger.behind.contains_key(&subject.oid())) {
                tokio::time::sleep(POLL_EVERY).await;
                continue;
            }
            let is_new =
                looked.is_none_or(|(at, when)| at != position && when.elapsed() >= IDLE_EVERY);
            let is_reached = position >= self.begins.consistent_point;
            if is_reached || (is_new && self.is_unchanged_since(position).await?) {
                let pinned = Pinned::new(lake, &self.subjects).await?;
                let at = pinned.ledger.committed_lsn;
                if at == position || at >= self.begins.consistent_point {
                    return Ok(pinned);
                }
            } else if is_new {
                looked = Some((position, tokio::time::Instant::now()));
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Whether no table that is verified changed from `position` to the snapshot.
    async fn is_unchanged_since(&self, position: Lsn) -> Result<bool> {
        let mut follower = Follower::connect(self.source, &self.publications).await?;
        let unchanged = self.reads_no_change(position, &mut follower).await;
        follower.close().await;
        match unchanged {
            // The slot may be gone, or no slot free: then the lake has to move.
            Err(error) if error.kind() != Kind::Fatal => {
                tracing::debug!(%error, "frazil's slot cannot be read");
                Ok(false)
            }
            decided => decided,
        }
    }

    async fn reads_no_change(&self, position: Lsn, follower: &mut Follower) -> Result<bool> {
        let until = self.begins.consistent_point;
        let is_ours = |oid: u32| self.subjects.iter().any(|subject| subject.oid() == oid);
        follower.copy_slot(&self.settings.slot).await?;
        follower.start().await?;
        let mut open: Option<Lsn> = None;
        loop {
            match follower.next().await? {
                Step::Begin { commit_lsn } if commit_lsn >= until => return Ok(true),
                Step::Begin { commit_lsn } => open = Some(commit_lsn),
                // What commits before P is in the lake.
                Step::Change(_) if open.is_some_and(|commit_lsn| commit_lsn < position) => {}
                Step::Change(message) => {
                    if wire::parse(&message)?.tables().into_iter().any(is_ours) {
                        return Ok(false);
                    }
                }
                Step::End { end_lsn } if end_lsn >= until => return Ok(true),
                Step::End { .. } => open = None,
                Step::Reached(lsn) if open.is_none() && lsn >= until => return Ok(true),
                Step::Reached(_) => {}
            }
        }
    }

    async fn close(self) {
        // A read-only transaction: however it ends is fine.
        let _ = self.client.batch_execute("ROLLBACK").await;
        self.follower.close().await;
    }
}

/// Keys that are remembered for examples.
const EXAMPLE_KEYS: usize = 20;

fn check_system((system_id, _): (String, u32), ledger: &LedgerRecord) -> Result<()> {
    if system_id == ledger.system_id {
        return Ok(());
    }
    let then = &ledger.system_id;
    let what = format!("the server's system identifier is {system_id}, the lake's is {then}");
    Err(Error::fatal("OTHER_SYSTEM", what).with_lsn(ledger.committed_lsn).with_cure(
        "this is not the history the lake was written from: name the right server or lake",
    ))
}
