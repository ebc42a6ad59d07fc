//! Many lake commits: manifests are merged, totals stay right, metadata files do not pile up.

use super::{Lake, app, change, create, files, summary};

const COMMITS: u64 = 250;

#[tokio::test]
async fn manifests_are_merged_and_totals_stay_right() {
    let lake = Lake::new().await;
    let t = app("t");
    lake.commit(None, 1, vec![create(&t, vec![])]).await.unwrap();
    for lsn in 1..=COMMITS {
        let key = i64::try_from(lsn).unwrap();
        // Each commit adds two rows and deletes one of the commit before.
        let rows = [(key * 2, "x"), (key * 2 + 1, "y")];
        let files = lake.segment(&t, &rows, &[(key - 1) * 2]).await;
        lake.commit(Some(lsn), lsn + 1, vec![change(&t, vec![files])]).await.unwrap();
    }
    let table = lake.table(&t).await;
    let list = table.manifest_list_reader(table.metadata().current_snapshot().unwrap());
    let manifests = list.load().await.unwrap().entries().len();
    assert!((3..200).contains(&manifests), "{manifests} manifests");
    assert_eq!(summary(&table, "total-data-files"), COMMITS);
    assert_eq!(summary(&table, "total-records"), 2 * COMMITS);
    assert_eq!(summary(&table, "total-equality-deletes"), COMMITS);
    assert_eq!(summary(&table, "total-delete-files"), COMMITS);
    assert_eq!(lake.rows(&t).await.len() as u64, COMMITS + 1);

    let folder = lake.storage.table_location(&t);
    let metadata = files(std::path::Path::new(folder.strip_prefix("file://").unwrap()));
    let metadata = metadata.iter().filter(|f| f.ends_with(".metadata.json")).count();
    assert_eq!(metadata, 101, "the current one and 100 before it");
}
