//! The clock goes back between two lake commits: iceberg_snapshots stay in order (case 156).

use frazil::iceberg::ledger::ledger_ident;
use frazil::iceberg::row_delta::RowDelta;

use super::stranger::later;
use super::{Lake, app, change, create, lake_commit, on_every_catalog};

const HOUR_MS: i64 = 3_600_000;

on_every_catalog! { timestamps_never_go_back }

// cases: 156 holds
async fn timestamps_never_go_back(lake: Lake) {
    let t = app("t");
    lake.commit(None, 10, vec![create(&t, vec![])]).await.unwrap();
    let one = lake.segment(&t, &[(1, "x")], &[]).await;
    let mut ahead = Vec::new();
    for ident in [&t, &ledger_ident("p")] {
        // As if the last commit had been made by a clock that was an hour ahead.
        let staged = RowDelta::default().stage(&lake.table(ident).await).await.unwrap();
        assert!(lake.stranger().commit_staged(&later(staged, HOUR_MS)).await);
        let table = lake.table(ident).await;
        ahead.push(table.metadata().current_snapshot().unwrap().timestamp_ms());
    }
    let after = lake.another().await;
    after.commit(&lake_commit(Some(10), 20, vec![change(&t, vec![one])])).await.unwrap();
    let now = frazil::ops::now_us() / 1000;
    for (ident, ahead) in [&t, &ledger_ident("p")].into_iter().zip(ahead) {
        assert!(ahead > now, "the clock was not ahead");
        let table = after.table(ident).await.unwrap().unwrap();
        assert!(table.metadata().current_snapshot().unwrap().timestamp_ms() > ahead);
    }
}
