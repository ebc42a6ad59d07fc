//! What Postgres publishes no changes of is named by `check`, and does not disturb the rest (case
//! 86).

use crate::support::frazil::Frazil;

use super::scene::{Scene, following, stop};

const SCHEMA: &str = "
    CREATE TABLE t(id serial PRIMARY KEY, v text); INSERT INTO t(v) VALUES ('a');
    CREATE UNLOGGED TABLE unlogged(id int PRIMARY KEY);
    CREATE VIEW a_view AS SELECT * FROM t; CREATE MATERIALIZED VIEW seen AS SELECT * FROM t;
    CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER far FOREIGN DATA WRAPPER nowhere;
    CREATE FOREIGN TABLE far_away(id int) SERVER far;
    CREATE SEQUENCE counter; SELECT lo_create(0);";

// cases: 86 holds
#[tokio::test(flavor = "multi_thread")]
async fn check_names_it_and_the_stream_goes_on() {
    let mut scene = Scene::new(SCHEMA).await;
    let lake = scene.lake.folder().to_str().unwrap().to_owned();
    let checked = Frazil::new(["check", &scene.postgres.dsn(), "--into", &lake]).finish();
    let said = format!("{}{}", checked.stdout, checked.stderr);
    for what in ["unlogged", "a_view", "seen", "far_away", "sequences (2 here", "large objects (1"]
    {
        assert!(said.contains(what), "no {what} in:\n{said}");
    }
    let running = following(scene.run().spawn());
    let work = "INSERT INTO unlogged VALUES (1); REFRESH MATERIALIZED VIEW seen; \
                SELECT nextval('counter'); SELECT lo_create(0); INSERT INTO a_view VALUES (100, 'by the view'); \
                CREATE TEMPORARY TABLE fleeting(id int PRIMARY KEY); INSERT INTO fleeting VALUES (1); \
                INSERT INTO t(v) VALUES ('b'); UPDATE a_view SET v = v || '!'; TRUNCATE fleeting";
    scene.sql(work).await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t"]).await;
    let state = scene.lake.state();
    let tables: Vec<&str> = state.tables().filter(|t| t.starts_with("public.")).collect();
    assert_eq!(tables, ["public.t"]);
    stop(running);
}
