//! Whether a source is fit to be replicated, and what to do where it is not: server, role, slot.
//! The tables are looked at in `check_tables`.
//!
//! Source of the rules: Postgres manual, "Logical Replication, Configuration Settings" and
//! "Security"; cases 16-18, 27, 57-59, 73, 112, 140.

use tokio_postgres::{Client, Row};

use crate::error::Result;
use crate::postgres::catalog::server_version;
use crate::postgres::check_tables::{check_publications, check_tables};
use crate::postgres::dsn::Source;
use crate::postgres::publication::publication_info;
use crate::postgres::quote::identifier;
use crate::postgres::server_error::from_sql;
use crate::postgres::slot::{slot_blockers, slot_info};
use crate::window::rules::TypeRules;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Replication cannot start or would be wrong.
    Blocking,
    /// It works, with a loss that a person should know of.
    Warning,
    /// Good to know.
    Info,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Stable, UPPER_SNAKE.
    pub code: &'static str,
    /// What is the matter, with the table's name where it is about one.
    pub what: String,
    /// What mends it; empty where nothing needs to be.
    pub cure: String,
}

impl Finding {
    pub(super) fn new(
        severity: Severity,
        code: &'static str,
        what: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self { severity, code, what: what.into(), cure: cure.into() }
    }

    pub(super) fn blocking(
        code: &'static str,
        what: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Blocking, code, what, cure)
    }

    pub(super) fn warning(
        code: &'static str,
        what: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Warning, code, what, cure)
    }

    pub(super) fn info(code: &'static str, what: impl Into<String>) -> Self {
        Self::new(Severity::Info, code, what, "")
    }
}

/// What is going to be replicated, and by which names.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Replication slot; it need not exist.
    pub slot: &'a str,
    /// Publications; they need not exist.
    pub publications: &'a [String],
    /// Oids of the tables; empty: every table that can be.
    pub tables: &'a [u32],
    /// What the settings say of types.
    pub types: &'a TypeRules,
}

/// Everything that was found, the worst first. Errors are those of the connection only.
pub async fn checks(client: &Client, source: &Source, wanted: Wanted<'_>) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let version = server_version(client).await?;
    let facts = client.query_one(FACTS, &[]).await.map_err(from_sql)?;
    let mut unpublished = Vec::new();
    for name in wanted.publications {
        if publication_info(client, name).await?.is_none() {
            unpublished.push(name.as_str());
        }
    }
    check_server(&facts, version, &mut findings);
    check_role(&facts, source, &unpublished, &mut findings);
    check_slot(client, &facts, wanted.slot, &mut findings).await?;
    check_publications(client, wanted.publications, &mut findings).await?;
    check_tables(client, source, wanted, !unpublished.is_empty(), &mut findings).await?;
    findings.sort_by_key(|finding| finding.severity);
    Ok(findings)
}

const FACTS: &str = "\
    SELECT current_setting('wal_level') AS wal_level, \
           current_setting('max_replication_slots')::int8 AS slots_max, \
           (SELECT count(*) FROM pg_catalog.pg_replication_slots) AS slots, \
           current_setting('max_wal_senders')::int8 AS senders_max, \
           (SELECT count(*) FROM pg_catalog.pg_stat_replication) AS senders, \
           current_setting('max_slot_wal_keep_size') AS keep_size, \
           current_setting('wal_sender_timeout') AS wal_sender_timeout, \
           current_setting('server_encoding') AS encoding, \
           current_database()::text AS database, \
           pg_catalog.pg_is_in_recovery() AS standby, \
           pg_catalog.has_database_privilege(current_database(), 'CREATE') AS may_create, \
           (SELECT rolsuper OR rolreplication FROM pg_catalog.pg_roles \
            WHERE rolname = current_user) AS replication, \
           EXISTS (SELECT FROM pg_catalog.pg_roles \
                   WHERE rolname = 'rds_replication' \
                     AND pg_catalog.pg_has_role(oid, 'MEMBER')) AS rds_replication, \
           (SELECT pg_catalog.array_to_string(pg_catalog.array_agg(setting), ', ') \
            FROM pg_catalog.pg_db_role_setting s, unnest(s.setconfig) AS setting \
            WHERE s.setrole IN (0, (SELECT oid FROM pg_catalog.pg_roles \
                                    WHERE rolname = current_user)) \
              AND setting ~* '^(datestyle|intervalstyle|bytea_output|extra_float_digits|timezone\
|row_security|statement_timeout)=') AS role_settings";

fn check_server(facts: &Row, version: u32, findings: &mut Vec<Finding>) {
    if version < 130_000 {
        let what = format!("the server's version is {version}");
        findings.push(Finding::blocking("SERVER_VERSION", what, "use Postgres 13 or later"));
    } else if version < 140_000 {
        let what = "Postgres 13 streams text only: more CPU, and values up to about 512 MiB";
        findings.push(Finding::info("TEXT_MODE", what));
    }
    let wal_level: &str = facts.get("wal_level");
    if wal_level != "logical" {
        let cure = "ALTER SYSTEM SET wal_level = logical; then restart Postgres";
        findings.push(Finding::blocking("WAL_LEVEL", format!("wal_level is {wal_level}"), cure));
    }
    if facts.get("standby") && version < 160_000 {
        let what = "the server is a standby, which decodes only from Postgres 16 on";
        findings.push(Finding::blocking("STANDBY", what, "connect to the primary"));
    }
    if facts.get::<_, &str>("encoding") == "SQL_ASCII" {
        let what =
            "the database's encoding is SQL_ASCII: a byte that is not UTF-8 stops the stream";
        let cure = "convert the database to UTF8";
        findings.push(Finding::warning("ENCODING", what, cure));
    }
    if facts.get::<_, &str>("keep_size") == "-1" {
        let what = "max_slot_wal_keep_size has no limit: while frazil does not run, WAL piles up";
        findings.push(Finding::info("WAL_KEPT", what));
    }
    if let Some(settings) = facts.get::<_, Option<&str>>("role_settings") {
        let what =
            format!("settings of role or database are overruled for our sessions: {settings}");
        findings.push(Finding::info("ROLE_SETTINGS", what));
    }
}

fn check_role(facts: &Row, source: &Source, unpublished: &[&str], findings: &mut Vec<Finding>) {
    let user = identifier(&source.user);
    if !facts.get::<_, bool>("replication") && !facts.get::<_, bool>("rds_replication") {
        let what = format!("role {user} may not replicate");
        let cure =
            format!("ALTER ROLE {user} REPLICATION (on RDS: GRANT rds_replication TO {user})");
        findings.push(Finding::blocking("RIGHTS", what, cure));
    }
    if !unpublished.is_empty() && !facts.get::<_, bool>("may_create") {
        let database = identifier(facts.get("database"));
        let what = format!("role {user} may not create publications in database {database}");
        let cure = format!(
            "GRANT CREATE ON DATABASE {database} TO {user}; or let the owner of the \
             tables create publication {}",
            unpublished.join(", ")
        );
        findings.push(Finding::blocking("RIGHTS", what, cure));
    }
}

async fn check_slot(
    client: &Client,
    facts: &Row,
    name: &str,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let Some(slot) = slot_info(client, name).await? else {
        check_room(facts, findings);
        return check_blockers(client, findings).await;
    };
    let database: &str = facts.get("database");
    if slot.plugin.as_deref() != Some("pgoutput") || slot.database.as_deref() != Some(database) {
        let what = format!("slot `{name}` is there, but not for pgoutput in this database");
        findings.push(Finding::blocking("SLOT_FOREIGN", what, "choose another slot name"));
    } else if slot.is_lost() {
        let what = format!("slot `{name}` is lost: the WAL it needs is gone");
        let cure = "raise max_slot_wal_keep_size, and start a new lake: frazil drop, then frazil run into \
                    an empty folder";
        findings.push(Finding::blocking("SLOT_LOST", what, cure));
    } else if let Some(pid) = slot.active_pid {
        let what = format!("slot `{name}` is being read by process {pid}");
        let cure = "stop the other frazil, or choose another slot name";
        findings.push(Finding::warning("SLOT_ACTIVE", what, cure));
    }
    if let Some(status @ ("extended" | "unreserved")) = slot.wal_status.as_deref() {
        let what = format!("slot `{name}` is behind: its wal_status is {status}");
        let cure = "let frazil run, or raise max_slot_wal_keep_size";
        findings.push(Finding::warning("SLOT_BEHIND", what, cure));
    }
    Ok(())
}

/// Room for our slot and stream, and for the temporary slot of a table that is added later.
fn check_room(facts: &Row, findings: &mut Vec<Finding>) {
    for (most, used, setting) in [
        ("slots_max", "slots", "max_replication_slots"),
        ("senders_max", "senders", "max_wal_senders"),
    ] {
        let (most, used): (i64, i64) = (facts.get(most), facts.get(used));
        let cure = format!("ALTER SYSTEM SET {setting} = {}; then restart Postgres", used + 10);
        let what = format!("{used} of {most} {setting} are in use");
        match most - used {
            ..=0 => findings.push(Finding::blocking("SLOTS_FULL", what, cure)),
            1 => findings.push(Finding::warning("SLOTS_FULL", what, cure)),
            _ => {}
        }
    }
}

/// A slot waits for every open writer, so those older than this many seconds are shown.
const BLOCKER_AGE_S: f64 = 5.0;

async fn check_blockers(client: &Client, findings: &mut Vec<Finding>) -> Result<()> {
    let blockers = slot_blockers(client).await?;
    for blocker in blockers.iter().filter(|blocker| blocker.age_s > BLOCKER_AGE_S) {
        let what = format!("the slot will wait for {blocker}");
        findings.push(Finding::warning("SLOT_BLOCKED", what, blocker.cure()));
    }
    Ok(())
}
