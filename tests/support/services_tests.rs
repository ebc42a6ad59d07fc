//! The services that the tests of S3 and Nessie stand on, and the proxy that breaks them.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use serde_json::{Value, json};

use super::fault_proxy::{Action, FaultProxy, Rule};
use super::lake::Lake;
use super::minio::Minio;
use super::nessie::{Branch, Nessie, NessieOptions, answer, http_client};
use super::postgres::{Postgres, PostgresOptions};

#[tokio::test]
async fn minio_keeps_objects_and_refuses_a_wrong_key() {
    let minio = Minio::shared().await;
    let store = minio.store();
    store.put(&Path::from("keys/a/1"), PutPayload::from_static(b"one")).await.unwrap();
    store.put(&Path::from("keys/b"), PutPayload::new()).await.unwrap();
    assert_eq!(minio.list("keys").await, ["keys/a/1", "keys/b"]);
    assert_eq!(minio.get("keys/a/1").await.unwrap(), Bytes::from_static(b"one"));
    minio.delete("keys/a/1").await;
    assert_eq!(minio.get("keys/a/1").await, None);
    assert_eq!(minio.list("keys").await, ["keys/b"]);

    let stranger = minio.builder().with_secret_access_key("not the secret").build().unwrap();
    let error = stranger.get(&Path::from("keys/b")).await.unwrap_err();
    assert!(matches!(error, object_store::Error::PermissionDenied { .. }), "{error:?}");
}

#[tokio::test]
async fn an_upload_that_was_not_completed_is_listed_until_it_is_aborted() {
    let minio = Minio::shared().await;
    let key = Path::from("uploads/half");
    let mut upload = minio.store().put_multipart(&key).await.unwrap();
    upload.put_part(PutPayload::from(vec![7; 5 << 20])).await.unwrap();
    assert_eq!(minio.incomplete_uploads("uploads/").await, ["uploads/half"]);
    assert!(minio.list("uploads").await.is_empty());
    upload.abort().await.unwrap();
    assert!(minio.incomplete_uploads("uploads/").await.is_empty());
}

#[tokio::test]
async fn a_killed_nessie_comes_back_with_what_it_had_and_with_other_settings() {
    let minio = Minio::shared().await;
    let mut nessie = Nessie::start(NessieOptions::default()).await;
    let branch = nessie.branch().await;
    create_table(&branch, "app", "t").await;
    let head = branch.head().await;
    let table = load(&branch, "app", "t", "vended-credentials").await;
    assert_eq!(table["config"]["s3.access-key-id"], Value::Null, "{table:#}");
    nessie.kill9();
    assert!(http_client().get(branch.api()).send().await.is_err());

    nessie.restart_with(NessieOptions::default().vended_credentials(minio)).await;
    assert_eq!(branch.head().await, head);
    let table = load(&branch, "app", "t", "vended-credentials").await;
    let key_id = table["config"]["s3.access-key-id"].as_str().expect("a vended key");
    assert_ne!(key_id, minio.access_key());
    assert!(table["config"]["s3.session-token"].is_string());
}

#[tokio::test]
async fn a_branch_begins_empty_and_has_its_own_commits() {
    let nessie = Nessie::shared().await;
    let (one, other) = (nessie.branch().await, nessie.branch().await);
    assert_eq!(one.head().await, other.head().await);
    assert!(one.log().await.is_empty());

    // More than a page of the log.
    for i in 0..25 {
        one.post("namespaces", &json!({ "namespace": [format!("n{i}")] })).await;
    }
    create_table(&one, "app", "t").await;
    let log = one.log().await;
    assert_eq!(log.len(), 27);
    assert_eq!(log[0].hash, one.head().await);
    assert_eq!((log[0].puts.as_slice(), log[0].operations), (&["app.t".to_string()][..], 1));
    assert_eq!(log[26].puts, ["n0"]);
    assert!(log[0].message.contains("app.t"), "{:?}", log[0]);
    assert!(other.log().await.is_empty());
    assert_eq!(other.get("namespaces").await["namespaces"], json!([]));
}

#[tokio::test]
async fn what_a_commit_says_is_read_back() {
    let branch = Nessie::shared().await.branch().await;
    let url = format!("{}/v1/{}/namespaces", branch.uri(), branch.name());
    let request = http_client().post(url).json(&json!({ "namespace": ["n"] }));
    let request = request.header("Nessie-Commit-Message", "a window");
    let request = request.header("Nessie-Commit-Authors", "frazil");
    answer(request.header("Nessie-Commit-Property-Pg-Lsn", "0/2A")).await;
    let log = branch.log().await;
    assert_eq!(
        (log[0].message.as_str(), log[0].authors.as_slice()),
        ("a window", &["frazil".into()][..])
    );
    assert_eq!(log[0].properties["pg-lsn"], "0/2A");
}

#[tokio::test]
async fn a_fault_before_nessie_leaves_nothing_and_one_after_it_leaves_the_commit() {
    let nessie = Nessie::shared().await;
    let branch = nessie.branch().await;
    let proxy = FaultProxy::start(&nessie.uri());
    let http = http_client();
    let create = async |name: &str| {
        let url = format!("{}/iceberg/v1/{}/namespaces", proxy.url(), branch.name());
        http.post(url).json(&json!({ "namespace": [name] })).send().await
    };

    proxy.set_rules([Rule::on("POST", "/namespaces")
        .next(1)
        .answer(503)
        .header("Retry-After", "7")
        .body("busy")]);
    let refused = create("a").await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (503, &"7".parse().unwrap())
    );
    assert_eq!(refused.text().await.unwrap(), "busy");
    assert!(branch.log().await.is_empty());

    proxy.set_rules([Rule::on("POST", "/namespaces").reset()]);
    let error = create("a").await.unwrap_err();
    assert!(format!("{error:?}").contains("ConnectionReset"), "{error:?}");
    assert!(branch.log().await.is_empty());

    proxy.set_rules([Rule::on("*", "/namespaces").skip(1).drop_answer()]);
    assert_eq!(create("a").await.unwrap().status(), 200);
    assert_eq!(branch.log().await.len(), 1);
    let error = create("b").await.unwrap_err();
    assert!(format!("{error:?}").contains("ConnectionReset"), "{error:?}");
    assert_eq!(branch.log().await.len(), 2);

    let seen: Vec<_> = proxy.journal().into_iter().map(|e| (e.status, e.fault)).collect();
    assert!(matches!(seen[0], (None, Some(Action::Answer { status: 503, .. }))), "{seen:?}");
    assert_eq!(seen[1], (None, Some(Action::Reset)));
    assert_eq!(seen[2], (Some(200), None));
    assert_eq!(seen[3], (Some(200), Some(Action::DropAnswer)));
    proxy.clear();
    assert!(proxy.journal().is_empty());
    assert_eq!(create("c").await.unwrap().status(), 200);
    assert_eq!(proxy.requests("POST", branch.name()).len(), 1);
}

#[tokio::test]
async fn rules_act_when_it_is_their_turn() {
    let nessie = Nessie::shared().await;
    let proxy = FaultProxy::start(&nessie.uri());
    let http = http_client();
    let statuses = async |n: usize| {
        let mut statuses = Vec::new();
        for _ in 0..n {
            let url = format!("{}/api/v2/config", proxy.url());
            statuses.push(http.get(url).send().await.unwrap().status().as_u16());
        }
        statuses
    };
    proxy.set_rules([Rule::on("POST", "/config").answer(500), Rule::on("*", "/x").answer(500)]);
    assert_eq!(statuses(1).await, [200]);
    proxy.set_rules([Rule::on("GET", "/config").every(2).answer(429)]);
    assert_eq!(statuses(4).await, [200, 429, 200, 429]);
    proxy.set_rules([Rule::on("GET", "v2").skip(1).next(2).answer(404)]);
    assert_eq!(statuses(4).await, [200, 404, 404, 200]);
    proxy.set_rules([Rule::on("GET", "/config").next(1), Rule::on("GET", "/config").answer(401)]);
    assert_eq!(statuses(2).await, [200, 401]);

    let chance = || [Rule::on("GET", "/config").chance(0.5, 42).answer(500)];
    proxy.set_rules(chance());
    let first = statuses(20).await;
    assert!(first.contains(&200) && first.contains(&500), "{first:?}");
    proxy.set_rules(chance());
    assert_eq!(statuses(20).await, first);

    proxy.set_rules([Rule::on("GET", "/config").delay(Duration::from_millis(200))]);
    let before = Instant::now();
    assert_eq!(statuses(1).await, [200]);
    assert!(before.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn signed_requests_and_large_bodies_go_through_the_proxy() {
    let minio = Minio::shared().await;
    let proxy = FaultProxy::start(&minio.endpoint());
    let store = minio.builder().with_endpoint(proxy.url()).build().unwrap();
    let large = Bytes::from((0..32 << 20).map(|i: u32| (i % 251) as u8).collect::<Vec<_>>());
    let key = Path::from("proxied/a b%ż=1/large");
    // Two answers of S3 that its clients retry.
    proxy.set_rules([Rule::on("PUT", "/large").next(2).answer(503)]);
    store.put(&key, large.clone().into()).await.unwrap();
    assert_eq!(proxy.requests("PUT", "/large").len(), 3);
    assert!(store.get(&key).await.unwrap().bytes().await.unwrap() == large);
    assert_eq!(minio.list("proxied").await, [key.to_string()]);
}

/// As some clients send it: a chunked body, held back until the server says 100, twice on one
/// connection.
#[tokio::test]
async fn chunked_bodies_and_expectations_go_through_the_proxy() {
    let nessie = Nessie::shared().await;
    let branch = nessie.branch().await;
    let proxy = FaultProxy::start(&nessie.uri());
    let address = proxy.url().trim_start_matches("http://").to_string();
    let mut connection = std::net::TcpStream::connect(&address).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for name in ["a", "b"] {
        let path = format!("/iceberg/v1/{}/namespaces", branch.name());
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).unwrap();
        assert!(read_until(&mut connection, "\r\n\r\n").starts_with("HTTP/1.1 100"));
        let body = format!("{{\"namespace\":[\"{name}\"]}}");
        let (first, second) = body.split_at(5);
        for chunk in [first, second, ""] {
            write!(connection, "{:x}\r\n{chunk}\r\n", chunk.len()).unwrap();
        }
        let answer = read_until(&mut connection, "\n}");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(branch.log().await.len(), 2);
}

fn read_until(connection: &mut std::net::TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with(end) {
        assert_eq!(connection.read(&mut byte).unwrap_or(0), 1, "the end came after: {text}");
        text.push(char::from(byte[0]));
    }
    text
}

#[tokio::test]
async fn duckdb_reads_a_branch_now_and_at_a_hash() {
    let minio = Minio::shared().await;
    let branch = Nessie::shared().await.branch().await;
    create_table(&branch, "app", "t").await;
    let mut lake = Lake::nessie(&branch, minio);
    let before = lake.state();
    assert_eq!(before.tables().collect::<Vec<_>>(), ["app.t"]);
    assert_eq!(before.hash(), branch.head().await);
    assert!(before.location("app.t").starts_with("s3://lake/wh/"));
    assert_eq!(lake.query(&before, "SELECT count(*) FROM {app.t}"), [[Some("0".into())]]);

    create_table(&branch, "app", "u").await;
    assert_eq!(lake.state().tables().collect::<Vec<_>>(), ["app.t", "app.u"]);
    assert_eq!(lake.state_at(before.hash()), before);
    let count = "SELECT count(*), count(id) FROM {app.t}";
    for at in [branch.name(), before.hash()] {
        assert_eq!(lake.query_attached(at, count), [[Some("0".into()), Some("0".into())]]);
    }
}

/// DuckDB as the writer too: its REST client knows only `main`.
#[tokio::test]
async fn duckdb_compares_a_table_in_nessie_with_postgres_and_travels_in_time() {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres.sql("CREATE SCHEMA duck; CREATE TABLE duck.t(id bigint)").await;
    postgres.sql("INSERT INTO duck.t VALUES (1), (NULL), (3)").await;
    let main = Nessie::shared().await.branch_named("main");
    create_table(&main, "duck", "t").await;
    let mut lake = Lake::nessie(&main, Minio::shared().await);
    let empty = lake.state();
    lake.query_attached("main", "INSERT INTO d.duck.t VALUES (1), (NULL), (3)");

    lake.assert_equal(&postgres, &["duck.t"]).await;
    let before = lake.compare(&empty, &postgres, "duck.t").await;
    assert_eq!((before.source.rows, before.lake.rows), (3, 0));
    let sum = "SELECT count(*), sum(id) FROM {duck.t}";
    let all = [[Some("3".into()), Some("4".into())]];
    assert_eq!(lake.query_now(sum), all);
    assert_eq!(lake.query_attached("main", sum), all);
    assert_eq!(lake.query_attached(&main.head().await, sum), all);
    assert_eq!(lake.query_attached(empty.hash(), sum), [[Some("0".into()), None]]);
}

async fn create_table(branch: &Branch, namespace: &str, name: &str) {
    if !branch.get("namespaces").await["namespaces"].to_string().contains(namespace) {
        branch.post("namespaces", &json!({ "namespace": [namespace] })).await;
    }
    let fields = json!([{ "id": 1, "name": "id", "type": "long", "required": false }]);
    let schema = json!({ "type": "struct", "schema-id": 0, "fields": fields });
    // Without `stage-create` Nessie 0.99.0 answers 500.
    let table = json!({ "name": name, "schema": schema, "stage-create": false });
    branch.post(&format!("namespaces/{namespace}/tables"), &table).await;
}

async fn load(branch: &Branch, namespace: &str, name: &str, delegation: &str) -> Value {
    let path = format!("namespaces/{namespace}/tables/{name}");
    let url = format!("{}/v1/{}/{path}", branch.uri(), branch.name());
    answer(http_client().get(url).header("X-Iceberg-Access-Delegation", delegation)).await
}
