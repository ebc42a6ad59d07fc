//! A random workload over ten tables while frazil is killed, stopped and started again at random:
//! on Nessie, and with the catalog in a Postgres database and the files on S3.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{SOON, Scene, is_long};
use crate::support::frazil::Frazil;
use crate::support::lake::{Lake, LakeState};
use crate::support::minio::{BUCKET, Minio};
use crate::support::postgres::{Postgres, PostgresOptions};
use crate::support::workload::Workload;

/// Runs the workload while frazil comes and goes; it has caught up then.
async fn churn(workload: &mut Workload, postgres: &Postgres, seed: u64, run: impl Fn() -> Frazil) {
    let rounds = if is_long() { 40 } else { 5 };
    let mut random = StdRng::seed_from_u64(seed);
    let client = postgres.client().await;
    for round in 0..rounds {
        let frazil = run().arg("--commit-interval=200ms").spawn();
        let changes = random.random_range(200..2_000);
        workload.run(&client, changes).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..2_500))).await;
        if random.random_bool(0.7) {
            frazil.kill9();
        } else {
            frazil.signal("TERM");
            frazil.wait(SOON).succeeded();
        }
        eprintln!("round {round}: {changes} changes");
    }
    run().arg("--until-caught-up").finish().succeeded();
}

fn seed(default: u64) -> u64 {
    std::env::var("FRAZIL_SEED").map_or(default, |text| text.parse().unwrap())
}

// cases: 127 holds
#[tokio::test(flavor = "multi_thread")]
async fn on_nessie_the_lake_equals_the_source() {
    let seed = seed(20_261_125);
    let mut workload = Workload::new(seed);
    let mut scene = Scene::new(&workload.schema_sql()).await;
    churn(&mut workload, &scene.postgres, seed, || scene.run_plain()).await;
    let tables: Vec<String> = workload.tables().into_iter().map(String::from).collect();
    scene.assert_equal(&tables).await;
    eprintln!("{} lake commits", scene.lake_commits().await.len());
}

// cases: 127 holds
#[tokio::test(flavor = "multi_thread")]
async fn with_the_catalog_in_postgres_the_lake_equals_the_source() {
    let seed = seed(20_261_126);
    let minio = Minio::shared().await;
    let mut workload = Workload::new(seed);
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres.sql(&workload.schema_sql()).await;
    postgres.sql("CREATE DATABASE catalog").await;
    let warehouse = format!("s3://{BUCKET}/sql-{}", uuid::Uuid::new_v4().simple());
    let catalog = postgres.dsn_of("catalog");
    let run = || {
        Frazil::new(["run", &postgres.dsn(), "--catalog", &catalog, "--warehouse", &warehouse])
            .s3_keys(minio)
            .env("AWS_ENDPOINT_URL", &minio.endpoint())
            .env("AWS_REGION", minio.region())
    };
    churn(&mut workload, &postgres, seed, run).await;
    let state = state_in(&catalog).await;
    let mut lake = Lake::in_minio(minio);
    lake.assert_equal_in(&state, &postgres, &workload.tables()).await;
}

/// All metadata locations by one SELECT: one lake commit.
async fn state_in(catalog: &str) -> LakeState {
    let (client, connection) =
        tokio_postgres::connect(catalog, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let sql = "SELECT table_namespace, table_name, metadata_location FROM iceberg_tables";
    let mut locations = BTreeMap::new();
    for row in client.query(sql, &[]).await.unwrap() {
        let (namespace, name, location): (String, String, String) =
            (row.get(0), row.get(1), row.get(2));
        locations.insert(format!("{namespace}.{name}"), location);
    }
    LakeState::of(locations)
}
