//! The storage refuses one table's metadata files: nothing is committed, nothing stays behind, and
//! the same lake commit is made when the storage is well again.

use frazil::error::Kind;
use frazil::iceberg::storage::StorageSettings;

use super::lake::{key, minio_settings, rest_settings};
use super::{Lake, app, create, want};
use crate::support::fault_proxy::{FaultProxy, Rule};
use crate::support::minio::Minio;
use crate::support::nessie::Nessie;
use crate::support::postgres::Postgres;

async fn a_failed_try_is_made_good(proxy: &FaultProxy, lake: Lake) {
    let (a, b) = (app("a"), app("b"));
    lake.commit(None, 10, [&a, &b].map(|t| create(t, vec![])).into()).await.unwrap();
    let commit = lake.insert((10, 20), &[&a, &b], 1).await;
    let before = lake.files(&[&a, &b]).await;
    let metadata = format!("{}/metadata", key(&lake.home(&b).await));
    proxy.set_rules([Rule::on("PUT", &metadata).answer(403)]);
    let error = lake.committer.commit(&commit).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("LAKE_IO", Kind::Transient), "{error}");
    assert!(error.to_string().contains("app.b"), "{error}");
    assert_eq!(lake.files(&[&a, &b]).await, before, "the failed try left files behind");
    assert_eq!(lake.position().await, 10);

    proxy.clear();
    assert_eq!(lake.committer.commit(&commit).await.unwrap().0, 20);
    assert_eq!(lake.rows(&a).await, want(&[(1, "x")]));
    assert_eq!(lake.rows(&b).await, want(&[(1, "x")]));
}

async fn behind_a_proxy() -> (FaultProxy, StorageSettings) {
    let proxy = FaultProxy::start(&Minio::shared().await.endpoint());
    let settings = StorageSettings { endpoint: Some(proxy.url()), ..minio_settings().await };
    (proxy, settings)
}

// cases: 153 holds
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres() {
    let (proxy, settings) = behind_a_proxy().await;
    let postgres = Postgres::shared().await;
    let dsn = postgres.dsn_of(&postgres.database().await);
    a_failed_try_is_made_good(&proxy, Lake::on_postgres_at(&dsn, settings).await).await;
}

// cases: 153 holds
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_nessie() {
    let (proxy, settings) = behind_a_proxy().await;
    let branch = Nessie::shared().await.branch().await;
    let rest = rest_settings(branch.uri(), &branch);
    a_failed_try_is_made_good(&proxy, Lake::on_branch(branch, rest, settings).await).await;
}
