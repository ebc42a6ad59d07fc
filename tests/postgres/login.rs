//! Login: SCRAM over a socket, over TCP and over verified TLS with channel binding; refusals have
//! the right codes (cases 27, 171).

use frazil::error::Kind;
use frazil::postgres::dsn::Source;
use frazil::postgres::session::Session;
use frazil::postgres::sql::connect_sql;

use super::server::{PASSWORD, database, server};

async fn code(dsn: &str) -> (Kind, &'static str) {
    let source = Source::parse(dsn).unwrap();
    let session = Session::connect(&source, "test").await.unwrap_err();
    let sql = connect_sql(&source, "test").await.unwrap_err();
    assert_eq!(session.code(), sql.code(), "{session} / {sql}");
    (session.kind(), session.code())
}

#[tokio::test]
async fn scram_on_every_wire() {
    database("login", "").await;
    let (port, folder) = (server().port, server().folder.display());
    let rest = format!("port={port} user=postgres dbname=login password={PASSWORD}");
    let tls = format!("host=localhost {rest} sslrootcert={folder}/server.crt");
    for dsn in [
        format!("host={folder} {rest}"),
        format!("host=localhost {rest} sslmode=disable"),
        format!("host=localhost {rest} sslmode=require"),
        format!("{tls} sslmode=verify-full"),
        format!("{tls} sslmode=verify-full channel_binding=require"),
        format!("{tls} sslmode=verify-full channel_binding=disable"),
        format!("{tls} sslmode=verify-ca").replace("host=localhost", "host=127.0.0.1"),
    ] {
        let source = Source::parse(&dsn).unwrap();
        let mut session = Session::connect(&source, "test").await.expect(&dsn);
        assert!(session.server_version() >= 130_000);
        assert_eq!(session.show("DateStyle").await.unwrap(), "ISO, MDY");
        assert_eq!(session.show("application_name").await.unwrap(), "frazil/test");
        let client = connect_sql(&source, "test").await.expect(&dsn);
        for (name, value) in [("TimeZone", "UTC"), ("search_path", ""), ("row_security", "off")] {
            let row = client.query_one("SELECT current_setting($1)", &[&name]).await.unwrap();
            assert_eq!(row.get::<_, &str>(0), value, "{name}");
            assert_eq!(session.show(name).await.unwrap(), value, "{name}");
        }
        let ssl = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let encrypted: bool = client.query_one(ssl, &[]).await.unwrap().get(0);
        assert_eq!(
            encrypted,
            !dsn.contains("disable ") && !dsn.ends_with("sslmode=disable") && dsn.contains("ssl"),
            "{dsn}"
        );
    }
}

#[tokio::test]
async fn the_system_is_identified() {
    let (source, client) = database("identified", "").await;
    let mut session = Session::connect(&source, "test").await.unwrap();
    let system = session.identify_system().await.unwrap();
    let sql = "SELECT system_identifier::text FROM pg_control_system()";
    let id: String = client.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!((system.system_id, system.timeline), (id, 1));
    assert!(system.xlogpos_lsn > frazil::progress::Lsn::ZERO);
    assert_eq!(session.timeline_history(1).await.unwrap(), []);
    // An error leaves the session fit for the next command.
    assert!(session.timeline_history(7).await.is_err());
    assert_eq!(session.show("row_security").await.unwrap(), "off");
}

#[tokio::test]
async fn refusals() {
    database("refusals", "").await;
    let (port, folder) = (server().port, server().folder.display());
    let base = format!("host=localhost port={port} user=postgres");
    let good = format!("{base} dbname=refusals password={PASSWORD}");
    assert_eq!(code(&format!("{base} dbname=refusals password=no")).await, (Kind::Config, "AUTH"));
    let none = format!("{base} dbname=nowhere password={PASSWORD}");
    assert_eq!(code(&none).await, (Kind::Config, "NO_DATABASE"));
    // Not an authority of this system, and not the name in the certificate.
    assert_eq!(code(&format!("{good} sslmode=verify-full")).await, (Kind::Config, "TLS"));
    let other = good.replace("host=localhost", "host=127.0.0.1");
    let other = format!("{other} sslmode=verify-full sslrootcert={folder}/server.crt");
    assert_eq!(code(&other).await, (Kind::Config, "TLS"));
    let gone = good.replace(&format!("port={port}"), "port=1");
    assert_eq!(code(&gone).await, (Kind::Transient, "CONNECTION"));
}
