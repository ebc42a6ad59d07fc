//! A table that was dropped, replaced or rolled back by someone else stops the pipeline (case 158).

use super::{Lake, app, change, create, on_every_catalog};

on_every_catalog! {
    a_dropped_table_is_noticed,
    an_older_version_is_noticed,
    a_replaced_table_is_noticed,
}

async fn after(lake: &Lake, meddle: impl AsyncFnOnce()) {
    let t = app("t");
    lake.commit(None, 10, vec![create(&t, vec![])]).await.unwrap();
    let one = lake.segment(&t, &[(1, "x")], &[]).await;
    lake.commit(Some(10), 20, vec![change(&t, vec![one])]).await.unwrap();
    meddle().await;
    let two = lake.segment(&t, &[(2, "x")], &[]).await;
    let error = lake.commit(Some(20), 30, vec![change(&t, vec![two])]).await.unwrap_err();
    assert_eq!((lake.position().await, error.code()), (20, "LAKE_REWOUND"), "{error}");
}

// cases: 158 stops LAKE_REWOUND
async fn a_dropped_table_is_noticed(lake: Lake) {
    let drop = async || lake.stranger().drop_table(&lake.table(&app("t")).await).await;
    after(&lake, drop).await;
}

async fn an_older_version_is_noticed(lake: Lake) {
    let rewind = async || lake.stranger().rewind(&lake.table(&app("t")).await).await;
    after(&lake, rewind).await;
}

// cases: 158 stops LAKE_REWOUND
async fn a_replaced_table_is_noticed(lake: Lake) {
    let replace = async || lake.stranger().replace(&lake.table(&app("t")).await).await;
    after(&lake, replace).await;
}
