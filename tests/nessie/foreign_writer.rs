//! Somebody else writes into a table of the lake: frazil builds its lake commit again on the new
//! head, and the rows of both are there (case 148).

use std::time::Duration;

use serde_json::json;

use super::{Scene, following, stop};
use crate::support::fault_proxy::{FaultProxy, Rule};
use crate::support::frazil::Frazil;
use crate::support::lake::Lake;
use crate::support::minio::Minio;
use crate::support::nessie::{Branch, Nessie};
use crate::support::postgres::{Postgres, PostgresOptions};

/// DuckDB inserts rows between the lake commits and in the middle of one. It writes to `main` only,
/// so the names are the test's own.
// cases: 148 holds
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_duckdb_inserts_stay_and_so_do_ours() {
    let name = format!("f{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
    let minio = Minio::shared().await;
    let main = Nessie::shared().await.branch_named("main");
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres
        .sql(&format!(
            "CREATE SCHEMA {name}; CREATE TABLE {name}.t(id int PRIMARY KEY, v text); \
             INSERT INTO {name}.t SELECT g, 'pg' FROM generate_series(1, 100) g"
        ))
        .await;
    let mut lake = Lake::nessie(&main, minio);
    let nessie = FaultProxy::start(main.uri());
    let run = Frazil::nessie(&postgres.dsn(), &main.through(&nessie.url()), minio);
    let run = run.arg("--commit-interval=200ms").arg("--slot").arg(&name);
    let running = following(run.spawn());
    let count = format!("SELECT count(*) FILTER (WHERE v = 'pg'), count(*) FROM {{{name}.t}}");
    let pair = |pg: u64, all: u64| [[Some(pg.to_string()), Some(all.to_string())]];
    for round in 0..4_u64 {
        let foreign = format!("INSERT INTO d.{name}.t VALUES ({}, 'duck')", 1_000 + round);
        let ours = format!("INSERT INTO {name}.t VALUES ({}, 'pg')", 200 + round);
        if round % 2 == 0 {
            lake.query_attached("main", &foreign);
            postgres.sql(&ours).await;
        } else {
            // Our request waits before Nessie while the other one is made.
            nessie.clear();
            let sent = "transactions/commit";
            nessie.set_rules([Rule::on("POST", sent).next(1).delay(Duration::from_secs(3))]);
            postgres.sql(&ours).await;
            super::until("it is sent", super::SOON, async || {
                !nessie.requests("POST", sent).is_empty()
            })
            .await;
            lake.query_attached("main", &foreign);
        }
        let wanted = pair(101 + round, 102 + 2 * round);
        super::until("both are there", super::SOON, async || lake.query_now(&count) == wanted)
            .await;
        if round % 2 == 1 {
            let statuses: Vec<_> =
                nessie.requests("POST", "transactions/commit").iter().map(|e| e.status).collect();
            assert_eq!(statuses, [Some(409), Some(204)]);
        }
    }
    // What is ours is deleted, also rows that were written before theirs.
    postgres.sql(&format!("DELETE FROM {name}.t WHERE id % 2 = 0")).await;
    super::until("deleted", super::SOON, async || lake.query_now(&count) == pair(52, 56)).await;
    stop(running);
    let state = lake.state();
    let found = lake.compare(&state, &postgres, &format!("{name}.t")).await;
    assert_eq!(found.missing, json!([]));
    let theirs: Vec<_> = (1_000..1_004).map(|id| json!([id.to_string(), "duck"])).collect();
    let mut seen = found.unexpected.as_array().unwrap().clone();
    seen.sort_by_key(ToString::to_string);
    assert_eq!(seen, theirs);
}

/// On a branch: properties that somebody sets, in the middle of a lake commit and between two.
#[tokio::test(flavor = "multi_thread")]
async fn a_property_that_somebody_sets_stays() {
    let mut scene = Scene::new(
        "CREATE TABLE t(id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'); \
         CREATE TABLE u(id int PRIMARY KEY)",
    )
    .await;
    let nessie = FaultProxy::start(scene.branch.uri());
    let running = following(scene.run_on(&scene.branch.through(&nessie.url())).spawn());
    let sent = "transactions/commit";
    for round in 1..=3 {
        nessie.clear();
        nessie.set_rules([Rule::on("POST", sent).next(1).delay(Duration::from_millis(1500))]);
        scene
            .sql(&format!(
                "BEGIN; UPDATE t SET v = 'r{round}'; INSERT INTO u VALUES ({round}); COMMIT"
            ))
            .await;
        scene.until("it is sent", async || !nessie.requests("POST", sent).is_empty()).await;
        set_property(&scene.branch, &format!("other.{round}")).await;
        let head = scene.branch.head().await;
        scene.until("it is made", async || scene.branch.head().await != head).await;
        // No requirement of ours is about properties, so Nessie may take it as it is.
        scene
            .until("it is answered", async || {
                let last = nessie.requests("POST", sent).pop();
                last.and_then(|entry| entry.status) == Some(204)
            })
            .await;
        set_property(&scene.branch, &format!("between.{round}")).await;
    }
    stop(running);
    scene.assert_equal(&["public.t".into(), "public.u".into()]).await;
    let table = scene.branch.get("namespaces/public/tables/t").await;
    for round in 1..=3 {
        for key in ["other", "between"] {
            assert_eq!(table["metadata"]["properties"][format!("{key}.{round}")], "theirs");
        }
    }
}

async fn set_property(branch: &Branch, key: &str) {
    let updates = json!([{ "action": "set-properties", "updates": { key: "theirs" } }]);
    let identifier = json!({ "namespace": ["public"], "name": "t" });
    let body = json!({ "identifier": identifier, "requirements": [], "updates": updates });
    branch.post("namespaces/public/tables/t", &body).await;
}
