//! What Postgres does not announce: with frazil's detection switched off, the lake is wrong, and
//! verify says so; with it on, the lake is right.

use std::time::Duration;

use super::{Scene, assert_equal, counts, of};
use crate::support::frazil::Frazil;

const SQL: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TABLE moods(id int PRIMARY KEY, m mood); INSERT INTO moods SELECT g, 'sad' FROM generate_series(1, 5) g;
    CREATE TABLE fast(id int PRIMARY KEY); INSERT INTO fast SELECT generate_series(1, 5);
    CREATE TABLE rewritten(id int PRIMARY KEY, v text); INSERT INTO rewritten SELECT g, 'v' FROM generate_series(1, 5) g;
    CREATE TABLE parts(id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
    CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
    CREATE TABLE parts_3(id int PRIMARY KEY, v text); INSERT INTO parts_3 VALUES (25, 'attached');
    INSERT INTO parts SELECT g, 'p' FROM generate_series(1, 19) g;
    CREATE PUBLICATION frazil FOR TABLE moods, fast, rewritten, parts WITH (publish_via_partition_root);";

/// Each with the table it makes wrong and the (missing, extra, differing) of it.
const SILENT: &[(&str, &str, (u64, u64, u64))] = &[
    ("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'", "public.moods", (0, 0, 5)),
    ("ALTER TABLE fast ADD COLUMN n int NOT NULL DEFAULT 7", "public.fast", (0, 0, 5)),
    (
        "ALTER TABLE rewritten ADD COLUMN r text DEFAULT md5(random()::text)",
        "public.rewritten",
        (0, 0, 5),
    ),
    ("TRUNCATE parts_1", "public.parts", (0, 9, 0)),
    ("ALTER TABLE parts DETACH PARTITION parts_2", "public.parts", (0, 19, 0)),
    (
        "ALTER TABLE parts ATTACH PARTITION parts_3 FOR VALUES FROM (20) TO (30)",
        "public.parts",
        (1, 19, 0),
    ),
];

fn catch_up(scene: &Scene) -> Frazil {
    let run = Frazil::run(&scene.postgres.dsn(), scene.folder.path());
    run.arg("--until-caught-up").arg("--commit-interval=100ms")
}

// cases: 47 91 92 115 116 117 179 holds
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_detected_is_found() {
    let scene = Scene::new(SQL).await;
    let undetecting = || catch_up(&scene).failpoints("no_ddl_detection=return");
    undetecting().finish().succeeded();
    assert_equal(&scene.verify().await);
    for (sql, table, want) in SILENT {
        scene.sql(sql).await;
        scene.sql("INSERT INTO parts VALUES (0, 'p'); DELETE FROM parts WHERE id = 0").await;
        undetecting().finish().succeeded();
        let report = scene.verify().await;
        assert_eq!(counts(of(&report, table)), *want, "{sql}");
    }
}

// cases: 47 91 92 115 116 117 179 holds
#[tokio::test(flavor = "multi_thread")]
async fn what_is_detected_is_right() {
    let scene = Scene::new(SQL).await;
    catch_up(&scene).finish().succeeded();
    let running = scene.following();
    for (sql, ..) in SILENT {
        scene.sql(sql).await;
        scene.sql("INSERT INTO parts VALUES (0, 'p'); DELETE FROM parts WHERE id = 0").await;
    }
    // A new column is in the lake with the table's next change.
    scene.sql("UPDATE fast SET n = 8 WHERE id = 1").await;
    let end = std::time::Instant::now() + Duration::from_secs(150);
    loop {
        // Until the catalog is looked at again, the lake is what it was.
        let report = scene.verify().await;
        if report.equal {
            break;
        }
        assert!(std::time::Instant::now() < end, "{report:?}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    drop(running);
}
