//! Logging in: bearer tokens from a file and from OAuth2, renewed when they are refused and before
//! they end; headers of a person's own; keys against doing a thing twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use frazil::iceberg::committer::rest::{Login, RestCommitter, RestSettings};
use frazil::iceberg::storage::StorageSettings;
use serde_json::json;

use super::{COMMIT, Proxied, assert_made_once, says, two_tables};
use crate::contract::lake::minio_settings;
use crate::support::fault_proxy::{FaultProxy, Rule};
use crate::support::nessie::Nessie;

/// Refuses whoever does not carry `token`.
fn only(token: &str) -> Rule {
    let refused = r#"{"error":{"message":"who are you?","type":"NotAuthorizedException"}}"#;
    Rule::on("*", "/").without(&format!("Bearer {token}\r\n")).answer(401).body(refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_file_is_read_again_when_its_token_is_refused() {
    let place = Proxied::new().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "first\n").unwrap();
    place.proxy.set_rules([only("first")]);
    let login = Login::TokenFile(file.path().to_owned());
    let settings = RestSettings { login, ..place.settings() };
    let lake = place.lake_with(settings, minio_settings().await).await;
    let commit = two_tables(&lake).await;
    place.proxy.clear();

    // The file changes between the refused request and the next one.
    let path = file.path().to_owned();
    place.proxy.set_rules([only("second")]);
    let turn = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        std::fs::write(path, "second").unwrap();
    });
    lake.committer.commit(&commit).await.unwrap();
    turn.await.unwrap();
    let journal = place.proxy.journal();
    let refused = journal.iter().filter(|e| e.header("authorization") == Some("Bearer first"));
    assert!(refused.count() >= 2, "once, and once more at once");
    assert_eq!(place.lake_commits().await.len(), 2);
    assert_made_once(&lake).await;
}

// cases: 152 177 holds
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_refused_once_is_sent_again_with_a_new_token() {
    let place = Proxied::new().await;
    let oauth = OAuth::start().await;
    let settings = RestSettings { login: oauth.login("s3cret"), ..place.settings() };
    oauth.gives(&["one", "two"], 3600);
    let lake = place.lake_with(settings, minio_settings().await).await;
    let commit = two_tables(&lake).await;
    place.proxy.clear();
    place.proxy.set_rules([Rule::on("POST", COMMIT).without("Bearer two\r\n").answer(401)]);
    lake.committer.commit(&commit).await.unwrap();
    let sent: Vec<_> = place.proxy.requests("POST", COMMIT).into_iter().collect();
    let tokens: Vec<_> = sent.iter().map(|e| e.header("authorization").unwrap()).collect();
    assert_eq!(tokens, ["Bearer one", "Bearer two"]);
    assert_eq!(place.lake_commits().await.len(), 2);
    place.proxy.clear();
    assert_made_once(&lake).await;
}

// cases: 177 holds
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oauth_token_is_renewed_before_it_ends() {
    let place = Proxied::new().await;
    let oauth = OAuth::start().await;
    let settings = RestSettings { login: oauth.login("s3cret"), ..place.settings() };
    oauth.gives(&["one", "two", "three", "four", "five", "six"], 2);
    let lake = place.lake_with(settings, minio_settings().await).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let commit = two_tables(&lake).await;
    lake.committer.commit(&commit).await.unwrap();

    let journal = place.proxy.journal();
    let used: BTreeSet<_> = journal.iter().map(|e| e.header("authorization").unwrap()).collect();
    assert!(used.len() >= 2, "{used:?}");
    let mut first = journal.iter().filter(|e| e.header("authorization") == Some("Bearer one"));
    let (begin, last) = (first.next().unwrap().at, first.next_back().unwrap().at);
    assert!(last.duration_since(begin) < Duration::from_secs(2), "sent after its end");
    let asked = oauth.proxy.requests("POST", "/token");
    assert!(asked[0].header("content-type").unwrap().contains("x-www-form-urlencoded"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_is_refused_is_a_setting_to_mend() {
    let place = Proxied::new().await;
    let oauth = OAuth::start().await;
    oauth.refuses();
    place.proxy.set_rules([only("right")]);
    for login in [
        Login::None,
        Login::Token("wrong".into()),
        Login::TokenFile("/nowhere/token".into()),
        oauth.login("s3cret"),
    ] {
        let settings = RestSettings { login: login.clone(), ..place.settings() };
        let refused = RestCommitter::connect(settings, StorageSettings::default(), "p").await;
        let error = refused.err().unwrap();
        assert_eq!((error.code(), error.exit_code()), ("CATALOG_AUTH", 78), "{login:?}: {error}");
        assert!(error.cure().is_some_and(|cure| cure.contains("catalog.")), "{error}");
        assert!(!error.to_string().contains("s3cret"), "the secret is shown: {error}");
    }
    let settings = RestSettings { login: Login::Token("right".into()), ..place.settings() };
    RestCommitter::connect(settings, StorageSettings::default(), "p").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_of_ones_own_come_with_every_request() {
    let place = Proxied::new().await;
    let headers = BTreeMap::from([("X-Tenant".to_owned(), "shop 1".to_owned())]);
    let settings = RestSettings { headers, ..place.settings() };
    let lake = place.lake_with(settings, minio_settings().await).await;
    let commit = two_tables(&lake).await;
    lake.committer.commit(&commit).await.unwrap();
    let journal = place.proxy.journal();
    let without: Vec<_> = journal
        .iter()
        .filter(|e| e.header("x-tenant") != Some("shop 1"))
        .map(|e| &e.path)
        .collect();
    assert!(journal.len() > 5 && without.is_empty(), "{without:?}");
    let agent = journal[0].header("user-agent").unwrap();
    assert!(agent.starts_with("frazil/"), "{agent}");
}

/// A key per request, where the catalog says for how long it remembers one.
// cases: 147 holds
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_against_doing_it_twice_is_sent_where_it_is_known() {
    for lifetime in [Some("PT30M"), None] {
        let place = Proxied::new().await;
        let mut config = place.configuration().await;
        if let Some(lifetime) = lifetime {
            config["overrides"]["idempotency-key-lifetime"] = lifetime.into();
        }
        place.proxy.clear();
        place.proxy.set_rules([says(&config)]);
        let lake = place.lake().await;
        let commit = two_tables(&lake).await;
        lake.committer.commit(&commit).await.unwrap();
        let sent = place.proxy.requests("POST", COMMIT);
        let keys: Vec<_> = sent.iter().map(|e| e.header("idempotency-key")).collect();
        assert_eq!(keys.len(), 2);
        assert!(keys.iter().all(|key| key.is_some() == lifetime.is_some()), "{keys:?}");
        if lifetime.is_some() {
            let keys: BTreeSet<_> =
                keys.iter().map(|key| uuid::Uuid::parse_str(key.unwrap()).unwrap()).collect();
            assert_eq!(keys.len(), 2, "the same key for two lake commits");
            assert!(keys.iter().all(|key| key.get_version_num() == 7));
        }
    }
}

/// A server that gives tokens: rules of a proxy that forwards nothing.
struct OAuth {
    proxy: FaultProxy,
}

impl OAuth {
    async fn start() -> Self {
        Self { proxy: FaultProxy::start(&Nessie::shared().await.uri()) }
    }

    fn login(&self, secret: &str) -> Login {
        Login::OAuth2 {
            client_id: Some("frazil".into()),
            client_secret: secret.into(),
            server_uri: Some(format!("{}/token", self.proxy.url())),
            scope: "catalog".into(),
        }
    }

    /// One after another, the last one again and again.
    fn gives(&self, tokens: &[&str], seconds: u64) {
        let rule = |(nth, token): (u64, &&str)| {
            let body = json!({ "access_token": token, "token_type": "bearer",
                "expires_in": seconds });
            let rule = Rule::on("POST", "/token").answer(200).body(&body.to_string());
            // A rule counts only what reaches it: each lets one pass to the next.
            if nth + 1 < tokens.len() as u64 { rule.next(1) } else { rule }
        };
        self.proxy.set_rules((0..).zip(tokens).map(rule));
    }

    fn refuses(&self) {
        let body = r#"{"error":"invalid_client"}"#;
        self.proxy.set_rules([Rule::on("POST", "/token").answer(401).body(body)]);
    }
}
