//! Tables that have little to show: no columns, no rows, no key, columns that were dropped before
//! the copy; their rows are counted and kept all the same (cases 62, 139).

use super::scene::{Scene, following, metadata, stop};

const TABLES: &str = "CREATE TABLE bare(); INSERT INTO bare DEFAULT VALUES; INSERT INTO bare DEFAULT VALUES; \
     CREATE TABLE bare_empty(); CREATE TABLE empty(id int PRIMARY KEY, v text); \
     CREATE TABLE keyless(v int, w text); INSERT INTO keyless VALUES (1, 'x'), (1, 'x'); \
     CREATE TABLE dropped(a int, id int PRIMARY KEY, b text, c int); \
     INSERT INTO dropped VALUES (1, 1, 'x', 1), (2, 2, 'y', 2); \
     ALTER TABLE dropped DROP COLUMN a, DROP COLUMN b";

fn rows_of(scene: &mut Scene, table: &str) -> u64 {
    let found = metadata(&scene.lake.state(), table);
    let current = &found["current-snapshot-id"];
    let snapshots = found["snapshots"].as_array().cloned().unwrap_or_default();
    let snapshot = snapshots.iter().find(|one| one["snapshot-id"] == *current);
    let total = snapshot.map(|one| one["summary"]["total-records"].as_str().unwrap().to_owned());
    total.map_or(0, |total| total.parse().unwrap())
}

// cases: 62 139 holds
#[tokio::test(flavor = "multi_thread")]
async fn they_are_copied_and_followed() {
    let tables = ["public.empty", "public.keyless", "public.dropped"];
    let mut scene = Scene::new(TABLES).await;
    let running = following(scene.run().spawn());
    scene.assert_equal(&tables).await;
    assert_eq!(
        (rows_of(&mut scene, "public.bare"), rows_of(&mut scene, "public.bare_empty")),
        (2, 0)
    );
    scene
        .sql(
            "INSERT INTO bare DEFAULT VALUES; INSERT INTO bare_empty DEFAULT VALUES; \
             INSERT INTO empty VALUES (1, 'first'); INSERT INTO keyless VALUES (1, 'x'); \
             INSERT INTO dropped VALUES (3, 3); UPDATE dropped SET c = 9 WHERE id = 1; \
             DELETE FROM dropped WHERE id = 2",
        )
        .await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&tables).await;
    assert_eq!(
        (rows_of(&mut scene, "public.bare"), rows_of(&mut scene, "public.bare_empty")),
        (3, 1)
    );
    scene.sql("TRUNCATE bare; INSERT INTO bare DEFAULT VALUES").await;
    scene.wait_until_the_lake_holds_it().await;
    assert_eq!(rows_of(&mut scene, "public.bare"), 1);
    assert!(!stop(running).stderr.contains("retry_in"));
}
