//! A scene whose DDL comes in every way it can: with the DDL capture and without it, under a
//! running frazil and while it is down.

use std::collections::BTreeMap;

use serde_json::Value;

use super::capture::install;
use crate::behaviour::scene::{Scene, following, metadata, stop, summaries};
use crate::support::frazil::{Frazil, Running};
use crate::support::postgres::TextRow;

/// How frazil gets to know what Postgres does not announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Event triggers on the source.
    Capture,
    /// It looks at the catalog.
    Catalog,
}

/// What frazil does while the DDL runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// It follows the stream.
    Live,
    /// It is down, and starts afterwards.
    Down,
}

/// See the module.
pub(super) struct Stage {
    pub(super) scene: Scene,
    pub(super) mode: Mode,
    pub(super) position: Position,
    running: Option<Running>,
    nudges: u32,
}

/// A table beside those of the test, whose changes show that the stream goes on.
const BESIDE: &str = "CREATE TABLE beside(id int PRIMARY KEY); INSERT INTO beside VALUES (0);";

/// Runs `scenario` in every mode and position, from `sql` on, each on a source and lake of its own.
/// frazil has copied the tables when it begins; all tables of the source are published by `frazil`
/// itself where `sql` makes no publication of that name.
pub(super) async fn in_every_way(sql: &str, scenario: impl AsyncFn(&mut Stage)) {
    for mode in [Mode::Capture, Mode::Catalog] {
        for position in [Position::Live, Position::Down] {
            in_one_way(mode, position, sql, &scenario).await;
        }
    }
}

/// The same with a running frazil only.
pub(super) async fn in_both_modes(sql: &str, scenario: impl AsyncFn(&mut Stage)) {
    for mode in [Mode::Capture, Mode::Catalog] {
        in_one_way(mode, Position::Live, sql, &scenario).await;
    }
}

async fn in_one_way(
    mode: Mode,
    position: Position,
    sql: &str,
    scenario: &impl AsyncFn(&mut Stage),
) {
    let way = format!("{mode:?}, {position:?}");
    // `FRAZIL_DDL_WAY=Catalog` or `Down`: those only, to look into them.
    if std::env::var("FRAZIL_DDL_WAY").is_ok_and(|only| !way.contains(&only)) {
        return;
    }
    eprintln!("--- {way}");
    let scene = Scene::new(&format!("{BESIDE}{sql}")).await;
    if mode == Mode::Capture {
        install(&scene.postgres);
    }
    let running = Some(following(scene.run().spawn()));
    let mut stage = Stage { scene, mode, position, running, nudges: 0 };
    scenario(&mut stage).await;
    stage.stop();
}

impl Stage {
    /// Runs the statements, each in a source transaction of its own, under a running frazil or
    /// while it is down.
    pub(super) async fn ddl(&mut self, statements: &[&str]) {
        if self.position == Position::Down {
            self.stop();
        }
        for sql in statements {
            self.scene.sql(sql).await;
        }
        if self.position == Position::Down {
            self.start();
        }
    }

    pub(super) async fn sql(&self, sql: &str) -> Vec<TextRow> {
        self.scene.sql(sql).await
    }

    /// Waits until the lake holds it all. Without the capture, what comes without an event is only
    /// noticed at a look at the catalog: another table's description brings that about.
    pub(super) async fn settle(&mut self) {
        // A shape of which no row comes is believed at the second look.
        let looks = if self.mode == Mode::Catalog { 2 } else { 1 };
        for _ in 0..looks {
            self.nudges += 1;
            if self.mode == Mode::Catalog {
                let fill = 40 + self.nudges % 60;
                self.scene.sql(&format!("ALTER TABLE beside SET (fillfactor = {fill})")).await;
            }
            self.scene.sql(&format!("INSERT INTO beside VALUES ({})", self.nudges)).await;
            self.scene.wait_until_the_lake_holds_it().await;
        }
    }

    /// [`Stage::settle`], and then the tables (`schema.name`) and the one beside them are equal.
    pub(super) async fn settles_equal(&mut self, tables: &[&str]) {
        self.settle().await;
        let all: Vec<&str> = tables.iter().copied().chain(["public.beside"]).collect();
        self.scene.assert_equal(&all).await;
    }

    /// [`Stage::settle`], and then each lake table equals a table or view of the source.
    pub(super) async fn settles_as(&mut self, pairs: &[(&str, &str)]) {
        self.settle().await;
        let state = self.scene.lake.state();
        for pair in pairs {
            let found = self.scene.lake.compare_as(&state, &self.scene.postgres, *pair).await;
            assert!(found.is_equal(), "{pair:?}: {found:#?}");
        }
    }

    /// The names and ids of the lake table's fields.
    pub(super) fn fields(&mut self, table: &str) -> BTreeMap<String, i64> {
        let found = metadata(&self.scene.lake.state(), table);
        let current = |schema: &&Value| schema["schema-id"] == found["current-schema-id"];
        let schema = found["schemas"].as_array().unwrap().iter().find(current).unwrap();
        let fields = schema["fields"].as_array().unwrap().iter();
        fields
            .map(|f| (f["name"].as_str().unwrap().to_owned(), f["id"].as_i64().unwrap()))
            .collect()
    }

    /// How many lake commits changed the table's rows.
    pub(super) fn lake_commits(&mut self, table: &str) -> usize {
        let found = metadata(&self.scene.lake.state(), table);
        let commits = summaries(&found);
        let mut made: Vec<_> = commits.iter().map(|s| s["frazil.lake-commit"].clone()).collect();
        made.dedup();
        made.len()
    }

    /// What frazil has logged since it was started last.
    pub(super) fn log(&self) -> String {
        self.running.as_ref().unwrap().stderr()
    }

    /// `SIGSTOP` or `SIGCONT`.
    pub(super) fn signal(&self, name: &str) {
        self.running.as_ref().unwrap().signal(name);
    }

    /// A clean end, of a run that has never lost its stream.
    pub(super) fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            let ended = stop(running);
            let starts = ended.stderr.matches("following the stream").count();
            assert_eq!(starts, 1, "the stream was begun again:\n{}", ended.stderr);
        }
    }

    pub(super) fn start(&mut self) {
        self.running = Some(following(self.scene.run().spawn()));
    }

    /// `frazil check -o json`.
    pub(super) fn check(&self) -> String {
        Frazil::new(["check", &self.scene.postgres.dsn(), "-o", "json"]).finish().stdout
    }
}
