//! A database that is not in UTF-8: what arrives is what the server makes of it, copied and
//! streamed, in binary mode and in text mode (case 57).

use super::scene::{Scene, following, lsn, stop};
use crate::support::frazil::Frazil;
use crate::support::servers;

const CREATE: &str = "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0";
/// Every character that LATIN1 has and ASCII has not, in the types that go by the encoding.
const TABLE: &str = "CREATE TYPE mood AS ENUM ('na\u{ef}f', 'ok'); \
     CREATE TABLE \"t\u{e9}\"(id int PRIMARY KEY, \"\u{fc}\" text, j json, b jsonb, m mood, a text[], c char(3))";
const ROW: &str =
    "SELECT g, chr(g), to_json(chr(g)), to_jsonb(chr(g)), 'na\u{ef}f', ARRAY[chr(g), NULL], chr(g)";

async fn in_latin1(extra: &str, mode: &str) {
    let mut scene = Scene::new(CREATE).await;
    let dsn = scene.postgres.dsn_of("latin");
    let (client, connection) = tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let insert =
        |from, to| format!("INSERT INTO \"t\u{e9}\" {ROW} FROM generate_series({from}, {to}) g;");
    client.batch_execute(&format!("{TABLE}; {extra}")).await.unwrap();
    client.batch_execute(&insert(161, 200)).await.unwrap();
    let run = Frazil::run(&dsn, scene.lake.folder()).arg("--commit-interval=100ms");
    let running = following(run.spawn());
    assert!(running.stderr().contains(mode), "not {mode}:\n{}", running.stderr());
    client.batch_execute(&insert(201, 255)).await.unwrap();
    client
        .batch_execute("UPDATE \"t\u{e9}\" SET \"\u{fc}\" = '\u{ff}x' WHERE id = 170")
        .await
        .unwrap();
    client.batch_execute("SELECT pg_logical_emit_message(true, 'frazil', '')").await.unwrap();
    let now = lsn(&scene.postgres.value("SELECT pg_current_wal_lsn()").await);
    client.batch_execute("SELECT pg_logical_emit_message(true, 'frazil', '')").await.unwrap();
    scene.wait_for(now).await;
    stop(running);
    let columns = "id::varchar, \"\u{fc}\", j, b, m, a[1], c";
    let found =
        scene.lake.query_now(&format!("SELECT {columns} FROM {{public.t\u{e9}}} ORDER BY id"));
    let wanted = (161..=255_u32).map(|g| {
        let one = char::from_u32(g).unwrap();
        let text = if g == 170 { "\u{ff}x".to_owned() } else { one.to_string() };
        let json = format!("\"{one}\"");
        [
            g.to_string(),
            text,
            json.clone(),
            json,
            "na\u{ef}f".into(),
            one.into(),
            format!("{one}  "),
        ]
        .map(Some)
        .to_vec()
    });
    assert_eq!(found, wanted.collect::<Vec<_>>());
}

// cases: 57 holds
#[tokio::test(flavor = "multi_thread")]
async fn latin1_in_binary_mode() {
    if !servers::is_before(14, "binary mode") {
        in_latin1("", "binary=true").await;
    }
}

// cases: 57 holds
#[tokio::test(flavor = "multi_thread")]
async fn latin1_in_text_mode() {
    in_latin1("CREATE TABLE opaque(id int PRIMARY KEY, r regclass)", "binary=false").await;
}
