//! Which tables there are, and why some of them cannot be replicated.
//!
//! Source of the rules: Postgres manual, "Logical Replication, Restrictions".

use tokio_postgres::Client;

use crate::error::Result;
use crate::postgres::quote::{identifier, qualified};
use crate::postgres::server_error::from_sql;

/// A relation a person might mean when saying "all tables".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateTable {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Schema.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Why it cannot be replicated; `None`: it can.
    pub obstacle: Option<Obstacle>,
    /// UPDATE and DELETE can be addressed (a primary key, an identity index, or FULL).
    pub has_identity: bool,
    /// The role may SELECT from it.
    pub readable: bool,
    /// Row level security would hide rows from the role (case 141).
    pub row_security: bool,
    /// The role owns it, itself or through membership: needed to publish it.
    pub owned: bool,
    /// `pg_table_size` in bytes; 0 for what has no files.
    pub bytes: i64,
}

/// Why a relation cannot be replicated by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// A view has no rows of its own
    View,
    /// Postgres does not publish them
    MaterializedView,
    /// Its rows are elsewhere
    ForeignTable,
    /// UNLOGGED: writes no WAL
    Unlogged,
    /// TEMPORARY: belongs to one session
    Temporary,
    /// Its rows are in its partitions, which are listed themselves
    PartitionedParent,
    /// Part of Postgres
    System,
}

impl Obstacle {
    /// One sentence for people.
    pub fn reason(self) -> &'static str {
        match self {
            Self::View => "a view has no rows of its own: replicate the tables below it",
            Self::MaterializedView => "Postgres does not publish materialized views",
            Self::ForeignTable => "a foreign table's rows are in another server",
            Self::Unlogged => "an UNLOGGED table writes no WAL: ALTER TABLE ... SET LOGGED",
            Self::Temporary => "a temporary table belongs to one session",
            Self::PartitionedParent => "a partitioned table's rows are in its partitions",
            Self::System => "a system table",
        }
    }
}

/// Every relation outside the system schemas that holds or shows rows, by schema and name.
pub async fn candidate_tables(client: &Client) -> Result<Vec<CandidateTable>> {
    let rows = client.query(CANDIDATES, &[]).await.map_err(from_sql)?;
    Ok(rows
        .iter()
        .map(|row| CandidateTable {
            oid: row.get("oid"),
            namespace: row.get("namespace"),
            name: row.get("name"),
            obstacle: obstacle(row.get("kind"), row.get("persistence"), row.get("oid")),
            has_identity: row.get("has_identity"),
            readable: row.get("readable"),
            row_security: row.get("row_security"),
            owned: row.get("owned"),
            bytes: row.get("bytes"),
        })
        .collect())
}

impl CandidateTable {
    /// What `user` must be given to read all rows of it, and why; `None`: nothing.
    pub fn lacking_right(&self, user: &str) -> Option<(String, String)> {
        let (user, place) = (identifier(user), qualified(&self.namespace, &self.name));
        if !self.readable {
            let schema = identifier(&self.namespace);
            let what = format!("role {user} may not read {place}");
            let cure = format!(
                "GRANT USAGE ON SCHEMA {schema} TO {user}; GRANT SELECT ON {place} TO {user}"
            );
            return Some((what, cure));
        }
        self.row_security.then(|| {
            let what = format!("row level security hides rows of {place} from role {user}");
            let cure = format!(
                "ALTER ROLE {user} BYPASSRLS; or ALTER TABLE {place} DISABLE ROW LEVEL SECURITY"
            );
            (what, cure)
        })
    }
}

/// Oid, schema and name of what `publication` shows.
pub async fn published_tables(
    client: &Client,
    publication: &str,
) -> Result<Vec<(u32, String, String)>> {
    let sql = "\
        SELECT c.oid, t.schemaname::text, t.tablename::text \
        FROM pg_catalog.pg_publication_tables t \
        JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname \
        JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename \
        WHERE t.pubname = $1 ORDER BY 2, 3";
    let rows = client.query(sql, &[&publication]).await.map_err(from_sql)?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

/// A table may be dropped while this runs: the snapshot still has it, the functions say NULL.
const CANDIDATES: &str = "\
    SELECT c.oid, n.nspname::text AS namespace, c.relname::text AS name, \
           c.relkind::text AS kind, c.relpersistence::text AS persistence, \
           coalesce(pg_catalog.has_table_privilege(c.oid, 'SELECT') \
             AND pg_catalog.has_schema_privilege(n.oid, 'USAGE'), true) AS readable, \
           pg_catalog.row_security_active(c.oid) AS row_security, \
           pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned, \
           coalesce(CASE WHEN c.relkind IN ('r', 'm') THEN pg_catalog.pg_table_size(c.oid) END, 0) \
             AS bytes, \
           CASE c.relreplident WHEN 'f' THEN true WHEN 'n' THEN false \
             ELSE EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid \
                          AND i.indisvalid AND i.indimmediate \
                          AND CASE c.relreplident WHEN 'd' THEN i.indisprimary \
                              ELSE i.indisreplident END) END AS has_identity \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') \
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
      AND n.nspname !~ '^pg_(toast|temp)' \
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d \
                      WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid \
                        AND d.deptype = 'e') \
    ORDER BY 2, 3";

/// Oids below this belong to what initdb made (`FirstNormalObjectId`).
const FIRST_NORMAL_OID: u32 = 16_384;

fn obstacle(kind: &str, persistence: &str, oid: u32) -> Option<Obstacle> {
    match (kind, persistence) {
        _ if oid < FIRST_NORMAL_OID => Some(Obstacle::System),
        ("v", _) => Some(Obstacle::View),
        ("m", _) => Some(Obstacle::MaterializedView),
        ("f", _) => Some(Obstacle::ForeignTable),
        ("p", _) => Some(Obstacle::PartitionedParent),
        (_, "u") => Some(Obstacle::Unlogged),
        (_, "t") => Some(Obstacle::Temporary),
        _ => None,
    }
}
