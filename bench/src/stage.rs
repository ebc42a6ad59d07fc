//! Source and lake before a measurement, which can be had again for each measurement on the same
//! WAL: a lake that holds the base rows, the slot `base` that stands at its position, and the load
//! behind it.
//!
//! ```text
//!  base rows ──► frazil (not measured) ──► copy of lake and slot ──► load ──► mark
//!                                              │
//!                       drain, frazil, drain ◄─┘ each from its own copy
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::baseline::{DEADLINE, Protocol, drain};
use crate::figures::{Measured, count};
use crate::frazil::{Frazil, Lake, LakeCommit, PUBLICATION, SLOT};
use crate::postgres::Postgres;
use crate::process::wait_until;
use crate::{Context, Result};

/// The file in a lake's folder that is changed in place; all others are written once.
const CATALOG: &str = "catalog.db";

/// How long frazil may be behind when nothing more is written.
const LIVE_PATIENCE: Duration = Duration::from_secs(300);

/// A source with a lake.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) context: &'a Context,
    pub(crate) postgres: Postgres,
    pub(crate) frazil: Frazil,
    end_lsn: String,
    lake: PathBuf,
    is_used: bool,
    /// Goes last: the server must have ended.
    pub(crate) folder: TempDir,
}

/// One run of frazil over the load.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) measured: Measured,
    pub(crate) lake_commits: Vec<LakeCommit>,
    /// Bytes of data and delete files that came.
    pub(crate) bytes: u64,
}

impl<'a> Stage<'a> {
    /// Starts a server, runs `setup` (tables and base rows) there.
    pub(crate) fn new(context: &'a Context, setup: &str) -> Result<Self> {
        let folder = tempfile::tempdir_in(&context.work)?;
        crate::open_to_all(folder.path())?;
        let postgres = Postgres::start(folder.path(), !context.is_tiny)?;
        let lake = folder.path().join("lake");
        let frazil = Frazil {
            binary: context.frazil.clone(),
            dsn: postgres.dsn(),
            lake: Lake::Folder(lake.clone()),
            tables: None,
            slot: SLOT.to_owned(),
            publication: PUBLICATION.to_owned(),
            settings: Vec::new(),
            log: folder.path().join("frazil.log"),
        };
        context.say("base rows");
        postgres.sql("CREATE TABLE bench_mark (id int PRIMARY KEY)")?;
        postgres.sql(setup)?;
        postgres.sql("ANALYZE; CHECKPOINT;")?;
        let end_lsn = String::new();
        Ok(Self { context, postgres, frazil, end_lsn, lake, is_used: false, folder })
    }

    /// Copies the base rows into the lake, and keeps lake and slot as they are then.
    pub(crate) fn seed(&mut self) -> Result<()> {
        self.context.say("the lake gets the base rows");
        self.frazil.catch_up(DEADLINE)?;
        self.postgres.copy_slot(SLOT, "base")?;
        copy_lake(&self.lake, &self.kept())
    }

    /// What is measured: `load` writes it.
    pub(crate) fn load(&mut self, load: impl FnOnce(&Postgres) -> Result<()>) -> Result<()> {
        self.context.say("load");
        load(&self.postgres)?;
        self.end_lsn = self.postgres.sql("SELECT pg_current_wal_insert_lsn()")?;
        // `pg_recvlogical --endpos` stops at the first message behind that position.
        self.postgres.sql("INSERT INTO bench_mark SELECT count(*) FROM bench_mark")?;
        self.postgres.sql("CHECKPOINT")?;
        Ok(())
    }

    /// The baseline.
    pub(crate) fn drain(&self, protocol: Protocol) -> Result<Measured> {
        self.context.say("pg_recvlogical");
        drain(&self.postgres, protocol, &self.end_lsn, &self.folder.path().join("drain.log"))
    }

    /// frazil over the load, from the lake and the slot as they were before it.
    pub(crate) fn follow(&mut self, frazil: &Frazil) -> Result<Followed> {
        if self.is_used {
            fs::remove_dir_all(&self.lake)?;
            copy_lake(&self.kept(), &self.lake)?;
            self.postgres.copy_slot("base", SLOT)?;
        }
        self.is_used = true;
        self.follow_once(frazil)
    }

    /// The same without the way back: for a lake that is not in our folder.
    pub(crate) fn follow_once(&self, frazil: &Frazil) -> Result<Followed> {
        self.context.say("frazil");
        let bytes = frazil.stored_bytes()?;
        self.postgres.settle()?;
        let server_cpu_s = self.postgres.cpu_s();
        let used = frazil.catch_up(DEADLINE)?;
        let measured = Measured::new(used, self.postgres.cpu_s() - server_cpu_s);
        let bytes = frazil.stored_bytes()?.saturating_sub(bytes);
        Ok(Followed { measured, lake_commits: frazil.lake_commits(), bytes })
    }

    /// Waits until the lake holds all that is committed now.
    pub(crate) fn wait_acknowledged(&self, slot: &str) -> Result<()> {
        self.write_and_wait(slot, "INSERT INTO bench_mark SELECT count(*) FROM bench_mark")
    }

    /// Runs `statements` as one source transaction and waits until the lake holds it, which the
    /// slot's acknowledged position shows: that lies within no transaction.
    pub(crate) fn write_and_wait(&self, slot: &str, statements: &str) -> Result<()> {
        let statements =
            format!("BEGIN; {statements}; SELECT pg_current_wal_insert_lsn(); COMMIT;");
        let before_commit = self.postgres.sql(&statements)?;
        let query = format!(
            "SELECT confirmed_flush_lsn > '{before_commit}' FROM pg_replication_slots \
             WHERE slot_name = '{slot}'"
        );
        let ready = || Ok(self.postgres.sql(&query)? == "t");
        wait_until("frazil acknowledges what was written", LIVE_PATIENCE, ready)
    }

    /// Compares source and lake.
    pub(crate) fn verify(&self, frazil: &Frazil) -> Result<()> {
        self.context.say("verify");
        frazil.verify(if self.context.is_tiny { "60s" } else { "900s" })
    }

    fn kept(&self) -> PathBuf {
        self.folder.path().join("kept")
    }
}

impl Followed {
    /// Bytes of files per change.
    pub(crate) fn bytes_per_row(&self, rows: u64) -> Option<f64> {
        (rows > 0).then(|| count(self.bytes) / count(rows))
    }
}

/// Copies a lake's folder. Files that are written once are linked.
fn copy_lake(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_lake(&from, &to)?;
        } else if entry.file_name().to_string_lossy().starts_with(CATALOG) {
            fs::copy(&from, &to)?;
        } else {
            fs::hard_link(&from, &to)?;
        }
    }
    Ok(())
}
