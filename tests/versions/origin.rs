//! `source.origin: none` leaves out what the source itself replicates, from Postgres 16 on.

use crate::behaviour::scene::Scene;
use crate::support::postgres::PostgresOptions;
use crate::support::servers::{bin_dir_at_least, bin_dir_of};

const SQL: &str = "CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t VALUES (1)";
const FROM_ELSEWHERE: &str = "SELECT pg_replication_origin_create('elsewhere'); \
     SELECT pg_replication_origin_session_setup('elsewhere'); \
     INSERT INTO t VALUES (2)";

// cases: 87 holds
#[tokio::test(flavor = "multi_thread")]
async fn what_came_from_elsewhere_is_left_out_where_that_is_wished() {
    for (origin, rows) in [("none", "2"), ("any", "3")] {
        let options = PostgresOptions::default().bin_dir(bin_dir_at_least(16));
        let mut scene = Scene::with(options, SQL).await;
        let run = || {
            let run = scene.run().env("FRAZIL_SOURCE__ORIGIN", origin);
            run.arg("--until-caught-up").finish().succeeded()
        };
        run();
        let client = scene.postgres.client().await;
        for statement in FROM_ELSEWHERE.split(';') {
            client.batch_execute(statement).await.unwrap();
        }
        scene.sql("INSERT INTO t VALUES (3)").await;
        run();
        let state = scene.lake.state();
        let found = scene.lake.query(&state, "SELECT count(*) FROM {public.t}");
        assert_eq!(found[0][0].as_deref(), Some(rows), "origin {origin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_server_cannot() {
    let options = PostgresOptions::default().bin_dir(bin_dir_of("15"));
    let scene = Scene::with(options, SQL).await;
    scene.catch_up().succeeded();
    let run = scene.run().env("FRAZIL_SOURCE__ORIGIN", "none").arg("--until-caught-up");
    run.finish().exited(78).said("STREAM_OPTION").said("Postgres 16");
}
