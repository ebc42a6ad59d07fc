//! A catalog that cannot commit several tables at once is refused; who accepts it gets tables that
//! are committed one by one, each exactly once over a crash in between.

use std::time::Duration;

use frazil::iceberg::committer::LakeCommit;
use frazil::iceberg::committer::rest::{RestCommitter, RestSettings};
use frazil::iceberg::row_delta::RowDelta;
use frazil::iceberg::storage::StorageSettings;
use serde_json::{Value, json};

use super::{COMMIT, Proxied, assert_made_once, says};
use crate::contract::lake::minio_settings;
use crate::contract::{Lake, app, change, create, lake_commit, segment, want};
use crate::support::fault_proxy::Rule;
use crate::support::frazil::Frazil;
use crate::support::postgres::{Postgres, PostgresOptions};

const ONE_TABLE: &str = "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}";
const SEVERAL: &str = "POST /v1/{prefix}/transactions/commit";

/// Nessie that says it knows no `transactions/commit`.
struct Torn {
    place: Proxied,
    config: Value,
}

impl Torn {
    async fn new() -> Self {
        let place = Proxied::new().await;
        let mut config = place.configuration().await;
        config["endpoints"] = json!([ONE_TABLE]);
        let torn = Self { place, config };
        torn.with([]);
        torn
    }

    /// With these faults, and no others.
    fn with<const N: usize>(&self, rules: [Rule; N]) {
        self.place.proxy.clear();
        self.place.proxy.set_rules([says(&self.config)].into_iter().chain(rules));
    }

    fn settings(&self) -> RestSettings {
        RestSettings { allow_torn_commits: true, ..self.place.settings() }
    }

    async fn lake(&self) -> Lake {
        self.place.lake_with(self.settings(), minio_settings().await).await
    }

    /// A lake whose commit to 20 was broken off behind the first of its two tables.
    async fn broken_off(&self) -> (Lake, LakeCommit) {
        let lake = self.lake().await;
        let commit = super::two_tables(&lake).await;
        self.break_off(&lake, &commit, "/tables/b").await;
        assert_eq!(lake.rows(&app("a")).await.len(), 1);
        assert_eq!(lake.rows(&app("b")).await.len(), 0);
        assert_eq!(self.anew().await.position().await, 10);
        (self.anew().await, commit)
    }

    /// A crash: the commit of `path` never arrives.
    async fn break_off(&self, lake: &Lake, commit: &LakeCommit, path: &str) {
        self.with([Rule::on("POST", path).reset()]);
        let arrives = async {
            while self.place.proxy.requests("POST", path).is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            done = lake.committer.commit(commit) => panic!("it should not have ended: {done:?}"),
            seen = tokio::time::timeout(Duration::from_secs(60), arrives) => seen.unwrap(),
        }
        self.with([]);
    }

    /// The next start.
    async fn anew(&self) -> Lake {
        self.lake().await
    }
}

// cases: 150 holds
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_refused_unless_it_is_accepted() {
    let torn = Torn::new().await;
    let connect = async |settings| {
        RestCommitter::connect(settings, StorageSettings::default(), "p").await.map(|c| c.is_torn())
    };
    let error = connect(torn.place.settings()).await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), ("CATALOG_TORN", 78), "{error}");
    assert!(error.cure().unwrap().contains("allow_torn_commits"), "{error}");
    assert!(connect(torn.settings()).await.unwrap());

    let mut config = torn.config.clone();
    config["endpoints"] = json!([ONE_TABLE, SEVERAL]);
    torn.place.proxy.set_rules([says(&config)]);
    assert!(!connect(torn.settings()).await.unwrap(), "it can do better");
    assert!(!connect(torn.place.settings()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_committed_one_by_one_and_the_ledger_last() {
    let torn = Torn::new().await;
    let lake = torn.lake().await;
    let commit = super::two_tables(&lake).await;
    torn.with([]);
    lake.committer.commit(&commit).await.unwrap();
    let sent = torn.place.proxy.requests("POST", "/tables/");
    let names: Vec<_> = sent.iter().map(|e| e.path.rsplit('/').next().unwrap()).collect();
    assert_eq!(names, ["a", "b", "ledger_p"]);
    assert!(torn.place.proxy.requests("POST", COMMIT).is_empty());
    assert_made_once(&lake).await;
}

/// After an error of unknown outcome the very same lake commit comes again.
// cases: 150 holds
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_window_is_committed_again_after_a_crash_in_between() {
    let torn = Torn::new().await;
    let (next, commit) = torn.broken_off().await;
    assert_eq!(next.committer.commit(&commit).await.unwrap().0, 20);
    let sent = torn.place.proxy.requests("POST", "/tables/");
    assert!(sent.iter().all(|e| !e.path.ends_with("/a")), "the first one was made again");
    assert_made_once(&next).await;
}

/// Somebody else commits on top of the table that is ahead: ours is there all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_commit_in_between_hides_nothing() {
    let torn = Torn::new().await;
    let (next, commit) = torn.broken_off().await;
    let a = next.table(&app("a")).await;
    let (schema, location) = (a.metadata().current_schema(), a.metadata().location());
    let files = segment(&next.storage, location, schema, &[(7, "theirs")], &[]).await;
    let theirs = RowDelta { segments: vec![files], ..RowDelta::default() };
    assert!(next.stranger().commit(&a, &theirs).await);
    next.committer.commit(&commit).await.unwrap();
    assert_eq!(next.rows(&app("a")).await, want(&[(1, "x"), (7, "theirs")]));
    assert_eq!(next.rows(&app("b")).await, want(&[(1, "x")]));
}

/// The next start cuts its windows elsewhere. What the first table has already, by its position, is
/// left out of them (the pipeline does that); its position never goes back.
// cases: 150 holds
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_windows_are_committed_after_a_crash_in_between() {
    let torn = Torn::new().await;
    let (next, _) = torn.broken_off().await;
    let position = async |name| {
        let table = next.table(&app(name)).await;
        table.metadata().properties()["frazil.position"].clone()
    };
    assert_eq!((position("a").await, position("b").await), ("0/14".into(), "0/A".into()));

    // Ends before the position of the first table, which has a change all the same.
    let mut touched = change(&app("a"), vec![]);
    touched.delta.properties.insert("somebody".into(), "was here".into());
    let row = next.segment(&app("b"), &[(1, "x")], &[]).await;
    let short = lake_commit(Some(10), 15, vec![touched, change(&app("b"), vec![row])]);
    next.committer.commit(&short).await.unwrap();
    assert_eq!((position("a").await, position("b").await), ("0/14".into(), "0/F".into()));

    let next = torn.anew().await;
    assert_eq!(next.position().await, 15);
    let long = next.insert((15, 30), &[&app("a"), &app("b")], 2).await;
    next.committer.commit(&long).await.unwrap();
    for name in ["a", "b"] {
        assert_eq!(next.rows(&app(name)).await, want(&[(1, "x"), (2, "x")]), "{name}");
    }
    assert_eq!(torn.anew().await.position().await, 30);
}

/// The very first lake commit: there is no ledger yet, and a table that was born is filled afresh.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_lake_commit_that_broke_off_is_made_afresh() {
    let torn = Torn::new().await;
    let born = async |lake: &Lake, key| {
        let mut changes = Vec::new();
        for ident in [app("a"), app("b")] {
            let rows = lake.segment(&ident, &[(key, "x")], &[]).await;
            let mut change = create(&ident, vec![rows]);
            let new = change.create.as_mut().unwrap();
            new.properties.insert("frazil.pipeline-id".into(), "p".into());
            changes.push(change);
        }
        lake_commit(None, 10, changes)
    };
    let lake = torn.lake().await;
    let first = born(&lake, 1).await;
    torn.break_off(&lake, &first, "/tables/b").await;
    let next = torn.anew().await;
    assert_eq!(next.committer.position().await.unwrap(), None);
    next.committer.commit(&born(&next, 2).await).await.unwrap();
    for name in ["a", "b"] {
        assert_eq!(next.rows(&app(name)).await, want(&[(2, "x")]), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_in_between_is_asked_for() {
    for path in ["/tables/a", "/tables/b", "/tables/ledger_p"] {
        let torn = Torn::new().await;
        let lake = torn.lake().await;
        let commit = super::two_tables(&lake).await;
        torn.with([Rule::on("POST", path).next(1).drop_answer()]);
        lake.committer.commit(&commit).await.unwrap();
        assert_eq!(torn.place.proxy.requests("POST", path).len(), 1, "{path} was sent twice");
        assert_made_once(&lake).await;
    }
}

/// It does not say what it can, and turns out not to have the request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_cannot_do_may_turn_out_at_the_first_commit() {
    let place = Proxied::new().await;
    let refused = place.lake_with(place.settings(), minio_settings().await).await;
    let commit = super::two_tables(&refused).await;
    place.proxy.set_rules([Rule::on("POST", COMMIT).answer(501)]);
    let error = refused.committer.commit(&commit).await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), ("CATALOG_TORN", 78), "{error}");

    let settings = RestSettings { allow_torn_commits: true, ..place.settings() };
    let accepted = place.lake_with(settings, minio_settings().await).await;
    accepted.committer.position().await.unwrap();
    accepted.committer.commit(&commit).await.unwrap();
    assert_made_once(&accepted).await;
}

/// Who asks before a run is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_says_that_tables_are_committed_one_by_one() {
    let torn = Torn::new().await;
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres.sql("CREATE TABLE a (id int4 PRIMARY KEY)").await;
    let catalog = format!("nessie+{}", torn.settings().uri);
    let branch = torn.settings().reference.unwrap();
    let check = |allow: &str| {
        Frazil::new(["check", &postgres.dsn(), "--catalog", &catalog, "--ref", &branch])
            .env("FRAZIL_LAKE__ALLOW_TORN_COMMITS", allow)
            .finish()
    };
    let refused = check("false").exited(1);
    assert!(refused.stdout.contains("CATALOG_TORN"), "{}", refused.stdout);
    let accepted = check("true").succeeded();
    assert!(accepted.stdout.contains("TORN_COMMITS"), "{}", accepted.stdout);
}
