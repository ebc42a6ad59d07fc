//! What a publication leaves out stays in the lake: an archive (case 83).

use crate::support::frazil::Frazil;

use super::scene::Scene;

fn ids(scene: &mut Scene) -> Vec<String> {
    let rows = scene.lake.query_now("SELECT id FROM {public.t} ORDER BY id");
    rows.into_iter().map(|row| row[0].clone().unwrap()).collect()
}

// cases: 83 holds
#[tokio::test(flavor = "multi_thread")]
async fn deletes_and_truncates_that_are_not_published() {
    let mut scene = Scene::new(
        "CREATE TABLE t(id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b');
         CREATE PUBLICATION frazil FOR TABLE t WITH (publish = 'insert, update')",
    )
    .await;
    let lake = scene.lake.folder().to_str().unwrap().to_owned();
    let checked = Frazil::new(["check", &scene.postgres.dsn(), "--into", &lake]).finish();
    let said = format!("{}{}", checked.stdout, checked.stderr);
    assert!(said.contains("PUBLISH_OPTIONS") && said.contains("leaves out delete,"), "{said}");
    scene.catch_up().succeeded();
    scene.sql("DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (3, 'c')").await;
    scene.catch_up().succeeded();
    assert_eq!(ids(&mut scene), ["1", "2", "3"]);
    scene
        .sql("UPDATE t SET v = 'new' WHERE id = 3; TRUNCATE t; INSERT INTO t VALUES (4, 'd')")
        .await;
    scene.catch_up().succeeded();
    assert_eq!(ids(&mut scene), ["1", "2", "3", "4"]);
    let three = scene.lake.query_now("SELECT v FROM {public.t} WHERE id = 3");
    assert_eq!(three, [[Some("new".to_owned())]]);
}
