//! Several tables whose unchanged large values stand in earlier segments and windows: writers that
//! wait for older rows never keep the writers of those rows from working. One core shows it best:
//! taskset -c 0 cargo test --features failpoints open_rows

use std::time::Duration;

use super::{ends, run};
use crate::support::lake::Lake;
use crate::support::postgres::{Postgres, PostgresOptions};

#[tokio::test(flavor = "multi_thread")]
async fn writers_do_not_wait_for_each_other() {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    let tables = ["public.a", "public.b", "public.c", "public.d"];
    for table in tables {
        let sql = format!(
            "CREATE TABLE {table}(id int PRIMARY KEY, n int, text text);
             ALTER TABLE {table} ALTER text SET STORAGE EXTERNAL;
             INSERT INTO {table} SELECT i, 0, repeat(md5(i::text), 100) \
             FROM generate_series(1, 500) i"
        );
        postgres.sql(&sql).await;
    }
    let folder = tempfile::tempdir().unwrap();
    super::catch_up(&postgres, folder.path(), "frazil");
    for round in 0..4 {
        let mut sql = String::from("BEGIN;");
        for table in tables {
            sql += &format!("UPDATE {table} SET text = repeat(md5((id + {round})::text), 400);");
        }
        for _ in 0..3 {
            for table in tables {
                sql += &format!("UPDATE {table} SET n = n + 1;");
            }
            for table in tables {
                sql += &format!(
                    "UPDATE {table} SET text = repeat(md5((n + id)::text), 400) WHERE id % 2 = 0;"
                );
            }
        }
        for table in tables {
            sql += &format!("UPDATE {table} SET n = n + 1;");
        }
        postgres.sql(&(sql + "COMMIT")).await;
    }
    let mut frazil = run(&postgres, folder.path(), "frazil").arg("--until-caught-up").spawn();
    assert!(ends(&mut frazil, Duration::from_secs(60)), "hangs:\n{}", frazil.stderr());
    frazil.wait(Duration::from_secs(30)).succeeded();
    Lake::open(folder.path()).assert_equal(&postgres, &tables).await;
}
