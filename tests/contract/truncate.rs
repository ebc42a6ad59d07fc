//! TRUNCATE removes all that stood before; what comes after it in the same window stays.

use super::{Lake, app, change, create, on_every_catalog, summary, want};

on_every_catalog! { truncate_removes_what_stood_before }

// cases: 81 holds
async fn truncate_removes_what_stood_before(lake: Lake) {
    let t = app("t");
    let one = lake.segment(&t, &[(1, "a"), (2, "b")], &[]).await;
    lake.commit(None, 10, vec![create(&t, vec![one])]).await.unwrap();
    let two = lake.segment(&t, &[(3, "c")], &[1]).await;
    lake.commit(Some(10), 20, vec![change(&t, vec![two])]).await.unwrap();

    let mut truncate = change(&t, vec![lake.segment(&t, &[(2, "new")], &[]).await]);
    truncate.delta.truncate = true;
    lake.commit(Some(20), 30, vec![truncate]).await.unwrap();

    assert_eq!(lake.rows(&t).await, want(&[(2, "new")]));
    let table = lake.table(&t).await;
    for (key, number) in [
        ("total-data-files", 1),
        ("total-delete-files", 0),
        ("total-records", 1),
        ("total-equality-deletes", 0),
        ("deleted-data-files", 2),
        ("removed-equality-deletes", 1),
    ] {
        assert_eq!(summary(&table, key), number, "{key}");
    }
    let parquet = lake.files(&[&t]).await;
    assert_eq!(parquet.iter().filter(|f| f.ends_with(".parquet")).count(), 4, "kept for history");

    let mut again = change(&t, vec![]);
    again.delta.truncate = true;
    lake.commit(Some(30), 40, vec![again]).await.unwrap();
    assert_eq!(lake.rows(&t).await, want(&[]));
    assert_eq!(summary(&lake.table(&t).await, "total-files-size"), 0);
}
