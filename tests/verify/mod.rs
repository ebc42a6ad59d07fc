//! `frazil verify`: what it proves, what it finds, what it leaves alone, and that it can be
//! believed.

mod blocked_slot;
mod busy;
mod differences;
mod duckdb;
mod idle;
mod mutations;
mod nessie;
mod no_writes;
mod repair;
mod shapes;
mod shown;
mod silent;
mod types;

use std::sync::Arc;
use std::time::Duration;

use frazil::config::{Config, RawConfig, Scalar, Settings};
use frazil::error::Result;
use frazil::iceberg::committer::sql::SqlCommitter;
use frazil::iceberg::committer::{Committer, LakeCommit, TableChange};
use frazil::iceberg::lake::Lake;
use frazil::iceberg::row_delta::{RowDelta, SegmentFiles};
use frazil::iceberg::table_ident;
use frazil::postgres::dsn::Source;
use frazil::verify::report::{Report, TableReport};
use frazil::verify::{Options, verify};
use indicatif::ProgressBar;
use tempfile::TempDir;
use uuid::Uuid;

use crate::contract;
use crate::support::frazil::{Frazil, Running, until_caught_up};
use crate::support::postgres::{Postgres, PostgresOptions, TextRow};

/// A source, and its lake in a folder.
struct Scene {
    postgres: Postgres,
    folder: TempDir,
}

impl Scene {
    async fn new(sql: &str) -> Self {
        let postgres = Postgres::start(PostgresOptions::default()).await;
        postgres.sql(sql).await;
        Self { postgres, folder: tempfile::tempdir().unwrap() }
    }

    /// With a lake that holds what `sql` made.
    async fn copied(sql: &str) -> Self {
        let scene = Self::new(sql).await;
        until_caught_up(&scene.postgres.dsn(), scene.folder.path());
        scene
    }

    async fn sql(&self, sql: &str) -> Vec<TextRow> {
        self.postgres.sql(sql).await
    }

    fn catch_up(&self) {
        until_caught_up(&self.postgres.dsn(), self.folder.path());
    }

    fn following(&self) -> Running {
        let run = Frazil::run(&self.postgres.dsn(), self.folder.path());
        let mut running = run.arg("--commit-interval=200ms").spawn();
        running.wait_for_log("following the stream", Duration::from_secs(60));
        running
    }

    /// `frazil verify`, as a person runs it.
    fn command(&self) -> Frazil {
        let lake = self.folder.path().to_str().unwrap();
        Frazil::new(["verify", &self.postgres.dsn(), "--into", lake])
    }

    /// Within this process.
    async fn verify(&self) -> Report {
        self.try_verify("*", &Options::default()).await.unwrap()
    }

    async fn try_verify(&self, tables: &str, options: &Options) -> Result<Report> {
        let source = Source::parse(&self.postgres.dsn()).unwrap();
        let lake = Arc::new(Lake::in_folder(self.folder.path(), "frazil").await.unwrap());
        verify(&source, &lake, &settings(tables), options, &ProgressBar::hidden()).await
    }

    /// Writes into `public.t(id bigint, v text)` behind everybody's back, at the position where the
    /// lake stands: rows, and keys to delete before.
    async fn tamper(&self, rows: &[(i64, &str)], deleted: &[i64]) {
        let committer = SqlCommitter::open(self.folder.path(), "frazil").await.unwrap();
        let ident = table_ident("public", "t");
        let table = committer.table(&ident).await.unwrap().unwrap();
        let schema = table.metadata().current_schema();
        let location = table.metadata().location();
        let segment = contract::segment(committer.storage(), location, schema, rows, deleted).await;
        commit(&committer, "t", vec![segment], false).await;
    }

    /// Empties a table of the lake, and fills it with these files.
    async fn refill(&self, table: &str, segments: Vec<SegmentFiles>) {
        let committer = SqlCommitter::open(self.folder.path(), "frazil").await.unwrap();
        commit(&committer, table, segments, true).await;
    }
}

async fn commit(
    committer: &dyn Committer,
    table: &str,
    segments: Vec<SegmentFiles>,
    truncate: bool,
) {
    let mut ledger = committer.position().await.unwrap().unwrap();
    ledger.lake_commit = Uuid::now_v7();
    let base = Some(ledger.committed_lsn);
    let delta = RowDelta { segments, truncate, ..RowDelta::default() };
    let change = TableChange { ident: table_ident("public", table), create: None, delta };
    committer.commit(&LakeCommit { ledger, base, changes: vec![change] }).await.unwrap();
}

fn settings(tables: &str) -> Settings {
    let mut raw = RawConfig::default();
    raw.source.url = Some(Scalar(String::new()));
    raw.source.tables = Some(Scalar(tables.to_owned()));
    raw.lake.into = Some(Scalar(".".to_owned()));
    Config::resolve(raw).unwrap().settings
}

#[track_caller]
fn assert_equal(report: &Report) {
    assert!(report.equal, "{}", serde_json::to_string_pretty(report).unwrap());
}

/// The report of one table.
#[track_caller]
fn of<'a>(report: &'a Report, table: &str) -> &'a TableReport {
    report.tables.iter().find(|one| one.table == table).expect("the table is in the report")
}

/// Missing, extra, differing.
fn counts(one: &TableReport) -> (u64, u64, u64) {
    (one.missing, one.extra, one.differing)
}
