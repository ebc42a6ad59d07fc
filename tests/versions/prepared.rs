//! PREPARE TRANSACTION: nothing of it is in the lake before COMMIT PREPARED, all of it after.

use crate::behaviour::scene::Scene;
use crate::support::postgres::PostgresOptions;

// cases: 126 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_comes_with_its_commit() {
    let options = PostgresOptions::default().set("max_prepared_transactions", "4");
    let sql = "CREATE TABLE t(id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')";
    let mut scene = Scene::with(options, sql).await;
    scene.catch_up().succeeded();
    for (id, name) in [(10, "kept"), (20, "given_up")] {
        let client = scene.postgres.client().await;
        let work = format!("BEGIN; INSERT INTO t VALUES ({id}, 'p'); PREPARE TRANSACTION '{name}'");
        client.batch_execute(&work).await.unwrap();
    }
    scene.sql("INSERT INTO t VALUES (2, 'later')").await;
    scene.assert_catches_up(&["public.t"]).await;
    scene.sql("UPDATE t SET v = 'after' WHERE id = 2").await;
    scene.sql("COMMIT PREPARED 'kept'").await;
    scene.sql("ROLLBACK PREPARED 'given_up'").await;
    scene.assert_catches_up(&["public.t"]).await;
    let state = scene.lake.state();
    let ids = scene.lake.query(&state, "SELECT id FROM {public.t} ORDER BY id");
    let ids: Vec<&str> = ids.iter().map(|row| row[0].as_deref().unwrap()).collect();
    assert_eq!(ids, ["1", "2", "10"]);
}
