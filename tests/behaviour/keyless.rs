//! REPLICA IDENTITY FULL without a key, equal rows included: the lake holds the same multiset of
//! rows (cases 66, 71, 74, 78).

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::scene::{Scene, following, stop};

const SCHEMA: &str = "
    CREATE FUNCTION big(seed int) RETURNS text LANGUAGE sql AS
      $$ SELECT string_agg(md5((seed * 1000 + g)::text), '') FROM generate_series(1, 100) g $$;
    CREATE TABLE e(a int, b text); ALTER TABLE e REPLICA IDENTITY FULL;
    INSERT INTO e SELECT 1, 'five equal' FROM generate_series(1, 5);
    INSERT INTO e VALUES (2, NULL), (2, NULL), (2, ''), (NULL, NULL), (NULL, NULL);
    CREATE TABLE w(a int, f float8, n numeric, t text, arr int[], at timestamptz, big text);
    ALTER TABLE w REPLICA IDENTITY FULL; ALTER TABLE w ALTER big SET STORAGE EXTERNAL;
    INSERT INTO w SELECT g % 3, '-0', 1.0, 'x', '{1,NULL}', 'infinity', big(g % 2)
      FROM generate_series(1, 12) g;
    INSERT INTO w SELECT g % 3, 0.0, 1.00, 'X', '{{1}}', NULL, NULL FROM generate_series(1, 6) g;
    CREATE TABLE lazy(id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text);
    ALTER TABLE lazy REPLICA IDENTITY FULL;
    INSERT INTO lazy SELECT g, 'v' || g % 3 FROM generate_series(1, 30) g;
    CREATE TABLE none(); ALTER TABLE none REPLICA IDENTITY FULL; INSERT INTO none DEFAULT VALUES;
    CREATE TABLE keyed(id int PRIMARY KEY, v text); INSERT INTO keyed VALUES (1, 'a');
";

const TABLES: &[&str] = &["public.e", "public.w", "public.lazy", "public.keyed"];

/// Each is a source transaction.
const STEPS: &[&str] = &[
    // Two of five equal rows.
    "DELETE FROM e WHERE ctid IN (SELECT ctid FROM e WHERE a = 1 LIMIT 2)",
    "UPDATE e SET b = 'other' WHERE ctid = (SELECT min(ctid) FROM e WHERE a = 1)",
    "DELETE FROM e WHERE ctid = (SELECT min(ctid) FROM e WHERE a IS NULL); \
     DELETE FROM e WHERE ctid = (SELECT min(ctid) FROM e WHERE a = 2 AND b IS NULL)",
    // To and fro, with and without change.
    "UPDATE e SET a = a",
    "INSERT INTO e VALUES (1, 'new'), (1, 'new'), (1, 'new'); DELETE FROM e WHERE ctid = (SELECT min(ctid) FROM e WHERE b = 'new')",
    "UPDATE e SET b = 'new' WHERE b = 'other'; UPDATE e SET b = 'five equal' WHERE b = 'new'; \
     DELETE FROM e WHERE ctid IN (SELECT ctid FROM e WHERE b = 'five equal' LIMIT 3)",
    // 78: the large value is unchanged.
    "UPDATE w SET a = a + 1",
    "UPDATE w SET a = a - 1; DELETE FROM w WHERE ctid IN (SELECT ctid FROM w WHERE big IS NOT NULL LIMIT 5)",
    "INSERT INTO w SELECT 1, 'NaN', 'NaN', '', '{}', '-infinity', big(1) FROM generate_series(1, 3); UPDATE w SET a = 7 WHERE t = ''",
    // -0 and 0, 1.0 and 1.00, x and X are not equal here.
    "DELETE FROM w WHERE ctid = (SELECT min(ctid) FROM w WHERE n = 1.0 AND t = 'X'); UPDATE w SET f = CASE WHEN f <> 'NaN' THEN -f ELSE f END, n = n * 1.0",
    "UPDATE w SET big = big(9) WHERE t = ''; UPDATE w SET a = 8 WHERE t = ''; UPDATE w SET big = NULL WHERE t = 'x' AND a = 1",
    // 66: keys that are shifted and swapped through a deferrable primary key.
    "UPDATE lazy SET id = id + 1",
    "UPDATE lazy SET id = 32 - id WHERE id BETWEEN 2 AND 30; UPDATE lazy SET id = CASE id WHEN 3 THEN 4 ELSE 3 END WHERE id IN (3, 4)",
    "BEGIN; INSERT INTO lazy VALUES (5, 'twice for a while'); DELETE FROM lazy WHERE id = 5 AND v LIKE 'v%'; COMMIT",
    "DELETE FROM lazy WHERE id % 4 = 0; \
     INSERT INTO lazy SELECT g, 'again' FROM generate_series(100, 140, 4) g",
    // 81
    "INSERT INTO e VALUES (3, 'gone'); TRUNCATE e, w; INSERT INTO e VALUES (3, 'stays'), (3, 'stays')",
    "DELETE FROM e WHERE ctid = (SELECT min(ctid) FROM e); INSERT INTO e SELECT 4, 'x' FROM generate_series(1, 9)",
    "DELETE FROM e WHERE a = 3; TRUNCATE lazy; UPDATE e SET b = 'y' WHERE ctid IN (SELECT ctid FROM e LIMIT 4)",
    "BEGIN; SAVEPOINT s; DELETE FROM e; ROLLBACK TO s; DELETE FROM e WHERE ctid IN (SELECT ctid FROM e LIMIT 4); COMMIT",
    "INSERT INTO none DEFAULT VALUES; UPDATE keyed SET v = 'b'",
];

async fn assert_equal(scene: &mut Scene) {
    scene.assert_equal(TABLES).await;
    let lake = scene.lake.query_now("SELECT count(*) FROM {public.none}");
    assert_eq!(lake, scene.sql("SELECT count(*) FROM none").await);
}

// cases: 71 74 78 81 holds
#[tokio::test(flavor = "multi_thread")]
async fn each_transaction_in_a_window_of_its_own() {
    let mut scene = Scene::new(SCHEMA).await;
    let running = following(scene.run_every("50ms").spawn());
    assert_equal(&mut scene).await;
    for step in STEPS {
        eprintln!("{step}");
        scene.sql(step).await;
        scene.wait_until_the_lake_holds_it().await;
        assert_equal(&mut scene).await;
    }
    stop(running);
}

// cases: 66 74 holds
#[tokio::test(flavor = "multi_thread")]
async fn all_in_one_window() {
    let mut scene = Scene::new(SCHEMA).await;
    scene.catch_up().succeeded();
    // TRUNCATE is in a window of its own, or nothing of what came before it would be seen.
    let truncates = STEPS.iter().position(|step| step.contains("TRUNCATE")).unwrap();
    for steps in [&STEPS[..truncates], &STEPS[truncates..]] {
        for step in steps {
            scene.sql(step).await;
        }
        scene.run_every("1h").arg("--until-caught-up").finish().succeeded();
        assert_equal(&mut scene).await;
    }
}

/// A column that is known by its text only puts the stream in text mode: rows that COPY wrote from
/// binary values are found.
// cases: 74 holds
#[tokio::test(flavor = "multi_thread")]
async fn in_text_mode() {
    let schema = format!("{SCHEMA} CREATE TABLE p(id int PRIMARY KEY, p regclass);");
    let mut scene = Scene::new(&schema).await;
    let running = following(scene.run_every("50ms").spawn());
    assert!(running.stderr().contains("binary=false"), "{}", running.stderr());
    for step in STEPS {
        scene.sql(step).await;
        scene.wait_until_the_lake_holds_it().await;
        assert_equal(&mut scene).await;
    }
    stop(running);
}

/// A new column without default is NULL in older rows, and these are found all the same. What takes
/// values from older rows, or gives them some, has the table copied afresh.
// cases: 90 91 93 holds
#[tokio::test(flavor = "multi_thread")]
async fn columns_come_and_go() {
    let mut scene = Scene::new(SCHEMA).await;
    scene.catch_up().succeeded();
    scene.sql("ALTER TABLE e ADD COLUMN late text; DELETE FROM e WHERE a = 2 AND b = ''").await;
    scene.sql("UPDATE e SET late = 'x' WHERE ctid = (SELECT min(ctid) FROM e WHERE a = 1)").await;
    scene.assert_catches_up(TABLES).await;
    scene.sql("ALTER TABLE e RENAME COLUMN b TO c; DELETE FROM e WHERE late = 'x'").await;
    scene.assert_catches_up(TABLES).await;
    for ddl in ["ALTER TABLE e ADD COLUMN d int DEFAULT 7", "ALTER TABLE e DROP COLUMN c"] {
        scene.sql(&format!("{ddl}; UPDATE e SET late = 'y' WHERE a = 1")).await;
        scene.catch_up().succeeded().said("the table is copied afresh");
        scene.assert_equal(TABLES).await;
    }
}

/// Random changes of rows that are mostly equal, in windows of many tiny segments.
// cases: 74 holds
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn random_changes_over_many_segments() {
    let seed = std::env::var("FRAZIL_SEED").map_or_else(|_| rand::random(), |s| s.parse().unwrap());
    eprintln!("FRAZIL_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut scene = Scene::new(SCHEMA).await;
    scene.catch_up().succeeded();
    let points = "segment_bytes=return(600)";
    let running = following(scene.run_every("70ms").failpoints(points).spawn());
    for _ in 0..8 {
        for _ in 0..6 {
            let count = random.random_range(1..20);
            let changes: Vec<String> = (0..count).map(|_| change(&mut random)).collect();
            let end = if random.random_bool(0.15) { "ROLLBACK" } else { "COMMIT" };
            scene.sql(&format!("BEGIN; {}; {end}", changes.join("; "))).await;
        }
        scene.wait_until_the_lake_holds_it().await;
        assert_equal(&mut scene).await;
    }
    stop(running);
}

#[cfg(feature = "failpoints")]
fn change(random: &mut StdRng) -> String {
    let table = ["e", "e", "w"][random.random_range(0..3)];
    let some = random.random_range(1..4);
    let value = random.random_range(0..4);
    let chosen = format!("ctid IN (SELECT ctid FROM {table} ORDER BY random() LIMIT {some})");
    match random.random_range(0..100) {
        0..35 if table == "e" => {
            format!("INSERT INTO e SELECT {value}, 'same' FROM generate_series(1, {some})")
        }
        0..35 => format!(
            "INSERT INTO w SELECT {value}, '-0', 1.{value}, NULL, '{{}}', NULL, big({value} % 2) \
             FROM generate_series(1, {some})"
        ),
        35..60 => format!("DELETE FROM {table} WHERE {chosen}"),
        60..85 => format!("UPDATE {table} SET a = {value} WHERE {chosen}"),
        85..93 => format!("UPDATE {table} SET a = a WHERE a = {value}"),
        93..98 => format!("DELETE FROM {table} WHERE a = {value}"),
        _ => format!("TRUNCATE {table}"),
    }
}
