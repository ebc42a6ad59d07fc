//! Columns as many and as odd as Postgres allows, under their exact names (case 61).

use super::scene::{Scene, following, stop};

#[tokio::test(flavor = "multi_thread")]
async fn sixteen_hundred_columns() {
    let columns: Vec<_> = (1..1600).map(|n| format!("c{n} int")).collect();
    let mut scene =
        Scene::new(&format!("CREATE TABLE wide(id int PRIMARY KEY, {})", columns.join(", "))).await;
    scene.sql("INSERT INTO wide(id, c1, c1599) VALUES (1, 7, 9)").await;
    let running = following(scene.run().spawn());
    scene.sql("INSERT INTO wide(id, c800) VALUES (2, 8); UPDATE wide SET c1599 = 10").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.wide"]).await;
    stop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_kept_as_they_are() {
    let long = "x".repeat(63);
    let odd = [
        "q\"uote",
        "apo's",
        "dot.ted.name",
        " sp ace ",
        "select",
        "table",
        "ż\u{f3}łw \u{1F422}",
        "100%",
        "a/b\\c",
        "__v1",
        long.as_str(),
    ];
    let quoted = odd.map(|name| format!("\"{}\"", name.replace('"', "\"\"")));
    let columns = quoted.clone().map(|name| format!("{name} text"));
    let mut scene =
        Scene::new(&format!("CREATE TABLE odd(\"I D\" int PRIMARY KEY, {})", columns.join(", ")))
            .await;
    let insert = |id| {
        let values: Vec<_> = (0..odd.len()).map(|n| format!("'{n}'")).collect();
        format!("INSERT INTO odd VALUES ({id}, {})", values.join(", "))
    };
    scene.sql(&insert(1)).await;
    let running = following(scene.run().spawn());
    scene.sql(&insert(2)).await;
    scene
        .sql(&format!(
            "UPDATE odd SET {} = 'new' WHERE \"I D\" = 1; DELETE FROM odd WHERE \"I D\" = 2",
            quoted[0]
        ))
        .await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.odd"]).await;
    stop(running);
}
