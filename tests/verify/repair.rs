//! `--repair`: only what differs is rewritten, by one lake commit where the lake stands, beside a
//! running frazil too.

use std::time::Duration;

use frazil::iceberg::committer::Committer;
use frazil::iceberg::committer::sql::SqlCommitter;
use frazil::verify::Options;

use super::{Scene, assert_equal, counts, of};

const SQL: &str = "
    CREATE TABLE t(id bigint PRIMARY KEY, v text);
    INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 1000) g;
    CREATE TABLE other(id int PRIMARY KEY, v text); INSERT INTO other VALUES (1, 'x')";

fn repairing() -> Options {
    Options { repair: true, ..Options::default() }
}

// cases: 180 holds
#[tokio::test(flavor = "multi_thread")]
async fn only_what_differs_is_rewritten() {
    let scene = Scene::copied(SQL).await;
    scene.tamper(&[(20, "other"), (5000, "unknown"), (30, "v30")], &[10, 20]).await;
    let committer = SqlCommitter::open(scene.folder.path(), "frazil").await.unwrap();
    let before = committer.position().await.unwrap().unwrap();
    let report = scene.try_verify("*", &repairing()).await.unwrap();
    assert_equal(&report);
    let repaired = report.repaired.unwrap();
    // Written: 10, 20, 30. Deleted: 20, 5000, 30 and its double.
    assert_eq!((repaired.rows_inserted, repaired.keys_deleted), (3, 4));
    let history = committer.history(10).await.unwrap();
    assert_eq!(history[0].record.committed_lsn, before.committed_lsn, "P stays");
    assert_eq!(history[0].record.rows.keys().collect::<Vec<_>>(), ["public.t"]);
    assert_eq!(history[1].record.lake_commit, before.lake_commit, "it was one lake commit");
    assert_equal(&scene.verify().await);
    // Nothing to do: nothing is done.
    assert!(scene.try_verify("*", &repairing()).await.unwrap().repaired.is_none());
    let text = scene.command().arg("--repair").finish().succeeded().stdout;
    assert!(!text.contains("repaired"), "{text}");
    // The pipeline goes on from there.
    scene
        .sql("UPDATE t SET v = 'last' WHERE id IN (10, 20, 30); DELETE FROM t WHERE id = 31")
        .await;
    scene.catch_up();
    assert_equal(&scene.verify().await);
}

/// frazil knows the lake commit of a repair and goes on.
// cases: 180 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_running_frazil_is_not_disturbed() {
    let scene = Scene::copied(SQL).await;
    scene.tamper(&[(20, "other"), (5000, "unknown"), (30, "v30")], &[10, 20]).await;
    let mut running = scene.following();
    let client = scene.postgres.client().await;
    let writing = tokio::spawn(async move {
        for n in 0..400 {
            let id = 100 + n % 500;
            let sql = format!(
                "UPDATE t SET v = 'w{n}' WHERE id = {id}; INSERT INTO other VALUES ({}, 'n')",
                n + 10
            );
            client.batch_execute(&sql).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let report = scene.try_verify("*", &repairing()).await.unwrap();
    assert_equal(&report);
    assert!(report.repaired.unwrap().rows_inserted >= 3);
    writing.await.unwrap();
    assert!(running.is_running(), "{}", running.stderr());
    assert_equal(&scene.verify().await);
    assert!(running.is_running(), "{}", running.stderr());
}

/// Keys whose texts differ from what the lake's type says (decimals, floats, raw values), columns
/// that were added, large values.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_every_shape_are_repaired() {
    let scene = Scene::copied(
        "CREATE TABLE t(id numeric(9,3) PRIMARY KEY, f float8, d date, l text, a int[]);
         ALTER TABLE t ALTER l SET STORAGE EXTERNAL;
         INSERT INTO t SELECT g, 'NaN', 'infinity', repeat('l', 5000), ARRAY[[g, 1]] FROM generate_series(1, 50) g",
    )
    .await;
    scene.sql("ALTER TABLE t ADD COLUMN extra int; UPDATE t SET extra = 1 WHERE id = 7").await;
    scene.catch_up();
    scene.refill("t", Vec::new()).await;
    assert_eq!(counts(of(&scene.verify().await, "public.t")), (50, 0, 0));
    let report = scene.try_verify("*", &repairing()).await.unwrap();
    assert_equal(&report);
    assert_eq!(of(&report, "public.t").lake_rows, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_addressed_is_refused() {
    let scene =
        Scene::copied("CREATE TABLE t(id bigint, v text); INSERT INTO t VALUES (1, 'a'), (1, 'a')")
            .await;
    scene.tamper(&[(1, "a")], &[]).await;
    let error = scene.try_verify("*", &repairing()).await.unwrap_err();
    assert_eq!(error.code(), "REPAIR", "{error}");
    scene.refill("t", Vec::new()).await;
    // Missing rows can be added.
    let report = scene.try_verify("*", &repairing()).await.unwrap();
    assert_equal(&report);
    assert_eq!(of(&report, "public.t").lake_rows, 2);
}
