//! A check that fails while frazil runs keeps readers where they are, says so, and stops nothing; a
//! later state that passes is published as a whole.

use std::time::Duration;

use crate::support::process::poll;

use super::{Scene, TABLE};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn readers_stay_where_they_are_until_a_state_passes() {
    let scene = Scene::new().await;
    let config = scene.publishing("{table: public.account, rows_drop_max: 20%}");
    let mut running = scene.run(&config).spawn();
    running.wait_for_log("published", SOON);
    let before = scene.readers.head().await;

    scene.postgres.sql("DELETE FROM account WHERE id > 50").await;
    running.wait_for_log("public.account went from 100 to 50 rows", SOON);
    assert_eq!(scene.readers.head().await, before);
    assert_eq!(super::count(&mut scene.seen_by_readers(), TABLE), "100");

    // What the failed state held is part of the one that passes.
    scene.postgres.sql("UPDATE account SET balance = 7 WHERE id = 1").await;
    scene.postgres.sql("INSERT INTO account SELECT g, 1 FROM generate_series(51, 90) g").await;
    let mut lake = scene.seen_by_readers();
    let passed = poll(SOON, || (super::count(&mut lake, TABLE) == "90").then_some(()));
    assert!(passed.is_some(), "{}", running.stderr());
    lake.assert_equal(&scene.postgres, &[TABLE]).await;
    running.signal("TERM");
    running.wait(SOON).succeeded();
    let log = scene.readers.log().await;
    let published: Vec<_> = log.iter().filter(|c| c.message.contains("published from")).collect();
    assert!(!published.is_empty() && published.iter().all(|c| c.authors == ["frazil"]), "{log:?}");
}
