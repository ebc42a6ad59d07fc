//! Somebody else writes into the catalog while frazil runs: a new version of a table is kept and
//! built on, an older one stops frazil (cases 148, 158).

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::{Load, SCHEMA, assert_whole, ends, run};
use crate::support::lake::Lake;
use crate::support::postgres::{Postgres, PostgresOptions};

fn pointer(catalog: &Connection, table: &str) -> (String, Option<String>) {
    let sql = "SELECT metadata_location, previous_metadata_location FROM iceberg_tables \
         WHERE table_namespace = 'bank' AND table_name = ?";
    catalog.query_row(sql, [table], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

fn catalog(folder: &Path) -> Connection {
    let catalog = Connection::open(folder.join("catalog.db")).unwrap();
    catalog.busy_timeout(Duration::from_secs(20)).unwrap();
    catalog
}

fn move_to(catalog: &Connection, table: &str, from: &str, to: &str) -> bool {
    let sql = "UPDATE iceberg_tables SET metadata_location = ?, previous_metadata_location = ? \
         WHERE table_namespace = 'bank' AND table_name = ? AND metadata_location = ?";
    catalog.execute(sql, params![to, from, table, from]).unwrap() == 1
}

// cases: 148 holds
#[tokio::test(flavor = "multi_thread")]
async fn commits_of_others_are_built_upon() {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres.sql(SCHEMA).await;
    let folder = tempfile::tempdir().unwrap();
    let mut frazil = run(&postgres, folder.path(), "frazil").spawn();
    frazil.wait_for_log("following the stream", Duration::from_secs(60));
    let load = Load::start(&postgres, 12);
    let catalog = catalog(folder.path());
    let mut foreign = 0;
    for number in 0..400 {
        // Now and then long enough for a lake commit on a busy machine.
        let pause = if number % 20 == 0 { 500 } else { 10 };
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let (from, _) = pointer(&catalog, "debit");
        let file = from.strip_prefix("file://").unwrap_or(&from);
        let mut metadata: Value =
            serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        metadata["properties"]["somebody"] = json!(number.to_string());
        let version: u64 =
            Path::new(file).file_name().unwrap().to_str().unwrap()[..5].parse().unwrap();
        let name = format!("{:05}-{}.metadata.json", version + 1, uuid::Uuid::new_v4());
        let new = Path::new(file).with_file_name(name);
        std::fs::write(&new, metadata.to_string()).unwrap();
        let prefix = if from.starts_with("file://") { "file://" } else { "" };
        foreign +=
            usize::from(move_to(&catalog, "debit", &from, &format!("{prefix}{}", new.display())));
        assert!(frazil.is_running(), "{}", frazil.stderr());
    }
    eprintln!("{foreign} foreign commits");
    assert!(foreign > 50);
    load.end().await;
    frazil.signal("TERM");
    frazil.wait(Duration::from_secs(30)).succeeded();
    let (last, _) = pointer(&catalog, "debit");
    let text = std::fs::read_to_string(last.strip_prefix("file://").unwrap_or(&last)).unwrap();
    assert!(text.contains("somebody"), "the others' commits are gone");
    assert_whole(&postgres, folder.path(), "frazil").await;
}

// cases: 158 stops LAKE_REWOUND
#[tokio::test(flavor = "multi_thread")]
async fn an_older_version_of_a_table_stops_it() {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres.sql(SCHEMA).await;
    let folder = tempfile::tempdir().unwrap();
    let mut frazil = run(&postgres, folder.path(), "frazil").spawn();
    frazil.wait_for_log("following the stream", Duration::from_secs(60));
    let load = Load::start(&postgres, 13);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let catalog = catalog(folder.path());
    super::until("the pointer was moved", Duration::from_secs(30), async || {
        let (now, previous) = pointer(&catalog, "debit");
        previous.is_some_and(|previous| move_to(&catalog, "debit", &now, &previous))
    })
    .await;
    let (back, _) = pointer(&catalog, "debit");
    assert!(ends(&mut frazil, Duration::from_secs(60)), "went on:\n{}", frazil.stderr());
    frazil.wait(Duration::from_secs(30)).exited(1).said("LAKE_REWOUND");
    assert_eq!(pointer(&catalog, "debit").0, back, "something was written over it");
    let now = Lake::open(folder.path()).state();
    super::assert_monotone(&now, "frazil");
    load.end().await;
    // Started again it must not go on either.
    let again = run(&postgres, folder.path(), "frazil").arg("--until-caught-up").finish();
    again.exited(1).said("LAKE_REWOUND");
}
