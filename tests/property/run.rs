//! One seed: a database and a lake of its own, rounds of work with frazil running, crashing or
//! down,
//! and the comparisons.

use std::path::PathBuf;
use std::time::Duration;

use rand::Rng;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::model::Model;
use crate::support::frazil::{Finished, Frazil};
use crate::support::postgres::{Postgres, query};

const ROUNDS: usize = 3;
const CRASH_POINTS: &[&str] = &[
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

struct Scene {
    seed: u64,
    model: Model,
    client: Client,
    dsn: String,
    folder: TempDir,
}

impl Scene {
    fn lake(&self) -> PathBuf {
        self.folder.path().join("lake")
    }

    fn verb(&self, verb: &str) -> Frazil {
        let lake = self.lake().display().to_string();
        let slot = format!("property_{}", self.seed);
        Frazil::new([verb, &self.dsn, "--into", &lake, "--slot", &slot])
    }

    fn run(&self) -> Frazil {
        self.verb("run").arg("--commit-interval=50ms")
    }

    fn catch_up(&self) -> Finished {
        let ended = self.run().arg("--until-caught-up").finish();
        if std::env::var_os("FRAZIL_SEED").is_some() {
            eprintln!("{}", ended.stderr);
        }
        ended
    }

    async fn sql(&self, sql: &str) {
        if std::env::var_os("FRAZIL_SEED").is_some() {
            eprintln!("{sql}");
        }
        if let Err(error) = self.client.batch_execute(sql).await {
            panic!(
                "seed {}: {error:?}\nin: {}",
                self.seed,
                sql.chars().take(2_000).collect::<String>()
            );
        }
    }

    async fn work(&mut self) {
        for _ in 0..self.model.random.random_range(2..8) {
            let sql = self.model.transaction();
            self.sql(&sql).await;
            if self.model.chance(25) {
                let sql = self.model.ddl();
                self.sql(&sql).await;
            }
        }
    }

    /// The model against the source: that the model is right is what the rest stands on.
    async fn source_is_as_modelled(&self) {
        for table in &self.model.tables {
            let names: Vec<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
            let sql = format!("SELECT {} FROM {}", names.join(", "), table.name);
            let rows = query(&self.client, &sql).await;
            assert_eq!(
                sorted(rows),
                sorted(table.rows.clone()),
                "seed {}: {}",
                self.seed,
                table.name
            );
        }
    }

    /// The source against the lake.
    fn lake_is_as_the_source(&self) {
        let ended = self.verb("verify").finish();
        assert_eq!(ended.code, Some(0), "seed {}: {}\n{}", self.seed, ended.stdout, ended.stderr);
    }
}

fn sorted(mut rows: Vec<Vec<Option<String>>>) -> Vec<Vec<Option<String>>> {
    rows.sort();
    rows
}

pub(super) async fn one(seed: u64) {
    let postgres = Postgres::shared().await;
    let database = postgres.database().await;
    let dsn = postgres.dsn_of(&database);
    let (client, connection) = tokio_postgres::connect(&dsn, NoTls).await.unwrap();
    tokio::spawn(connection);
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene { seed, model: Model::new(seed), client, dsn, folder };
    make(&mut scene).await;
    scene.catch_up().succeeded();
    for _ in 0..ROUNDS {
        round(&mut scene).await;
        scene.catch_up().succeeded();
        scene.source_is_as_modelled().await;
        scene.lake_is_as_the_source();
    }
    scene.sql(&format!("SELECT pg_drop_replication_slot('property_{seed}')")).await;
}

/// The schema, published as a whole or by frazil.
async fn make(scene: &mut Scene) {
    scene.sql("CREATE TYPE mood AS ENUM ('sad', 'ok'); SET extra_float_digits = 3; SET timezone = 'UTC'").await;
    let mut made = String::new();
    for nth in 0..scene.model.random.random_range(1..4) {
        let partitioned = nth == 0 && scene.model.chance(50);
        made += &scene.model.new_table(None, partitioned);
    }
    scene.sql(&made).await;
    if scene.model.chance(50) {
        let installed = Frazil::new(["install-ddl-capture", &scene.dsn]).finish();
        installed.succeeded();
    }
    let names: Vec<&str> = scene.model.tables.iter().map(|table| table.name.as_str()).collect();
    let publication = format!(
        "CREATE PUBLICATION frazil FOR TABLE {} WITH (publish_via_partition_root = true)",
        names.join(", ")
    );
    scene.sql(&publication).await;
}

async fn round(scene: &mut Scene) {
    match scene.model.random.random_range(0..4) {
        // Down.
        0 => scene.work().await,
        // Running, and stopped.
        1 => {
            let mut running = scene.run().spawn();
            running.wait_for_log("following the stream", Duration::from_secs(60));
            scene.work().await;
            running.signal("TERM");
            let ended = running.wait(Duration::from_secs(60));
            assert_eq!(ended.code, Some(0), "seed {}: {}", scene.seed, ended.stderr);
        }
        // Killed at some moment.
        2 => {
            let running = scene.run().spawn();
            scene.work().await;
            let pause = scene.model.random.random_range(0..400);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            running.kill9();
        }
        // Killed at a point of the data path.
        _ => {
            let point = CRASH_POINTS[scene.model.random.random_range(0..CRASH_POINTS.len())];
            let nth = scene.model.random.random_range(0..3);
            scene.work().await;
            let run = scene.run().failpoints(&format!("{point}={nth}*off->return"));
            let ended = run.arg("--until-caught-up").finish();
            if std::env::var_os("FRAZIL_SEED").is_some() {
                eprintln!("{point} {nth}: {:?}\n{}", ended.code, ended.stderr);
            }
            assert_ne!(ended.code, Some(1), "seed {}: {}", scene.seed, ended.stderr);
        }
    }
}
