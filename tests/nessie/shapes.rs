//! What may happen to tables and rows, followed into Nessie: changes of schema, TRUNCATE, values
//! stored out of line, changes of keys, and a source transaction of several segments.

use super::{Scene, stop};

const SCHEMA: &str = "
CREATE TABLE people(id int PRIMARY KEY, name text, born date);
INSERT INTO people SELECT g, 'p' || g, DATE '2000-01-01' + g FROM generate_series(1, 500) g;
CREATE TABLE docs(id int PRIMARY KEY, n int NOT NULL, body text);
ALTER TABLE docs ALTER body SET STORAGE EXTERNAL;
INSERT INTO docs SELECT g, 0, repeat(md5(g::text), 400) FROM generate_series(1, 100) g;
CREATE TABLE codes(a int, b text, v bigint, PRIMARY KEY (a, b));
INSERT INTO codes SELECT g, 'b' || g, g FROM generate_series(1, 200) g;
CREATE TABLE events(what text, n int);
INSERT INTO events SELECT 'e', g % 3 FROM generate_series(1, 50) g;
CREATE TABLE full_rows(a int PRIMARY KEY, b text);
ALTER TABLE full_rows REPLICA IDENTITY FULL;";

/// Each is a source transaction or several; the lake is compared after all of them.
const STEPS: &[(&str, &str)] = &[
    (
        "a column is added",
        "ALTER TABLE people ADD COLUMN mail text; \
      INSERT INTO people VALUES (1001, 'new', NULL, 'a@b'); UPDATE people SET mail = 'x' WHERE id < 10",
    ),
    (
        "a column with a default is added",
        "ALTER TABLE people ADD COLUMN level int NOT NULL DEFAULT 7; \
      UPDATE people SET level = 8 WHERE id % 5 = 0",
    ),
    (
        "a column is renamed",
        "ALTER TABLE people RENAME COLUMN name TO full_name; \
      INSERT INTO people VALUES (1002, 'renamed', NULL, NULL, 9)",
    ),
    (
        "a column is dropped",
        "ALTER TABLE people DROP COLUMN born; \
      UPDATE people SET full_name = full_name || '!' WHERE id % 7 = 0",
    ),
    (
        "schema and rows in one transaction",
        "BEGIN; INSERT INTO codes VALUES (900, 'x', 1); \
      ALTER TABLE codes ADD COLUMN extra int; INSERT INTO codes VALUES (901, 'y', 2, 3); \
      UPDATE codes SET extra = 4 WHERE a < 20; COMMIT",
    ),
    (
        "large values stay",
        "UPDATE docs SET n = n + 1 WHERE id % 2 = 0; UPDATE docs SET id = id + 1000 WHERE id % 3 = 0",
    ),
    (
        "keys are changed",
        "UPDATE codes SET a = -a WHERE a % 2 = 0; UPDATE codes SET b = b || 'z' WHERE a % 3 = 0; \
      BEGIN; UPDATE codes SET a = 5000 WHERE a = 1; UPDATE codes SET a = 1 WHERE a = 3; UPDATE codes SET a = 3 WHERE a = 5000; COMMIT",
    ),
    (
        "truncated and filled in one transaction",
        "BEGIN; INSERT INTO docs VALUES (5000, 1, 'gone'); TRUNCATE docs; \
      INSERT INTO docs SELECT g, 1, repeat('y', g * 50) FROM generate_series(1, 60) g; UPDATE docs SET n = 2 WHERE id < 5; COMMIT",
    ),
    (
        "two tables are truncated",
        "TRUNCATE events, full_rows; INSERT INTO events VALUES ('after', 1), ('after', 1)",
    ),
    (
        "whole old rows",
        "INSERT INTO full_rows SELECT g, 'f' FROM generate_series(1, 30) g; \
      UPDATE full_rows SET b = b || a WHERE a % 2 = 0; DELETE FROM full_rows WHERE a % 3 = 0",
    ),
    (
        "a table is rolled back",
        "BEGIN; DELETE FROM people; TRUNCATE codes; ROLLBACK; INSERT INTO people VALUES (2000, 'r')",
    ),
    (
        "one transaction of several segments",
        "BEGIN; \
      INSERT INTO docs SELECT g, g, repeat(md5(g::text), 200) FROM generate_series(10000, 17000) g; \
      UPDATE docs SET n = -n WHERE id >= 10000 AND id % 2 = 0; DELETE FROM docs WHERE id >= 10000 AND id % 5 = 0; \
      INSERT INTO people SELECT g, 'last' FROM generate_series(3000, 3100) g; COMMIT",
    ),
];

const TABLES: [&str; 5] =
    ["public.people", "public.docs", "public.codes", "public.events", "public.full_rows"];

// cases: 63 65 76 81 90 122 holds
#[tokio::test(flavor = "multi_thread")]
async fn every_shape_of_change_is_followed() {
    let mut scene = Scene::new(SCHEMA).await;
    let tables = TABLES.map(String::from);
    let running = scene.started();
    for (what, sql) in STEPS {
        for one in statements(sql) {
            scene.sql(one).await;
        }
        scene.wait_until_the_lake_holds_it().await;
        eprintln!("{what}");
        scene.assert_equal(&tables).await;
    }
    stop(running);

    // All steps once more, in one window, with frazil away.
    let mut again = Scene::new(SCHEMA).await;
    again.catch_up().succeeded();
    for (_, sql) in STEPS {
        for one in statements(sql) {
            again.sql(one).await;
        }
    }
    again.catch_up().succeeded();
    again.assert_equal(&tables).await;
    let commits = again.lake_commits().await;
    assert!(commits.len() < 8, "{} lake commits", commits.len());
}

/// Several statements sent at once would be one source transaction.
fn statements(sql: &str) -> Vec<&str> {
    if sql.starts_with("BEGIN") {
        return vec![sql];
    }
    match sql.split_once("BEGIN;") {
        Some((before, _)) => {
            let mut all: Vec<&str> = before.split("; ").filter(|s| !s.trim().is_empty()).collect();
            all.push(&sql[before.len()..]);
            all
        }
        None => sql.split("; ").collect(),
    }
}
