//! The DDL capture on the source: event triggers that say in the stream what Postgres itself does
//! not ([`crate::postgres::ddl_message`]). Optional; without it frazil looks at the catalog.

use tokio_postgres::Client;

use crate::error::{Error, Result};
use crate::postgres::ddl_message::DDL_VERSION;
use crate::postgres::server_error::from_sql;

/// Makes it, or makes it anew.
pub const INSTALL_SQL: &str = include_str!("../../migrations/source/0001_ddl_capture.sql");
/// Undoes [`INSTALL_SQL`].
pub const REMOVE_SQL: &str = include_str!("../../migrations/source/0001_ddl_capture_remove.sql");

/// What a role needs that lacks it.
const RIGHTS: &str = "let a superuser run it (on RDS a member of rds_superuser, on Cloud SQL of \
                      cloudsqlsuperuser, on Azure of azure_pg_admin): it makes event triggers; or \
                      give the statements of --dry-run to one who may";

/// Whether the capture is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DdlCapture {
    /// There is none.
    Absent,
    /// It is there, as this frazil makes it.
    Installed,
    /// It is there in another version: 0 where it is damaged or switched off in part.
    Other(u32),
}

/// How it stands. Any role may ask.
pub async fn ddl_capture(client: &Client) -> Result<DdlCapture> {
    let row = client.query_one(STATE, &[]).await.map_err(from_sql)?;
    let (triggers, comment): (i64, Option<String>) = (row.get(0), row.get(1));
    let version = comment.as_deref().and_then(|text| text.strip_prefix("frazil ddl capture "));
    Ok(match (triggers, version.and_then(|version| version.parse().ok())) {
        (0, _) => DdlCapture::Absent,
        (3, Some(version)) if version == DDL_VERSION => DdlCapture::Installed,
        (3, Some(version)) => DdlCapture::Other(version),
        _ => DdlCapture::Other(0),
    })
}

const STATE: &str = "\
    SELECT count(*) FILTER (WHERE evtenabled IN ('O', 'A')), \
           max(pg_catalog.obj_description(oid, 'pg_event_trigger')) \
    FROM pg_catalog.pg_event_trigger \
    WHERE evtname IN ('frazil_ddl_command_end', 'frazil_sql_drop', 'frazil_table_rewrite')";

/// What the capture's messages carry to be believed; `None` where there is no capture, or the role
/// may not read it.
pub async fn capture_token(client: &Client) -> Result<Option<i64>> {
    if client.query_opt(MAY_READ_TOKEN, &[]).await.map_err(from_sql)?.is_none() {
        return Ok(None);
    }
    let row = client.query_opt("SELECT last_value FROM frazil.token", &[]).await;
    Ok(row.map_err(from_sql)?.map(|row| row.get(0)))
}

const MAY_READ_TOKEN: &str = "\
    SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname = 'frazil' AND c.relname = 'token' AND c.relkind = 'S' \
      AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
      AND pg_catalog.has_sequence_privilege(c.oid, 'SELECT')";

/// Installs it in one source transaction, over whatever version is there.
pub async fn install_ddl_capture(client: &Client) -> Result<()> {
    in_one_transaction(client, INSTALL_SQL).await
}

/// Removes it in one source transaction; nothing happens where there is none.
pub async fn remove_ddl_capture(client: &Client) -> Result<()> {
    in_one_transaction(client, REMOVE_SQL).await
}

/// Several statements in one query are one transaction.
async fn in_one_transaction(client: &Client, sql: &str) -> Result<()> {
    client.batch_execute(sql).await.map_err(|error| {
        let code = error.code().map(tokio_postgres::error::SqlState::code);
        match (code, error.as_db_error()) {
            (Some("42501"), Some(said)) => {
                Error::config("DDL_CAPTURE_RIGHTS", said.message().to_owned()).with_cure(RIGHTS)
            }
            (Some("0A000"), Some(said)) => Error::config("DDL_CAPTURE", said.message().to_owned())
                .with_cure("frazil works without it: it looks at the catalog instead"),
            _ => from_sql(error),
        }
    })
}
