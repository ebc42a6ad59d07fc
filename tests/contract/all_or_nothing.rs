//! A lake commit is seen whole or not at all, over all its tables.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use frazil::error::Kind;
use frazil::iceberg::ledger::ledger_ident;

use super::{Lake, app, change, create, files, on_every_catalog, want};

on_every_catalog! {
    one_bad_table_stops_all,
    a_pinned_reader_sees_one_position,
}

/// One table of three can't be committed: none is.
// cases: 150 holds
async fn one_bad_table_stops_all(lake: Lake) {
    let (a, b, ghost) = (app("a"), app("b"), app("ghost"));
    let born = [&a, &b].map(|t| create(t, vec![]));
    lake.commit(None, 10, born.into()).await.unwrap();

    let mut commit = lake.insert((10, 20), &[&a, &b], 1).await;
    commit.changes.push(change(&ghost, vec![lake.segment(&ghost, &[(1, "x")], &[]).await]));
    let before = lake.files(&[&a, &b]).await;
    let error = lake.committer.commit(&commit).await.unwrap_err();

    assert_eq!(error.code(), "LAKE_REWOUND");
    assert_eq!(lake.files(&[&a, &b]).await, before, "the failed try left files behind");
    assert_eq!(lake.rows(&a).await, want(&[]));
    assert_eq!(lake.rows(&b).await, want(&[]));
    assert_eq!(lake.position().await, 10);
}

/// The folder of one table is gone and comes back: the same lake commit is made then, once.
#[tokio::test]
async fn a_failed_try_is_made_good() {
    let lake = Lake::on_sqlite().await;
    let (a, b) = (app("a"), app("b"));
    lake.commit(None, 10, [&a, &b].map(|t| create(t, vec![])).into()).await.unwrap();
    let commit = lake.insert((10, 20), &[&a, &b], 1).await;
    let before = files(lake.folder());
    let (there, gone) = (lake.folder().join("app/b/metadata"), lake.folder().join("gone"));
    std::fs::rename(&there, &gone).unwrap();
    std::fs::write(&there, "in the way").unwrap();
    let error = lake.committer.commit(&commit).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("LAKE_IO", Kind::Transient));
    std::fs::remove_file(&there).unwrap();
    std::fs::rename(&gone, &there).unwrap();
    assert_eq!(files(lake.folder()), before, "the failed try left files behind");

    assert_eq!(lake.committer.commit(&commit).await.unwrap().0, 20);
    assert_eq!(lake.rows(&a).await, want(&[(1, "x")]));
    assert_eq!(lake.rows(&b).await, want(&[(1, "x")]));
}

/// A reader that pins one catalog state finds every table at the same position.
// cases: 121 150 holds
async fn a_pinned_reader_sees_one_position(lake: Lake) {
    let idents: Vec<_> = ["a", "b", "c"].map(app).into();
    lake.commit(None, 1, idents.iter().map(|t| create(t, vec![])).collect()).await.unwrap();

    let mut asked = idents.clone();
    asked.push(ledger_ident("p"));
    let reader = lake.reader().await;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let reading = tokio::spawn(async move {
        let mut seen = BTreeSet::new();
        while !stopped.load(Ordering::Relaxed) {
            let positions = reader.positions(&asked).await;
            assert_eq!(positions.len(), 4);
            assert!(positions.windows(2).all(|w| w[0] == w[1]), "torn: {positions:?}");
            seen.insert(positions[0].clone());
        }
        seen.len()
    });
    for lsn in 1..lake.rounds(40, 10) {
        let all: Vec<_> = idents.iter().collect();
        let commit = lake.insert((lsn, lsn + 1), &all, i64::try_from(lsn).unwrap()).await;
        lake.committer.commit(&commit).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    assert!(reading.await.unwrap() > 3, "the reader saw too few states");
}
