//! The way to a catalog: TLS by an authority of one's own, and a proxy.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use frazil::iceberg::committer::Committer;
use frazil::iceberg::committer::rest::{Login, RestCommitter, RestSettings};
use frazil::iceberg::storage::StorageSettings;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

fn settings(uri: String) -> RestSettings {
    RestSettings {
        uri,
        is_nessie: false,
        reference: None,
        branch_from: None,
        warehouse: None,
        login: Login::None,
        headers: BTreeMap::new(),
        ca_file: None,
        proxy: None,
        connect_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(10),
        vended_credentials: Some(false),
        allow_torn_commits: false,
    }
}

async fn connect(settings: RestSettings) -> frazil::error::Result<RestCommitter> {
    RestCommitter::connect(settings, StorageSettings::default(), "p").await
}

/// An empty catalog: a configuration without entries, and no tables. Gives the request lines.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, lines: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    loop {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
        let line = text.lines().next().unwrap().to_owned();
        let (status, body) = match line.contains("/v1/config") {
            true => ("200 OK", r#"{"defaults":{},"overrides":{}}"#),
            false => ("404 Not Found", r#"{"error":{"message":"no such table"}}"#),
        };
        lines.lock().unwrap().push(line);
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        if stream.write_all(format!("{answer}{body}").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// An authority, `ca.pem`, and a certificate of it for `localhost`: `cert.pem`, `key.pem`.
const CERTIFICATES: &str = "
set -e
new='-newkey rsa:2048 -nodes'
openssl req -x509 $new -days 2 -subj '/CN=an authority' -keyout ca.key -out ca.pem
openssl req $new -subj /CN=localhost -keyout key.pem -out cert.csr
echo subjectAltName=DNS:localhost > names
sign='-CA ca.pem -CAkey ca.key -CAcreateserial'
openssl x509 -req -in cert.csr $sign -days 2 -extfile names -out cert.pem";

fn make_certificates(folder: &Path) {
    let made = Command::new("sh").args(["-c", CERTIFICATES]).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_of_ones_own_is_trusted_when_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    make_certificates(folder.path());
    let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| folder.path().join(name));
    let chain = vec![CertificateDer::from_pem_file(&cert).unwrap()];
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&key).unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(socket).await {
                    serve(stream, Arc::default()).await;
                }
            });
        }
    });

    let plain = settings(format!("https://localhost:{port}"));
    let error = connect(plain.clone()).await.map(|_| ()).unwrap_err();
    assert_eq!((error.code(), error.exit_code()), ("CATALOG_TLS", 78), "{error}");
    assert!(error.cure().unwrap().contains("catalog.ca_file"), "{error}");
    let trusting = RestSettings { ca_file: Some(ca), ..plain.clone() };
    assert_eq!(connect(trusting).await.unwrap().position().await.unwrap(), None);
    let nothing = RestSettings { ca_file: Some(folder.path().join("none")), ..plain };
    let error = connect(nothing).await.map(|_| ()).unwrap_err();
    assert_eq!((error.code(), error.exit_code()), ("CATALOG_SETTING", 78), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_through_the_proxy_that_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&lines);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, Arc::clone(&seen)));
        }
    });
    let proxy = Some(format!("http://127.0.0.1:{port}"));
    let through = RestSettings { proxy, ..settings("http://catalog.invalid".to_owned()) };
    connect(through).await.unwrap().position().await.unwrap();
    let lines = lines.lock().unwrap().clone();
    assert_eq!(lines[0], "GET http://catalog.invalid/v1/config HTTP/1.1");
    assert!(lines[1].starts_with("GET http://catalog.invalid/v1/namespaces/"), "{lines:?}");

    let proxy = Some("http://me:s3cret@no proxy".to_owned());
    let wrong = RestSettings { proxy, ..settings("http://catalog.invalid".to_owned()) };
    let error = connect(wrong).await.map(|_| ()).unwrap_err();
    assert_eq!((error.code(), error.exit_code()), ("CATALOG_SETTING", 78), "{error}");
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
}
