//! Slot, history and lake are compared before the stream (cases 1, 6, 7, 16, 17): what does not fit
//! stops with its code, and nothing is skipped in silence.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

use super::scene::{Scene, following, lsn, metadata, stop};
use crate::support::frazil::{DEADLINE, Frazil};
use crate::support::postgres::{Postgres, PostgresOptions};
use crate::support::process::output_of;

const TABLE: &str = "CREATE TABLE t(id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')";

// cases: 17 stops SLOT_LOST
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_slot_is_lost() {
    let scene = Scene::new(TABLE).await;
    scene.catch_up().succeeded();
    scene.sql("SELECT pg_drop_replication_slot('frazil'); ").await;
    scene.sql("INSERT INTO t VALUES (2, 'b')").await;
    scene.catch_up().exited(1).said("SLOT_LOST").said("cure:");
    // Not made again behind the user's back, which would skip the row.
    let slots = scene.sql("SELECT count(*) FROM pg_replication_slots").await;
    assert_eq!(slots[0][0].as_deref(), Some("0"));
}

// cases: 17 stops SLOT_LOST
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_dropped_under_a_running_frazil_is_lost() {
    let scene = Scene::new(TABLE).await;
    let running = scene.started();
    scene
        .sql(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots; SELECT pg_sleep(0.05); \
             SELECT pg_drop_replication_slot('frazil')",
        )
        .await;
    running.wait(DEADLINE).exited(1).said("SLOT_LOST");
}

// cases: 6 stops SLOT_AHEAD
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_advanced_is_ahead() {
    let scene = Scene::new(TABLE).await;
    scene.catch_up().succeeded();
    scene.sql("INSERT INTO t VALUES (2, 'skipped')").await;
    scene.sql("SELECT pg_replication_slot_advance('frazil', pg_current_wal_lsn())").await;
    scene.catch_up().exited(1).said("SLOT_AHEAD").said("frazil");
}

// cases: 7 stops OTHER_SYSTEM
#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_is_refused() {
    let scene = Scene::new(TABLE).await;
    scene.catch_up().succeeded();
    let mut other = Postgres::start(PostgresOptions::default()).await;
    initdb_again(&mut other);
    other.restart().await;
    other.sql(TABLE).await;
    other.sql("CREATE PUBLICATION frazil FOR TABLE t").await;
    other.sql("SELECT pg_create_logical_replication_slot('frazil', 'pgoutput')").await;
    let ended = Frazil::run(&other.dsn(), scene.lake.folder()).arg("--until-caught-up").finish();
    ended.exited(1).said("OTHER_SYSTEM").said("cure:");
}

/// The clusters of these tests are copies of one, with the same system identifier.
fn initdb_again(postgres: &mut Postgres) {
    postgres.stop();
    let data = postgres.data_dir();
    let conf = std::fs::read(data.join("postgresql.conf")).unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    let folder = data.parent().unwrap();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let initdb = postgres.bin_dir().join("initdb");
    let mut command = match std::fs::metadata("/proc/self").unwrap().uid() {
        0 => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups", "--"]);
            command.arg(initdb);
            command
        }
        _ => Command::new(initdb),
    };
    command.args(["-U", "postgres", "-A", "trust", "--no-locale", "-E", "UTF8", "--no-sync", "-D"]);
    output_of(command.arg(&data).current_dir("/"));
    std::fs::write(data.join("postgresql.conf"), conf).unwrap();
}

/// The lake of one database must not go on with another database of the same cluster, which has the
/// same system identifier and the same WAL.
#[tokio::test(flavor = "multi_thread")]
async fn another_database_of_the_same_cluster_is_refused() {
    let mut scene = Scene::new(TABLE).await;
    scene.catch_up().succeeded();
    let before = scene.position();
    scene.sql("CREATE DATABASE second TEMPLATE template0").await;
    let dsn = scene.postgres.dsn_of("second");
    let (client, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("{TABLE}; CREATE PUBLICATION frazil FOR TABLE t")).await.unwrap();
    let ended = Frazil::run(&dsn, scene.lake.folder()).arg("--until-caught-up").finish();
    assert!(ended.code != Some(0), "went on with another database:\n{}", ended.stderr);
    assert_eq!(scene.position(), before);
}

// cases: 16 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_second_frazil_waits_and_says_so() {
    let mut scene = Scene::new(TABLE).await;
    let first = scene.started();
    let mut second = scene.run().arg("--log-level=info").spawn();
    second.wait_for_log("SLOT_ACTIVE", Duration::from_secs(20));
    for id in 2..20 {
        scene.sql(&format!("INSERT INTO t VALUES ({id}, 'x')")).await;
    }
    scene.wait_until_the_lake_holds_it().await;
    assert!(second.is_running());
    stop(first);
    // Now it is its turn.
    let mut second = following(second);
    scene.sql("INSERT INTO t VALUES (100, 'second')").await;
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t"]).await;
    assert!(second.is_running());
    stop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_frazils_started_on_an_empty_lake() {
    let mut scene = Scene::new(TABLE).await;
    scene.sql("INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(2, 50000) g").await;
    let (first, second) = (scene.run().spawn(), scene.run().spawn());
    for id in 0..30 {
        scene.sql(&format!("INSERT INTO t VALUES ({}, 'x')", 100_000 + id)).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    scene.wait_until_the_lake_holds_it().await;
    scene.assert_equal(&["public.t"]).await;
    let mut still = 0;
    for mut running in [first, second] {
        still += usize::from(running.is_running());
        running.signal("TERM");
        running.wait(DEADLINE);
    }
    assert!(still >= 1);
    scene.assert_catches_up(&["public.t"]).await;
}

// cases: 1 14 160 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_acknowledges_the_end_of_the_last_transaction() {
    let mut scene = Scene::new(TABLE).await;
    let running = scene.started();
    for id in 2..10 {
        scene.sql(&format!("INSERT INTO t VALUES ({id}, 'x')")).await;
    }
    scene.wait_until_the_lake_holds_it().await;
    stop(running);
    scene.assert_equal(&["public.t"]).await;
    let position = scene.position();
    let confirmed = "SELECT confirmed_flush_lsn FROM pg_replication_slots";
    assert_eq!(lsn(&scene.postgres.value(confirmed).await), position);
    // Nothing comes twice: the next run writes no row.
    let before = scene.lake.state();
    scene.catch_up().succeeded();
    let after = scene.lake.state();
    let rows = |state| metadata(state, "public.t")["current-snapshot-id"].clone();
    assert_eq!(rows(&before), rows(&after));
}

/// The server forgets an acknowledgement when it is killed (case 5); the rows come again and must
/// not be applied again.
// cases: 5 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_went_back_sends_again_what_the_lake_holds() {
    let mut scene = Scene::new(TABLE).await;
    scene.sql("CREATE TABLE keyless(v int)").await;
    scene.catch_up().succeeded();
    scene.sql("INSERT INTO keyless SELECT generate_series(1, 100); CHECKPOINT").await;
    scene.catch_up().succeeded();
    scene.postgres.kill9();
    scene.postgres.restart().await;
    scene.sql("INSERT INTO keyless VALUES (101)").await;
    scene.assert_catches_up(&["public.t", "public.keyless"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_publication_is_gone() {
    let scene = Scene::new(TABLE).await;
    scene.catch_up().succeeded();
    scene.sql("DROP PUBLICATION frazil").await;
    scene.catch_up().exited(78).said("PUBLICATION_MISSING");
}
