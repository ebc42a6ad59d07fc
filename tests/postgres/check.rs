//! `check` finds what is wrong with a source, names the table and says the cure; a sound source has
//! nothing blocking.

use frazil::postgres::check::{Finding, Severity, Wanted, checks};
use frazil::postgres::dsn::Source;
use frazil::postgres::sql::connect_sql;

use super::server::{PASSWORD, database, server};
use crate::support::servers;

const SQL: &str = "
    CREATE TABLE good (id int PRIMARY KEY, v text);
    CREATE TABLE keyless (id int);
    CREATE TABLE lazy (id int PRIMARY KEY DEFERRABLE);
    CREATE TABLE full_keyless (id int); ALTER TABLE full_keyless REPLICA IDENTITY FULL;
    CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
    CREATE TABLE odd (id float8 PRIMARY KEY, p regclass);
    CREATE TABLE filtered (id int PRIMARY KEY, v int);
    CREATE TABLE hidden (id int PRIMARY KEY, v int);
    CREATE VIEW a_view AS SELECT 1 AS x;
    CREATE PUBLICATION part FOR TABLE filtered WHERE (v > 1), hidden (v) WITH (publish = 'insert')";

fn has(findings: &[Finding], severity: Severity, code: &str, about: &str) {
    let hit = |f: &Finding| f.severity == severity && f.code == code && f.what.contains(about);
    assert!(findings.iter().any(hit), "{severity:?} {code} {about} in {findings:#?}");
}

// cases: 73 86 holds
// cases: 73 86 112 holds
#[tokio::test]
async fn a_source_is_looked_over() {
    if servers::is_before(15, "column lists and row filters") {
        return;
    }
    let (source, client) = database("checked", SQL).await;
    let publications = ["part".to_owned(), "not_there".to_owned()];
    let wanted = Wanted {
        slot: "check_none",
        publications: &publications,
        tables: &[],
        types: &frazil::window::rules::TypeRules::default(),
    };
    let findings = checks(&client, &source, wanted).await.unwrap();
    has(&findings, Severity::Warning, "NO_KEY", "keyless");
    has(&findings, Severity::Warning, "NO_KEY", "deferrable");
    has(&findings, Severity::Warning, "NO_KEY", "NOTHING");
    has(&findings, Severity::Warning, "FULL_WITHOUT_KEY", "full_keyless");
    has(&findings, Severity::Info, "HIDDEN_KEY", "odd");
    has(&findings, Severity::Warning, "TEXT_MODE", "(p)");
    has(&findings, Severity::Blocking, "ROW_FILTER_IDENTITY", "filtered");
    has(&findings, Severity::Blocking, "KEY_NOT_PUBLISHED", "hidden");
    has(&findings, Severity::Warning, "PUBLISH_OPTIONS", "update, delete, truncate");
    has(&findings, Severity::Info, "TABLE_SKIPPED", "a_view");
    assert!(findings.windows(2).all(|two| two[0].severity <= two[1].severity));
    assert!(findings.iter().all(|f| !f.what.contains("\"good\"")));

    let row = client.query_one("SELECT 'good'::regclass::oid", &[]).await.unwrap();
    let good = [row.get::<_, u32>(0)];
    let wanted = Wanted {
        slot: "check_none",
        publications: &[],
        tables: &good,
        types: &frazil::window::rules::TypeRules::default(),
    };
    let findings = checks(&client, &source, wanted).await.unwrap();
    assert!(findings.iter().all(|f| f.severity == Severity::Info), "{findings:#?}");
}

#[tokio::test]
async fn a_poor_role_is_told_what_it_lacks() {
    database(
        "checked_poor",
        "CREATE TABLE t (id int PRIMARY KEY); CREATE ROLE check_poor LOGIN
        PASSWORD 'geheim'; ALTER ROLE check_poor SET timezone = 'Asia/Tokyo'",
    )
    .await;
    let dsn = server().dsn("checked_poor").replace("user=postgres", "user=check_poor");
    assert!(dsn.contains(PASSWORD));
    let source = Source::parse(&dsn).unwrap();
    let client = connect_sql(&source, "test").await.unwrap();
    let publications = ["p".to_owned()];
    let wanted = Wanted {
        slot: "check_none",
        publications: &publications,
        tables: &[],
        types: &frazil::window::rules::TypeRules::default(),
    };
    let findings = checks(&client, &source, wanted).await.unwrap();
    has(&findings, Severity::Blocking, "RIGHTS", "may not replicate");
    has(&findings, Severity::Blocking, "RIGHTS", "may not create publications");
    has(&findings, Severity::Blocking, "RIGHTS", "may not read");
    has(&findings, Severity::Blocking, "RIGHTS", "does not own");
    has(&findings, Severity::Info, "ROLE_SETTINGS", "Asia/Tokyo");
    let grant = findings.iter().find(|f| f.what.contains("may not read")).unwrap();
    assert!(grant.cure.contains("GRANT SELECT ON \"public\".\"t\" TO \"check_poor\""));
}
