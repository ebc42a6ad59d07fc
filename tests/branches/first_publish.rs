//! The initial snapshot is on the branch that readers see once its checks have passed, and nothing
//! of it before.

use super::{Scene, TABLE};

#[tokio::test]
async fn an_initial_snapshot_that_fails_its_checks_is_never_visible() {
    let scene = Scene::new().await;
    let config = scene.publishing("{table: public.account, rows_min: 101}");
    let failed = scene.until_caught_up(&config).exited(1);
    let failed = failed.said("PUBLISH_CHECK").said("has 100 rows, fewer than 101");
    let _ = failed.said("stays where it is");
    assert_eq!(scene.seen_by_readers().state().tables().count(), 0);
    assert!(scene.ingest.log().await.iter().any(|c| c.puts.contains(&TABLE.to_owned())));

    scene.postgres.sql("INSERT INTO account VALUES (101, 1)").await;
    scene.until_caught_up(&config).succeeded().said("published");
    scene.seen_by_readers().assert_equal(&scene.postgres, &[TABLE]).await;
}

#[tokio::test]
async fn a_table_that_is_not_there_fails_its_check() {
    let scene = Scene::new().await;
    let config = scene.publishing("{table: public.no_such, rows_min: 1}");
    let _ = scene.until_caught_up(&config).exited(1).said("public.no_such is not in the lake");
}
