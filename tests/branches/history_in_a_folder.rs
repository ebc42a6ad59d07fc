//! A SQL catalog has no branches, but an LSN leads to an iceberg_snapshot of each table.

use crate::support::frazil::{Frazil, until_caught_up};
use crate::support::lake::Lake;
use crate::support::postgres::{Postgres, PostgresOptions};

use super::json;

#[tokio::test]
async fn an_lsn_leads_to_an_iceberg_snapshot_of_each_table() {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres.sql("CREATE TABLE a (id int4 PRIMARY KEY); INSERT INTO a VALUES (1), (2)").await;
    let folder = tempfile::tempdir().unwrap();
    let place = ["--into", folder.path().to_str().unwrap()];
    until_caught_up(&postgres.dsn(), folder.path());
    let lsn = postgres.value("SELECT pg_current_wal_lsn()").await;
    postgres.sql("INSERT INTO a VALUES (3); DELETE FROM a WHERE id = 1").await;
    until_caught_up(&postgres.dsn(), folder.path());

    let frazil = |args: &[&str]| Frazil::new([args, &place].concat()).finish();
    let at = json(&frazil(&["lake", "at", "--at-lsn", &lsn, "-o", "json"]).succeeded());
    let id = at["snapshots"]["public.a"].as_i64().unwrap();
    let mut lake = Lake::open(folder.path());
    let location = lake.state().location("public.a").to_owned();
    let sql = format!("FROM iceberg_scan('{location}', snapshot_from_id => {id})");
    let ids = lake.query_now(&format!("SELECT id {sql} ORDER BY id"));
    assert_eq!(ids, [[Some("1".to_owned())], [Some("2".to_owned())]]);

    let hint = frazil(&["sql-hint", "duckdb", "--lsn", &lsn]).succeeded().stdout;
    assert!(hint.contains(&format!("snapshot_from_id => {id}")), "{hint}");
    for verb in [vec!["lake", "refs"], vec!["lake", "tag", "x"], vec!["lake", "branch", "x"]] {
        let _ = frazil(&verb).exited(78).said("NO_BRANCHES");
    }
    let nowhere = Frazil::new(["lake", "log", "--into", "/no/such/lake"]).finish().exited(78);
    let _ = nowhere.said("NO_LAKE");
}
