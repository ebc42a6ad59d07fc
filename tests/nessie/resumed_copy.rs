//! The initial snapshot into Nessie and S3 goes on after a crash with the ranges that were
//! finished.

use std::time::Duration;

use super::Scene;
use crate::support::postgres::PostgresOptions;

const RANGES: &str = "range_pages=return(3);save_every_ms=return(0)";

// cases: 135 holds
#[tokio::test(flavor = "multi_thread")]
async fn finished_ranges_in_a_bucket_are_not_copied_again() {
    let branch = crate::support::nessie::Nessie::shared().await.branch().await;
    let options = PostgresOptions::default().set("log_statement", "all");
    let sql = "CREATE TABLE t(id int PRIMARY KEY, v int, pad text); \
               INSERT INTO t SELECT g, 0, repeat('p', 300) FROM generate_series(1, 1500) g";
    let mut scene = Scene::on(branch, options, sql).await;
    for point in ["range_copied=9*off->return", "files_written=return"] {
        let frazil = scene.run().failpoints(&format!("{RANGES};{point}"));
        let ended = frazil.spawn().wait(Duration::from_secs(90));
        assert_eq!(ended.code, None, "not aborted at {point}:\n{}", ended.stderr);
        scene.sql("UPDATE t SET v = v + 1 WHERE id % 7 = 0; DELETE FROM t WHERE id % 50 = 1").await;
        scene.sql("UPDATE t SET id = id + 10000 WHERE id % 90 = 2").await;
    }
    let copies = |scene: &Scene| {
        let log = scene.postgres.log();
        let lines = log.lines().filter(|line| line.contains("COPY (SELECT"));
        lines.filter(|line| !line.contains(" IN (VALUES ")).count()
    };
    let before = copies(&scene);
    scene.catch_up().succeeded().said("the initial snapshot goes on");
    assert_eq!(copies(&scene), before, "something was copied again");
    scene.assert_equal(&["public.t".to_owned()]).await;
}
