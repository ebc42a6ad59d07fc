//! What a copy costs the source is shown while it runs, and has a limit (case 138).

use std::path::Path;
use std::time::Duration;

use super::{SCHEMA, assert_whole, run, until};
use crate::support::frazil::Frazil;
use crate::support::postgres::Postgres;

const SOON: Duration = Duration::from_secs(60);

fn copying(postgres: &Postgres, lake: &Path, pause_ms: u32) -> Frazil {
    let slowly =
        format!("range_pages=return(1);range_begun=sleep({pause_ms});line_every_ms=return(300)");
    run(postgres, lake, "frazil").arg("--initial-snapshot=only").failpoints(&slowly)
}

async fn write_wal(postgres: &Postgres) {
    let sql = "SELECT pg_logical_emit_message(false, 'noise', repeat('x', 1000000))";
    for _ in 0..4 {
        postgres.sql(&format!("BEGIN; CREATE TEMP TABLE x(); DROP TABLE x; {sql}; COMMIT")).await;
    }
}

/// The last figure `name=NUMBER` of the progress lines.
fn figure(log: &str, name: &str) -> Option<u64> {
    let line = log.lines().rfind(|line| line.contains("copying"))?;
    let rest = line.split_once(&format!("{name}="))?.1;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

// cases: 138 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_says_how_far_it_is_and_what_it_holds_back() {
    let postgres = Postgres::start(Default::default()).await;
    postgres.sql(SCHEMA).await;
    let folder = tempfile::tempdir().unwrap();
    let mut frazil = copying(&postgres, folder.path(), 200).spawn();
    until("the age of the snapshot grows", SOON, async || {
        assert!(frazil.is_running(), "{}", frazil.stderr());
        write_wal(&postgres).await;
        figure(&frazil.stderr(), "snapshot_age").is_some_and(|age| age > 10)
    })
    .await;
    let log = frazil.stderr();
    for name in ["rows=", "of_about=", "rows_per_second=", "bytes=", "eta=", "retained_wal="] {
        assert!(log.contains(name), "no {name} in:\n{log}");
    }
    assert!(log.contains("MiB"), "no WAL is retained:\n{log}");
    frazil.wait(SOON).succeeded();
    assert_whole(&postgres, folder.path(), "frazil").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_stops_at_the_limit_of_retained_wal() {
    let postgres = Postgres::start(Default::default()).await;
    postgres.sql(SCHEMA).await;
    let folder = tempfile::tempdir().unwrap();
    let limited = |limit: &str| {
        let frazil = copying(&postgres, folder.path(), 200);
        frazil.env("FRAZIL_INITIAL_SNAPSHOT__RETAINED_WAL_MAX", limit)
    };
    let mut frazil = limited("2MiB").spawn();
    until("it stops", SOON, async || {
        write_wal(&postgres).await;
        !frazil.is_running()
    })
    .await;
    frazil.wait(SOON).exited(78).said("SNAPSHOT_WAL_MAX").said("retained_wal_max is 2.0 MiB");
    assert_eq!(postgres.value("SELECT count(*) FROM pg_replication_slots").await, "1");
    limited("unlimited").finish().succeeded();
    assert_whole(&postgres, folder.path(), "frazil").await;
}
