//! Connections of a copy that break are replaced, and the new ones see the same snapshot, also when
//! the session that exported it is gone (cases 131, 134).

use std::path::Path;
use std::time::Duration;

use super::{SCHEMA, assert_whole, run, until};
use crate::support::frazil::{Frazil, Running};
use crate::support::postgres::Postgres;

const SOON: Duration = Duration::from_secs(60);
/// Ranges of one page, and time to break in between two of them.
const SLOWLY: &str = "range_pages=return(1);range_begun=sleep(200)";

const OURS: &str = "application_name = 'frazil/initial-snapshot'";

fn copying(postgres: &Postgres, lake: &Path) -> Frazil {
    run(postgres, lake, "frazil").arg("--initial-snapshot=only").failpoints(SLOWLY)
}

/// Ends sessions of the copy that meet `condition`; how many there were.
async fn end_sessions(postgres: &Postgres, condition: &str) -> i64 {
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE {OURS} AND {condition}"
    );
    postgres.value(&sql).await.parse().unwrap()
}

/// Waits until both workers and the coordinator hold the snapshot.
async fn copies(postgres: &Postgres, running: &mut Running) {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE {OURS} AND query LIKE 'COPY%'");
    until("two workers copy", SOON, async || {
        assert!(running.is_running(), "{}", running.stderr());
        postgres.value(&sql).await == "2"
    })
    .await;
}

// cases: 131 134 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_ended_comes_back_with_the_same_snapshot() {
    let postgres = Postgres::start(Default::default()).await;
    postgres.sql(SCHEMA).await;
    let folder = tempfile::tempdir().unwrap();
    let mut frazil = copying(&postgres, folder.path()).spawn();
    copies(&postgres, &mut frazil).await;
    // First the session that exported it, then each worker: who comes later imports it from
    // another.
    assert_eq!(end_sessions(&postgres, "backend_type = 'walsender'").await, 1);
    for _ in 0..3 {
        postgres
            .sql("UPDATE bank.notes SET n = n + 1; DELETE FROM bank.notes WHERE id % 7 = 0")
            .await;
        assert!(end_sessions(&postgres, "query LIKE 'COPY%'").await > 0);
        copies(&postgres, &mut frazil).await;
    }
    let ended = frazil.wait(SOON).succeeded().said("its range is copied again");
    assert!(!ended.stderr.contains("retry_in"), "it began again:\n{}", ended.stderr);
    assert_whole(&postgres, folder.path(), "frazil").await;
}
