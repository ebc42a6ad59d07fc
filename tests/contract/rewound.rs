//! A table that was dropped, replaced or rolled back by someone else stops the pipeline (case 158).

use super::{Lake, app, change, create};

async fn after(meddle: impl AsyncFnOnce(&Lake)) -> String {
    let lake = Lake::new().await;
    let t = app("t");
    lake.commit(None, 10, vec![create(&t, vec![])]).await.unwrap();
    let one = lake.segment(&t, &[(1, "x")], &[]).await;
    lake.commit(Some(10), 20, vec![change(&t, vec![one])]).await.unwrap();
    meddle(&lake).await;
    let two = lake.segment(&t, &[(2, "x")], &[]).await;
    let error = lake.commit(Some(20), 30, vec![change(&t, vec![two])]).await.unwrap_err();
    assert_eq!(lake.committer.position().await.unwrap().unwrap().committed_lsn.0, 20);
    error.code().to_owned()
}

#[tokio::test]
async fn a_dropped_table_is_noticed() {
    let code = after(async |lake| lake.point(&app("t"), None)).await;
    assert_eq!(code, "LAKE_REWOUND");
}

#[tokio::test]
async fn an_older_version_is_noticed() {
    let code = after(async |lake| {
        let table = lake.table(&app("t")).await;
        let old = &table.metadata().metadata_log().last().unwrap().metadata_file;
        lake.point(&app("t"), Some(old));
    });
    assert_eq!(code.await, "LAKE_REWOUND");
}

#[tokio::test]
async fn a_replaced_table_is_noticed() {
    let code = after(async |lake| {
        let table = lake.table(&app("t")).await;
        let location = table.metadata_location().unwrap();
        let path = location.strip_prefix("file://").unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let other = uuid::Uuid::new_v4().to_string();
        let replaced = text.replace(&table.metadata().uuid().to_string(), &other);
        let name = location.replace(".metadata.json", "0.metadata.json");
        let name = name.replace("/metadata/0000", "/metadata/1000");
        std::fs::write(name.strip_prefix("file://").unwrap(), replaced).unwrap();
        lake.point(&app("t"), Some(&name));
    });
    assert_eq!(code.await, "LAKE_REWOUND");
}
