//! Someone else commits to one of N tables meanwhile: the lake commit is staged again on what
//! stands, and nothing of either is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use frazil::iceberg::row_delta::RowDelta;

use super::{Lake, app, create, on_every_catalog, segment};

on_every_catalog! { a_foreign_commit_is_rebased_upon }

// cases: 148 holds
async fn a_foreign_commit_is_rebased_upon(lake: Lake) {
    let (t, u) = (app("t"), app("u"));
    lake.commit(None, 1, vec![create(&t, vec![]), create(&u, vec![])]).await.unwrap();

    let (theirs, ours) = (lake.rounds(30, 8), lake.rounds(20, 5));
    let made = Arc::new(AtomicU64::new(0));
    let ours_made = made.clone();
    let (reader, stranger) = (lake.another().await, lake.stranger());
    let (storage, ident) = (lake.storage.clone(), t.clone());
    let writing = tokio::spawn(async move {
        let mut done = 0;
        while done < theirs {
            // Fewer at a time than the tries of a lake commit, which may lose to each of them.
            while done >= 5 * (1 + ours_made.load(Ordering::Relaxed)) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let table = reader.table(&ident).await.unwrap().unwrap();
            let (schema, location) =
                (table.metadata().current_schema(), table.metadata().location());
            let key = 1000 + i64::try_from(done).unwrap();
            let files = segment(&storage, location, schema, &[(key, "f")], &[]).await;
            let delta = RowDelta { segments: vec![files], ..RowDelta::default() };
            done += u64::from(stranger.commit(&table, &delta).await);
        }
    });
    let mut lsn = 1;
    while !writing.is_finished() || lsn < ours {
        let commit = lake.insert((lsn, lsn + 1), &[&u, &t], i64::try_from(lsn).unwrap()).await;
        lake.committer.commit(&commit).await.unwrap();
        made.fetch_add(1, Ordering::Relaxed);
        lsn += 1;
    }
    writing.await.unwrap();
    let ours = usize::try_from(lsn - 1).unwrap();
    assert_eq!(lake.rows(&t).await.len(), ours + usize::try_from(theirs).unwrap());
    assert_eq!(lake.rows(&u).await.len(), ours);
}
