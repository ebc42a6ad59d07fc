//! A message of the DDL capture gives the same table as a look at the catalog at its place.

use frazil::postgres::catalog::{load_relations, server_version};
use frazil::postgres::ddl_capture::capture_token;
use frazil::postgres::ddl_message::{DDL_PREFIX, DdlKind, DdlMessage, LeafChange};
use frazil::postgres::pg_types::load_types;
use frazil::postgres::pgoutput::{Message, parse};
use tokio_postgres::Client;

use super::capture::install;
use crate::support::postgres::{Postgres, PostgresOptions};

/// A source with the capture, a publication `p` and a slot to read the messages from.
pub(super) struct Listened {
    pub(super) postgres: Postgres,
    client: Client,
}

impl Listened {
    pub(super) async fn new(sql: &str) -> Self {
        let postgres = Postgres::start(PostgresOptions::default()).await;
        postgres.sql(sql).await;
        install(&postgres);
        postgres.sql("SELECT pg_create_logical_replication_slot('listened', 'pgoutput')").await;
        let client = postgres.client().await;
        Self { postgres, client }
    }

    /// Runs `sql`; the messages that came of it.
    pub(super) async fn messages_of(&self, sql: &str) -> Vec<DdlMessage> {
        self.postgres.sql(sql).await;
        let changes = "SELECT data FROM pg_logical_slot_get_binary_changes('listened', NULL, NULL, \
                       'proto_version', '1', 'publication_names', 'p', 'messages', 'true')";
        let rows = self.client.query(changes, &[]).await.unwrap();
        let mut found = Vec::new();
        for row in rows {
            let data: Vec<u8> = row.get(0);
            let Ok(Message::LogicalMessage { transactional, prefix, content, .. }) =
                parse(&data, 0, data.len())
            else {
                continue;
            };
            assert!(transactional);
            assert_eq!(&data[prefix], DDL_PREFIX.as_bytes());
            let message = DdlMessage::parse(&data[content]).unwrap();
            let token = capture_token(&self.client).await.unwrap();
            assert!(message.is_from(token) && !message.is_from(None) && !message.is_from(Some(0)));
            found.push(message);
        }
        found
    }

    /// Asserts that each relation of `message` is what the catalog says now.
    async fn assert_equals_the_catalog(&self, message: &DdlMessage) {
        let version = server_version(&self.client).await.unwrap();
        let types = load_types(&self.client, version, message.type_oids()).await.unwrap();
        let publications = ["p".to_owned(), "q".to_owned()];
        let rules = frazil::window::rules::TypeRules::default();
        for relation in &message.relations {
            let told = relation.source_table(&publications, (&types, &rules)).unwrap();
            let oids = [relation.oid()];
            let seen = load_relations(&self.client, &publications, Some(&oids), &rules)
                .await
                .unwrap()
                .pop();
            assert_eq!(told, seen, "{:?}", relation.name());
        }
    }
}

const TABLES: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TYPE pair AS (a int, m mood);
    CREATE DOMAIN cents AS numeric(12,2);
    CREATE TABLE t (id int PRIMARY KEY, gone int, e mood[], p pair, d cents, t text,
        g int GENERATED ALWAYS AS (id * 2) STORED);
    ALTER TABLE t DROP COLUMN gone;
    INSERT INTO t (id) VALUES (1);
    CREATE TABLE listed (id int PRIMARY KEY, secret text, shown text);
    CREATE TABLE root (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE l1 PARTITION OF root FOR VALUES FROM (0) TO (10);
    CREATE TABLE deep PARTITION OF root FOR VALUES FROM (10) TO (30) PARTITION BY RANGE (id);
    CREATE TABLE l2 PARTITION OF deep FOR VALUES FROM (10) TO (20);
    CREATE TABLE parent (id int PRIMARY KEY, v text);
    CREATE TABLE child (CONSTRAINT child_key PRIMARY KEY (id)) INHERITS (parent);
    CREATE TABLE unpublished (id int PRIMARY KEY);
    CREATE PUBLICATION p FOR TABLE t, listed (id, shown) WHERE (id > 5), root, parent
        WITH (publish_via_partition_root = true);
    CREATE PUBLICATION q FOR TABLE l1, l2 WITH (publish = 'insert');
";

const COMMANDS: &[&str] = &[
    "ALTER TABLE t ADD COLUMN c timestamptz DEFAULT '2020-01-01 12:00+05'",
    "SET datestyle = 'German'; SET timezone = 'Asia/Tokyo'; SET bytea_output = 'escape'; \
     SET intervalstyle = 'iso_8601'; SET search_path = pg_temp; \
     ALTER TABLE public.t ADD COLUMN x bytea DEFAULT '\\x00ff', ADD COLUMN i interval DEFAULT '1 mon'",
    "ALTER TABLE t ADD COLUMN \"ö \"\"ü\" text DEFAULT 'ä\"{}'",
    "ALTER TABLE t RENAME COLUMN t TO u",
    "ALTER TABLE t ALTER d TYPE numeric(20,2)",
    "ALTER TABLE t REPLICA IDENTITY FULL",
    "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id) DEFERRABLE",
    "ALTER TABLE t RENAME TO t2",
    "CREATE SCHEMA s; ALTER TABLE t2 SET SCHEMA s",
    "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
    "ALTER TYPE pair ADD ATTRIBUTE more text",
    "ALTER TYPE pair RENAME ATTRIBUTE more TO less",
    "ALTER TABLE listed ADD COLUMN late int DEFAULT 5",
    "ALTER PUBLICATION p SET TABLE s.t2, listed (id, shown, late), root, parent",
    "ALTER TABLE root ADD COLUMN q int DEFAULT 7",
    "CREATE TABLE l3 PARTITION OF deep FOR VALUES FROM (20) TO (30)",
    "TRUNCATE l1",
    "INSERT INTO root VALUES (1); ALTER TABLE root ADD COLUMN z timestamptz DEFAULT '2020-01-01 12:00+05'",
    "ALTER TABLE deep DETACH PARTITION l3",
    "ALTER TABLE parent ADD COLUMN more int",
    "BEGIN; SAVEPOINT a; ALTER TABLE parent ADD COLUMN gone int; ROLLBACK TO a; \
     SAVEPOINT b; ALTER TABLE parent ADD COLUMN stays int; COMMIT",
    "DROP TYPE mood CASCADE",
    "DROP TABLE l2",
];

// cases: 105 holds
#[tokio::test]
async fn each_command_is_told_as_the_catalog_has_it_afterwards() {
    let listened = Listened::new(TABLES).await;
    for command in COMMANDS {
        let messages = listened.messages_of(command).await;
        let last = messages.last().unwrap_or_else(|| panic!("nothing said: {command}"));
        assert!(!last.relations.is_empty(), "{command}: {last:?}");
        listened.assert_equals_the_catalog(last).await;
    }
}

async fn kinds(listened: &Listened, sql: &str) -> Vec<DdlKind> {
    listened.messages_of(sql).await.iter().map(|message| message.kind).collect()
}

#[tokio::test]
async fn what_is_no_concern_of_a_publication_says_nothing() {
    let listened = Listened::new(TABLES).await;
    for sql in [
        "CREATE TEMP TABLE x (a int); ALTER TABLE x ADD COLUMN b int; DROP TABLE x",
        "CREATE TABLE not_published (a int)",
        "CREATE VIEW v AS SELECT 1 AS a; ALTER VIEW v RENAME TO w; DROP VIEW w",
        "CREATE INDEX ON t (t)",
        "CREATE TYPE other AS ENUM ('a'); ALTER TYPE other ADD VALUE 'b'",
        "VACUUM FULL t",
        "ANALYZE t",
        "BEGIN; ALTER TABLE t ADD COLUMN gone int; ROLLBACK",
        "INSERT INTO root VALUES (1, 'x'); TRUNCATE root",
        "TRUNCATE l1, root",
    ] {
        assert_eq!(kinds(&listened, sql).await, [], "{sql}");
    }
    // ... and the TRUNCATEs above have left nothing behind.
    let sql = "BEGIN; TRUNCATE root; TRUNCATE l1; COMMIT";
    assert_eq!(kinds(&listened, sql).await, [DdlKind::Truncate]);
}

#[tokio::test]
async fn a_rewrite_says_whether_values_may_have_changed() {
    let listened = Listened::new(TABLES).await;
    for (sql, expected) in [
        ("ALTER TABLE parent ALTER id TYPE bigint", false),
        ("ALTER TABLE parent ALTER id TYPE int USING id * 2", true),
        ("DO $$BEGIN ALTER TABLE parent ALTER id TYPE bigint; END$$", true),
        ("ALTER TABLE parent ADD COLUMN r float8 DEFAULT random()", true),
    ] {
        let messages = listened.messages_of(sql).await;
        let oid = listened.postgres.value("SELECT 'parent'::regclass::oid").await.parse().unwrap();
        let rewrite = messages.iter().find(|message| message.rewritten == Some(oid)).expect(sql);
        assert_eq!(rewrite.kind, DdlKind::Rewrite);
        assert_eq!(rewrite.may_change_values(), expected, "{sql}");
        assert_eq!(messages.last().unwrap().kind, DdlKind::End, "{sql}");
    }
}

#[tokio::test]
async fn partitions_that_come_and_go_name_their_root() {
    let listened = Listened::new(TABLES).await;
    let root: u32 = listened.postgres.value("SELECT 'root'::regclass::oid").await.parse().unwrap();
    let sql = "CREATE TABLE l4 (id int NOT NULL, v text); INSERT INTO l4 VALUES (25, 'x'); \
               ALTER TABLE deep ATTACH PARTITION l4 FOR VALUES FROM (20) TO (30)";
    for (sql, change, is_empty) in [
        (
            "CREATE TABLE l3 PARTITION OF root FOR VALUES FROM (30) TO (40)",
            LeafChange::Attached,
            true,
        ),
        (sql, LeafChange::Attached, false),
        ("ALTER TABLE deep DETACH PARTITION l4", LeafChange::Detached, false),
        ("ALTER TABLE root DETACH PARTITION l3 CONCURRENTLY", LeafChange::Detached, true),
        ("TRUNCATE l1", LeafChange::Truncated, false),
    ] {
        let messages = listened.messages_of(sql).await;
        let message = messages.last().expect(sql);
        let [leaf] = message.leaves.as_slice() else { panic!("{sql}: {message:?}") };
        assert_eq!((leaf.root, leaf.change, leaf.is_empty), (root, change, is_empty), "{sql}");
        assert!(message.relation(root).is_some(), "{sql}");
    }
    let messages = listened.messages_of("DROP TABLE l1").await;
    assert_eq!(messages.last().unwrap().dropped[0].root, Some(root));
}
