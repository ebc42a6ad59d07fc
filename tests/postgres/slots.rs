//! What goes wrong with slots and publications has its code (cases 16, 17, 24), and what is right
//! can be looked at.

use frazil::error::{Error, Kind};
use frazil::postgres::publication::{
    Publish, create_publication, drop_publication, publication_info,
};
use frazil::postgres::session::{Session, SlotOptions};
use frazil::postgres::slot::{slot_blockers, slot_info};
use frazil::postgres::sql::connect_sql;
use frazil::postgres::stream::{MESSAGE_BYTES_MAX, next_frame};
use frazil::progress::Lsn;

use super::server::{database, stream_options};

fn facts(error: &Error) -> (Kind, &'static str) {
    (error.kind(), error.code())
}

// cases: 24 stops PUBLICATION_MISSING
// cases: 17 stops SLOT_LOST
#[tokio::test]
async fn slot_errors_are_told_apart() {
    let (source, client) = database("slots", "CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut session = Session::connect(&source, "test").await.unwrap();
    session.create_slot("slots_old", SlotOptions::default()).await.unwrap();
    let again = session.create_slot("slots_old", SlotOptions::default()).await.unwrap_err();
    assert_eq!(facts(&again), (Kind::Config, "EXISTS"));
    client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    let tables = [("public".to_owned(), "t".to_owned())];
    create_publication(&client, "late p", &tables, Publish::ALL, false).await.unwrap();
    let made = publication_info(&client, "late p").await.unwrap().unwrap();
    assert_eq!((made.publish, made.via_root, made.all_tables), (Publish::ALL, false, false));

    let info = slot_info(&client, "slots_old").await.unwrap().unwrap();
    assert_eq!(info.plugin.as_deref(), Some("pgoutput"));
    assert_eq!((info.active_pid, info.temporary, info.is_lost()), (None, false, false));
    assert!(info.confirmed_flush_lsn >= info.restart_lsn && info.restart_lsn.is_some());
    assert_eq!(slot_info(&client, "slots_none").await.unwrap(), None);

    let missing = session.start_replication(&stream_options("slots_none", Lsn::ZERO, "p")).await;
    assert_eq!(facts(&missing.unwrap_err()), (Kind::Fatal, "SLOT_LOST"));

    // The publication is younger than the WAL that is to be decoded with it.
    let session = Session::connect(&source, "test").await.unwrap();
    let options = stream_options("slots_old", Lsn::ZERO, "late p");
    let mut stream = session.start_replication(&options).await.unwrap();
    let (mut bytes, mut pos) = (Vec::new(), 0);
    let error = loop {
        match next_frame(&bytes, &mut pos, MESSAGE_BYTES_MAX) {
            Ok(Some(_)) => {}
            Ok(None) => drop(stream.read(&mut bytes).await.unwrap()),
            Err(error) => break error,
        }
    };
    assert_eq!(facts(&error), (Kind::Config, "PUBLICATION_MISSING"));
    drop(stream);

    let mut second = Session::connect(&source, "test").await.unwrap();
    second.create_slot("slots_busy", SlotOptions::default()).await.unwrap();
    let session = Session::connect(&source, "test").await.unwrap();
    let options = stream_options("slots_busy", Lsn::ZERO, "late p");
    let stream = session.start_replication(&options).await.unwrap();
    let active = second.drop_slot("slots_busy").await.unwrap_err();
    assert_eq!(facts(&active), (Kind::Transient, "SLOT_ACTIVE"));
    drop(stream);
    drop_publication(&client, "late p").await.unwrap();
    assert_eq!(publication_info(&client, "late p").await.unwrap(), None);
    for slot in ["slots_old", "slots_busy"] {
        while second.drop_slot(slot).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

// cases: 27 stops RIGHTS
#[tokio::test]
async fn rights_are_named() {
    let sql = "CREATE TABLE t (id int PRIMARY KEY); CREATE ROLE slots_poor LOGIN PASSWORD 'x'";
    let (mut source, _client) = database("poor", sql).await;
    source.user = "slots_poor".to_owned();
    let dsn = super::server::server().dsn("poor").replace("user=postgres", "user=slots_poor");
    let dsn = dsn.replace(super::server::PASSWORD, "x");
    let source = frazil::postgres::dsn::Source::parse(&dsn).unwrap();
    let error = Session::connect(&source, "test").await.unwrap_err();
    assert_eq!(facts(&error), (Kind::Config, "RIGHTS"), "{error}");
    assert!(error.cure().unwrap().contains("ALTER ROLE"));
}

// cases: 132 holds
#[tokio::test]
async fn an_open_writer_is_shown_as_blocker() {
    let (source, client) = database("blockers", "CREATE TABLE t (id int PRIMARY KEY)").await;
    let writer = connect_sql(&source, "test").await.unwrap();
    writer.batch_execute("BEGIN; INSERT INTO public.t VALUES (7)").await.unwrap();
    let blockers = slot_blockers(&client).await.unwrap();
    assert!(blockers.iter().any(|b| b.pid > 0 && b.query.contains("VALUES (7)") && b.age_s >= 0.0));
    writer.batch_execute("ROLLBACK").await.unwrap();
}

// cases: 131 holds
#[tokio::test]
async fn an_exported_snapshot_ends_with_the_next_command() {
    let (source, _client) = database("snapshots", "CREATE TABLE t (id int PRIMARY KEY)").await;
    let mut session = Session::connect(&source, "test").await.unwrap();
    let options = SlotOptions { temporary: true, export_snapshot: true, ..SlotOptions::default() };
    let created = session.create_slot("snapshots_t", options).await.unwrap();
    let name = created.snapshot_name.unwrap();
    let import =
        format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '{name}'");
    let early = connect_sql(&source, "test").await.unwrap();
    early.batch_execute(&import).await.unwrap();
    session.identify_system().await.unwrap();
    let late = connect_sql(&source, "test").await.unwrap();
    assert!(late.batch_execute(&import).await.is_err(), "it outlived the next command");
    // Who imported it keeps it.
    early.query_one("SELECT count(*) FROM public.t", &[]).await.unwrap();
}
