//! A REST catalog over a network that fails: Nessie behind a proxy that loses, delays and invents
//! answers.

mod answers;
mod login;
mod lost;
mod network;
mod requests;
mod torn;
mod vended;

use frazil::iceberg::committer::LakeCommit;
use frazil::iceberg::committer::rest::RestSettings;
use frazil::iceberg::storage::StorageSettings;
use serde_json::Value;

use super::lake::{minio_settings, rest_settings};
use super::{Lake, app, create};
use crate::support::fault_proxy::{FaultProxy, Rule};
use crate::support::nessie::{Branch, Nessie, NessieCommit, answer, http_client};

/// The path of a commit over several tables.
const COMMIT: &str = "/transactions/commit";

/// A branch of Nessie behind a proxy.
struct Proxied {
    proxy: FaultProxy,
    branch: Branch,
}

impl Proxied {
    async fn new() -> Self {
        let nessie = Nessie::shared().await;
        Self { proxy: FaultProxy::start(&nessie.uri()), branch: nessie.branch().await }
    }

    fn settings(&self) -> RestSettings {
        rest_settings(&format!("{}/iceberg", self.proxy.url()), &self.branch)
    }

    async fn lake(&self) -> Lake {
        self.lake_with(self.settings(), minio_settings().await).await
    }

    async fn lake_with(&self, settings: RestSettings, storage: StorageSettings) -> Lake {
        Lake::on_branch(self.branch.clone(), settings, storage).await
    }

    /// A lake with the tables `a` and `b` at 10, and a lake commit to 20 with a row for each.
    async fn two_tables(&self) -> (Lake, LakeCommit) {
        let lake = self.lake().await;
        let commit = two_tables(&lake).await;
        self.proxy.clear();
        (lake, commit)
    }

    /// The lake commits of the branch: what put the ledger.
    async fn lake_commits(&self) -> Vec<NessieCommit> {
        let log = self.branch.log().await;
        log.into_iter()
            .filter(|commit| commit.puts.iter().any(|p| p.starts_with("frazil.")))
            .collect()
    }

    /// What the catalog says of itself.
    async fn configuration(&self) -> Value {
        let path = format!("{}/v1/config", self.branch.name());
        answer(http_client().get(format!("{}/iceberg/{path}", self.proxy.url()))).await
    }

    /// How often a lake commit was sent.
    fn sent(&self) -> usize {
        self.proxy.requests("POST", COMMIT).len()
    }
}

/// Lets the catalog say something else of itself.
fn says(config: &Value) -> Rule {
    Rule::on("GET", "/v1/config").answer(200).body(&config.to_string())
}

async fn two_tables(lake: &Lake) -> LakeCommit {
    let (a, b) = (app("a"), app("b"));
    lake.commit(None, 10, [&a, &b].map(|t| create(t, vec![])).into()).await.unwrap();
    lake.insert((10, 20), &[&a, &b], 1).await
}

/// Both tables have the row of the lake commit to 20, once, and all its files are there.
async fn assert_made_once(lake: &Lake) {
    for ident in [app("a"), app("b")] {
        assert_eq!(lake.rows(&ident).await, super::want(&[(1, "x")]), "{ident}");
        assert_eq!(super::summary(&lake.table(&ident).await, "total-records"), 1);
    }
    let other = lake.another().await;
    assert_eq!(other.position().await.unwrap().unwrap().committed_lsn.0, 20);
}
