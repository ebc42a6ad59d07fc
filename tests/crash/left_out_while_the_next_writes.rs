//! A table that a lake commit has to leave as it was, for a copy to come, while the next window is
//! writing already: what that one lacks is no error.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::behaviour::scene::{Scene, following, stop};

const TABLES: &str = "CREATE TABLE beside(id int PRIMARY KEY); \
     CREATE TABLE t(id int, d date, v text); ALTER TABLE t REPLICA IDENTITY FULL; \
     INSERT INTO t VALUES (1, 'infinity', 'a'), (2, 'infinity', 'a');";

/// Data files below a folder.
fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let count = |path: std::path::PathBuf| match path.is_dir() {
        true => files(&path),
        false => usize::from(path.extension().is_some_and(|end| end == "parquet")),
    };
    entries.map(|entry| count(entry.path())).sum()
}

// cases: 46 74 95 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_left_out_is_not_missed() {
    let mut scene = Scene::new(TABLES).await;
    let run = scene.run().failpoints("before_catalog_commit=sleep(1500)");
    let mut running = following(run.spawn());
    let before = files(scene.lake.folder());
    // `_pg_raw` has texts under the old name: the table is to be copied afresh.
    scene.sql("BEGIN; ALTER TABLE t RENAME d TO e; UPDATE t SET v = 'b'; COMMIT").await;
    let end = Instant::now() + Duration::from_secs(30);
    while files(scene.lake.folder()) == before {
        assert!(Instant::now() < end, "nothing was written");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Another table's new shape has the segment written before the lake commit is done.
    scene.sql("UPDATE t SET v = 'c' WHERE id = 1").await;
    scene.sql("ALTER TABLE beside ADD c int; INSERT INTO beside VALUES (1, 1)").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t", "public.beside"]).await;
    assert!(running.is_running());
    let log = stop(running).stderr;
    assert!(log.contains("which moved"), "{log}");
}
