//! A database of encoding SQL_ASCII: texts that are no UTF-8 keep their bytes in `_pg_raw`.

use frazil::postgres::dsn::Source;
use frazil::postgres::sql::connect_sql;

use crate::support::frazil::{Frazil, until_caught_up};
use crate::support::lake::Lake;
use crate::support::postgres::{Postgres, PostgresOptions};

const TABLE: &str = "CREATE TABLE t(id int PRIMARY KEY, v text, c char(4), l text[], j json, big text); \
     ALTER TABLE t ALTER big SET STORAGE EXTERNAL;";

/// Latin 1 (no UTF-8), then UTF-8, as two rows.
fn rows(id: i32) -> String {
    format!(
        "INSERT INTO t VALUES \
         ({id}, E'\\xe9t\\xe9', E'\\xe9', ARRAY[E'\\xe9', 'a'], E'{{\"a\": \"\\xe9\"}}', \
          E'\\xe9' || repeat('x', 9000)), \
         ({id} + 1, 'żółw', 'ab', '{{ż,NULL}}', '{{\"a\": \"ż\"}}', repeat('ż', 9000));"
    )
}

async fn databases(more: &str) {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres
        .sql("CREATE DATABASE old ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        .await;
    let dsn = postgres.dsn_of("old");
    let client = connect_sql(&Source::parse(&dsn).unwrap(), "test").await.unwrap();
    client
        .batch_execute(&format!("SET search_path = public; {TABLE}{more}{}", rows(1)))
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    until_caught_up(&dsn, folder.path());
    let unchanged_toast = "UPDATE t SET id = id + 10";
    client.batch_execute(&format!("{}{unchanged_toast}", rows(3))).await.unwrap();
    until_caught_up(&dsn, folder.path());
    let mut lake = Lake::open(folder.path());
    let mut texts = |ids: &str| {
        let sql = format!(
            "SELECT v, c, l::varchar, j, length(big)::varchar, _pg_raw['v'], _pg_raw['c'], \
                 _pg_raw['l'], _pg_raw['j'], length(_pg_raw['big'])::varchar \
             FROM {{public.t}} WHERE id IN ({ids}) ORDER BY id"
        );
        let text = |text: Option<String>| text.unwrap_or("NULL".to_owned());
        let rows = lake.query_now(&sql).into_iter();
        rows.map(|row| row.into_iter().map(text).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let latin = [
        "\u{fffd}t\u{fffd}",
        "\u{fffd}   ",
        "NULL",
        "{\"a\": \"\u{fffd}\"}",
        "9001",
        "\\xe974e9",
        "\\xe9202020",
        "\\x7be92c617d",
        "\\x7b2261223a2022e9227d",
        "18004",
    ];
    let utf8 = [
        "żółw",
        "ab  ",
        "[ż, NULL]",
        "{\"a\": \"ż\"}",
        "9000",
        "NULL",
        "NULL",
        "NULL",
        "NULL",
        "NULL",
    ];
    assert_eq!(texts("11, 13"), [latin, latin]);
    assert_eq!(texts("12, 14"), [utf8, utf8]);
    // The rule `error` is for them as well.
    client.batch_execute(&rows(5)).await.unwrap();
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, "values: {on_unrepresentable: error}").unwrap();
    let run = Frazil::run(&dsn, folder.path()).arg("--until-caught-up");
    let ended = run.arg("--config").arg(config.to_str().unwrap()).finish();
    assert_ne!(ended.code, Some(0));
    ended.said("UNREPRESENTABLE").said("public.t");
}

// cases: 58 holds
#[tokio::test(flavor = "multi_thread")]
async fn sql_ascii_in_binary_mode() {
    databases("").await;
}

// cases: 58 holds
#[tokio::test(flavor = "multi_thread")]
async fn sql_ascii_in_text_mode() {
    databases("CREATE TABLE x(id int PRIMARY KEY, r regclass);").await;
}
