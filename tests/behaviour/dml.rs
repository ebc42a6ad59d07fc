//! INSERT, UPDATE, DELETE and TRUNCATE in every shape that has a trap (cases 63 to 68, 70 to 73,
//! 81, 82): the same in many windows and in one.

use super::scene::{Scene, stop};
use crate::support::servers;

const SCHEMA: &str = "
    CREATE TABLE t(id int PRIMARY KEY, v text);
    INSERT INTO t SELECT g, 'old ' || g FROM generate_series(1, 300) g;
    CREATE TABLE nk(k numeric, w text, PRIMARY KEY (k));
    INSERT INTO nk VALUES (1.0, 'a'), (2, 'b');
    CREATE TABLE ri(id int PRIMARY KEY, code text NOT NULL UNIQUE, v text);
    ALTER TABLE ri REPLICA IDENTITY USING INDEX ri_code_key;
    INSERT INTO ri VALUES (1, 'one', 'a'), (2, 'two', 'b');
    CREATE TABLE fu(id int PRIMARY KEY, v text, w float8);
    ALTER TABLE fu REPLICA IDENTITY FULL;
    INSERT INTO fu SELECT g, NULL, 'NaN' FROM generate_series(1, 9) g;
    CREATE TABLE swap(id int PRIMARY KEY, u int UNIQUE DEFERRABLE INITIALLY DEFERRED, v text);
    INSERT INTO swap VALUES (1, 1, 'a'), (2, 2, 'b');
    CREATE TABLE composite(a int, b text, c date, v text, PRIMARY KEY (c, b, a));
    INSERT INTO composite SELECT g, 'k' || g, date '2020-01-01' + g, 'x' FROM generate_series(1, 20) g;
    CREATE TABLE parent(id int PRIMARY KEY, v text);
    CREATE TABLE child(extra int, PRIMARY KEY (id)) INHERITS (parent);
    INSERT INTO parent VALUES (1, 'p'); INSERT INTO child VALUES (1, 'c', 5), (2, 'c', 6);
    CREATE TABLE master(id int PRIMARY KEY);
    CREATE TABLE detail(id int PRIMARY KEY, m int REFERENCES master);
    INSERT INTO master VALUES (1), (2); INSERT INTO detail VALUES (10, 1), (20, 2);
    CREATE TABLE gen(id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int DEFAULT 3,
        b int GENERATED ALWAYS AS (a * 2) STORED);
    INSERT INTO gen(a) VALUES (1), (2);
    CREATE TABLE keyless(a int, b text); INSERT INTO keyless VALUES (1, 'x'), (1, 'x');
    CREATE TABLE only_key(id int PRIMARY KEY); INSERT INTO only_key VALUES (1);
    CREATE TABLE empty();
";

const TABLES: &[&str] = &[
    "public.t",
    "public.nk",
    "public.ri",
    "public.fu",
    "public.swap",
    "public.composite",
    "public.child",
    "public.master",
    "public.detail",
    "public.gen",
    "public.keyless",
    "public.only_key",
];

/// Each is a transaction of its own.
const STEPS: &[&str] = &[
    // 66: a mass key shift, onto keys that are still taken.
    "UPDATE t SET id = id + 1000",
    "UPDATE t SET id = id - 999 WHERE id > 1200; INSERT INTO t VALUES (5000, 'x')",
    "DELETE FROM t WHERE id = 5000; UPDATE t SET id = 5000 WHERE id = 1001",
    // 67: the same key many times.
    "INSERT INTO t VALUES (1, 'i'); DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (1, 'again')",
    "DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (1, 'di')",
    "INSERT INTO t VALUES (2, 'i'); UPDATE t SET v = 'u' WHERE id = 2; DELETE FROM t WHERE id = 2",
    "INSERT INTO t VALUES (3, 'i'); UPDATE t SET id = 4 WHERE id = 3; UPDATE t SET id = 3 WHERE id = 4",
    "UPDATE t SET id = -id WHERE id = 3; INSERT INTO t VALUES (3, 'new three')",
    "DELETE FROM t WHERE id = -3; UPDATE t SET id = -3 WHERE id = 3; DELETE FROM t WHERE id = -3",
    // 64: no change at all.
    "UPDATE t SET v = v",
    "UPDATE t SET id = id",
    "UPDATE fu SET w = w",
    // A triangle of keys.
    "UPDATE t SET id = 90001 WHERE id = 1002; UPDATE t SET id = 1002 WHERE id = 1003; \
     UPDATE t SET id = 1003 WHERE id = 1004; UPDATE t SET id = 1004 WHERE id = 90001",
    // 68: equal by type, not by bytes.
    "UPDATE nk SET k = 1.00, w = 'other bytes' WHERE k = 1",
    "UPDATE nk SET k = 1.000 WHERE k = 1; UPDATE nk SET k = 1 WHERE k = 1",
    "DELETE FROM nk WHERE k = 1.0",
    "INSERT INTO nk VALUES (1.50, 'x'); UPDATE nk SET k = 1.5 WHERE k = 1.5",
    // 72: the primary key changes, the identity does not, and the other way round.
    "UPDATE ri SET id = 100 WHERE id = 1",
    "UPDATE ri SET code = 'uno' WHERE id = 100; UPDATE ri SET id = 1 WHERE id = 2",
    "DELETE FROM ri WHERE code = 'two'; INSERT INTO ri VALUES (7, 'two', NULL)",
    // 71: FULL.
    "UPDATE fu SET id = id + 100; UPDATE fu SET v = 'x' WHERE id < 105; DELETE FROM fu WHERE id = 105",
    "UPDATE swap SET u = 3 - u",
    "UPDATE swap SET id = 3 WHERE id = 1; UPDATE swap SET id = 1 WHERE id = 2; UPDATE swap SET id = 2 WHERE id = 3",
    "UPDATE composite SET a = a + 1, c = c + 1; DELETE FROM composite WHERE a % 3 = 0; \
     INSERT INTO composite SELECT g, '', '4713-01-01 BC', 'bc' FROM generate_series(1, 3) g",
    // 119: children are tables of their own.
    "INSERT INTO parent VALUES (3, 'p'); UPDATE parent SET v = v || '!'; DELETE FROM child WHERE id = 1",
    "INSERT INTO gen(a) VALUES (5), (DEFAULT); UPDATE gen SET a = a + 1 WHERE id = 1",
    "INSERT INTO keyless VALUES (1, 'x'), (NULL, NULL)",
    "INSERT INTO only_key SELECT generate_series(2, 9); UPDATE only_key SET id = -id; DELETE FROM only_key WHERE id < -5",
    "INSERT INTO empty DEFAULT VALUES",
    // 63
    "INSERT INTO t VALUES (5000, 'c') ON CONFLICT (id) DO UPDATE SET v = 'conflict'; \
     INSERT INTO t VALUES (5000, 'c') ON CONFLICT DO NOTHING; \
     INSERT INTO t VALUES (6000, 'new')",
    "MERGE INTO t USING (VALUES (5000), (6000)) s(id) ON t.id = s.id \
       WHEN MATCHED THEN UPDATE SET v = 'merged' WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'new')",
    "WITH gone AS (DELETE FROM t WHERE id = 6000 RETURNING *) INSERT INTO t SELECT id + 1, v FROM gone",
    // 81: before the truncate gone, after it there; rows of the same transaction too.
    "INSERT INTO detail VALUES (30, 1); TRUNCATE master CASCADE; INSERT INTO master VALUES (1)",
    "INSERT INTO detail VALUES (10, 1); INSERT INTO detail VALUES (11, 1); DELETE FROM detail WHERE id = 10",
    "TRUNCATE master, detail RESTART IDENTITY; INSERT INTO master VALUES (5); TRUNCATE master CASCADE",
    "INSERT INTO master VALUES (1); INSERT INTO detail VALUES (10, 1); UPDATE detail SET id = 11",
    "BEGIN; TRUNCATE t; SAVEPOINT s; INSERT INTO t VALUES (1, 'gone'); ROLLBACK TO s; INSERT INTO t VALUES (2, 'stays'); COMMIT",
    "BEGIN; TRUNCATE keyless; ROLLBACK; BEGIN; TRUNCATE gen RESTART IDENTITY; INSERT INTO gen(a) VALUES (9); COMMIT",
    "TRUNCATE keyless; INSERT INTO keyless VALUES (9, 'after')",
    // 82
    "TRUNCATE parent; INSERT INTO child VALUES (9, 'after', 1)",
];

async fn assert_equal(scene: &mut Scene) {
    scene.assert_equal(TABLES).await;
    // The comparison counts a parent's rows with its children's.
    let lake = scene.lake.query_now("SELECT count(*) FROM {public.parent}");
    assert_eq!(lake, scene.sql("SELECT count(*) FROM ONLY parent").await);
}

/// Those that the server knows: MERGE came with 15.
fn steps() -> impl Iterator<Item = &'static str> {
    let old = servers::is_before(15, "MERGE");
    STEPS.iter().copied().filter(move |step| !(old && step.starts_with("MERGE")))
}

// cases: 63 64 65 66 67 68 70 71 72 81 82 84 85 holds
#[tokio::test(flavor = "multi_thread")]
async fn each_transaction_in_a_window_of_its_own() {
    let mut scene = Scene::new(SCHEMA).await;
    let mut frazil = scene.run_every("50ms").spawn();
    frazil.wait_for_log("following the stream", std::time::Duration::from_secs(30));
    assert!(frazil.stderr().contains("public.keyless"), "no warning:\n{}", frazil.stderr());
    for step in steps() {
        eprintln!("{step}");
        scene.sql(step).await;
        scene.wait_until_the_lake_holds_it().await;
        assert_equal(&mut scene).await;
    }
    stop(frazil);
}

// cases: 63 64 65 66 67 68 70 71 72 81 82 84 85 holds
#[tokio::test(flavor = "multi_thread")]
async fn all_transactions_in_one_window() {
    let mut scene = Scene::new(SCHEMA).await;
    scene.catch_up().succeeded();
    for step in steps() {
        scene.sql(step).await;
    }
    scene.run_every("1h").arg("--until-caught-up").finish().succeeded();
    assert_equal(&mut scene).await;
}

// cases: 63 64 65 66 67 68 70 71 72 81 82 84 85 holds
#[tokio::test(flavor = "multi_thread")]
async fn all_in_one_transaction() {
    let mut scene = Scene::new(SCHEMA).await;
    scene.catch_up().succeeded();
    let plain = steps().filter(|step| !step.contains("BEGIN"));
    let steps: Vec<String> = plain.map(|step| step.to_string()).collect();
    let sql = format!("BEGIN; {}; COMMIT", steps.join("; "));
    // A row of `swap` is checked at the end of the transaction.
    scene.sql(&sql).await;
    scene.catch_up().succeeded();
    assert_equal(&mut scene).await;
}

/// The first key value that the lake's type can't hold has the table copied afresh, with a key that
/// can.
// cases: 46 69 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_key_value_that_the_lake_cannot_hold() {
    let mut scene = Scene::new(
        "CREATE TABLE d(id date PRIMARY KEY, v int); INSERT INTO d VALUES ('2020-01-01', 1); \
         CREATE TABLE at_once(id timestamp PRIMARY KEY); INSERT INTO at_once VALUES ('infinity'), ('2020-01-01')",
    )
    .await;
    scene.catch_up().succeeded();
    scene.assert_equal(&["public.d", "public.at_once"]).await;
    scene.sql("INSERT INTO d VALUES ('infinity', 2), ('-infinity', 3)").await;
    scene.catch_up().succeeded().said("KEY_VALUE").said("is copied afresh");
    scene.assert_equal(&["public.d"]).await;
    scene.sql("DELETE FROM d WHERE id = 'infinity'; UPDATE d SET v = 9").await;
    scene.sql("UPDATE d SET id = '2021-01-01' WHERE id = '-infinity'; DELETE FROM at_once WHERE id = 'infinity'").await;
    scene.catch_up().succeeded();
    scene.assert_equal(&["public.d", "public.at_once"]).await;
}
