//! What a lake commit asks of the catalog and of the storage: one request to the catalog for all
//! tables, and one upload per file; nothing is read that this process has just written.

use frazil::iceberg::storage::StorageSettings;

use super::super::change;
use super::{Proxied, app, create, minio_settings};
use crate::support::fault_proxy::{Entry, FaultProxy};
use crate::support::minio::Minio;

/// Enough for merges of manifests, whose ten are read from memory too.
const COMMITS: u64 = 12;

fn shown(requests: &[Entry]) -> Vec<String> {
    requests.iter().map(|request| format!("{} {}", request.method, request.path)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lake_commit_is_one_request_and_its_uploads() {
    let catalog = Proxied::new().await;
    let storage = FaultProxy::start(&Minio::shared().await.endpoint());
    let settings = StorageSettings { endpoint: Some(storage.url()), ..minio_settings().await };
    let lake = catalog.lake_with(catalog.settings(), settings).await;
    let tables = [app("a"), app("b")];
    lake.commit(None, 1, tables.iter().map(|t| create(t, vec![])).collect()).await.unwrap();
    for lsn in 1..=COMMITS {
        let key = i64::try_from(lsn).unwrap();
        let mut changes = Vec::new();
        storage.clear();
        for table in &tables {
            let files = lake.segment(table, &[(key, "x")], &[key - 1]).await;
            changes.push(change(table, vec![files]));
        }
        let written = storage.journal();
        assert!(written.iter().all(|request| request.method == "PUT"), "{:?}", shown(&written));
        assert_eq!(written.len(), 4, "data and deletes of two tables");

        catalog.proxy.clear();
        storage.clear();
        lake.commit(Some(lsn), lsn + 1, changes).await.unwrap();
        if lsn == 1 {
            // The tables are looked at once after they were born.
            continue;
        }
        let (asked, stored) = (catalog.proxy.journal(), storage.journal());
        assert_eq!(asked.len(), 1, "{:?}", shown(&asked));
        assert!(stored.iter().all(|request| request.method == "PUT"), "{:?}", shown(&stored));
        // Two manifests and a list of each table, the ledger's list, and what a merge makes.
        let most = if lsn == 11 { 11 } else { 7 };
        assert_eq!(stored.len(), most, "{lsn}: {:?}", shown(&stored));
    }
    assert_eq!(lake.rows(&tables[0]).await.len(), 1);
}
