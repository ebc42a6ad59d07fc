//! Segments of one lake commit: each has its own data sequence number, so a later one's equality
//! deletes reach the earlier ones and nothing of its own.

use super::{Lake, app, change, create, on_every_catalog, summary, want};

on_every_catalog! {
    later_segments_delete_from_earlier_ones,
    the_smallest_sequence_number_of_a_manifest_is_right,
}

async fn later_segments_delete_from_earlier_ones(lake: Lake) {
    let t = app("t");
    let base = [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")];
    let base = lake.segment(&t, &base, &[]).await;
    lake.commit(None, 10, vec![create(&t, vec![base])]).await.unwrap();
    let segments = vec![
        lake.segment(&t, &[(10, "s1"), (11, "s1"), (12, "s1")], &[1]).await,
        lake.segment(&t, &[(10, "s2"), (12, "s2")], &[10, 11, 12]).await,
        lake.segment(&t, &[(10, "s3"), (11, "s3")], &[10, 2]).await,
    ];
    lake.commit(Some(10), 20, vec![change(&t, segments)]).await.unwrap();

    let left = [(3, "c"), (4, "d"), (5, "e"), (10, "s3"), (11, "s3"), (12, "s2")];
    assert_eq!(lake.rows(&t).await, want(&left));
    let table = lake.table(&t).await;
    assert_eq!(table.metadata().last_sequence_number(), 4);
    assert_eq!(table.metadata().snapshots().len(), if lake.keeps_snapshots() { 2 } else { 1 });
    assert_eq!(summary(&table, "total-records"), 12);
    assert_eq!(summary(&table, "total-equality-deletes"), 6);
    assert_eq!(summary(&table, "added-equality-delete-files"), 3);

    let next = lake.segment(&t, &[(10, "n")], &[10, 11]).await;
    lake.commit(Some(20), 30, vec![change(&t, vec![next])]).await.unwrap();
    let left = [(3, "c"), (4, "d"), (5, "e"), (10, "n"), (12, "s2")];
    assert_eq!(lake.rows(&t).await, want(&left));
}

/// A manifest's `min_sequence_number` above its entries' loses deletes at a later Java commit.
async fn the_smallest_sequence_number_of_a_manifest_is_right(lake: Lake) {
    let t = app("t");
    let segments = vec![
        lake.segment(&t, &[(1, "s1")], &[]).await,
        lake.segment(&t, &[(1, "s2")], &[1]).await,
        lake.segment(&t, &[(2, "s3")], &[]).await,
    ];
    lake.commit(None, 10, vec![create(&t, segments)]).await.unwrap();
    let table = lake.table(&t).await;
    let list = table.manifest_list_reader(table.metadata().current_snapshot().unwrap());
    let list = list.load().await.unwrap();
    let numbers: Vec<_> =
        list.entries().iter().map(|m| (m.sequence_number, m.min_sequence_number)).collect();
    assert_eq!(numbers, [(3, 1), (3, 2)]);
}
