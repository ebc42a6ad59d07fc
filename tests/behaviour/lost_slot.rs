//! The server gives up a slot that holds back more WAL than `max_slot_wal_keep_size`.

use super::scene::Scene;
use crate::support::postgres::PostgresOptions;

// cases: 18 stops SLOT_LOST
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_the_server_gave_up_is_lost() {
    let options = PostgresOptions::default()
        .set("max_slot_wal_keep_size", "1MB")
        .set("min_wal_size", "32MB")
        .set("max_wal_size", "64MB");
    let sql = "CREATE TABLE t(id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'); \
         CREATE TABLE other(v text)";
    let mut scene = Scene::with(options, sql).await;
    scene.run().arg("--until-caught-up").arg("--tables=public.t").finish().succeeded();
    scene.sql("UPDATE t SET v = 'unseen'").await;
    for _ in 0..40 {
        scene.sql("INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 3000)").await;
        scene.sql("SELECT pg_switch_wal()").await;
        scene.sql("CHECKPOINT").await;
        let status = "SELECT wal_status FROM pg_replication_slots";
        if scene.postgres.value(status).await == "lost" {
            break;
        }
    }
    let run = || scene.run().arg("--until-caught-up").arg("--tables=public.t");
    run().finish().exited(1).said("SLOT_LOST").said("on_slot_loss");
    run().env("FRAZIL_SOURCE__ON_SLOT_LOSS", "resync").finish().succeeded();
    scene.assert_equal(&["public.t"]).await;
}
