//! Someone else commits to one of N tables meanwhile: the lake commit is staged again on what
//! stands, and nothing of either is lost.

use std::str::FromStr;

use frazil::iceberg::row_delta::RowDelta;
use iceberg::MetadataLocation;

use super::{Lake, app, change, create, segment};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_commit_is_rebased_upon() {
    let lake = Lake::new().await;
    let (t, u) = (app("t"), app("u"));
    lake.commit(None, 1, vec![create(&t, vec![]), create(&u, vec![])]).await.unwrap();

    let foreign = lake.another().await;
    let (storage, folder) = (lake.storage.clone(), lake.folder.path().to_owned());
    let ident = t.clone();
    let writing = tokio::spawn(async move {
        let db = rusqlite::Connection::open(folder.join("catalog.db")).unwrap();
        db.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
        let mut done = 0;
        while done < 30 {
            let table = foreign.table(&ident).await.unwrap().unwrap();
            let schema = table.metadata().current_schema().clone();
            let files = segment(&storage, &ident, &schema, &[(1000 + done, "f")], &[]).await;
            let delta = RowDelta { segments: vec![files], ..RowDelta::default() };
            let staged = delta.stage(&table).await.unwrap();
            let metadata = staged.apply().unwrap();
            let old = table.metadata_location().unwrap();
            let new = MetadataLocation::from_str(old).unwrap().with_next_version();
            metadata.write_to(table.file_io(), &new).await.unwrap();
            let update =
                "UPDATE iceberg_tables SET metadata_location = ? WHERE metadata_location = ?";
            done += i64::try_from(db.execute(update, [&new.to_string(), old]).unwrap()).unwrap();
        }
    });
    let mut lsn = 1;
    while !writing.is_finished() || lsn < 20 {
        let key = i64::try_from(lsn).unwrap();
        let mut changes = Vec::new();
        for ident in [&u, &t] {
            changes.push(change(ident, vec![lake.segment(ident, &[(key, "x")], &[]).await]));
        }
        lake.commit(Some(lsn), lsn + 1, changes).await.unwrap();
        lsn += 1;
    }
    writing.await.unwrap();
    let ours = usize::try_from(lsn - 1).unwrap();
    assert_eq!(lake.rows(&t).await.len(), ours + 30);
    assert_eq!(lake.rows(&u).await.len(), ours);
}
