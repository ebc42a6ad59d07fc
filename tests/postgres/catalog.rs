//! What the catalog says of types, columns and keys (cases 70-74, 110, 111).

use std::collections::HashMap;

use frazil::postgres::catalog::{SourceTable, is_visible, load_relations, matches};
use frazil::postgres::pgoutput::{Message, parse};
use frazil::postgres::session::{Session, SlotOptions};
use frazil::postgres::stream::{Frame, MESSAGE_BYTES_MAX, next_frame};
use frazil::postgres::tables::{Obstacle, candidate_tables, published_tables};
use frazil::window::relation::{PgType, ReplicaIdentity};
use frazil::window::rules::TypeRules;

use super::server::{database, stream_options};
use crate::support::postgres::Postgres;
use crate::support::servers;

const SQL: &str = "
    CREATE DOMAIN cents AS numeric(12,2);
    CREATE DOMAIN price AS cents CHECK (VALUE > 0);
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TYPE pair AS (a int, b int);
    CREATE TABLE types (
        id bigint PRIMARY KEY, d price, dd price[], e mood, ee mood[], n numeric, n1 numeric(10,3),
        n2 numeric(3,-2), n3 numeric(3,5), n4 numeric(40,2), nn numeric(6,1)[], t text,
         v varchar(9),
        c char(3), j json, jb jsonb, x xml, u uuid, ia int[], p pair, pp pair[], m money, ip inet,
        ts timestamptz(3), iv interval, o oid, x8 xid8, ch \"char\", na name, by bytea, r int4range,
        gone int, gen bigint GENERATED ALWAYS AS (id * 2) STORED, late int DEFAULT 5);
    ALTER TABLE types DROP COLUMN gone;
    INSERT INTO types (id) VALUES (1);
    ALTER TABLE types ADD COLUMN fast int DEFAULT 42;
    CREATE TABLE full_key (a int, b text, c int, PRIMARY KEY (c, a));
    ALTER TABLE full_key REPLICA IDENTITY FULL;
    CREATE TABLE by_index (id int PRIMARY KEY, k text NOT NULL);
    CREATE UNIQUE INDEX by_index_k ON by_index (k) INCLUDE (id);
    ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_k;
    CREATE TABLE lazy (id int PRIMARY KEY DEFERRABLE);
    CREATE TABLE keyless (id int);
    CREATE TABLE nothing (id int PRIMARY KEY);
    ALTER TABLE nothing REPLICA IDENTITY NOTHING;
    CREATE TABLE listed (id int PRIMARY KEY, secret text, shown text);
    CREATE TABLE hidden_key (id int PRIMARY KEY, shown text);
    CREATE TABLE filtered (id int PRIMARY KEY);
    CREATE VIEW a_view AS SELECT 1 AS x;
    CREATE UNLOGGED TABLE a_unlogged (id int PRIMARY KEY);
    CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
    CREATE PUBLICATION p FOR TABLE types, full_key, by_index, lazy, keyless, nothing,
        listed (id, shown), filtered WHERE (id > 5), parts;
    CREATE PUBLICATION q FOR TABLE hidden_key (shown) WITH (publish = 'insert');
";

async fn load(
    name: &str,
) -> (frazil::postgres::dsn::Source, tokio_postgres::Client, HashMap<String, SourceTable>) {
    let (source, client) = database(name, SQL).await;
    let publications = ["p".to_owned(), "q".to_owned()];
    let tables = load_relations(&client, &publications, None, &TypeRules::default()).await.unwrap();
    let tables = tables.into_iter().map(|t| (t.relation.name.clone(), t)).collect();
    (source, client, tables)
}

fn has_its_missing_value(table: &SourceTable) {
    let fast = table.relation.columns.last().unwrap();
    assert_eq!((fast.name.as_str(), fast.toastable), ("fast", false));
    let missing = table.missing.last().unwrap();
    assert_eq!((missing.has_missing, missing.missing.as_deref()), (true, Some("{42}")));
    assert!(table.relfilenode > 0 && table.kind == 'r' && table.persistence == 'p');
}

#[tokio::test]
async fn types_are_resolved() {
    if servers::is_before(15, "column lists and row filters") {
        return;
    }
    let (_source, client, tables) = load("types").await;
    let table = &tables["types"];
    let of = |name: &str| {
        table.relation.columns.iter().find(|c| c.name == name).map(|c| c.pg_type.clone())
    };
    let numeric = |precision, scale| PgType::Numeric { precision, scale };
    let array = |element| PgType::Array(Box::new(element));
    for (name, wanted) in [
        ("id", PgType::Int8),
        ("d", numeric(12, 2)),
        ("dd", array(numeric(12, 2))),
        ("e", PgType::Text),
        ("ee", array(PgType::Text)),
        ("n", PgType::NumericText),
        ("n1", numeric(10, 3)),
        ("n2", numeric(5, 0)),
        ("n3", numeric(5, 5)),
        ("n4", PgType::NumericText),
        ("nn", array(numeric(6, 1))),
        ("t", PgType::Text),
        ("v", PgType::Text),
        ("c", PgType::Text),
        ("j", PgType::Json),
        ("jb", PgType::Jsonb),
        ("x", PgType::Text),
        ("u", PgType::Uuid),
        ("ia", array(PgType::Int4)),
        ("ts", PgType::TimestampTz),
        ("iv", PgType::Interval),
        ("o", PgType::Oid),
        ("x8", PgType::Xid8),
        ("ch", PgType::Text),
        ("na", PgType::Text),
        ("by", PgType::Bytea),
    ] {
        assert_eq!(of(name), Some(wanted), "{name}");
    }
    for (name, kind) in [
        ("p", "Composite("),
        ("pp", "Array(Composite("),
        ("m", "Money"),
        ("ip", "Written("),
        ("r", "Written("),
    ] {
        let found = format!("{:?}", of(name).unwrap());
        assert!(found.starts_with(kind), "{name}: {found}");
    }
    assert_eq!((of("gone"), of("gen")), (None, None));
    has_its_missing_value(table);
    let before = table.attribute_xmins.clone();
    client
        .batch_execute("ALTER TABLE types DROP COLUMN fast; ALTER TABLE types ADD fast int")
        .await
        .unwrap();
    let after = load_relations(
        &client,
        &["p".to_owned()],
        Some(&[table.relation.oid]),
        &TypeRules::default(),
    )
    .await
    .unwrap();
    assert_eq!(after.len(), 1);
    assert_ne!(after[0].attribute_xmins, before);
}

#[tokio::test]
async fn keys_and_published_columns() {
    if servers::is_before(15, "column lists and row filters") {
        return;
    }
    let (_source, client, tables) = load("keys").await;
    let key = |name: &str| {
        let relation = &tables[name].relation;
        relation.key.iter().map(|&i| relation.columns[i].name.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(key("full_key"), ["a", "c"]);
    assert_eq!(tables["full_key"].relation.identity, ReplicaIdentity::Full);
    assert_eq!(key("by_index"), ["k"], "not the INCLUDEd column");
    assert_eq!(tables["by_index"].relation.identity, ReplicaIdentity::Index);
    assert!(key("lazy").is_empty() && tables["lazy"].deferrable_key);
    assert!(key("keyless").is_empty() && !tables["keyless"].deferrable_key);
    assert!(key("nothing").is_empty());
    assert_eq!(tables["listed"].relation.columns.len(), 2);
    assert_eq!(tables["hidden_key"].unpublished_key, ["id"]);
    assert_eq!(tables["filtered"].row_filter.as_deref(), Some("(id > 5)"));
    assert_eq!(tables["listed"].row_filter, None);
    assert!(tables["parts_1"].is_partition && !tables.contains_key("parts"));

    let all = candidate_tables(&client).await.unwrap();
    let of = |name: &str| all.iter().find(|t| t.name == name).unwrap();
    assert_eq!(of("a_view").obstacle, Some(Obstacle::View));
    assert_eq!(of("a_unlogged").obstacle, Some(Obstacle::Unlogged));
    assert_eq!(of("parts").obstacle, Some(Obstacle::PartitionedParent));
    assert_eq!((of("parts_1").obstacle, of("types").obstacle), (None, None));
    assert!(of("types").has_identity && of("full_key").has_identity && of("by_index").has_identity);
    assert!(!of("lazy").has_identity && !of("keyless").has_identity && !of("nothing").has_identity);
    assert!(all.iter().all(|t| t.readable && t.owned));
    let published = published_tables(&client, "q").await.unwrap();
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].2, "hidden_key");
}

/// Every Relation message the server sends matches what the catalog said, and no longer does after
/// a column's type has changed.
#[tokio::test]
async fn relation_messages_match_the_catalog() {
    if servers::is_before(15, "column lists and row filters") {
        return;
    }
    let (source, client, tables) = load("wire").await;
    let mut session = Session::connect(&source, "test").await.unwrap();
    let temporary = SlotOptions { temporary: true, ..SlotOptions::default() };
    let at = session.create_slot("catalog_wire", temporary).await.unwrap().consistent_point;
    client
        .batch_execute(
            "INSERT INTO types (id) VALUES (2); INSERT INTO full_key VALUES (1, 'x', 1);
             INSERT INTO by_index VALUES (1, 'x'); INSERT INTO lazy VALUES (1);
             INSERT INTO listed VALUES (1); INSERT INTO filtered VALUES (6);
             INSERT INTO parts VALUES (1); INSERT INTO hidden_key VALUES (1);
             ALTER TABLE lazy ALTER id TYPE bigint; INSERT INTO lazy VALUES (2)",
        )
        .await
        .unwrap();
    let mut options = stream_options("catalog_wire", at, "p");
    options.publications.push("q".to_owned());
    let mut stream = session.start_replication(&options).await.unwrap();
    let (mut bytes, mut pos, mut seen) = (Vec::new(), 0, Vec::new());
    while seen.len() < 9 {
        stream.read(&mut bytes).await.unwrap();
        while let Some(frame) = next_frame(&bytes, &mut pos, MESSAGE_BYTES_MAX).unwrap() {
            let Frame::XLogData { body, .. } = frame else { continue };
            if let Message::Relation(wire) = parse(&bytes, body.start, body.end).unwrap() {
                seen.push((wire.name.clone(), matches(&tables[&wire.name], &wire)));
            }
        }
    }
    let (lazy, others): (Vec<_>, Vec<_>) = seen.into_iter().partition(|(name, _)| name == "lazy");
    assert!(others.iter().all(|(_, same)| *same), "{others:?}");
    assert_eq!(lazy.iter().map(|(_, same)| *same).collect::<Vec<_>>(), [true, false]);
}

// cases: 106 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_visible_once_it_is_committed() {
    let postgres = Postgres::shared().await;
    let (writer, reader) = (postgres.client().await, postgres.client().await);
    writer.batch_execute("BEGIN; CREATE TEMP TABLE seen(id int)").await.unwrap();
    let xid = "SELECT (pg_current_xact_id()::text::int8 % 4294967296)";
    let xid: i64 = writer.query_one(xid, &[]).await.unwrap().get(0);
    let xid = u32::try_from(xid).unwrap();
    assert!(!is_visible(&reader, xid).await.unwrap());
    assert!(!is_visible(&reader, xid + 1_000_000).await.unwrap(), "of the future");
    writer.batch_execute("COMMIT").await.unwrap();
    assert!(is_visible(&reader, xid).await.unwrap());
}
