//! Ten thousand rows by one COPY, many of which share one LSN, into a table without a key: frazil
//! ends at each point of the data path, and no row is lost or doubled (case 3).

use std::time::Duration;

use futures::SinkExt;

use super::{ends, run};
use crate::support::lake::Lake;
use crate::support::postgres::{Postgres, PostgresOptions};

const POINTS: [&str; 4] =
    ["segment_written", "before_catalog_commit", "after_catalog_commit", "before_acknowledge"];

// cases: 3 holds
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_one_lsn_are_all_there_once() {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    let client = postgres.client().await;
    let tables = "CREATE TABLE copied(n int, v text); CREATE TABLE other(id int PRIMARY KEY)";
    client.batch_execute(tables).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    super::catch_up(&postgres, folder.path(), "frazil");
    for (round, point) in POINTS.iter().enumerate() {
        let crash = format!("{point}=return");
        let mut frazil = run(&postgres, folder.path(), "frazil").failpoints(&crash).spawn();
        let rows: String = (0..10_000).map(|n| format!("{}\t{point}\n", n % 100)).collect();
        let sink = client.copy_in("COPY copied FROM STDIN").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        sink.send(bytes::Bytes::from(rows)).await.unwrap();
        assert_eq!(sink.finish().await.unwrap(), 10_000);
        client
            .execute("INSERT INTO other VALUES ($1)", &[&i32::try_from(round).unwrap()])
            .await
            .unwrap();
        assert!(ends(&mut frazil, Duration::from_secs(90)), "never came to {point}");
        assert_eq!(frazil.wait(Duration::from_secs(30)).code, None, "not aborted at {point}");
        super::catch_up(&postgres, folder.path(), "frazil");
        let mut lake = Lake::open(folder.path());
        lake.assert_equal(&postgres, &["public.copied", "public.other"]).await;
    }
}
