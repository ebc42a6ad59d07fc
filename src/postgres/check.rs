//! Whether a source is fit to be replicated, and what to do where it is not: server, role, slot.
//! The tables are looked at in `check_tables`.
//!
//! Source of the rules: Postgres manual, "Logical Replication, Configuration Settings" and
//! "Security"; cases 16-18, 27, 57-59, 73, 112, 140.

use tokio_postgres::{Client, Row};

use crate::error::Result;
use crate::postgres::catalog::server_version;
use crate::postgres::check_tables::{check_publications, check_tables};
use crate::postgres::ddl_capture::{DdlCapture, capture_token, ddl_capture};
use crate::postgres::ddl_message::DDL_VERSION;
use crate::postgres::dsn::Source;
use crate::postgres::publication::publication_info;
use crate::postgres::quote::identifier;
use crate::postgres::server_error::from_sql;
use crate::postgres::slot::{SlotInfo, slot_blockers, slot_info};
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
    check_standby(&facts, version, &unpublished, &mut findings);
    check_slot(client, (&facts, version), wanted.slot, &mut findings).await?;
    check_publications(client, wanted.publications, &mut findings).await?;
    check_tables(client, source, wanted, !unpublished.is_empty(), &mut findings).await?;
    let token = capture_token(client).await?;
    findings.push(capture_finding(ddl_capture(client).await?, version, token.is_some()));
    findings.sort_by_key(|finding| finding.severity);
    Ok(findings)
}

/// How changes that Postgres does not announce will be noticed (case 105).
fn capture_finding(capture: DdlCapture, version: u32, is_readable: bool) -> Finding {
    const CODE: &str = "DDL_CAPTURE";
    let cure = "frazil install-ddl-capture, as a superuser or what the service has in its place";
    match capture {
        DdlCapture::Installed if !is_readable => {
            let what = "DDL capture is installed, but this role may not read its token: its messages \
                        are not believed";
            let cure = "GRANT USAGE ON SCHEMA frazil and SELECT ON SEQUENCE frazil.token to it, or \
                        frazil install-ddl-capture again once the role may replicate";
            Finding::warning(CODE, what, cure)
        }
        DdlCapture::Installed => {
            Finding::info(CODE, format!("DDL capture is installed, version {DDL_VERSION}"))
        }
        DdlCapture::Absent if version < 140_000 => {
            let what = "no DDL capture, which needs Postgres 14: rewrites, partitions and types are \
                        looked up in the catalog";
            Finding::info(CODE, what)
        }
        DdlCapture::Absent => {
            let what = "no DDL capture: rewrites, partitions and types are looked up in the catalog, \
                        which notices them later and copies a table again where it can't tell";
            Finding::new(Severity::Info, CODE, what, cure)
        }
        DdlCapture::Other(version) => {
            let what = match version {
                0 => "DDL capture is damaged or switched off in part".to_owned(),
                version => format!("DDL capture is version {version}, and not {DDL_VERSION}"),
            };
            Finding::warning(CODE, what, cure)
        }
    }
}

const FACTS: &str = "\
    SELECT current_setting('wal_level') AS wal_level, \
           current_setting('max_replication_slots')::int8 AS slots_max, \
           (SELECT count(*) FROM pg_catalog.pg_replication_slots) AS slots, \
           current_setting('max_wal_senders')::int8 AS senders_max, \
           (SELECT count(*) FROM pg_catalog.pg_stat_replication) AS senders, \
           current_setting('max_slot_wal_keep_size') AS keep_size, \
           current_setting('wal_sender_timeout') AS wal_sender_timeout, \
           current_setting('hot_standby_feedback') AS standby_feedback, \
           current_setting('idle_replication_slot_timeout', true) AS idle_timeout, \
           current_setting('synchronized_standby_slots', true) AS waited_for, \
           (SELECT count(*) FROM pg_catalog.pg_replication_slots \
            WHERE slot_type = 'physical') AS standbys, \
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
        let what = "Postgres 13 streams text only, and no logical messages: more CPU, values up to \
                    about 512 MiB, and `wait --now` waits for the next change of a table";
        findings.push(Finding::info("TEXT_MODE", what));
    }
    let wal_level: &str = facts.get("wal_level");
    if wal_level != "logical" {
        let cure = "ALTER SYSTEM SET wal_level = logical; then restart Postgres";
        findings.push(Finding::blocking("WAL_LEVEL", format!("wal_level is {wal_level}"), cure));
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
    let idle: Option<&str> = facts.get("idle_timeout");
    if let Some(idle) = idle.filter(|idle| *idle != "0") {
        let what = format!(
            "idle_replication_slot_timeout is {idle}: where frazil does not run for that long, its \
             slot is lost"
        );
        let cure = "ALTER SYSTEM SET idle_replication_slot_timeout = 0; SELECT pg_reload_conf()";
        findings.push(Finding::warning("IDLE_TIMEOUT", what, cure));
    }
    if let Some(settings) = facts.get::<_, Option<&str>>("role_settings") {
        let what =
            format!("settings of role or database are overruled for our sessions: {settings}");
        findings.push(Finding::info("ROLE_SETTINGS", what));
    }
}

/// A standby as the source (case 23): decoding there came with 16, and its primary must not remove
/// what the slot still needs.
fn check_standby(facts: &Row, version: u32, unpublished: &[&str], findings: &mut Vec<Finding>) {
    if !facts.get::<_, bool>("standby") {
        return;
    }
    if version < 160_000 {
        let what = "the server is a standby, which decodes only from Postgres 16 on";
        findings.push(Finding::blocking("STANDBY", what, "connect to the primary"));
        return;
    }
    if let Some(name) = unpublished.first() {
        let what = format!("the server is a standby, and there is no publication {name} yet");
        let cure = "let the owner of the tables create it on the primary";
        findings.push(Finding::blocking("STANDBY", what, cure));
    }
    if facts.get::<_, &str>("standby_feedback") != "on" {
        let what = "hot_standby_feedback is off: the primary may remove what the slot needs, and \
                    the slot is lost then";
        let cure = "ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf()";
        findings.push(Finding::warning("STANDBY", what, cure));
    }
}

/// What becomes of the slot after a failover (cases 19 to 21).
fn check_failover(facts: &Row, slot: &SlotInfo, findings: &mut Vec<Finding>) {
    let standbys: i64 = facts.get("standbys");
    if standbys == 0 || facts.get("standby") {
        return;
    }
    if !slot.failover {
        let what = "the slot is not a failover slot: after a failover to a standby it is gone";
        let cure = "over a replication connection: ALTER_REPLICATION_SLOT ... (FAILOVER true)";
        findings.push(Finding::new(Severity::Info, "FAILOVER", what, cure));
    } else if facts.get::<_, Option<&str>>("waited_for").is_none_or(str::is_empty) {
        let what = "the lake may be ahead of the standbys: after a failover it would have to be \
                    begun anew";
        let cure = "ALTER SYSTEM SET synchronized_standby_slots = '<slot of the standby>'; \
                    SELECT pg_reload_conf()";
        findings.push(Finding::new(Severity::Info, "FAILOVER", what, cure));
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
    (facts, version): (&Row, u32),
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
        let why = slot.invalidation.as_deref().unwrap_or("the WAL it needs is gone");
        let what = format!("slot `{name}` is lost: {why}");
        let cure = "raise max_slot_wal_keep_size, and start a new lake: frazil drop, then frazil run into \
                    an empty folder";
        findings.push(Finding::blocking("SLOT_LOST", what, cure));
    } else if let Some(pid) = slot.active_pid {
        let what = format!("slot `{name}` is being read by process {pid}");
        let cure = "stop the other frazil, or choose another slot name";
        findings.push(Finding::warning("SLOT_ACTIVE", what, cure));
    }
    if version >= 170_000 {
        check_failover(facts, &slot, findings);
    }
    if let Some(status @ ("extended" | "unreserved")) = slot.wal_status.as_deref() {
        let left = slot.safe_wal_size.map_or(String::new(), |bytes| {
            format!(", and it is lost after {} MiB more of WAL", bytes.max(0) >> 20)
        });
        let what = format!("slot `{name}` is behind: its wal_status is {status}{left}");
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
