//! `frazil install-ddl-capture` and `uninstall-ddl-capture`: what they leave on the source, who may
//! run them, and that nobody's own DDL suffers.

use crate::support::frazil::{Finished, Frazil};
use crate::support::postgres::{Postgres, PostgresOptions};

/// Installs the capture, as a person does.
pub(super) fn install(postgres: &Postgres) -> Finished {
    Frazil::new(["install-ddl-capture", &postgres.dsn()]).finish().succeeded()
}

fn uninstall(postgres: &Postgres) -> Finished {
    Frazil::new(["uninstall-ddl-capture", &postgres.dsn()]).finish().succeeded()
}

fn check(postgres: &Postgres) -> String {
    Frazil::new(["check", &postgres.dsn(), "-o", "json"]).finish().stdout
}

/// The number that makes a message credible is for those who replicate.
#[tokio::test]
async fn its_token_is_read_by_who_may_replicate() {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres.sql("CREATE ROLE weak LOGIN; CREATE ROLE reader LOGIN REPLICATION").await;
    install(&postgres);
    let token = "SELECT last_value FROM frazil.token";
    let of_reader = postgres.value(&format!("SET ROLE reader; {token}")).await;
    assert_eq!(of_reader, postgres.value(token).await);
    assert!(of_reader.len() > 9, "{of_reader}");
    let weak = postgres.client().await;
    weak.batch_execute("SET ROLE weak").await.unwrap();
    assert!(weak.batch_execute(token).await.is_err());
    let seen = "SELECT count(*) FROM pg_sequences WHERE schemaname = 'frazil' AND last_value > 0";
    assert_eq!(weak.query_one(seen, &[]).await.unwrap().get::<_, i64>(0), 0);
    let check = |role: &str| {
        let dsn = postgres.dsn().replace("postgres@", &format!("{role}@"));
        Frazil::new(["check", &dsn, "-o", "json"]).finish().stdout
    };
    assert!(check("reader").contains("DDL capture is installed, version 1"));
    assert!(check("weak").contains("may not read its token"));
    // It outlives another installation.
    install(&postgres);
    assert_eq!(postgres.value(token).await, of_reader);
}

/// Everything in the catalog that carries frazil's name.
const LEFT: &str = "SELECT (SELECT count(*) FROM pg_event_trigger WHERE evtname LIKE 'frazil%') \
    + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'frazil%') \
    + (SELECT count(*) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
       WHERE n.nspname = 'frazil') \
    + (SELECT count(*) FROM pg_class WHERE relnamespace::regnamespace::text = 'frazil') \
    + (SELECT count(*) FROM pg_namespace WHERE nspname = 'frazil')";

const PARTITIONED: &str = "CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id); \
    CREATE TABLE leaf PARTITION OF root FOR VALUES FROM (0) TO (10); \
    CREATE PUBLICATION p FOR TABLE root WITH (publish_via_partition_root = true);";

#[tokio::test]
async fn it_can_be_installed_twice_and_removed_twice() {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres.sql(PARTITIONED).await;
    assert!(check(&postgres).contains("no DDL capture"));
    install(&postgres);
    let once = postgres.value(LEFT).await;
    install(&postgres);
    assert_eq!(postgres.value(LEFT).await, once);
    assert!(check(&postgres).contains("DDL capture is installed, version 1"));
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'frazil%'";
    assert_eq!(postgres.value(triggers).await, "2");
    // Triggers follow the publication.
    postgres.sql("DROP PUBLICATION p").await;
    assert_eq!(postgres.value(triggers).await, "0");
    postgres.sql("CREATE PUBLICATION p FOR ALL TABLES WITH (publish_via_partition_root)").await;
    assert_eq!(postgres.value(triggers).await, "2");
    postgres.sql("ALTER EVENT TRIGGER frazil_sql_drop DISABLE").await;
    assert!(check(&postgres).contains("damaged or switched off"));
    uninstall(&postgres);
    assert_eq!(postgres.value(LEFT).await, "0");
    uninstall(&postgres);
    // What a person put there stays.
    postgres.sql("CREATE SCHEMA frazil; CREATE TABLE frazil.notes (a int)").await;
    install(&postgres);
    uninstall(&postgres);
    assert_eq!(postgres.value("SELECT count(*) FROM frazil.notes").await, "0");
}

#[tokio::test]
async fn without_the_right_it_says_who_has_it() {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres.sql("CREATE ROLE weak LOGIN; GRANT CREATE ON DATABASE postgres TO weak").await;
    let dsn = postgres.dsn().replace("postgres@", "weak@");
    let refused = Frazil::new(["install-ddl-capture", &dsn]).finish();
    refused.exited(78).said("DDL_CAPTURE_RIGHTS").said("superuser");
    assert_eq!(postgres.value(LEFT).await, "0");
    // Somebody else's schema is no place for functions that run with a superuser's rights.
    postgres.sql("CREATE SCHEMA frazil AUTHORIZATION weak").await;
    let refused = Frazil::new(["install-ddl-capture", &postgres.dsn()]).finish();
    refused.exited(78).said("belongs to another role");
    let printed = Frazil::new(["install-ddl-capture", &dsn, "--dry-run"]).finish().succeeded();
    assert!(printed.stdout.contains("CREATE EVENT TRIGGER frazil_sql_drop"));
}

/// DDL of a role that may do nothing else, and DDL under a capture that fails.
#[tokio::test]
async fn nobody_needs_rights_for_it_and_its_failure_is_a_warning() {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres.sql(PARTITIONED).await;
    postgres.sql("CREATE ROLE weak LOGIN; GRANT CREATE ON SCHEMA public TO weak").await;
    install(&postgres);
    let ddl = "CREATE TABLE mine (id int PRIMARY KEY, a text); ALTER TABLE mine ADD COLUMN b int; \
               ALTER TABLE mine ALTER b TYPE bigint; CREATE TYPE m AS ENUM ('a'); \
               ALTER TYPE m RENAME VALUE 'a' TO 'b'; TRUNCATE mine; DROP TABLE mine; DROP TYPE m";
    postgres.sql(&format!("SET ROLE weak; {ddl}")).await;
    assert!(!postgres.log().contains("was not captured"), "{}", postgres.log());
    postgres
        .sql(
            "CREATE OR REPLACE FUNCTION frazil.emit(message jsonb) RETURNS void LANGUAGE plpgsql \
              AS $$BEGIN RAISE EXCEPTION 'broken'; END$$",
        )
        .await;
    postgres.sql(&format!("SET ROLE weak; {ddl}")).await;
    postgres.sql("TRUNCATE leaf; ALTER TABLE root ADD COLUMN b int; DROP TABLE leaf").await;
    let log = postgres.log();
    assert!(log.contains("was not captured: broken"), "{log}");
}
