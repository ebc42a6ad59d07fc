//! Unchanged TOAST is never NULL and never a placeholder (cases 76 to 80), wherever the value
//! stands: in the same segment, an earlier one, the window being committed, or the lake.

use std::time::Duration;

use super::scene::{Scene, stop};

const TABLES: &[&str] = &["public.d", "public.f", "public.i", "public.k", "public.n"];

/// Values of some 3 KB to 30 KB that do not compress.
fn schema() -> String {
    let columns = "v int, big text, blob bytea, js jsonb, arr text[], num numeric, when_ date";
    format!(
        "CREATE FUNCTION big(seed int) RETURNS text LANGUAGE sql AS \
           $$ SELECT string_agg(md5((seed * 1000 + g)::text), '') FROM generate_series(1, 100 + seed % 900) g $$;
         CREATE TABLE d(id int PRIMARY KEY, {columns});
         CREATE TABLE f(id int PRIMARY KEY, {columns});
         ALTER TABLE f REPLICA IDENTITY FULL;
         CREATE TABLE i(id int PRIMARY KEY, code int NOT NULL UNIQUE, {columns});
         ALTER TABLE i REPLICA IDENTITY USING INDEX i_code_key;
         CREATE TABLE k(id text PRIMARY KEY, v int, big text);
         ALTER TABLE k ALTER id SET STORAGE EXTERNAL;
         CREATE TABLE n(id int PRIMARY KEY, v int, big text);
         ALTER TABLE d ALTER big SET STORAGE EXTERNAL;
         {}",
        insert(1, 20)
    )
}

fn insert(from: i32, to: i32) -> String {
    let values = "g, big(g), decode(big(g + 1), 'hex'), jsonb_build_object('a', big(g + 2)), \
         ARRAY[big(g + 3), NULL], repeat('9', 9000)::numeric, 'infinity'";
    let rows = format!("FROM generate_series({from}, {to}) g");
    // The key of `k` is toasted itself: 2,100 bytes do not fit an index entry but for compression.
    format!(
        "INSERT INTO d SELECT g, {values} {rows}; INSERT INTO f SELECT g, {values} {rows}; \
         INSERT INTO i SELECT g, g, {values} {rows}; \
         INSERT INTO k SELECT repeat(md5(g::text), 70), g, big(g) {rows}; \
         INSERT INTO n SELECT g, g, CASE WHEN g % 2 = 0 THEN big(g) END {rows};"
    )
}

const EVERYWHERE: &[&str] = &["d", "f", "i", "k", "n"];

fn in_all(statement: &str) -> String {
    EVERYWHERE.iter().map(|table| statement.replace("TABLE", table) + ";").collect()
}

fn steps() -> Vec<String> {
    vec![
        in_all("UPDATE TABLE SET v = -v WHERE v % 3 = 0"),
        // 77: the key changes, the large value does not.
        "UPDATE d SET id = id + 100 WHERE v > 10; UPDATE f SET id = id + 100 WHERE v > 10; \
         UPDATE n SET id = id + 100 WHERE v > 10"
            .into(),
        // 72: primary key without identity, and identity without primary key.
        "UPDATE i SET id = id + 100 WHERE v > 10; UPDATE i SET code = code + 100 WHERE v < 5".into(),
        // 79: the key is toasted; a change of another column, and of the key itself.
        "UPDATE k SET v = v + 1000 WHERE v > 10; UPDATE k SET id = id || 'x' WHERE v > 1010".into(),
        // 80: chains.
        format!("{}{}", insert(21, 24), in_all("UPDATE TABLE SET v = v + 1 WHERE v BETWEEN 21 AND 24")),
        in_all("UPDATE TABLE SET v = v + 1 WHERE v > 5") + &in_all("UPDATE TABLE SET v = v - 1 WHERE v > 5"),
        "UPDATE d SET id = id + 1000 WHERE v > 15; UPDATE d SET v = v + 1; UPDATE d SET id = id - 1000 WHERE id > 1000; \
         UPDATE i SET code = code + 1000; UPDATE i SET v = v + 1; UPDATE i SET code = code - 1000, big = 'short' WHERE v % 2 = 0"
            .into(),
        // A value set and unset on the way.
        "UPDATE d SET big = NULL WHERE id = 1; UPDATE d SET v = 7 WHERE id = 1; UPDATE d SET big = big(77) WHERE id = 1; \
         UPDATE d SET v = 8 WHERE id = 1; UPDATE d SET blob = NULL WHERE id = 1"
            .into(),
        // Deleted and inserted again under the same key.
        "DELETE FROM d WHERE id = 2; INSERT INTO d(id, v, big) VALUES (2, 2, big(5)); UPDATE d SET v = 3 WHERE id = 2".into(),
        // A key that takes over another's place.
        "DELETE FROM d WHERE id = 4; UPDATE d SET id = 4 WHERE id = 5; UPDATE d SET v = 99 WHERE id = 4".into(),
        "UPDATE d SET id = -1 WHERE id = 6; UPDATE d SET id = 6 WHERE id = 7; UPDATE d SET id = 7 WHERE id = -1".into(),
        "BEGIN; SAVEPOINT s; UPDATE d SET big = 'gone' WHERE id = 8; ROLLBACK TO s; UPDATE d SET v = 1 WHERE id = 8; COMMIT".into(),
        // Truncate in between.
        format!("TRUNCATE d, f, i, k, n; {}{}", insert(1, 5), in_all("UPDATE TABLE SET v = v + 1")),
        in_all("UPDATE TABLE SET v = v + 1"),
        format!("{}TRUNCATE d, f, i, k, n; {}", in_all("UPDATE TABLE SET v = v + 1"), insert(7, 8)),
        in_all("UPDATE TABLE SET v = v + 1"),
    ]
}

/// Columns that come and go in a chain. (In a window of their own: TRUNCATE and ADD COLUMN between
/// two looks at the catalog cannot be told from a rewrite, which stops loudly.)
fn shape_steps() -> Vec<String> {
    vec![
        "UPDATE d SET v = v + 1; ALTER TABLE d ADD COLUMN late text DEFAULT 'late'; UPDATE d SET v = v + 1".into(),
        "UPDATE d SET late = big(500); UPDATE d SET v = v + 1; ALTER TABLE d DROP COLUMN blob; UPDATE d SET v = v + 1".into(),
        "UPDATE d SET v = v + 1".into(),
    ]
}

// cases: 72 76 77 78 79 80 81 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_window_for_each_step() {
    let mut scene = Scene::new(&schema()).await;
    let frazil = scene.started();
    for step in steps().into_iter().chain(shape_steps()) {
        eprintln!("{step}");
        scene.sql(&step).await;
        scene.wait_until_the_lake_holds_it().await;
        scene.assert_equal(TABLES).await;
    }
    stop(frazil);
}

/// Steps follow each other while the window before is still being committed.
// cases: 72 76 77 78 79 80 81 holds
#[tokio::test(flavor = "multi_thread")]
async fn windows_close_behind_each_other() {
    let mut scene = Scene::new(&schema()).await;
    let mut frazil = scene.run_every("50ms").spawn();
    frazil.wait_for_log("following the stream", Duration::from_secs(30));
    for _ in 0..3 {
        for step in steps().iter().take(6) {
            scene.sql(step).await;
        }
        scene.sql(&format!("TRUNCATE d, f, i, k, n; {}", insert(1, 20))).await;
    }
    for step in steps() {
        scene.sql(&step).await;
    }
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(TABLES).await;
    stop(frazil);
}

// cases: 72 76 77 78 79 80 81 holds
#[tokio::test(flavor = "multi_thread")]
async fn all_steps_in_one_window() {
    let mut scene = Scene::new(&schema()).await;
    scene.catch_up().succeeded();
    for step in steps() {
        scene.sql(&step).await;
    }
    scene.run_every("1h").arg("--until-caught-up").finish().succeeded();
    scene.assert_equal(TABLES).await;
    for step in shape_steps() {
        scene.sql(&step).await;
    }
    scene.assert_catches_up(TABLES).await;
}

/// One source transaction over several segments of 16 MiB: values of one segment are wanted in the
/// next.
// cases: 72 76 77 78 79 80 81 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_several_segments() {
    let mut scene = Scene::new(&schema()).await;
    scene.catch_up().succeeded();
    let filler =
        "INSERT INTO n SELECT g, g, repeat(big(g), 2) FROM generate_series(FROM, FROM + 900) g;";
    let fill = |from: i32| filler.replace("FROM, FROM +", &format!("{from}, {from} +"));
    let sql = format!(
        "BEGIN; {}{}{}{}{}{}{} TRUNCATE d; {}{}{} COMMIT",
        insert(21, 60),
        fill(1_000),
        in_all("UPDATE TABLE SET v = v + 1"),
        "UPDATE d SET id = id + 500 WHERE id > 10; UPDATE i SET code = code + 500;",
        fill(2_000),
        in_all("UPDATE TABLE SET v = v + 1 WHERE v < 500"),
        "UPDATE d SET id = id + 500 WHERE id > 400; DELETE FROM i WHERE id % 4 = 0;",
        "INSERT INTO d(id, v, big) SELECT g, g, big(g) FROM generate_series(1, 9) g;",
        fill(3_000),
        in_all("UPDATE TABLE SET v = v + 1 WHERE v < 500"),
    );
    scene.sql(&sql).await;
    scene.catch_up().succeeded();
    scene.assert_equal(TABLES).await;
    scene.sql(&in_all("UPDATE TABLE SET v = v + 1 WHERE v < 500")).await;
    scene.assert_catches_up(TABLES).await;
}
