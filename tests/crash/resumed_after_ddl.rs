//! Between a crash in the initial snapshot and the next start tables are altered, rewritten,
//! truncated or made anew, or the slot goes: what can't be trusted is copied from the beginning,
//! the rest is not (cases 134, 135).

use std::path::Path;
use std::time::Duration;

use super::resumed_copy::record_of;
use super::run;
use crate::support::frazil::Finished;
use crate::support::lake::Lake;
use crate::support::postgres::{Postgres, PostgresOptions};
use crate::support::servers;

const SOON: Duration = Duration::from_secs(90);
const RANGES: &str = "range_pages=return(3);save_every_ms=return(0)";

fn table(name: &str) -> String {
    format!(
        "CREATE TABLE {name}(id int PRIMARY KEY, v int, pad text); \
         INSERT INTO {name} SELECT g, 0, repeat('p', 400) FROM generate_series(1, 200) g;"
    )
}

/// All ranges of all `tables` are copied, and frazil ends before the lake commit.
async fn broken_off(tables: &[&str], more: &str, lake: &Path) -> Postgres {
    let options = PostgresOptions::default().set("log_statement", "all");
    let postgres = Postgres::start(options).await;
    for name in tables {
        postgres.sql(&table(name)).await;
    }
    postgres.sql(more).await;
    let points = format!("{RANGES};files_written=return");
    let ended = run(&postgres, lake, "frazil").failpoints(&points).spawn().wait(SOON);
    assert_eq!(ended.code, None, "not aborted:\n{}", ended.stderr);
    postgres
}

fn to_the_end(postgres: &Postgres, lake: &Path) -> Finished {
    let frazil = run(postgres, lake, "frazil").arg("--until-caught-up").failpoints(RANGES);
    frazil.finish().succeeded()
}

/// How many ranges of a table were copied.
fn copies(postgres: &Postgres, table: &str) -> usize {
    let from = format!("FROM ONLY \"public\".\"{table}\"");
    let log = postgres.log();
    let lines = log.lines().filter(|line| line.contains(": COPY (") && line.contains(&from));
    lines.filter(|line| !line.contains(" IN (VALUES ")).count()
}

// cases: 134 135 holds
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_others_by_now_are_copied_from_the_beginning() {
    let tables = ["altered", "rewritten", "truncated", "dropped", "moved", "kept", "changed"];
    let folder = tempfile::tempdir().unwrap();
    let postgres = broken_off(&tables, "", folder.path()).await;
    let before: Vec<usize> = tables.iter().map(|name| copies(&postgres, name)).collect();
    for sql in [
        "UPDATE altered SET v = 1 WHERE id < 50",
        "ALTER TABLE altered ADD COLUMN more int DEFAULT 5",
        "DELETE FROM rewritten WHERE id % 2 = 0",
        "VACUUM FULL rewritten",
        "TRUNCATE truncated",
        "INSERT INTO truncated VALUES (1, 1, 'one')",
        "DROP TABLE dropped",
    ] {
        postgres.sql(sql).await;
    }
    postgres.sql(&table("dropped")).await;
    // Out of the publication's sight and back again.
    postgres.sql("ALTER TABLE moved RENAME TO elsewhere").await;
    postgres.sql("UPDATE elsewhere SET v = 9").await;
    postgres.sql("ALTER TABLE elsewhere RENAME TO moved").await;
    postgres.sql("UPDATE changed SET v = 7 WHERE id % 9 = 0").await;
    to_the_end(&postgres, folder.path()).said("the table is copied from the beginning");
    let after: Vec<usize> = tables.iter().map(|name| copies(&postgres, name)).collect();
    let again: Vec<&str> =
        (0..tables.len()).filter(|&at| after[at] > before[at]).map(|at| tables[at]).collect();
    assert_eq!(again, ["altered", "rewritten", "truncated", "moved"]);
    let names = ["altered", "rewritten", "truncated", "moved", "kept", "changed"];
    let names: Vec<String> = names.iter().map(|name| format!("public.{name}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Lake::open(folder.path()).assert_equal(&postgres, &names).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_whose_changes_cannot_be_told_are_copied_from_the_beginning() {
    let more = "
        CREATE TABLE still(n int, pad text); CREATE TABLE grown(n int, pad text);
        INSERT INTO still SELECT g, repeat('p', 400) FROM generate_series(1, 200) g;
        INSERT INTO grown SELECT * FROM still;
        CREATE TABLE whole(n int, pad text); ALTER TABLE whole REPLICA IDENTITY FULL;
        INSERT INTO whole SELECT * FROM still;
        CREATE TABLE amounts(id numeric PRIMARY KEY, pad text);
        INSERT INTO amounts SELECT g, repeat('p', 400) FROM generate_series(1, 200) g;";
    let folder = tempfile::tempdir().unwrap();
    let postgres = broken_off(&["keyed"], more, folder.path()).await;
    let tables = ["still", "grown", "whole", "amounts", "keyed"];
    let before: Vec<usize> = tables.iter().map(|name| copies(&postgres, name)).collect();
    postgres
        .sql(
            "INSERT INTO grown VALUES (1, 'new'); UPDATE whole SET n = 0 WHERE n = 5; \
             UPDATE amounts SET id = 7.0 WHERE id = 7; UPDATE keyed SET v = 1 WHERE id = 5",
        )
        .await;
    to_the_end(&postgres, folder.path());
    let after: Vec<usize> = tables.iter().map(|name| copies(&postgres, name)).collect();
    let again: Vec<bool> =
        before.iter().zip(&after).map(|(before, after)| after > before).collect();
    assert_eq!(again, [false, true, true, true, false], "of {tables:?}");
    let names: Vec<String> = tables.iter().map(|name| format!("public.{name}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Lake::open(folder.path()).assert_equal(&postgres, &names).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitioned_and_filtered_tables_go_on_too() {
    if servers::is_before(15, "row filters") {
        return;
    }
    let root = |name: &str| {
        format!(
            "CREATE TABLE {name}(id int PRIMARY KEY, v int) PARTITION BY RANGE (id); \
             CREATE TABLE {name}1 PARTITION OF {name} FOR VALUES FROM (0) TO (100); \
             CREATE TABLE {name}2 PARTITION OF {name} FOR VALUES FROM (100) TO (900); \
             INSERT INTO {name} SELECT g, 0 FROM generate_series(1, 200) g;"
        )
    };
    let more = format!(
        "{} {} CREATE PUBLICATION frazil FOR TABLE root, cut, seen WHERE (id > 50) \
         WITH (publish_via_partition_root = true)",
        root("root"),
        root("cut")
    );
    let folder = tempfile::tempdir().unwrap();
    let postgres = broken_off(&["seen"], &more, folder.path()).await;
    postgres
        .sql(
            "UPDATE root SET v = 1 WHERE id % 3 = 0; UPDATE root SET id = id + 300 WHERE id < 9; \
             DELETE FROM root WHERE id = 150; TRUNCATE cut2; \
             UPDATE seen SET id = -id WHERE id > 190; UPDATE seen SET id = 1000 WHERE id = 7; \
             UPDATE seen SET v = 4 WHERE id BETWEEN 40 AND 60",
        )
        .await;
    let ended = to_the_end(&postgres, folder.path());
    let again = "the table is copied from the beginning";
    assert_eq!(ended.stderr.matches(again).count(), 1, "{}", ended.stderr);
    let mut lake = Lake::open(folder.path());
    for (lake_sql, sql) in [
        ("{public.root}", "root"),
        ("{public.cut}", "cut"),
        ("(SELECT id, v FROM {public.seen})", "(SELECT id, v FROM seen WHERE id > 50) seen"),
    ] {
        let rows = lake.query_now(&format!("SELECT * FROM {lake_sql} ORDER BY 1"));
        assert_eq!(rows, postgres.sql(&format!("SELECT * FROM {sql} ORDER BY 1")).await, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_not_believed_once_the_slot_is_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = broken_off(&["one"], "", folder.path()).await;
    postgres.sql("SELECT pg_drop_replication_slot('frazil')").await;
    postgres.sql("UPDATE one SET v = 1 WHERE id % 2 = 0").await;
    let before = copies(&postgres, "one");
    to_the_end(&postgres, folder.path()).said("begins again: the slot is gone");
    assert!(copies(&postgres, "one") >= before * 2);
    Lake::open(folder.path()).assert_equal(&postgres, &["public.one"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_out_of_the_publication_is_copied_from_the_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = broken_off(&["one", "two"], "", folder.path()).await;
    let before = copies(&postgres, "two");
    // Changes that no stream has.
    postgres.sql("ALTER PUBLICATION frazil DROP TABLE one").await;
    postgres.sql("UPDATE one SET v = 1 WHERE id % 2 = 0; DELETE FROM one WHERE id = 4").await;
    postgres.sql("ALTER PUBLICATION frazil ADD TABLE one").await;
    to_the_end(&postgres, folder.path()).said("the table is copied from the beginning");
    assert_eq!(copies(&postgres, "two"), before);
    Lake::open(folder.path()).assert_equal(&postgres, &["public.one", "public.two"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_not_believed_once_a_publication_left_something_out() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = broken_off(&["one"], "", folder.path()).await;
    postgres.sql("ALTER PUBLICATION frazil SET (publish = 'insert, truncate')").await;
    postgres.sql("UPDATE one SET v = 1 WHERE id % 2 = 0; DELETE FROM one WHERE id = 4").await;
    let all = "ALTER PUBLICATION frazil SET (publish = 'insert, update, delete, truncate')";
    postgres.sql(all).await;
    to_the_end(&postgres, folder.path()).said("begins again: a publication was changed");
    Lake::open(folder.path()).assert_equal(&postgres, &["public.one"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_cut_short_or_names_lost_files_is_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let postgres = broken_off(&["one", "two"], "", folder.path()).await;
    postgres.sql("UPDATE one SET v = 1 WHERE id % 2 = 0").await;
    let data = folder.path().join("public/one/data");
    let lost = std::fs::read_dir(&data).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&lost, "").unwrap();
    let points = format!("{RANGES};files_written=return");
    let again = run(&postgres, folder.path(), "frazil").failpoints(&points).spawn().wait(SOON);
    again.said("files of a range are gone");
    let record = record_of(folder.path()).unwrap();
    let text = std::fs::read(&record).unwrap();
    std::fs::write(&record, &text[..text.len() / 2]).unwrap();
    to_the_end(&postgres, folder.path()).said("can't be read");
    Lake::open(folder.path()).assert_equal(&postgres, &["public.one", "public.two"]).await;
}
