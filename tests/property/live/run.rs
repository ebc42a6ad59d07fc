//! One seed: a source, its lake, frazil between them with all that befalls it, and the comparisons.

use std::sync::Arc;
use std::time::{Duration, Instant};

use frazil::config::{Config, RawConfig};
use frazil::iceberg::lake::Lake as OurLake;
use frazil::postgres::dsn::Source;
use frazil::verify::{Options, verify};
use indicatif::ProgressBar;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::Client;

use super::model::Table;
use super::steps::{Generator, Step};
use super::values::{self, pick};
use crate::behaviour::scene::{lsn, metadata};
use crate::support::frazil::{DEADLINE, Finished, Frazil, Running};
use crate::support::lake::{Lake, LakeState};
use crate::support::postgres::{Postgres, PostgresOptions, query};

const SOON: Duration = Duration::from_secs(60);
/// Where frazil may end as `kill -9` would.
const CRASH_POINTS: [&str; 9] = [
    "segment_written",
    "files_written",
    "manifest_written",
    "before_catalog_commit",
    "after_catalog_commit",
    "before_acknowledge",
    "after_acknowledge",
    "refresh_copied",
    "refresh_adopted",
];

/// A server and a reader, used by one seed after the other.
pub(super) struct Place {
    postgres: Postgres,
    lake: Lake,
    _folder: TempDir,
}

impl Place {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(&folder.path().join("lake"));
        Self { postgres: Postgres::start(PostgresOptions::default()).await, lake, _folder: folder }
    }

    /// As if nothing had been here.
    async fn clear(&self) {
        let _ = std::fs::remove_dir_all(self.lake.folder());
        let (client, connection) =
            tokio_postgres::connect(&self.postgres.dsn_of("template1"), tokio_postgres::NoTls)
                .await
                .unwrap();
        tokio::spawn(connection);
        self.postgres
            .sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
            .await;
        let end = Instant::now() + SOON;
        let drop_slots =
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active";
        while self.postgres.value("SELECT count(*) FROM pg_replication_slots").await != "0" {
            assert!(Instant::now() < end, "a slot stays active");
            self.postgres.sql(drop_slots).await;
        }
        // The dead seed's writer may have left its server process at work.
        client.batch_execute("DROP DATABASE postgres WITH (FORCE)").await.unwrap();
        client.batch_execute("CREATE DATABASE postgres TEMPLATE template0").await.unwrap();
    }
}

/// What one seed came to.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Told {
    pub(super) steps: usize,
    pub(super) comparisons: usize,
    pub(super) crashes: usize,
    pub(super) stops: usize,
    pub(super) resyncs: usize,
    pub(super) undecoded: usize,
}

struct Run<'a> {
    place: &'a mut Place,
    generator: Generator,
    /// What befalls frazil; apart from the statements, so that these stay the same.
    fate: StdRng,
    client: Client,
    frazil: Option<Running>,
    interval_ms: u64,
    streaming: bool,
    has_capture: bool,
    nudges: u32,
    told: Told,
}

/// Runs a seed to its end; panics where the lake is not what it must be.
pub(super) async fn seed(place: &mut Place, seed: u64) -> Told {
    place.clear().await;
    let client = place.postgres.client().await;
    client.batch_execute("SET timezone = 'UTC'; SET datestyle = 'ISO'").await.unwrap();
    let mut fate = StdRng::seed_from_u64(!seed);
    let mut run = Run {
        generator: Generator::new(seed),
        client,
        frazil: None,
        interval_ms: *pick(&mut fate, &[50, 100, 300]),
        streaming: fate.random(),
        has_capture: fate.random(),
        nudges: 0,
        told: Told::default(),
        fate,
        place,
    };
    if run.streaming {
        query(&run.client, "ALTER SYSTEM SET logical_decoding_work_mem = '64kB'").await;
        query(&run.client, "SELECT pg_reload_conf()").await;
    }
    let (interval, streaming, capture) = (run.interval_ms, run.streaming, run.has_capture);
    note(&format!("every {interval} ms, streaming: {streaming}, capture: {capture}"));
    let schema = run.generator.schema();
    run.run(Step { sql: schema, read_back: None }).await;
    for _ in 0..run.fate.random_range(1..4) {
        let rows = run.generator.rows();
        run.run(rows).await;
    }
    if run.has_capture {
        Frazil::new(["install-ddl-capture", &run.place.postgres.dsn()]).finish().succeeded();
    }
    run.start(true);
    for _ in 0..run.fate.random_range(1..4) {
        for _ in 0..run.fate.random_range(3..10) {
            run.befall().await;
            let step = run.generator.step();
            run.run(step).await;
        }
        run.compare().await;
    }
    run.stop();
    run.told
}

impl Run<'_> {
    /// Runs a source transaction; a failure of Postgres is one of the generator.
    async fn run(&mut self, step: Step) {
        for sql in step.sql.split("---\n") {
            note(sql);
            query(&self.client, sql).await;
        }
        self.told.steps += 1;
        let Some((name, which)) = step.read_back else { return };
        let table = self.generator.model.tables.iter_mut().find(|t| t.name == name).unwrap();
        let keys: Vec<String> =
            table.key_columns().iter().map(|(name, _)| format!("{name}::text")).collect();
        let sql = format!("SELECT {}, {} FROM {name}", keys.join(","), table.columns[which].name);
        for mut found in query(&self.client, &sql).await {
            let value = found.pop().unwrap();
            let row = table
                .rows
                .iter_mut()
                .find(|row| row.key.iter().zip(&found).all(|(k, f)| f.as_deref() == Some(&**k)));
            row.expect("a row of the model").values[which] = value.map(Into::into);
        }
    }

    fn start(&mut self, may_crash: bool) {
        let mut run = Frazil::run(&self.place.postgres.dsn(), self.place.lake.folder())
            .arg(&format!("--commit-interval={}ms", self.interval_ms));
        if self.streaming {
            run = run.env("FRAZIL_SOURCE__STREAMING", "on");
        }
        if may_crash && self.fate.random_bool(0.3) {
            let (point, pass) =
                (*pick(&mut self.fate, &CRASH_POINTS), self.fate.random_range(0..4));
            run = run.failpoints(&format!("{point}={pass}*off->return"));
        }
        note(&format!("-- starts, may crash: {may_crash}"));
        self.frazil = Some(run.spawn());
    }

    /// Whether it runs; one that has ended by itself must have crashed by a crash point.
    fn is_running(&mut self) -> bool {
        let Some(running) = &mut self.frazil else { return false };
        if running.is_running() {
            return true;
        }
        let ended = self.frazil.take().unwrap().wait(DEADLINE);
        note(&format!("-- crashed\n{}", ended.stderr));
        // Postgres streams a rewrite while it is under way, and then may not find the new file's
        // table: loud, and no matter of the lake. It is decoded once it is committed.
        if self.streaming && ended.stderr.contains("could not map filenode") {
            (self.streaming, self.told.undecoded) = (false, self.told.undecoded + 1);
            return false;
        }
        assert_crashed(&ended);
        self.told.crashes += 1;
        false
    }

    fn stop(&mut self) {
        if !self.is_running() {
            return;
        }
        let running = self.frazil.take().unwrap();
        running.signal("TERM");
        let ended = running.wait(DEADLINE);
        note(&format!("-- stopped\n{}", ended.stderr));
        self.told.stops += 1;
        if ended.code.is_some() {
            ended.succeeded();
        }
    }

    /// Something may happen to frazil before the next source transaction.
    async fn befall(&mut self) {
        match self.fate.random_range(0..14) {
            0 => self.stop(),
            1 | 2 => {
                tokio::time::sleep(Duration::from_millis(self.fate.random_range(0..400))).await;
                if self.is_running() {
                    let killed = self.frazil.take().unwrap().kill9();
                    note(&format!("-- killed\n{}", killed.stderr));
                    self.told.crashes += 1;
                }
            }
            3 if self.is_running() => self.resync(),
            4..=6 if !self.is_running() => self.start(true),
            _ => {}
        }
    }

    fn resync(&mut self) {
        let tables = &self.generator.model.tables;
        if tables.is_empty() {
            return;
        }
        let pattern = format!("public.{}", pick(&mut self.fate, tables).name);
        let (dsn, lake) = (self.place.postgres.dsn(), self.place.lake.folder().to_str().unwrap());
        let wish = Frazil::new(["resync", &dsn, "--into", lake, "--tables", &pattern, "--no-wait"]);
        wish.finish().succeeded();
        self.told.resyncs += 1;
    }

    /// P, and whether a table is behind.
    async fn position(&mut self) -> (u64, bool) {
        let folder = self.place.lake.folder();
        if !folder.join("catalog.db").exists() {
            return (0, false);
        }
        let lake = OurLake::in_folder(folder, "frazil").await.unwrap();
        let ledger = lake.committer.position().await.unwrap();
        ledger.map_or((0, false), |ledger| (ledger.committed_lsn.0, !ledger.behind.is_empty()))
    }

    /// Whether the lake has yet to hear of a column of which no row came; without the capture that
    /// takes a second look at the catalog (docs/schema-changes.md).
    fn lacks_columns(&mut self) -> bool {
        let state = self.place.lake.state();
        let lacks = |table: &Table| {
            let Some(lake) = in_lake(&state, table) else { return false };
            let found = metadata(&state, &lake);
            let current = |schema: &&Value| schema["schema-id"] == found["current-schema-id"];
            let schema = found["schemas"].as_array().unwrap().iter().find(current).unwrap();
            let fields = schema["fields"].as_array().unwrap();
            table.names().iter().any(|name| fields.iter().all(|field| field["name"] != *name))
        };
        self.generator.model.tables.iter().any(lacks)
    }

    /// Waits until the lake holds all that is committed; what comes without an event is noticed
    /// without the capture when another table's description brings a look at the catalog about.
    async fn settle(&mut self) {
        if !self.is_running() {
            self.start(true);
        }
        self.nudges += 1;
        if !self.has_capture {
            let fill = 20 + self.nudges;
            query(&self.client, &format!("ALTER TABLE beside SET (fillfactor = {fill})")).await;
        }
        query(&self.client, &format!("INSERT INTO beside VALUES ({})", self.nudges)).await;
        let now = lsn(&self.place.postgres.value("SELECT pg_current_wal_lsn()").await);
        query(&self.client, "SELECT pg_logical_emit_message(true, 'frazil', '')").await;
        let end = Instant::now() + SOON;
        loop {
            let (position, is_behind) = self.position().await;
            if position >= now && !is_behind && !self.lacks_columns() {
                return;
            }
            if !self.is_running() {
                self.start(false);
            }
            let log = || self.frazil.as_ref().map(Running::stderr).unwrap_or_default();
            assert!(
                Instant::now() < end,
                "at {position:x} of {now:x}, behind: {is_behind}\n{}",
                log()
            );
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// The model is Postgres; the lake is Postgres by DuckDB, and by verify.
    async fn compare(&mut self) {
        self.settle().await;
        note("-- compared");
        let state = self.place.lake.state();
        let tables = self.generator.model.tables.clone();
        for table in &tables {
            self.assert_model(table).await;
            let lake = in_lake(&state, table);
            let lake = lake.unwrap_or_else(|| panic!("no {:?} in the lake", table.past));
            let sql = format!("public.{}", table.name);
            let names = (lake.as_str(), sql.as_str());
            let found = self.place.lake.compare_as(&state, &self.place.postgres, names).await;
            assert!(found.is_equal(), "{names:?} by DuckDB: {found:#?}");
        }
        // A crash point may come while it waits: the lake is complete all the same.
        let source = Source::parse(&self.place.postgres.dsn()).unwrap();
        let lake = OurLake::in_folder(self.place.lake.folder(), "frazil").await.unwrap();
        let (settings, options, bar) = (settings(), Options::default(), ProgressBar::hidden());
        let report = verify(&source, &Arc::new(lake), &settings, &options, &bar).await.unwrap();
        assert!(report.equal, "{}", serde_json::to_string_pretty(&report).unwrap());
        self.told.comparisons += 1;
    }

    async fn assert_model(&mut self, table: &Table) {
        let sql = format!("SELECT {} FROM {}", table.names().join(", "), table.name);
        let mut found: std::collections::BTreeMap<Vec<values::Value>, usize> = Default::default();
        for row in query(&self.client, &sql).await {
            let row: Vec<_> = row.into_iter().map(|v| v.map(Arc::from)).collect();
            *found.entry(row).or_default() += 1;
        }
        let expected = table.contents();
        let of_model: Vec<_> =
            expected.iter().filter(|(k, v)| found.get(*k) != Some(v)).take(3).collect();
        let of_source: Vec<_> =
            found.iter().filter(|(k, v)| expected.get(*k) != Some(v)).take(3).collect();
        assert!(
            of_model.is_empty() && of_source.is_empty(),
            "{}: the model holds {of_model:?}, Postgres {of_source:?}",
            table.name
        );
    }
}

#[track_caller]
fn assert_crashed(ended: &Finished) {
    assert_eq!(ended.code, None, "{} ended by itself:\n{}", ended.name, ended.stderr);
}

/// The name that the table has in the lake: one of those that it has had, and where another table
/// had an earlier one before, the last.
fn in_lake(state: &LakeState, table: &Table) -> Option<String> {
    let past = table.past.iter().rev().map(|name| format!("public.{name}"));
    past.into_iter().find(|name| state.tables().any(|one| one == name))
}

/// Shows what happens where one seed is looked into, without the large values.
fn note(text: &str) {
    if std::env::var_os("FRAZIL_SEED").is_some() {
        let lines = text.lines().map(|line| line.chars().take(300).collect::<String>() + "\n");
        eprintln!("{}", lines.collect::<String>());
    }
}

fn settings() -> frazil::config::Settings {
    let typed = "source: {url: 'postgres://h/d'}\nlake: {into: ./lake}";
    Config::resolve(RawConfig::parse(typed, "test").unwrap()).unwrap().settings
}
