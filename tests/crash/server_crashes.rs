//! Postgres dies or restarts and frazil comes back by itself, on a server whose fsync is real, so
//! that its confirmed_flush_lsn does go back (cases 5, 12, 15).

use std::time::Duration;

use super::{Load, SCHEMA, assert_whole, run, until};
use crate::support::postgres::{Postgres, PostgresOptions};
use crate::support::process::signal;

// cases: 5 15 holds
#[tokio::test(flavor = "multi_thread")]
async fn it_comes_back_after_each_end_of_the_server() {
    let options = PostgresOptions::default().set("fsync", "on").set("full_page_writes", "on");
    let mut postgres = Postgres::start(options).await;
    postgres.sql(SCHEMA).await;
    let folder = tempfile::tempdir().unwrap();
    let mut frazil = run(&postgres, folder.path(), "frazil").spawn();
    frazil.wait_for_log("following the stream", Duration::from_secs(60));
    let load = Load::start(&postgres, 5);
    for round in 0..3 {
        for how in ["KILL", "QUIT", "INT", "walsender"] {
            let before = streams(&frazil.stderr());
            tokio::time::sleep(Duration::from_millis(700)).await;
            match how {
                "KILL" => postgres.kill9(),
                "QUIT" => signal(postmaster(&postgres), "QUIT"),
                "INT" => postgres.stop(),
                _ => {
                    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication";
                    assert!(!postgres.sql(sql).await.is_empty());
                }
            }
            if how != "walsender" {
                postgres.restart().await;
            }
            until(
                &format!("back after {how}, round {round}"),
                Duration::from_secs(30),
                async || {
                    assert!(frazil.is_running(), "ended after {how}:\n{}", frazil.stderr());
                    streams(&frazil.stderr()) > before
                },
            )
            .await;
        }
    }
    eprintln!("{} transactions", load.end().await);
    frazil.signal("TERM");
    frazil.wait(Duration::from_secs(30)).succeeded();
    assert_whole(&postgres, folder.path(), "frazil").await;
}

/// WAL that ends in nothing for the lake, here of a transaction that the shutdown breaks off: the
/// server waits until its end is acknowledged (case 15).
// cases: 15 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_fast_shutdown_does_not_wait_for_wal_that_the_lake_will_never_hold() {
    let mut postgres = Postgres::start(PostgresOptions::default()).await;
    postgres.sql("CREATE TABLE t (id int4 PRIMARY KEY, v text)").await;
    let folder = tempfile::tempdir().unwrap();
    let mut frazil = run(&postgres, folder.path(), "frazil").spawn();
    frazil.wait_for_log("following the stream", Duration::from_secs(60));
    let open = postgres.client().await;
    let rows = "INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(1, 20000) g";
    open.batch_execute(&format!("BEGIN; {rows}")).await.unwrap();
    let began = std::time::Instant::now();
    postgres.stop();
    assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
    postgres.restart().await;
    postgres.sql("INSERT INTO t VALUES (1, 'later')").await;
    frazil.signal("TERM");
    frazil.wait(Duration::from_secs(60)).succeeded();
}

fn streams(log: &str) -> usize {
    log.matches("following the stream").count()
}

fn postmaster(postgres: &Postgres) -> u32 {
    let file = std::fs::read_to_string(postgres.data_dir().join("postmaster.pid")).unwrap();
    file.lines().next().unwrap().trim().parse().unwrap()
}
