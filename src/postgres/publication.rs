//! Publications: made, looked at, dropped.
//!
//! Source of the rules: Postgres manual, CREATE PUBLICATION. A publication is always made before
//! the slot (case 24).

use tokio_postgres::Client;

use crate::error::Result;
use crate::postgres::quote::{identifier, qualified};
use crate::postgres::server_error::from_sql;

/// What a publication sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish {
    /// INSERT
    pub insert: bool,
    /// UPDATE
    pub update: bool,
    /// DELETE
    pub delete: bool,
    /// TRUNCATE
    pub truncate: bool,
}

impl Publish {
    /// Everything: a mirror needs it (case 112).
    pub const ALL: Self = Self { insert: true, update: true, delete: true, truncate: true };
    /// For tables without a key, whose UPDATEs Postgres would otherwise refuse (case 73).
    pub const INSERT_ONLY: Self =
        Self { insert: true, update: false, delete: false, truncate: true };

    fn list(self) -> String {
        self.names(true)
    }

    /// What it does not send, for people: with any of it the lake can't be exact (case 112).
    pub fn left_out(self) -> Option<String> {
        Some(self.names(false)).filter(|names| !names.is_empty())
    }

    fn names(self, wanted: bool) -> String {
        let all = [
            (self.insert, "insert"),
            (self.update, "update"),
            (self.delete, "delete"),
            (self.truncate, "truncate"),
        ];
        let names: Vec<_> =
            all.iter().filter(|(on, _)| *on == wanted).map(|(_, name)| *name).collect();
        names.join(", ")
    }
}

/// A publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicationInfo {
    /// What it sends.
    pub publish: Publish,
    /// `publish_via_partition_root`.
    pub via_root: bool,
    /// FOR ALL TABLES.
    pub all_tables: bool,
}

/// The publication called `name`, if there is one.
pub async fn publication_info(client: &Client, name: &str) -> Result<Option<PublicationInfo>> {
    let sql = "\
        SELECT pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, puballtables \
        FROM pg_catalog.pg_publication WHERE pubname = $1::text";
    let row = client.query_opt(sql, &[&name]).await.map_err(from_sql)?;
    Ok(row.map(|row| PublicationInfo {
        publish: Publish {
            insert: row.get(0),
            update: row.get(1),
            delete: row.get(2),
            truncate: row.get(3),
        },
        via_root: row.get(4),
        all_tables: row.get(5),
    }))
}

/// The statement that makes the publication, to run or to show.
pub fn create_publication_sql(
    name: &str,
    tables: &[(String, String)],
    publish: Publish,
    via_root: bool,
) -> String {
    let tables: Vec<_> = tables.iter().map(|(schema, table)| qualified(schema, table)).collect();
    // Without a list the publication is empty, and tables can be added later.
    let tables = match tables.as_slice() {
        [] => String::new(),
        tables => format!(" FOR TABLE {}", tables.join(", ")),
    };
    format!(
        "CREATE PUBLICATION {}{tables} WITH (publish = '{}', publish_via_partition_root = {via_root})",
        identifier(name),
        publish.list()
    )
}

/// Makes a publication of `tables`, each schema and name.
pub async fn create_publication(
    client: &Client,
    name: &str,
    tables: &[(String, String)],
    publish: Publish,
    via_root: bool,
) -> Result<()> {
    let sql = create_publication_sql(name, tables, publish, via_root);
    client.batch_execute(&sql).await.map_err(from_sql)
}

/// Drops the publication, if it is there.
pub async fn drop_publication(client: &Client, name: &str) -> Result<()> {
    let sql = format!("DROP PUBLICATION IF EXISTS {}", identifier(name));
    client.batch_execute(&sql).await.map_err(from_sql)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        let tables = [("public".to_owned(), "a".to_owned()), ("S".to_owned(), "x\"y".to_owned())];
        assert_eq!(
            create_publication_sql("p q", &tables, Publish::INSERT_ONLY, false),
            "CREATE PUBLICATION \"p q\" FOR TABLE \"public\".\"a\", \"S\".\"x\"\"y\" WITH \
             (publish = 'insert, truncate', publish_via_partition_root = false)"
        );
    }
}
