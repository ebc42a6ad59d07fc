//! Rows written to Postgres are in the lake after `wait_now`: by frazil's own count, and as DuckDB
//! reads them from this machine.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::io::Write;
use std::process::{Command, Stdio};

use frazil_testcontainers::FrazilLake;
use serde_json::{Value, json};
use tokio_postgres::{Client, NoTls};

/// Python with DuckDB (`scripts/setup test`); without it DuckDB is left out.
const PYTHON: &str = "FRAZIL_PYTHON";
const READER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/support/duck.py");

#[tokio::test]
async fn rows_reach_the_lake() {
    let lake = FrazilLake::start().await.unwrap();
    let client = connect(&lake).await;
    let create = "CREATE TABLE orders (id int PRIMARY KEY, total numeric(12,2) NOT NULL);
                  INSERT INTO orders SELECT n, n FROM generate_series(1, 1000) n";
    client.batch_execute(create).await.unwrap();
    lake.wait_now().await.unwrap();
    assert_eq!(rows(&lake).await, 1000);

    let change = "UPDATE orders SET total = total + 0.5 WHERE id <= 10;
                  DELETE FROM orders WHERE id > 900;
                  INSERT INTO orders VALUES (2000, 7)";
    client.batch_execute(change).await.unwrap();
    lake.wait_now().await.unwrap();
    assert_eq!(rows(&lake).await, 901);
    let sum = "SELECT count(*)::text, sum(total)::text FROM orders";
    let expected = client.query_one(sum, &[]).await.unwrap();
    let expected: (String, String) = (expected.get(0), expected.get(1));
    if let Some(seen) = duckdb(&lake) {
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn what_frazil_refuses_is_in_the_error() {
    let lake = FrazilLake::start().await.unwrap();
    let error = lake.wait_now().await.unwrap_err().to_string();
    assert!(error.contains("NO_TABLES"), "{error}");
}

async fn connect(lake: &FrazilLake) -> Client {
    let (client, connection) = tokio_postgres::connect(lake.postgres_url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Rows of all tables, by `frazil status`.
async fn rows(lake: &FrazilLake) -> u64 {
    let status: Value = serde_json::from_str(&lake.status().await.unwrap()).unwrap();
    status["tables"].as_array().unwrap().iter().map(|table| table["rows"].as_u64().unwrap()).sum()
}

/// Count and sum of the lake's orders, by the reader that frazil's own tests use.
fn duckdb(lake: &FrazilLake) -> Option<(String, String)> {
    let python = std::env::var(PYTHON).ok()?;
    let ask = |question: Value| {
        let mut reader = Command::new(&python)
            .arg(READER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(reader.stdin.take().unwrap(), "{question}").unwrap();
        let answer: Value =
            serde_json::from_slice(&reader.wait_with_output().unwrap().stdout).unwrap();
        assert!(answer["error"].is_null(), "{answer}");
        answer["ok"].clone()
    };
    let state = ask(json!({"op": "state", "lake": lake.lake_folder()}));
    let metadata = state["public.orders"].as_str().unwrap();
    let sql = format!("SELECT count(*), sum(total) FROM iceberg_scan('{metadata}')");
    let rows = ask(json!({"op": "query", "sql": sql}));
    let text = |column: usize| rows[0][column].as_str().unwrap().to_owned();
    Some((text(0), text(1)))
}
