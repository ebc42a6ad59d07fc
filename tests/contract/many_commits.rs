//! Many lake commits: manifests are merged, totals stay right, and neither a table's metadata nor
//! its metadata files grow with the number of lake commits.

use super::{Lake, app, change, create, on_every_catalog, summary};

on_every_catalog! { manifests_are_merged_and_totals_stay_right }

const COMMITS: u64 = 250;
/// Where each takes a while: too few for a merge.
const COMMITS_AWAY: u64 = 15;

async fn manifests_are_merged_and_totals_stay_right(lake: Lake) {
    let t = app("t");
    let commits = lake.rounds(COMMITS, COMMITS_AWAY);
    lake.commit(None, 1, vec![create(&t, vec![])]).await.unwrap();
    for lsn in 1..=commits {
        let key = i64::try_from(lsn).unwrap();
        // Each commit adds two rows and deletes one of the commit before.
        let rows = [(key * 2, "x"), (key * 2 + 1, "y")];
        let files = lake.segment(&t, &rows, &[(key - 1) * 2]).await;
        lake.commit(Some(lsn), lsn + 1, vec![change(&t, vec![files])]).await.unwrap();
    }
    let table = lake.table(&t).await;
    let list = table.manifest_list_reader(table.metadata().current_snapshot().unwrap());
    let manifests = list.load().await.unwrap().entries().len();
    // Of data and of deletes fewer than eleven of each rank: 1, 10 and 100 files.
    let most = if commits > 100 { 62 } else { 30 };
    assert!((3..most).contains(&manifests), "{manifests} manifests");
    assert_eq!(summary(&table, "total-data-files"), commits);
    assert_eq!(summary(&table, "total-records"), 2 * commits);
    assert_eq!(summary(&table, "total-equality-deletes"), commits);
    assert_eq!(summary(&table, "total-delete-files"), commits);
    assert_eq!(lake.rows(&t).await.len() as u64, commits + 1);

    if commits > 100 {
        let metadata = lake.files(&[&t]).await;
        let metadata = metadata.iter().filter(|f| f.contains("/app/t/"));
        let metadata = metadata.filter(|f| f.ends_with(".metadata.json")).count();
        assert_eq!(metadata, 51, "the current one and 50 before it");
        let files = lake.files(&[&t]).await;
        let lists = files.iter().filter(|f| f.contains("/app/t/") && f.contains("/snap-")).count();
        let kept = table.metadata().snapshots().len();
        // 64, up to 15 that go together with others, and those that held at a full hour.
        assert!((64..64 + 18).contains(&kept), "{kept} iceberg_snapshots");
        assert_eq!((table.metadata().history().len(), lists), (kept, kept));
    }
}
