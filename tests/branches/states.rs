//! `frazil lake`: what an LSN or a time means in the lake, the log, and what differs.

use serde_json::json;

use super::Scene;

#[tokio::test]
async fn an_lsn_and_a_time_lead_to_the_hash_that_holds_nothing_later() {
    let scene = Scene::new().await;
    let config = scene.config("");
    let run = || scene.run(&config).arg("--ref").arg(scene.readers.name()).arg("--until-caught-up");
    run().finish().succeeded();
    let mut moments = Vec::new();
    for balance in 1..=3 {
        scene.postgres.sql(&format!("UPDATE account SET balance = {balance}")).await;
        run().finish().succeeded();
        let now = "SELECT pg_current_wal_lsn() || ' ' || replace(to_char( \
                   clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), ' ', 'T')";
        let now = scene.postgres.value(now).await;
        let (lsn, time) = now.split_once(' ').unwrap();
        moments.push((lsn.to_owned(), format!("{time}Z"), balance));
    }
    let mut lake = scene.seen_by_readers();
    for (lsn, time, balance) in &moments {
        let by_lsn = scene.lake_json(&["at", "--lsn", lsn]);
        let by_time = scene.lake_json(&["at", "--at", time]);
        assert_eq!(by_lsn["hash"], by_time["hash"]);
        let state = lake.state_at(by_lsn["hash"].as_str().unwrap());
        let found = lake.query(&state, "SELECT DISTINCT balance FROM {public.account}");
        assert_eq!(found, [[Some(balance.to_string())]]);
    }
    let _ = scene.lake(&["at", "--lsn", "0/1"]).exited(78).said("NO_SUCH_STATE");
    let _ = scene.lake(&["at", "--lsn", "nonsense"]).exited(2);

    let log = scene.lake_json(&["log", "-n", "3"]);
    assert_eq!(log.as_array().unwrap().len(), 3);
    assert_eq!(log[0]["rows"], json!({"public.account": 200}));
    assert_eq!(log[0]["source_transactions"], 1);

    let first = scene.lake_json(&["at", "--lsn", &moments[0].0])["hash"].clone();
    let before = format!("{}@{}", scene.readers.name(), first.as_str().unwrap());
    let diff = scene.lake_json(&["diff", &before, scene.readers.name()]);
    let changed: Vec<_> = diff.as_array().unwrap().iter().map(|d| d["table"].clone()).collect();
    assert_eq!(changed, [json!("frazil.ledger_frazil"), json!("public.account")]);
    let same = scene.lake(&["diff", scene.readers.name(), scene.readers.name()]).succeeded();
    assert!(same.stdout.contains("are equal"), "{}", same.stdout);
    let missing = scene.lake(&["diff", "no_such_branch", scene.readers.name()]).exited(78);
    let _ = missing.said("CATALOG_REF");
}
