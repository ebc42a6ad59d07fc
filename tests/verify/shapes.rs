//! Changes between the snapshot and the lake's position, of every kind, laid over: the slot is
//! made, then the source changes, then the lake catches up, then the two are compared.

use std::time::Duration;

use frazil::verify::Options;

use super::{Scene, assert_equal, of};

const SQL: &str = "
    CREATE TABLE keyed(id int PRIMARY KEY, n int, body text);
    ALTER TABLE keyed ALTER body SET STORAGE EXTERNAL;
    INSERT INTO keyed SELECT g, 0, repeat(md5(g::text), 200) FROM generate_series(1, 60) g;
    CREATE TABLE whole(id int PRIMARY KEY, n int, body text); ALTER TABLE whole REPLICA IDENTITY FULL;
    ALTER TABLE whole ALTER body SET STORAGE EXTERNAL; INSERT INTO whole SELECT * FROM keyed;
    CREATE TABLE by_index(id int PRIMARY KEY, code text NOT NULL, n int, CONSTRAINT code_index UNIQUE (code));
    ALTER TABLE by_index REPLICA IDENTITY USING INDEX code_index;
    INSERT INTO by_index SELECT g, 'c' || g, 0 FROM generate_series(1, 60) g;
    CREATE TABLE emptied(id int PRIMARY KEY, v text); INSERT INTO emptied SELECT g, 'v' FROM generate_series(1, 60) g;
    CREATE TABLE log(what text); INSERT INTO log SELECT 'same' FROM generate_series(1, 10);";

const CHANGES: &str = "
    UPDATE keyed SET n = 1 WHERE id <= 10;
    UPDATE keyed SET id = id + 100 WHERE id <= 5;
    UPDATE keyed SET id = id + 100, n = 2 WHERE id > 100;
    BEGIN; UPDATE keyed SET id = -1 WHERE id = 11; UPDATE keyed SET id = 11 WHERE id = 12; UPDATE keyed SET id = 12 WHERE id = -1; COMMIT;
    DELETE FROM keyed WHERE id = 20; INSERT INTO keyed VALUES (20, 9, 'short');
    BEGIN; UPDATE keyed SET body = 'gone'; DELETE FROM keyed; ROLLBACK;
    BEGIN; INSERT INTO keyed VALUES (300, 1, repeat('x', 5000)); SAVEPOINT s; DELETE FROM keyed; ROLLBACK TO s;
    UPDATE keyed SET n = 3 WHERE id = 300; COMMIT;
    UPDATE whole SET n = 1 WHERE id % 2 = 0; UPDATE whole SET id = -id WHERE id % 3 = 0; DELETE FROM whole WHERE id = 1;
    UPDATE by_index SET id = -id; UPDATE by_index SET code = code || 'x' WHERE n = 0 AND id > -10; DELETE FROM by_index WHERE code = 'c50';
    DELETE FROM emptied; INSERT INTO emptied VALUES (1, 'after'); UPDATE emptied SET v = 'last';
    INSERT INTO log VALUES ('same'), ('other'), ('same');";

/// The changes come once the tables are locked, so after the snapshot, and the lake gets them all
/// at once: they are laid over.
// cases: 178 holds
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_change_is_laid_over() {
    let scene = Scene::copied(SQL).await;
    let options = Options { timeout: Duration::from_secs(90), ..Options::default() };
    let comparing = async { scene.try_verify("*", &options).await.unwrap() };
    let changing = async {
        // WAL of a published table, so that the lake must move before it can be compared.
        scene.sql("INSERT INTO log VALUES ('before')").await;
        let is_read = "SELECT count(*) FROM pg_locks WHERE relation = 'log'::regclass AND mode = 'AccessShareLock'";
        while scene.postgres.value(is_read).await == "0" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let client = scene.postgres.client().await;
        for one in statements() {
            client.batch_execute(&one).await.unwrap();
        }
        tokio::task::block_in_place(|| scene.catch_up());
    };
    scene.sql("INSERT INTO log VALUES ('first')").await;
    let (report, ()) = tokio::join!(comparing, changing);
    assert!(report.position > report.snapshot_position, "{report:?}");
    assert_equal(&report);
    assert_eq!(of(&report, "public.emptied").source_rows, 1);
    assert_eq!(of(&report, "public.log").source_rows, 15);
}

/// Each a source transaction of its own, those from BEGIN to COMMIT or ROLLBACK apart.
fn statements() -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut open = String::new();
    for one in CHANGES.split(';').map(str::trim).filter(|one| !one.is_empty()) {
        open.push_str(one);
        open.push(';');
        let is_open = open.starts_with("BEGIN") && one != "COMMIT" && one != "ROLLBACK";
        if !is_open {
            all.push(std::mem::take(&mut open));
        }
    }
    all
}
