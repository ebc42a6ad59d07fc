//! Answers that are no yes: a wish to wait, a garbled one, an empty one, that of another server.

use std::time::{Duration, Instant};

use frazil::error::Kind;
use frazil::iceberg::committer::rest::{RestCommitter, RestSettings};
use frazil::iceberg::committer::{NewTable, TableChange};
use frazil::iceberg::storage::StorageSettings;

use super::{COMMIT, Proxied, assert_made_once, says};
use crate::contract::lake::minio_settings;
use crate::contract::{app, change, relation};
use crate::support::fault_proxy::Rule;
use crate::support::minio::Minio;
use crate::support::process::free_port;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wish_to_wait_is_honoured() {
    let place = Proxied::new().await;
    let (lake, commit) = place.two_tables().await;
    let busy = || Rule::on("POST", COMMIT).answer(429).header("Retry-After", "2");
    place.proxy.set_rules([busy().next(1)]);
    lake.committer.commit(&commit).await.unwrap();
    let seen = place.proxy.requests("POST", COMMIT);
    let waited = seen[1].at.duration_since(seen[0].at);
    assert!(waited >= Duration::from_secs(2), "it waited {waited:?}");
    assert_made_once(&lake).await;

    place.proxy.clear();
    let read = Rule::on("GET", "/tables/a").next(1).answer(503).header("Retry-After", "1");
    place.proxy.set_rules([read]);
    lake.table(&app("a")).await;
    let seen = place.proxy.requests("GET", "/tables/a");
    let waited = seen[1].at.duration_since(seen[0].at);
    assert!(waited >= Duration::from_secs(1), "it waited {waited:?}");
}

/// What a commit is answered with, and what becomes of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_says_why_and_leaves_nothing() {
    let place = Proxied::new().await;
    let (lake, commit) = place.two_tables().await;
    let before = lake.files(&[&app("a"), &app("b")]).await;
    for (status, body, code, words) in [
        (400, r#"{"error":{"message":"no such thing","code":400}}"#, "CATALOG_REFUSED", "no such"),
        (404, "<html>where?</html>", "CATALOG_NOT_FOUND", "<html>where?</html>"),
        (422, "", "CATALOG_REFUSED", "422"),
        (501, "", "CATALOG_TORN", "several tables"),
    ] {
        place.proxy.set_rules([Rule::on("POST", COMMIT).answer(status).body(body)]);
        let error = lake.committer.commit(&commit).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(lake.files(&[&app("a"), &app("b")]).await, before, "{code} left files behind");
    }
    place.proxy.clear();
    lake.committer.commit(&commit).await.unwrap();
    assert_made_once(&lake).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_is_none_is_an_error_with_its_name() {
    let place = Proxied::new().await;
    let (lake, commit) = place.two_tables().await;
    for (body, code) in [
        ("<html>maintenance</html>", "CATALOG_ANSWER"),
        ("", "CATALOG_ANSWER"),
        ("{}", "LAKE_METADATA"),
        (r#"{"metadata-location":"s3://x/y","metadata":{"format-version":9}}"#, "LAKE_METADATA"),
        (r#"{"metadata-location":7,"metadata":[]}"#, "LAKE_METADATA"),
    ] {
        place.proxy.set_rules([Rule::on("GET", "/tables/b").answer(200).body(body)]);
        for error in [
            lake.committer.table(&app("b")).await.unwrap_err(),
            lake.committer.commit(&commit).await.unwrap_err(),
        ] {
            assert_eq!((error.code(), error.kind()), (code, Kind::Fatal), "{body}: {error}");
            assert!(error.to_string().contains("app.b"), "{body}: {error}");
        }
    }
    // Garbled where the ledger should be: nothing may be committed on a guess.
    place.proxy.set_rules([Rule::on("GET", "/tables/ledger_p").answer(200).body("{}")]);
    assert_eq!(lake.committer.position().await.unwrap_err().code(), "LAKE_METADATA");
    place.proxy.clear();
    lake.committer.commit(&commit).await.unwrap();
    assert_made_once(&lake).await;
}

async fn refused(settings: RestSettings) -> frazil::error::Error {
    match RestCommitter::connect(settings, StorageSettings::default(), "p").await {
        Ok(_) => panic!("it connected"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_url_is_said_at_once() {
    let place = Proxied::new().await;
    let with = |uri: String| RestSettings { uri, ..place.settings() };
    let plain =
        |uri: String| RestSettings { uri, reference: None, is_nessie: false, ..place.settings() };
    for (settings, codes, exit) in [
        (with(format!("{}/nowhere", place.proxy.url())), &["CATALOG_NOT_FOUND"][..], 78),
        (plain(format!("{}/nowhere", place.proxy.url())), &["CATALOG_NOT_FOUND"], 78),
        (plain(format!("http://127.0.0.1:{}", free_port())), &["CATALOG_DOWN"], 69),
        // A server that is no catalog.
        (plain(Minio::shared().await.endpoint()), &["CATALOG_NOT_FOUND", "CATALOG_AUTH"], 78),
        (plain("no url".into()), &["CATALOG_SETTING"], 78),
    ] {
        let (uri, began) = (settings.uri.clone(), Instant::now());
        let error = refused(settings).await;
        assert!(codes.contains(&error.code()), "{uri}: {error}");
        assert_eq!(error.exit_code(), exit, "{uri}: {error}");
        assert!(error.cure().is_some(), "{uri}: {error}");
        assert!(began.elapsed() < Duration::from_secs(20), "{uri}: {:?}", began.elapsed());
    }
    let reference = Some("no-such-branch".to_owned());
    let error = refused(RestSettings { reference, ..place.settings() }).await;
    assert_eq!(error.exit_code(), 78, "{error}");
    assert!(error.to_string().contains("no-such-branch"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_is_none_is_said_at_once() {
    let place = Proxied::new().await;
    for body in ["<html>login</html>", "", "[]", r#"{"defaults":7}"#] {
        place.proxy.set_rules([Rule::on("GET", "/v1/config").answer(200).body(body)]);
        let error = refused(place.settings()).await;
        assert_eq!((error.code(), error.exit_code()), ("CATALOG_NOT_FOUND", 78), "{body}: {error}");
        assert!(error.to_string().contains("/v1/config"), "{body}: {error}");
    }
}

/// A catalog that accepts the request and never answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_ends_at_the_timeout() {
    let place = Proxied::new().await;
    let settings = RestSettings { request_timeout: Duration::from_secs(1), ..place.settings() };
    let storage = minio_settings().await;
    let lake = place.lake_with(settings, storage).await;
    let commit = super::two_tables(&lake).await;
    place.proxy.clear();
    place.proxy.set_rules([Rule::on("POST", COMMIT).next(1).delay(Duration::from_secs(5))]);
    assert_eq!(lake.committer.commit(&commit).await.unwrap().0, 20);
    assert!(place.sent() >= 2, "it waited for the answer");
    // The first one arrives late, if at all, and is refused: the ledger has moved.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(place.lake_commits().await.len(), 2);
    assert_made_once(&lake).await;
}

/// Nessie that does not say what it is numbers the columns of a new table anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_that_gives_columns_other_ids_is_noticed() {
    let place = Proxied::new().await;
    let mut config = place.configuration().await;
    for side in ["defaults", "overrides"] {
        config[side].as_object_mut().unwrap().remove("nessie.is-nessie-catalog");
    }
    place.proxy.set_rules([says(&config)]);
    let settings = RestSettings { is_nessie: false, ..place.settings() };
    let lake = place.lake_with(settings, minio_settings().await).await;
    let mut r = relation("t");
    r.columns[1].attnum = 5;
    let new = NewTable::for_relation(&r, false).unwrap();
    let born = TableChange { create: Some(new), ..change(&app("t"), vec![]) };
    let error = lake.commit(None, 10, vec![born]).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("LAKE_METADATA", Kind::Fatal), "{error}");
    assert!(error.to_string().contains("other ids"), "{error}");
}
