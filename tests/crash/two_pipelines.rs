//! Two frazils and one lake: with two slots they work side by side, with one slot never both commit
//! (case 16).

use std::time::Duration;

use super::{Load, SCHEMA, assert_whole, run, until};
use crate::support::frazil::Frazil;
use crate::support::lake::Lake;
use crate::support::postgres::{Postgres, PostgresOptions};

/// Two servers from one template give the same oids to different tables.
#[tokio::test(flavor = "multi_thread")]
async fn two_sources_share_a_lake() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = tokio::join!(
        Postgres::start(PostgresOptions::default()),
        Postgres::start(PostgresOptions::default())
    );
    one.sql("CREATE TABLE people(id int PRIMARY KEY, v text); INSERT INTO people VALUES (1, 'p')")
        .await;
    two.sql("CREATE TABLE things(id int PRIMARY KEY, v text); INSERT INTO things VALUES (1, 't')")
        .await;
    let oid = "SELECT oid FROM pg_class WHERE relname IN ('people', 'things')";
    assert_eq!(one.value(oid).await, two.value(oid).await);
    super::catch_up(&one, folder.path(), "one");
    super::catch_up(&two, folder.path(), "two");
    let mut runs =
        [run(&one, folder.path(), "one").spawn(), run(&two, folder.path(), "two").spawn()];
    for running in &mut runs {
        running.wait_for_log("following the stream", Duration::from_secs(30));
    }
    for i in 2..100 {
        one.sql(&format!("INSERT INTO people VALUES ({i}, 'p'); UPDATE people SET v = v || '{i}'"))
            .await;
        two.sql(&format!(
            "INSERT INTO things VALUES ({i}, 't'); DELETE FROM things WHERE id = {i} - 3"
        ))
        .await;
    }
    for running in runs {
        running.signal("TERM");
        running.wait(Duration::from_secs(30)).succeeded();
    }
    super::catch_up(&one, folder.path(), "one");
    super::catch_up(&two, folder.path(), "two");
    let mut lake = Lake::open(folder.path());
    lake.assert_equal(&one, &["public.people"]).await;
    lake.assert_equal(&two, &["public.things"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pipelines_follow_different_tables_of_one_source() {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres.sql(SCHEMA).await;
    let folder = tempfile::tempdir().unwrap();
    let start = |slot: &str, tables: &str| {
        let frazil = run(&postgres, folder.path(), slot).arg("--publication").arg(slot);
        frazil.arg("--tables").arg(tables)
    };
    let both = [("left", "bank.debit"), ("right", "bank.credit,bank.notes,bank.log")];
    let load = Load::start(&postgres, 14);
    let mut runs = both.map(|(slot, tables)| start(slot, tables).spawn());
    for running in &mut runs {
        running.wait_for_log("following the stream", Duration::from_secs(60));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let [one, two] = runs;
    one.kill9();
    two.kill9();
    load.end().await;
    for (slot, tables) in both {
        start(slot, tables).arg("--until-caught-up").finish().succeeded();
    }
    let mut lake = Lake::open(folder.path());
    lake.assert_equal(&postgres, &super::TABLES).await;
    let state = lake.state();
    super::assert_monotone(&state, "left");
    super::assert_monotone(&state, "right");
}

// cases: 16 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_second_frazil_takes_over_and_the_first_stays_out() {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres.sql(SCHEMA).await;
    let folder = tempfile::tempdir().unwrap();
    super::catch_up(&postgres, folder.path(), "frazil");
    let load = Load::start(&postgres, 15);
    for round in 0..2 {
        let start = || -> Frazil { run(&postgres, folder.path(), "frazil") };
        let mut first = start().spawn();
        first.wait_for_log("following the stream", Duration::from_secs(30));
        let mut second = start().spawn();
        tokio::time::sleep(Duration::from_millis(600 + 170 * round)).await;
        assert!(!second.stderr().contains("following the stream"), "both at once");
        // The first sleeps, perhaps in the middle of a lake commit; its connection is cut.
        first.signal("STOP");
        postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication").await;
        second.wait_for_log("following the stream", Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(500)).await;
        first.signal("CONT");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        if second.is_running() {
            second.signal("TERM");
            second.wait(Duration::from_secs(30)).succeeded();
        } else {
            // The first woke up in the middle of a lake commit and made it.
            second.wait(Duration::from_secs(30)).exited(1).said("ANOTHER_WRITER");
            assert!(first.is_running(), "both have stopped:\n{}", first.stderr());
        }
        if first.is_running() && !first.stderr().contains("ANOTHER_WRITER") {
            // It was idle when it was sent to sleep: it takes its turn again.
            until("the first one goes on", Duration::from_secs(30), async || {
                !first.is_running() || first.stderr().matches("following the stream").count() > 1
            })
            .await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert!(first.is_running(), "ended in its turn:\n{}", first.stderr());
        } else {
            eprintln!("round {round}: the first one has stopped in the middle of a lake commit");
        }
        first.kill9();
    }
    load.end().await;
    until("the slot is free", Duration::from_secs(30), async || {
        postgres.value("SELECT active FROM pg_replication_slots").await == "f"
    })
    .await;
    assert_whole(&postgres, folder.path(), "frazil").await;
}
