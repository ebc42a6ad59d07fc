//! Whether the tables and publications of a source can be replicated as they are.
//!
//! Source of the rules: Postgres manual, "Logical Replication": "Publication", "Row Filters",
//! "Restrictions"; cases 70-74, 110-112.

use tokio_postgres::Client;

use crate::error::Result;
use crate::postgres::catalog::{SourceTable, load_relations, load_unpublished};
use crate::postgres::check::{Finding, Wanted};
use crate::postgres::dsn::Source;
use crate::postgres::publication::publication_info;
use crate::postgres::quote::{identifier, qualified};
use crate::postgres::server_error::from_sql;
use crate::postgres::tables::{CandidateTable, candidate_tables};
use crate::window::relation::ReplicaIdentity;

/// What the publications leave out.
pub(super) async fn check_publications(
    client: &Client,
    publications: &[String],
    findings: &mut Vec<Finding>,
) -> Result<()> {
    for name in publications {
        let Some(info) = publication_info(client, name).await? else { continue };
        if let Some(missing) = info.publish.left_out() {
            let what = format!(
                "publication `{name}` leaves out {missing}: the lake will differ from the source \
                 where these happen"
            );
            let cure = format!(
                "ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate'); right as \
                 it is for tables without a key",
                identifier(name)
            );
            findings.push(Finding::warning("PUBLISH_OPTIONS", what, cure));
        }
    }
    Ok(())
}

/// What is the matter with the wanted tables.
pub(super) async fn check_tables(
    client: &Client,
    source: &Source,
    wanted: Wanted<'_>,
    to_publish: bool,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let all = candidate_tables(client).await?;
    let named = |table: &CandidateTable| wanted.tables.contains(&table.oid);
    let mut chosen = Vec::new();
    for table in all.iter().filter(|table| wanted.tables.is_empty() || named(table)) {
        match table.obstacle {
            None => chosen.push(table),
            Some(obstacle) => {
                let what = format!("{} is left out: {}", place(table), obstacle.reason());
                let finding = if named(table) {
                    Finding::warning("TABLE_SKIPPED", what, "take it off the list of tables")
                } else {
                    Finding::info("TABLE_SKIPPED", what)
                };
                findings.push(finding);
            }
        }
    }
    findings.extend(other_objects(client).await?);
    if chosen.is_empty() {
        let what = "there is no table to replicate";
        findings.push(Finding::blocking("NO_TABLES", what, "choose tables, or create some"));
    }
    for table in &chosen {
        check_rights(table, source, to_publish, findings);
    }
    let oids: Vec<u32> = chosen.iter().map(|table| table.oid).collect();
    let mut tables = load_relations(client, wanted.publications, Some(&oids), wanted.types).await?;
    let published: Vec<u32> = tables.iter().map(|table| table.relation.oid).collect();
    let rest: Vec<u32> = oids.into_iter().filter(|oid| !published.contains(oid)).collect();
    tables.extend(load_unpublished(client, &rest, wanted.types).await?);
    for table in &tables {
        check_identity(table, findings);
        check_filter(table, findings);
        check_columns(table, findings);
    }
    Ok(())
}

/// Sequences and large objects, whose changes no publication shows (case 86).
async fn other_objects(client: &Client) -> Result<Option<Finding>> {
    let sql = "SELECT (SELECT count(*) FROM pg_catalog.pg_class c \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind = 'S' AND n.nspname !~ '^pg_temp'), \
               (SELECT count(*) FROM pg_catalog.pg_largeobject_metadata)";
    let row = client.query_one(sql, &[]).await.map_err(from_sql)?;
    let (sequences, objects): (i64, i64) = (row.get(0), row.get(1));
    if sequences + objects == 0 {
        return Ok(None);
    }
    let what = format!(
        "Postgres does not publish sequences ({sequences} here; the values they gave are in the \
         rows) nor large objects ({objects} here)"
    );
    Ok(Some(Finding::info("NOT_PUBLISHED", what)))
}

fn place(table: &CandidateTable) -> String {
    qualified(&table.namespace, &table.name)
}

fn check_rights(
    table: &CandidateTable,
    source: &Source,
    to_publish: bool,
    findings: &mut Vec<Finding>,
) {
    let (user, place) = (identifier(&source.user), place(table));
    if let Some((what, cure)) = table.lacking_right(&source.user) {
        findings.push(Finding::blocking("RIGHTS", what, cure));
    }
    if to_publish && !table.owned {
        let what = format!("role {user} does not own {place}, so it cannot publish it");
        let cure = "let the owner create the publication and name it in the configuration, or \
                    GRANT the owner's role";
        findings.push(Finding::blocking("RIGHTS", what, cure));
    }
}

fn check_identity(table: &SourceTable, findings: &mut Vec<Finding>) {
    let relation = &table.relation;
    let place = qualified(&relation.namespace, &relation.name);
    if !table.unpublished_key.is_empty() {
        let hidden = table.unpublished_key.join(", ");
        let what = format!("the publication of {place} leaves out key columns: {hidden}");
        let cure = "add them to the publication's column list";
        findings.push(Finding::blocking("KEY_NOT_PUBLISHED", what, cure));
        return;
    }
    if !relation.key.is_empty() {
        return;
    }
    let add_key = format!("ALTER TABLE {place} ADD PRIMARY KEY (...)");
    if relation.identity == ReplicaIdentity::Full {
        let what = format!(
            "{place} has REPLICA IDENTITY FULL but no (immediate) primary key: to find the rows that \
             are changed, the column `_pg_key` of all its files in the lake is read"
        );
        findings.push(Finding::warning("FULL_WITHOUT_KEY", what, add_key));
        return;
    }
    let why = match (relation.identity, table.deferrable_key) {
        (ReplicaIdentity::Nothing, _) => "has REPLICA IDENTITY NOTHING",
        (_, true) => "has a deferrable primary key, which identifies no row",
        _ => "has no primary key",
    };
    let what = format!("{place} {why}: its INSERTs are appended, by an insert-only publication");
    let cure = format!("{add_key}; or ALTER TABLE {place} REPLICA IDENTITY FULL");
    findings.push(Finding::warning("NO_KEY", what, cure));
}

/// A filter over columns outside the identity makes the application's own UPDATEs fail (42P10).
fn check_filter(table: &SourceTable, findings: &mut Vec<Finding>) {
    let Some(filter) = &table.row_filter else { return };
    let relation = &table.relation;
    if relation.identity == ReplicaIdentity::Full {
        return;
    }
    let place = qualified(&relation.namespace, &relation.name);
    let outside = relation
        .columns
        .iter()
        .enumerate()
        .find(|(i, column)| !relation.key.contains(i) && mentions(filter, &column.name));
    if let Some((_, column)) = outside {
        let what = format!(
            "the row filter of {place} asks for `{}`, which is not in its identity: UPDATE and \
             DELETE on the source fail",
            column.name
        );
        let cure = format!("ALTER TABLE {place} REPLICA IDENTITY FULL, or another filter");
        findings.push(Finding::blocking("ROW_FILTER_IDENTITY", what, cure));
    }
}

/// Whether `name` stands in `filter` as a word. Errs towards yes: a word of a literal counts too.
fn mentions(filter: &str, name: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    filter.match_indices(name).any(|(at, _)| {
        let before = filter.get(..at).and_then(|text| text.chars().next_back());
        let after = filter.get(at + name.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
    })
}

fn check_columns(table: &SourceTable, findings: &mut Vec<Finding>) {
    let relation = &table.relation;
    let place = qualified(&relation.namespace, &relation.name);
    let opaque: Vec<&str> = relation
        .columns
        .iter()
        .filter(|column| !column.pg_type.has_binary_form())
        .map(|column| column.name.as_str())
        .collect();
    if !opaque.is_empty() {
        let what = format!(
            "columns of {place} have types whose binary form is not known ({}): they are stored as \
             text, and the whole stream runs in text mode",
            opaque.join(", ")
        );
        let cure = "leave them out by a publication column list to keep binary mode";
        findings.push(Finding::warning("TEXT_MODE", what, cure));
    }
    let unfit = relation.key.iter().filter_map(|&at| relation.columns.get(at));
    if let Some(column) = unfit.into_iter().find(|column| !column.pg_type.is_key_type()) {
        let what = format!(
            "the key of {place} has a type that Iceberg allows in no key, `{}`: its rows are \
             addressed by a hidden column, `_pg_key`",
            column.name
        );
        findings.push(Finding::info("HIDDEN_KEY", what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_filter() {
        assert!(mentions("(id > 5)", "id"));
        assert!(mentions("((a = 1) OR (\"B c\" = 2))", "B c"));
        assert!(!mentions("(order_id > 5)", "id"));
        assert!(!mentions("(idx > 5)", "id"));
    }
}
