//! Source transactions that arrive before they commit (protocol 2).

mod large;
mod random_workload;
mod rolled_back;
mod shapes;
mod stopped;

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::behaviour::scene::{Scene, following};
use crate::support::frazil::{Frazil, Running};
use crate::support::postgres::PostgresOptions;

/// A source that streams whatever is over 64 KiB.
async fn scene(sql: &str) -> Scene {
    let options = PostgresOptions::default().set("logical_decoding_work_mem", "64kB");
    Scene::with(options, sql).await
}

fn run(scene: &Scene) -> Frazil {
    scene.run().env("FRAZIL_SOURCE__STREAMING", "on")
}

fn started(scene: &Scene) -> Running {
    following(run(scene).spawn())
}

/// Bytes that the server has sent of transactions that were open then.
async fn streamed_bytes(scene: &Scene) -> u64 {
    let sql = "SELECT coalesce(sum(stream_bytes), 0)::bigint FROM pg_stat_replication_slots";
    scene.postgres.value(sql).await.parse().unwrap()
}

/// Runs `sql` in the open transaction of `client`, and waits until the server has sent some of it.
async fn sent(scene: &Scene, client: &Client, sql: &str) {
    let before = streamed_bytes(scene).await;
    client.batch_execute(sql).await.unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while streamed_bytes(scene).await == before {
        assert!(Instant::now() < end, "nothing was streamed of {sql}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// Inserts rows of about 200 bytes.
fn rows(table: &str, from: u32, to: u32) -> String {
    format!(
        "INSERT INTO {table} SELECT g, repeat(md5(g::text), 6) FROM generate_series({from}, {to}) g;"
    )
}
