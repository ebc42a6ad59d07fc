//! Keys that the catalog gives with each table: the only ones there are, and renewed.

use std::time::{SystemTime, UNIX_EPOCH};

use frazil::iceberg::storage::StorageSettings;

use super::{assert_made_once, two_tables};
use crate::contract::lake::rest_settings;
use crate::contract::{Lake, app};
use crate::support::fault_proxy::{FaultProxy, Rule};
use crate::support::minio::Minio;
use crate::support::nessie::{Nessie, NessieOptions, answer, http_client};

/// One server for both: it takes its time to start.
// cases: 177 holds
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_keys_are_needed_and_they_are_renewed() {
    let minio = Minio::shared().await;
    let nessie = Nessie::start(NessieOptions::default().vended_credentials(minio)).await;
    let branch = nessie.branch().await;
    let proxy = FaultProxy::start(&nessie.uri());
    let settings = rest_settings(&format!("{}/iceberg", proxy.url()), &branch);
    let none = StorageSettings::default;
    let lake = Lake::on_branch(branch.clone(), settings.clone(), none()).await;
    let commit = two_tables(&lake).await;
    lake.committer.commit(&commit).await.unwrap();
    assert_made_once(&lake).await;
    let asked = proxy.requests("*", "/tables");
    let delegation = "x-iceberg-access-delegation";
    let all = asked.iter().filter(|e| e.method == "GET" || e.path.ends_with("/tables"));
    assert!(all.clone().count() > 3);
    for one in all {
        assert_eq!(one.header(delegation), Some("vended-credentials"), "{one:?}");
    }

    // The first keys are no good and end in a moment: what works are the renewed ones.
    let path = format!("v1/{}/namespaces/app/tables/a?snapshots=refs", branch.name());
    let ask = http_client().get(format!("{}/{path}", branch.uri()));
    let mut table = answer(ask.header("X-Iceberg-Access-Delegation", "vended-credentials")).await;
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() + 1000;
    for (key, value) in [
        ("s3.access-key-id", "stale".to_owned()),
        ("s3.secret-access-key", "stale".to_owned()),
        ("s3.session-token", "stale".to_owned()),
        ("s3.session-token-expires-at-ms", end.to_string()),
    ] {
        table["config"][key] = value.into();
    }
    let stale = Rule::on("GET", "/tables/a").next(1).answer(200).body(&table.to_string());
    proxy.clear();
    proxy.set_rules([stale]);
    let lake = Lake::on_branch(branch.clone(), settings, none()).await;
    let loaded = lake.table(&app("a")).await;
    let rows = crate::contract::rows(&lake.storage, &loaded).await;
    assert_eq!(rows, crate::contract::want(&[(1, "x")]));
    assert_eq!(proxy.requests("GET", "/tables/a").len(), 2, "once, and once for new keys");
}
