//! The random workload, streamed: several open transactions that interleave, savepoints,
//! rollbacks, key changes, truncates. The lake equals the source, as it does by protocol 1.

use super::{run, scene, streamed_bytes};
use crate::behaviour::scene::{following, stop};
use crate::support::workload::Workload;

/// Row changes in CI; `FRAZIL_CHANGES` for more.
const CHANGES: usize = 8_000;

// cases: 123 124 125 holds
#[tokio::test(flavor = "multi_thread")]
async fn the_lake_equals_the_source_whether_streamed_or_not() {
    let changes = std::env::var("FRAZIL_CHANGES").map_or(CHANGES, |n| n.parse().unwrap());
    let mut workload = Workload::new(20_261_125);
    let mut scene = scene(&workload.schema_sql()).await;
    scene.sql("CREATE TABLE side(id serial PRIMARY KEY, who int, v text)").await;
    let client = scene.postgres.client().await;
    workload.run(&client, changes / 10).await;
    let (dsn, plain) = (scene.postgres.dsn(), scene.path("plain"));
    let off = || {
        crate::support::frazil::Frazil::run(&dsn, &plain)
            .arg("--slot=plain")
            .arg("--until-caught-up")
    };
    off().finish().succeeded();
    let running = following(run(&scene).spawn());
    let mut others = Vec::new();
    for who in 0..2 {
        let client = scene.postgres.client().await;
        others.push(tokio::spawn(async move {
            for round in 0..20 {
                let end = if (round + who) % 4 == 0 { "ROLLBACK" } else { "COMMIT" };
                client.batch_execute(&side(who, end)).await.unwrap();
            }
        }));
    }
    let stats = workload.run(&client, changes).await;
    for other in others {
        other.await.unwrap();
    }
    scene.wait_until_the_lake_holds_it().await;
    let bytes = streamed_bytes(&scene).await;
    eprintln!("{stats:?}, {bytes} bytes streamed");
    assert!(bytes > 1 << 20, "only {bytes} bytes were streamed");
    stop(running);
    off().finish().succeeded();
    let mut tables = workload.tables();
    tables.push("public.side");
    scene.assert_equal(&tables).await;
    crate::support::lake::Lake::open(&plain).assert_equal(&scene.postgres, &tables).await;
}

/// Savepoints in savepoints, each kept or not.
fn side(who: i32, end: &str) -> String {
    let insert = |n: u32| {
        format!(
            "INSERT INTO side(who, v) SELECT {who}, repeat(md5(g::text), 5) FROM generate_series(1, {n}) g;"
        )
    };
    format!(
        "BEGIN; {} SAVEPOINT a; {} SAVEPOINT b; {} ROLLBACK TO b; {} RELEASE a; SAVEPOINT c; {} \
         DELETE FROM side WHERE who = {who} AND id % 3 = 0; ROLLBACK TO c; {} {end}",
        insert(300),
        insert(500),
        insert(700),
        insert(200),
        insert(400),
        insert(300)
    )
}
