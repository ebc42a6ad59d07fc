//! The clock goes back between two lake commits: iceberg_snapshots stay in order (case 156).

use super::{Lake, app, change, create, lake_commit};
use frazil::iceberg::ledger::ledger_ident;

const HOUR_MS: i64 = 3_600_000;

#[tokio::test]
async fn timestamps_never_go_back() {
    let lake = Lake::new().await;
    let t = app("t");
    lake.commit(None, 10, vec![create(&t, vec![])]).await.unwrap();
    let one = lake.segment(&t, &[(1, "x")], &[]).await;
    let mut ahead = Vec::new();
    for ident in [&t, &ledger_ident("p")] {
        // As if the last lake commit had been made by a clock that was an hour ahead.
        let table = lake.table(ident).await;
        let now = table.metadata().last_updated_ms();
        let path = table.metadata_location().unwrap().strip_prefix("file://").unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let text = text.replace(&now.to_string(), &(now + HOUR_MS).to_string());
        std::fs::write(path, text).unwrap();
        ahead.push(now + HOUR_MS);
    }
    let later = lake.another().await;
    later.commit(&lake_commit(Some(10), 20, vec![change(&t, vec![one])])).await.unwrap();
    for (ident, ahead) in [&t, &ledger_ident("p")].into_iter().zip(ahead) {
        let table = later.table(ident).await.unwrap().unwrap();
        assert!(table.metadata().current_snapshot().unwrap().timestamp_ms() > ahead);
    }
}
