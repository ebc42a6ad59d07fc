//! The source's side: tables read through the exported snapshot, as text, by COPY.

use std::collections::HashMap;

use bytes::Bytes;
use futures::{StreamExt, pin_mut};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::config::Settings;
use crate::error::{Error, Result};
use crate::postgres::catalog::{self, SourceTable};
use crate::postgres::dsn::Source;
use crate::postgres::publication::publication_info;
use crate::postgres::quote::{identifier, literal, qualified};
use crate::postgres::server_error::from_sql;
use crate::postgres::sql::connect_sql;
use crate::verify::overlay::{Key, Overlay, TableOverlay, key_of};

/// A row of the source as text, in column order.
pub(super) type TextRow<'a> = [Option<&'a [u8]>];

/// A source table to be verified.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) table: SourceTable,
    /// Only inserts are published: the lake is not meant to follow the rest.
    pub(super) insert_only: bool,
}

impl Subject {
    pub(super) fn oid(&self) -> u32 {
        self.table.relation.oid
    }

    /// `namespace.name`.
    pub(super) fn name(&self) -> String {
        self.table.relation.display()
    }

    /// Places of the key columns.
    pub(super) fn key(&self) -> &[usize] {
        &self.table.relation.key
    }

    /// Names and type oids, as a Relation message shows them.
    pub(super) fn described(&self) -> Vec<(String, u32)> {
        let columns = self.table.relation.columns.iter();
        columns.map(|column| (column.name.clone(), column.type_oid)).collect()
    }

    fn statement(&self) -> String {
        let relation = &self.table.relation;
        let columns: Vec<String> =
            relation.columns.iter().map(|column| identifier(&column.name)).collect();
        let filter =
            self.table.row_filter.as_ref().map_or(String::new(), |f| format!(" WHERE ({f})"));
        // A partitioned table's rows are in its partitions.
        let only = if self.table.kind == 'p' { "" } else { "ONLY " };
        let name = qualified(&relation.namespace, &relation.name);
        format!("COPY (SELECT {} FROM {only}{name}{filter}) TO STDOUT", columns.join(", "))
    }
}

/// The publications of this pipeline that exist: that of the tables with a key first.
///
/// # Errors
/// `PUBLICATION_MISSING` (config).
pub(super) async fn publications(client: &Client, settings: &Settings) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in [settings.publication.clone(), settings.append_publication()] {
        if publication_info(client, &name).await?.is_some() {
            found.push(name);
        }
    }
    if found.is_empty() {
        let what = format!("the publication {} does not exist", settings.publication);
        return Err(Error::config("PUBLICATION_MISSING", what)
            .with_cure("name the one that the lake is written from: --publication"));
    }
    Ok(found)
}

/// A connection that sees the exported snapshot, for as long as it lives.
pub(super) async fn import(source: &Source, snapshot: &str) -> Result<Client> {
    let client = connect_sql(source, "verify").await?;
    let begin = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
        literal(snapshot)
    );
    client.batch_execute(&begin).await.map_err(from_sql)?;
    Ok(client)
}

/// The published tables that `--tables` selects, as the snapshot has them, by name.
///
/// # Errors
/// `NO_TABLES` (config).
pub(super) async fn subjects(
    client: &Client,
    publications: &[String],
    settings: &Settings,
) -> Result<Vec<Subject>> {
    let mut insert_only: HashMap<u32, bool> = HashMap::new();
    for name in publications {
        let Some(info) = publication_info(client, name).await? else { continue };
        let only = !(info.publish.update && info.publish.delete);
        let shown =
            catalog::load_relations(client, std::slice::from_ref(name), None, &settings.types)
                .await?;
        for table in shown {
            let is_only = insert_only.entry(table.relation.oid).or_insert(true);
            *is_only &= only;
        }
    }
    let tables = catalog::load_relations(client, publications, None, &settings.types).await?;
    let chosen = tables
        .into_iter()
        .filter(|t| settings.tables.selects(&t.relation.namespace, &t.relation.name));
    let mut subjects: Vec<Subject> = chosen
        .map(|table| {
            let insert_only = insert_only.get(&table.relation.oid).copied().unwrap_or_default();
            Subject { table, insert_only }
        })
        .collect();
    if subjects.is_empty() {
        let what = format!("no table of the publication matches --tables {}", settings.tables);
        return Err(Error::config("NO_TABLES", what)
            .with_cure("see what is published: SELECT * FROM pg_publication_tables"));
    }
    subjects.sort_by_key(Subject::name);
    Ok(subjects)
}

/// What came of [`lock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Locked {
    /// All tables are locked, and in the files that the snapshot knows.
    Yes,
    /// One was rewritten since the snapshot, so it reads empty (case 134).
    Rewritten,
    /// Somebody has a stronger lock. The locks taken so far go with the transaction.
    Busy,
}

/// Takes ACCESS SHARE, which only an ALTER, TRUNCATE or DROP waits for, and never waits itself: two
/// that wait for each other are a deadlock, and Postgres might end the other one.
pub(super) async fn lock(client: &Client, subjects: &[Subject]) -> Result<Locked> {
    let names = subjects.iter().map(|s| {
        let relation = &s.table.relation;
        qualified(&relation.namespace, &relation.name)
    });
    let names: Vec<String> = names.collect();
    for chunk in names.chunks(500) {
        let lock = format!("LOCK TABLE {} IN ACCESS SHARE MODE NOWAIT", chunk.join(", "));
        match client.batch_execute(&lock).await {
            Ok(()) => {}
            Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => return Ok(Locked::Busy),
            Err(e) => return Err(from_sql(e)),
        }
    }
    const REWRITTEN: &str = "\
        SELECT count(*) FROM unnest($1::oid[]) AS root(oid), \
             LATERAL (SELECT root.oid UNION \
                      SELECT relid::oid FROM pg_catalog.pg_partition_tree(root.oid)) AS part(oid) \
        JOIN pg_catalog.pg_class c ON c.oid = part.oid \
        WHERE c.relfilenode <> 0 \
          AND c.relfilenode IS DISTINCT FROM pg_catalog.pg_relation_filenode(c.oid)";
    let oids: Vec<u32> = subjects.iter().map(Subject::oid).collect();
    let row = client.query_one(REWRITTEN, &[&oids]).await.map_err(from_sql)?;
    Ok(if row.get::<_, i64>(0) == 0 { Locked::Yes } else { Locked::Rewritten })
}

/// TOAST values that changed rows have from their snapshot rows, by the latter's key.
type Originals = HashMap<Key, Option<Vec<Option<Bytes>>>>;

/// What the lake must hold of one table: the snapshot's rows with the overlay on them.
pub(super) struct Expected<'a> {
    client: &'a Client,
    subject: &'a Subject,
    overlay: &'a TableOverlay,
    originals: Originals,
}

impl<'a> Expected<'a> {
    /// # Errors
    /// `VERIFY_STREAM` (fatal) for a table that the overlay was not made for.
    pub(super) fn new(
        client: &'a Client,
        subject: &'a Subject,
        overlay: &'a Overlay,
    ) -> Result<Self> {
        let overlay = overlay.table(subject.oid()).ok_or_else(no_original)?;
        Ok(Self { client, subject, overlay, originals: overlay.origins() })
    }

    /// Gives every row to `each`, with how often it is there; without a key it may be taken away
    /// again.
    ///
    /// # Errors
    /// Those of the connection, of `each`, and `VERIFY_STREAM` (fatal) where the stream speaks of a
    /// row that is nowhere.
    pub(super) async fn rows(
        &mut self,
        each: &mut (dyn FnMut(&TextRow<'_>, i64) -> Result<()> + Send),
    ) -> Result<()> {
        let statement = self.subject.statement();
        let columns = self.subject.table.relation.columns.len();
        let stream = self.client.copy_out(&statement).await.map_err(from_sql)?;
        pin_mut!(stream);
        let mut line = Line::default();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(from_sql)?;
            line.read(&chunk)?;
            let mut row = line.row();
            // A line without columns is an empty one all the same.
            row.truncate(columns);
            if !self.is_overlaid(&row) {
                each(&row, 1)?;
            }
        }
        self.overlaid(each)
    }

    /// Whether the overlay decides about this row of the snapshot.
    fn is_overlaid(&mut self, row: &TextRow<'_>) -> bool {
        if self.overlay.truncated {
            return true;
        }
        if self.overlay.rows.is_empty() {
            return false;
        }
        let key = key_of(self.subject.key().iter().map(|&at| row.get(at).copied().flatten()));
        if let Some(original) = self.originals.get_mut(&key) {
            let copied = row.iter().map(|cell| cell.map(Bytes::copy_from_slice));
            original.get_or_insert_with(|| copied.collect());
        }
        self.overlay.rows.contains_key(&key)
    }

    fn overlaid(
        &self,
        each: &mut (dyn FnMut(&TextRow<'_>, i64) -> Result<()> + Send),
    ) -> Result<()> {
        use crate::verify::wire::Cell;
        for row in self.overlay.rows.values().flatten() {
            let original = self.originals.get(&row.origin).and_then(Option::as_ref);
            let mut cells: Vec<Option<&[u8]>> = Vec::with_capacity(row.cells.len());
            for (at, cell) in row.cells.iter().enumerate() {
                cells.push(match cell {
                    Cell::Unchanged => {
                        let lent = original.and_then(|row| row.get(at)).ok_or_else(no_original)?;
                        lent.as_deref()
                    }
                    cell => cell.text(),
                });
            }
            each(&cells, 1)?;
        }
        for (row, &count) in self.overlay.loose.iter().filter(|(_, count)| **count != 0) {
            let cells: Vec<Option<&[u8]>> = row.iter().map(Cell::text).collect();
            each(&cells, count)?;
        }
        Ok(())
    }
}

fn no_original() -> Error {
    Error::fatal("VERIFY_STREAM", "the stream leaves a value as it was in a row that is nowhere")
}

/// One line of COPY's text format (Postgres manual, COPY, Text Format).
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    fields: Vec<Option<(usize, usize)>>,
}

impl Line {
    /// Reads a CopyData message, which is one line.
    fn read(&mut self, chunk: &[u8]) -> Result<()> {
        let cut_short = || Error::fatal("VERIFY_STREAM", "COPY sent something else than lines");
        self.bytes.clear();
        self.fields.clear();
        let line = chunk.strip_suffix(b"\n").ok_or_else(cut_short)?;
        for field in line.split(|&byte| byte == b'\t') {
            if field == b"\\N" {
                self.fields.push(None);
                continue;
            }
            let start = self.bytes.len();
            unescape(field, &mut self.bytes);
            self.fields.push(Some((start, self.bytes.len())));
        }
        Ok(())
    }

    fn row(&self) -> Vec<Option<&[u8]>> {
        let cell = |place: &Option<(usize, usize)>| {
            place.map(|(start, end)| self.bytes.get(start..end).unwrap_or_default())
        };
        self.fields.iter().map(cell).collect()
    }
}

fn unescape(field: &[u8], into: &mut Vec<u8>) {
    let mut bytes = field.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            into.push(byte);
            continue;
        }
        into.push(match bytes.next() {
            Some(b'b') => 8,
            Some(b't') => b'\t',
            Some(b'n') => b'\n',
            Some(b'v') => 11,
            Some(b'f') => 12,
            Some(b'r') => b'\r',
            Some(other) => other,
            None => b'\\',
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_copy_is_taken_apart() {
        let mut line = Line::default();
        line.read(b"a\\tb\t\\N\t\t\\\\N\\n\n").unwrap();
        let want: [Option<&[u8]>; 4] = [Some(b"a\tb"), None, Some(b""), Some(b"\\N\n")];
        assert_eq!(line.row(), want);
        assert!(line.read(b"no end").is_err());
    }
}
