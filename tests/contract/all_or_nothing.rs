//! A lake commit is seen whole or not at all, over all its tables.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use frazil::error::Kind;
use frazil::iceberg::Table;
use frazil::iceberg::committer::sql::SqlCommitter;

use super::{Lake, app, change, create, files, lake_commit, want};

/// One table of three can't be committed: none is.
#[tokio::test]
async fn one_bad_table_stops_all() {
    let lake = Lake::new().await;
    let (a, b, ghost) = (app("a"), app("b"), app("ghost"));
    let born = [&a, &b].map(|t| create(t, vec![]));
    lake.commit(None, 10, born.into()).await.unwrap();

    let mut changes = Vec::new();
    for ident in [&a, &b] {
        changes.push(change(ident, vec![lake.segment(ident, &[(1, "x")], &[]).await]));
    }
    changes.push(change(&ghost, vec![lake.segment(&ghost, &[(1, "x")], &[]).await]));
    let before = files(lake.folder.path());
    let error = lake.commit(Some(10), 20, changes).await.unwrap_err();

    assert_eq!(error.code(), "LAKE_REWOUND");
    assert_eq!(files(lake.folder.path()), before, "the failed try left files behind");
    assert_eq!(lake.rows(&a).await, want(&[]));
    assert_eq!(lake.rows(&b).await, want(&[]));
    assert_eq!(lake.committer.position().await.unwrap().unwrap().committed_lsn.0, 10);
}

/// Storage fails under one table and comes back: the same lake commit is made then, once.
#[tokio::test]
async fn a_failed_try_is_made_good() {
    let lake = Lake::new().await;
    let (a, b) = (app("a"), app("b"));
    lake.commit(None, 10, [&a, &b].map(|t| create(t, vec![])).into()).await.unwrap();
    let mut changes = Vec::new();
    for ident in [&a, &b] {
        changes.push(change(ident, vec![lake.segment(ident, &[(1, "x")], &[]).await]));
    }
    let commit = lake_commit(Some(10), 20, changes);
    let before = files(lake.folder.path());
    let (there, gone) =
        (lake.folder.path().join("app/b/metadata"), lake.folder.path().join("gone"));
    std::fs::rename(&there, &gone).unwrap();
    std::fs::write(&there, "in the way").unwrap();
    let error = lake.committer.commit(&commit).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("LAKE_IO", Kind::Transient));
    std::fs::remove_file(&there).unwrap();
    std::fs::rename(&gone, &there).unwrap();
    assert_eq!(files(lake.folder.path()), before, "the failed try left files behind");

    assert_eq!(lake.committer.commit(&commit).await.unwrap().0, 20);
    assert_eq!(lake.rows(&a).await, want(&[(1, "x")]));
    assert_eq!(lake.rows(&b).await, want(&[(1, "x")]));
}

/// A reader that pins one catalog state finds every table at the same position.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_reader_sees_one_position() {
    let lake = Lake::new().await;
    let idents: Vec<_> = ["a", "b", "c", "d"].map(app).into();
    lake.commit(None, 1, idents.iter().map(|t| create(t, vec![])).collect()).await.unwrap();

    let reader = SqlCommitter::open(lake.folder.path(), "p").await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let reading = tokio::spawn(async move {
        let mut seen = BTreeSet::new();
        while !stopped.load(Ordering::Relaxed) {
            let tables = reader.pinned().await.unwrap();
            let position =
                |t: &Table| t.metadata().properties().get("frazil.position").cloned().unwrap();
            let positions: Vec<_> = tables.iter().map(position).collect();
            assert_eq!(positions.len(), 5);
            assert!(positions.windows(2).all(|w| w[0] == w[1]), "torn: {positions:?}");
            seen.insert(positions[0].clone());
        }
        seen.len()
    });
    for lsn in 1..40 {
        let mut changes = Vec::new();
        for ident in &idents {
            let key = i64::try_from(lsn).unwrap();
            changes.push(change(ident, vec![lake.segment(ident, &[(key, "x")], &[]).await]));
        }
        lake.commit(Some(lsn), lsn + 1, changes).await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    assert!(reading.await.unwrap() > 3, "the reader saw too few states");
}
