//! P and all of its record are read back from the catalog, by whoever opens the lake next.

use std::collections::HashMap;

use frazil::iceberg::ledger::ledger_ident;
use frazil::iceberg::row_delta::RowDelta;

use super::{Lake, app, change, create, lake_commit, on_every_catalog};

on_every_catalog! {
    the_record_survives_reopening,
    a_lake_of_a_newer_frazil_is_refused,
    the_position_never_goes_back,
    touched_tables_say_the_position_and_no_others,
}

// cases: 5 holds
async fn the_record_survives_reopening(lake: Lake) {
    assert_eq!(lake.committer.position().await.unwrap(), None);
    let mut first = lake_commit(None, 0x16_0000_0042, vec![]);
    first.ledger.source_commit_time = Some("2026-11-21T10:00:00.000001Z".into());
    first.ledger.rows.insert("app.\"t\"".into(), 3);
    lake.committer.commit(&first).await.unwrap();
    assert_eq!(lake.another().await.position().await.unwrap(), Some(first.ledger.clone()));

    let second = lake_commit(Some(0x16_0000_0042), 0x17_0000_0000, vec![]);
    lake.committer.commit(&second).await.unwrap();
    let read = lake.another().await;
    assert_eq!(read.position().await.unwrap(), Some(second.ledger.clone()));
    let past = read.history(10).await.unwrap();
    let records: Vec<_> = past.into_iter().map(|past| past.record).collect();
    assert_eq!(records, [second.ledger.clone(), first.ledger]);
    let last = read.history(1).await.unwrap();
    assert_eq!((last.len(), &last[0].record), (1, &second.ledger));
    assert_eq!(last[0].hash.is_some(), !lake.keeps_snapshots(), "Nessie names each state");
}

// cases: 161 stops LAKE_TOO_NEW
async fn a_lake_of_a_newer_frazil_is_refused(lake: Lake) {
    lake.commit(None, 10, vec![]).await.unwrap();
    let table = lake.table(&ledger_ident("p")).await;
    let properties = HashMap::from([("frazil.format-version".to_owned(), "9".to_owned())]);
    let newer = RowDelta { properties, ..RowDelta::default() };
    assert!(lake.stranger().commit(&table, &newer).await);
    let error = lake.another().await.position().await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), ("LAKE_TOO_NEW", 78));
}

async fn the_position_never_goes_back(lake: Lake) {
    lake.commit(None, 10, vec![]).await.unwrap();
    assert_eq!(lake.commit(Some(10), 9, vec![]).await.unwrap_err().code(), "POSITION_ORDER");
}

// cases: 5 holds
async fn touched_tables_say_the_position_and_no_others(lake: Lake) {
    let (t, u) = (app("t"), app("u"));
    lake.commit(None, 10, vec![create(&t, vec![]), create(&u, vec![])]).await.unwrap();
    let before = lake.table(&u).await;
    let rows = lake.segment(&t, &[(1, "x")], &[]).await;
    let commit = lake_commit(Some(10), 20, vec![change(&t, vec![rows]), change(&u, vec![])]);
    lake.committer.commit(&commit).await.unwrap();
    let table = lake.table(&t).await;
    let said = &table.metadata().current_snapshot().unwrap().summary().additional_properties;
    assert_eq!(said["frazil.position"], "0/14");
    assert_eq!(said["frazil.lake-commit"], commit.ledger.lake_commit.to_string());
    assert_eq!(table.metadata().properties()["frazil.position"], "0/14");
    assert_eq!(lake.table(&u).await.metadata_location(), before.metadata_location());
}
