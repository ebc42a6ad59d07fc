//! ALTER TABLE and the like: followed exactly, or the table is copied afresh; never in silence.

use serde_json::Value;

use super::scene::{Scene, metadata, stop};

const TABLE: &str = "CREATE TABLE t(id int PRIMARY KEY, a text, b int); \
     CREATE TABLE other(id int PRIMARY KEY); \
     INSERT INTO t SELECT g, 'old', g FROM generate_series(1, 5) g;";

// cases: 90 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_without_default_is_null_in_old_rows() {
    let mut scene = Scene::new(TABLE).await;
    let frazil = scene.started();
    scene.sql("ALTER TABLE t ADD COLUMN c text; INSERT INTO t VALUES (6, 'x', 6, 'new')").await;
    scene.sql("UPDATE t SET c = 'set' WHERE id = 2").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t"]).await;
    stop(frazil);
}

const CONSTANTS: &[(&str, &str)] = &[
    ("int", "7"),
    ("int8", "-9223372036854775808"),
    ("text", "'a \"quoted\", {braced} \\ ''text'''"),
    ("text", "'NULL'"),
    ("text", "''"),
    ("varchar(10)", "'x,y'"),
    ("char(4)", "'ab'"),
    ("bool", "true"),
    ("numeric(9,3)", "-12.5"),
    ("numeric", "'1.500'"),
    ("float8", "'-0'"),
    ("float4", "'NaN'"),
    ("bytea", "'\\x00ff22'"),
    ("date", "'2020-02-29'"),
    ("time", "'23:59:59.999999'"),
    ("timestamp", "'2000-01-01 00:00:00.000001'"),
    ("timestamptz", "'2020-01-01 12:00:00+05'"),
    ("interval", "'-1 mon +3 days -00:00:01'"),
    ("uuid", "'00000000-0000-4000-8000-00000000000a'"),
    ("jsonb", "'{\"a\": [1, \"b\\\\\"]}'"),
    ("json", "'{\"a\" : 1, \"a\":2}'"),
    ("mood", "'so so'"),
    ("price", "2.5"),
    ("int[]", "'{1,NULL,3}'"),
    ("int[]", "'{}'"),
    ("text[]", "'{\"a,b\",NULL,\"NULL\",\"q\\\"\"}'"),
];

// cases: 91 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_constant_default_stands_in_old_rows() {
    let types = "CREATE TYPE mood AS ENUM ('so so', 'happy'); CREATE DOMAIN price AS numeric(8,3);";
    let mut scene = Scene::new(&format!("{types}{TABLE}")).await;
    scene.catch_up().succeeded();
    for (at, (kind, value)) in CONSTANTS.iter().enumerate() {
        scene.sql(&format!("ALTER TABLE t ADD COLUMN c{at} {kind} DEFAULT {value}")).await;
        // One column a window, then several in one window.
        if at < 4 {
            scene.sql(&format!("INSERT INTO t(id) VALUES ({})", 100 + at)).await;
            scene.assert_catches_up(&["public.t"]).await;
        }
    }
    scene.sql("INSERT INTO t(id) VALUES (200)").await;
    scene.assert_catches_up(&["public.t"]).await;
}

// cases: 104 125 151 holds
#[tokio::test(flavor = "multi_thread")]
async fn columns_and_data_in_one_window() {
    let mut scene = Scene::new(TABLE).await;
    scene.catch_up().succeeded();
    scene
        .sql(
            "BEGIN; INSERT INTO t VALUES (10, 'before', 1); UPDATE t SET a = 'u' WHERE id = 1; \
             ALTER TABLE t ADD COLUMN c int DEFAULT 7; INSERT INTO t VALUES (11, 'between', 2); \
             UPDATE t SET c = 8 WHERE id = 2; DELETE FROM t WHERE id = 3; \
             ALTER TABLE t ADD COLUMN d text DEFAULT 'd'; INSERT INTO t VALUES (12, 'after', 3, 9); \
             UPDATE t SET d = NULL WHERE id = 10; COMMIT",
        )
        .await;
    scene.assert_catches_up(&["public.t"]).await;
    scene
        .sql(
            "BEGIN; INSERT INTO t VALUES (20, 'x', 1); SAVEPOINT s; \
             ALTER TABLE t ADD COLUMN gone int DEFAULT 1; INSERT INTO t VALUES (21, 'y', 1); \
             ROLLBACK TO s; INSERT INTO t VALUES (22, 'z', 1); COMMIT",
        )
        .await;
    scene.assert_catches_up(&["public.t"]).await;
    scene
        .sql(
            "ALTER TABLE t ADD COLUMN e int DEFAULT 5; INSERT INTO t VALUES (30, 'x', 1); \
             ALTER TABLE t DROP COLUMN e; INSERT INTO t VALUES (31, 'x', 1); \
             ALTER TABLE t ADD COLUMN f int DEFAULT 6; INSERT INTO t VALUES (32, 'x', 1)",
        )
        .await;
    scene.catch_up().succeeded();
    scene.assert_equal(&["public.t"]).await;
}

// cases: 93 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_column_is_null_from_then_on() {
    let mut scene = Scene::new(TABLE).await;
    let frazil = scene.started();
    scene.sql("ALTER TABLE t DROP COLUMN a; INSERT INTO t VALUES (6, 60)").await;
    scene.sql("UPDATE t SET b = -b WHERE id = 1; DELETE FROM t WHERE id = 2").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t"]).await;
    stop(frazil);
}

// cases: 95 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_column_keeps_its_field_id() {
    let mut scene = Scene::new(TABLE).await;
    let frazil = scene.started();
    scene.sql("ALTER TABLE t RENAME a TO renamed; INSERT INTO t VALUES (6, 'new', 6)").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t"]).await;
    let found = metadata(&scene.lake.state(), "public.t");
    let current = |schema: &&Value| schema["schema-id"] == found["current-schema-id"];
    let schema = found["schemas"].as_array().unwrap().iter().find(current).unwrap();
    let field = schema["fields"].as_array().unwrap().iter().find(|f| f["name"] == "renamed");
    assert_eq!(field.unwrap()["id"], 2);
    stop(frazil);
}

// cases: 89 99 holds
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_no_row_stops_nothing() {
    let mut scene = Scene::new(TABLE).await;
    let frazil = scene.started();
    for (at, sql) in [
        "VACUUM FULL t",
        "CLUSTER t USING t_pkey",
        "ANALYZE t",
        "ALTER TABLE t ALTER b SET NOT NULL",
        "ALTER TABLE t ALTER b DROP NOT NULL",
        "ALTER TABLE t ALTER b SET DEFAULT 5",
        "ALTER TABLE t ADD CHECK (b < 1000)",
        "CREATE INDEX ON t(b)",
        "ALTER TABLE t ALTER a SET STORAGE EXTERNAL",
        "ALTER TABLE t SET (fillfactor = 50)",
        "TRUNCATE t",
        "COMMENT ON TABLE t IS 'x'",
        "ALTER TABLE t REPLICA IDENTITY FULL",
        "ALTER TABLE t REPLICA IDENTITY DEFAULT",
        "VACUUM FULL t",
    ]
    .iter()
    .enumerate()
    {
        scene.sql(sql).await;
        scene.sql(&format!("INSERT INTO t VALUES ({}, 'x', 1)", 100 + at)).await;
        scene.sql("UPDATE t SET a = a || '.' WHERE id >= 100").await;
        scene.wait_until_the_lake_holds_it().await;
        scene.assert_equal(&["public.t"]).await;
    }
    stop(frazil);
}

/// Runs `sql` under a running frazil, and again under one that is down: the table is copied afresh,
/// the other one goes on meanwhile, and the lake equals the source.
async fn is_copied_afresh(prepare: &str, sql: &str) {
    for is_down in [false, true] {
        let mut scene = Scene::new(&format!("{TABLE}{prepare}")).await;
        let running = scene.started();
        scene.sql("INSERT INTO t(id, b) VALUES (50, 50)").await;
        scene.wait_until_the_lake_holds_it().await;
        let running = match is_down {
            true => {
                stop(running);
                None
            }
            false => Some(running),
        };
        for statement in sql.split(';') {
            scene.sql(statement).await;
        }
        scene.sql("INSERT INTO other VALUES (1)").await;
        if let Some(running) = running {
            scene.wait_until_the_lake_holds_it().await;
            scene.assert_equal(&["public.t", "public.other"]).await;
            scene.sql("UPDATE t SET a = 'later'; INSERT INTO other VALUES (2)").await;
            scene.wait_until_the_lake_holds_it().await;
            scene.assert_equal(&["public.t", "public.other"]).await;
            stop(running).said("is copied afresh");
        }
        scene.sql("DELETE FROM t WHERE a IS NULL; UPDATE t SET a = 'last' WHERE id > 2").await;
        scene.catch_up().succeeded();
        scene.assert_equal(&["public.t", "public.other"]).await;
    }
}

// cases: 94 holds
#[tokio::test(flavor = "multi_thread")]
async fn drop_and_add_again() {
    is_copied_afresh(
        "",
        "ALTER TABLE t DROP COLUMN b;ALTER TABLE t ADD COLUMN b int;INSERT INTO t VALUES (9)",
    )
    .await;
}

// cases: 96 97 holds
#[tokio::test(flavor = "multi_thread")]
async fn another_type() {
    for sql in [
        "ALTER TABLE t ALTER b TYPE bigint;INSERT INTO t VALUES (9)",
        "ALTER TABLE t ALTER b TYPE text;INSERT INTO t VALUES (9)",
    ] {
        is_copied_afresh("", sql).await;
    }
}

// cases: 96 holds
#[tokio::test(flavor = "multi_thread")]
async fn another_precision() {
    let mut scene = Scene::new(
        "CREATE TABLE t(id int PRIMARY KEY, n numeric(5,2)); INSERT INTO t VALUES (1, 123.45)",
    )
    .await;
    scene.catch_up().succeeded();
    scene.sql("ALTER TABLE t ALTER n TYPE numeric(9,2)").await;
    scene.sql("INSERT INTO t VALUES (2, 1234567.89)").await;
    scene.catch_up().succeeded();
    scene.assert_equal(&["public.t"]).await;
}

// cases: 98 holds
#[tokio::test(flavor = "multi_thread")]
async fn another_name_for_the_same_text_is_followed() {
    let mut scene = Scene::new(TABLE).await;
    let frazil = scene.started();
    scene.sql("ALTER TABLE t ALTER a TYPE varchar; INSERT INTO t VALUES (9, 'x')").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t"]).await;
    stop(frazil);
}

/// No row is rewritten, but what the old key does not tell apart the new one may.
// cases: 100 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_wider_primary_key() {
    is_copied_afresh(
        "ALTER TABLE t ALTER b SET NOT NULL;",
        "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, b);INSERT INTO t VALUES (1, 'second', 99);UPDATE t SET a = 'new' WHERE b = 99",
    )
    .await;
}

// cases: 92 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_volatile_default() {
    is_copied_afresh(
        "",
        "ALTER TABLE t ADD COLUMN r float8 DEFAULT random();INSERT INTO t VALUES (9)",
    )
    .await;
}

// cases: 100 holds
#[tokio::test(flavor = "multi_thread")]
async fn another_primary_key() {
    is_copied_afresh(
        "ALTER TABLE t ADD COLUMN code text NOT NULL DEFAULT gen_random_uuid()::text;",
        "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (code);UPDATE t SET a = 'new' WHERE id = 2;DELETE FROM t WHERE id = 3",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_identity_index() {
    is_copied_afresh(
        "ALTER TABLE t ADD COLUMN u int NOT NULL GENERATED BY DEFAULT AS IDENTITY, ADD COLUMN v int NOT NULL GENERATED BY DEFAULT AS IDENTITY; \
         CREATE UNIQUE INDEX by_u ON t(u); CREATE UNIQUE INDEX by_v ON t(v); ALTER TABLE t REPLICA IDENTITY USING INDEX by_u;",
        "ALTER TABLE t REPLICA IDENTITY USING INDEX by_v;UPDATE t SET a = 'new' WHERE id = 2;DELETE FROM t WHERE id = 3",
    )
    .await;
}

// cases: 107 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_table_published_later_comes_with_its_older_rows() {
    let mut scene = Scene::new(TABLE).await;
    let running = scene.started();
    scene.sql("CREATE TABLE late(id int PRIMARY KEY); INSERT INTO late VALUES (1)").await;
    scene.sql("ALTER PUBLICATION frazil ADD TABLE late").await;
    scene.sql("INSERT INTO late VALUES (2)").await;
    scene.sql("INSERT INTO t VALUES (6, 'x', 6)").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t", "public.late"]).await;
    scene.sql("UPDATE late SET id = id + 10; INSERT INTO late VALUES (3)").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t", "public.late"]).await;
    stop(running);
}

/// VACUUM FULL writes the constant into the rows and forgets it: what frazil has not asked for by
/// then, it can't ask for any more.
// cases: 91 106 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_constant_that_vacuum_full_took_away_is_not_lost_in_silence() {
    let mut scene = Scene::new(TABLE).await;
    let running = scene.started();
    scene.sql("INSERT INTO other VALUES (1)").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.sql("ALTER TABLE t ADD COLUMN c int DEFAULT 7").await;
    // Another Relation message makes frazil look at the catalog, which has the new column by now.
    scene.sql("ALTER TABLE other SET (fillfactor = 90)").await;
    for id in 2..4 {
        scene.sql(&format!("INSERT INTO other VALUES ({id})")).await;
        scene.wait_until_the_lake_holds_it().await;
    }
    scene.sql("VACUUM FULL t").await;
    scene.sql("INSERT INTO t VALUES (9)").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t"]).await;
    stop(running);
}

/// The stream is binary; a type whose binary form is unknown must not be read as if it were known.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_column_of_an_opaque_type() {
    let mut scene = Scene::new(TABLE).await;
    scene.catch_up().succeeded();
    let running = scene.started();
    scene.sql("ALTER TABLE t ADD COLUMN i inet, ADD COLUMN r int4range").await;
    scene.sql("INSERT INTO t VALUES (9, 'x', 1, '10.0.0.1/8', '[1,5)')").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t"]).await;
    stop(running);
}

// cases: 91 93 95 106 holds
#[tokio::test(flavor = "multi_thread")]
async fn ddl_while_frazil_is_down() {
    let mut scene = Scene::new(TABLE).await;
    scene.catch_up().succeeded();
    scene
        .sql(
            "ALTER TABLE t ADD COLUMN c int DEFAULT 7; INSERT INTO t VALUES (6, 'x', 6); \
             ALTER TABLE t DROP COLUMN a; ALTER TABLE t RENAME b TO bb; \
             UPDATE t SET bb = 100 WHERE id = 1; CREATE INDEX ON t(bb)",
        )
        .await;
    scene.assert_catches_up(&["public.t"]).await;
    for statement in [
        "ALTER TABLE t ADD COLUMN d text DEFAULT 'd'",
        "INSERT INTO t VALUES (7)",
        "ALTER TABLE t RENAME d TO e",
        "INSERT INTO t VALUES (8)",
        "ALTER TABLE t ADD COLUMN f text",
        "INSERT INTO t VALUES (9)",
    ] {
        scene.sql(statement).await;
    }
    scene.catch_up().succeeded();
    scene.assert_equal(&["public.t"]).await;
}

// cases: 101 103 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_table_and_a_dropped_table() {
    let mut scene = Scene::new(TABLE).await;
    let running = scene.started();
    scene.sql("ALTER TABLE t RENAME TO t2; INSERT INTO t2 VALUES (6, 'x', 6)").await;
    scene.wait_until_the_lake_holds_it().await;
    let count = "SELECT count(*), sum(b) FROM";
    let state = scene.lake.state();
    let name = if state.tables().any(|t| t == "public.t2") { "public.t2" } else { "public.t" };
    let lake = scene.lake.query(&state, &format!("{count} {{{name}}}"));
    assert_eq!(lake, scene.sql(&format!("{count} t2")).await);
    // The same name, another table: never appended to the old one.
    scene.sql("DROP TABLE t2; CREATE TABLE t(id int PRIMARY KEY, a text, c int)").await;
    scene.sql("ALTER PUBLICATION frazil ADD TABLE t").await;
    scene.sql("INSERT INTO t VALUES (77, 'other table', 1)").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t"]).await;
    scene.sql("ALTER TABLE t ADD COLUMN d int DEFAULT 4; INSERT INTO t VALUES (78, 'x', 1)").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t"]).await;
    stop(running);
}
