//! The lake on Nessie and S3, live, wrong, and repaired.

use std::time::Duration;

use frazil::iceberg::committer::Committer;
use frazil::iceberg::committer::rest::RestCommitter;
use frazil::iceberg::table_ident;
use serde_json::Value;

use crate::contract;
use crate::support::frazil::{Finished, Frazil};
use crate::support::minio::Minio;
use crate::support::nessie::{Branch, Nessie};
use crate::support::postgres::{Postgres, PostgresOptions};

struct Scene {
    postgres: Postgres,
    minio: &'static Minio,
    branch: Branch,
}

impl Scene {
    async fn new(sql: &str) -> Self {
        let postgres = Postgres::start(PostgresOptions::default()).await;
        postgres.sql(sql).await;
        let branch = Nessie::shared().await.branch().await;
        Self { postgres, minio: Minio::shared().await, branch }
    }

    /// As [`super::Scene::tamper`].
    async fn tamper(&self, rows: &[(i64, &str)], deleted: &[i64]) {
        let settings = contract::rest_settings(self.branch.uri(), &self.branch);
        let storage = contract::minio_settings().await;
        let committer = RestCommitter::connect(settings, storage, "frazil").await.unwrap();
        let table = committer.table(&table_ident("public", "t")).await.unwrap().unwrap();
        let (schema, location) = (table.metadata().current_schema(), table.metadata().location());
        let segment = contract::segment(committer.storage(), location, schema, rows, deleted).await;
        super::commit(&committer, "t", vec![segment], false).await;
    }

    fn verify(&self, arguments: &[&str]) -> Finished {
        let catalog = format!("nessie+{}", self.branch.uri());
        let (dsn, reference) = (self.postgres.dsn(), self.branch.name());
        let mut all = vec!["verify", &dsn, "--catalog", &catalog, "--ref", reference, "-ojson"];
        all.extend(arguments);
        Frazil::new(all).s3_keys(self.minio).finish()
    }
}

// cases: 178 180 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_live_lake_on_nessie_is_proved_and_repaired() {
    let scene = Scene::new(
        "CREATE TABLE t(id bigint PRIMARY KEY, v text); INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 500) g;
         CREATE TABLE log(what text)",
    )
    .await;
    let run = Frazil::nessie(&scene.postgres.dsn(), &scene.branch, scene.minio);
    let mut running = run.arg("--commit-interval=200ms").spawn();
    running.wait_for_log("following the stream", Duration::from_secs(90));
    let client = scene.postgres.client().await;
    let writing = tokio::spawn(async move {
        for n in 0..200 {
            let sql = format!(
                "UPDATE t SET v = 'w{n}' WHERE id = {}; INSERT INTO log VALUES ('l')",
                n % 400
            );
            client.batch_execute(&sql).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    for _ in 0..2 {
        scene.verify(&[]).succeeded();
    }
    writing.await.unwrap();
    running.signal("TERM");
    running.wait(Duration::from_secs(60)).succeeded();
    scene.tamper(&[(460, "other"), (5000, "unknown")], &[460]).await;
    let ended = scene.verify(&[]).exited(1);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let t = report["tables"].as_array().unwrap().iter().find(|t| t["table"] == "public.t").unwrap();
    assert_eq!((&t["extra"], &t["differing"]), (&1.into(), &1.into()), "{report:#}");
    let ended = scene.verify(&["--repair"]).succeeded();
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["repaired"]["rows_inserted"], 1, "{report:#}");
    assert_eq!(report["repaired"]["keys_deleted"], 2, "{report:#}");
    scene.verify(&[]).succeeded();
}
