//! The replica identity changes while the stream runs: each tuple is read with the identity it came
//! with (case 75). Where Postgres lets nothing identify a row, its INSERTs are followed (case 73).

use super::scene::{Scene, following, stop};

const SCHEMA: &str = "
    CREATE TABLE t(id int PRIMARY KEY, code int NOT NULL, v text, big text);
    CREATE UNIQUE INDEX by_code ON t(code); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
    INSERT INTO t SELECT g, g, 'v' || g, repeat(md5(g::text), 200) FROM generate_series(1, 40) g;";

/// Changes of rows and of keys, which leave the large value alone.
fn changes(nth: i32) -> String {
    format!(
        "UPDATE t SET v = 'changed {nth}' WHERE id % 3 = {0}; \
         UPDATE t SET id = id + 1000 WHERE id = (SELECT min(id) FROM t); \
         DELETE FROM t WHERE id = (SELECT max(id) FROM t WHERE id < 1000); \
         INSERT INTO t VALUES ({nth} + 2000, {nth} + 2000, 'new', repeat('x', 5000));",
        nth % 3
    )
}

fn switched() -> Vec<String> {
    let identities = ["FULL", "DEFAULT", "FULL", "FULL", "DEFAULT"];
    let alter = |identity| format!("ALTER TABLE t REPLICA IDENTITY {identity};");
    (0..)
        .zip(identities)
        .map(|(nth, to)| changes(2 * nth) + &alter(to) + &changes(2 * nth + 1))
        .collect()
}

// cases: 75 holds
#[tokio::test(flavor = "multi_thread")]
async fn between_full_and_default() {
    let mut scene = Scene::new(SCHEMA).await;
    let running = following(scene.run().spawn());
    for sql in switched() {
        scene.sql(&sql).await;
        scene.wait_until_the_lake_holds_it().await;
        scene.assert_equal(&["public.t"]).await;
    }
    stop(running);
}

// cases: 75 holds
#[tokio::test(flavor = "multi_thread")]
async fn in_one_source_transaction() {
    let mut scene = Scene::new(SCHEMA).await;
    scene.catch_up().succeeded();
    scene.sql(&format!("BEGIN; {}; COMMIT", switched().join(""))).await;
    scene.assert_catches_up(&["public.t"]).await;
}

/// Another identity is another key: what the lake has under the old one must be copied afresh.
// cases: 75 holds
#[tokio::test(flavor = "multi_thread")]
async fn to_an_index_and_back() {
    let mut scene = Scene::new(SCHEMA).await;
    scene.catch_up().succeeded();
    let index = "ALTER TABLE t REPLICA IDENTITY USING INDEX by_code;";
    scene.sql(&(changes(0) + index + &changes(1))).await;
    scene.assert_catches_up(&["public.t"]).await;
    scene.sql(&(changes(2) + "ALTER TABLE t REPLICA IDENTITY DEFAULT;" + &changes(3))).await;
    scene.assert_catches_up(&["public.t"]).await;
}

const NOTHING: &str = "
    CREATE TABLE nothing(id int PRIMARY KEY, v text); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
    CREATE TABLE no_key(a int);
    CREATE TABLE lazy(id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text);
    INSERT INTO nothing VALUES (1, 'a'); INSERT INTO no_key VALUES (1), (1);
    INSERT INTO lazy VALUES (1, 'a'), (2, 'b');";
const UNIDENTIFIED: &[&str] = &["public.nothing", "public.no_key", "public.lazy"];

/// Their INSERTs are published, by themselves, and frazil says so. A deferrable primary key is
/// none to Postgres either.
// cases: 73 holds
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_nothing_identifies_are_appended() {
    let mut scene = Scene::new(NOTHING).await;
    scene.catch_up().succeeded().said("public.lazy").said("public.nothing").said("public.no_key");
    scene.sql("INSERT INTO nothing VALUES (2, 'b'); INSERT INTO no_key VALUES (1)").await;
    scene.sql("INSERT INTO lazy VALUES (3, 'c')").await;
    scene.assert_catches_up(UNIDENTIFIED).await;
    let publications =
        "SELECT tablename FROM pg_publication_tables WHERE pubname = 'frazil_append' ORDER BY 1";
    assert_eq!(
        scene.sql(publications).await.concat(),
        ["lazy", "no_key", "nothing"].map(|t| Some(t.into()))
    );
    // They are not in a publication of updates, so that Postgres does not refuse them.
    scene
        .sql("UPDATE nothing SET v = 'x'; UPDATE lazy SET id = 9 WHERE id = 1; DELETE FROM no_key")
        .await;
    scene.catch_up().succeeded();
}

/// Where a publication of the user's own publishes them, Postgres refuses the change (55000), on
/// every version: the source cannot get ahead of the lake.
// cases: 73 74 holds
#[tokio::test(flavor = "multi_thread")]
async fn postgres_refuses_what_it_cannot_identify() {
    let mut scene =
        Scene::new(&format!("{NOTHING} CREATE PUBLICATION frazil FOR ALL TABLES")).await;
    scene.catch_up().succeeded();
    let client = scene.postgres.client().await;
    for sql in [
        "UPDATE lazy SET v = 'x'",
        "DELETE FROM lazy",
        "UPDATE nothing SET v = 'x'",
        "DELETE FROM no_key",
    ] {
        let refused = client.batch_execute(sql).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "55000", "{sql}");
    }
    scene.sql("INSERT INTO lazy VALUES (3, 'c')").await;
    scene.assert_catches_up(UNIDENTIFIED).await;
}
