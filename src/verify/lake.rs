//! The lake's side: one state of all tables, and its rows by frazil's own merge-on-read reader.

use std::collections::HashMap;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use iceberg::table::Table;

use crate::error::{Error, Result};
use crate::iceberg::lake::Lake;
use crate::iceberg::ledger::LedgerRecord;
use crate::iceberg::read::{LiveRows, field_id};
use crate::iceberg::schema::{RAW_COLUMN, RAW_FIELD_ID};
use crate::iceberg::{OID_KEY, layout, table_ident};
use crate::pipeline::{FACTS_KEY, SourceFacts};
use crate::verify::cells::Cells;
use crate::verify::duckdb::DuckRows;
use crate::verify::forms::Form;
use crate::verify::source::{Subject, TextRow};
use crate::window::relation::{self, PgType};

/// How often all tables are looked at again because a lake commit came between.
const PINS_MAX: u32 = 200;
/// The pause before that.
const PAUSE: Duration = Duration::from_millis(10);
/// Field ids of a column differ by multiples of this: the versions of its type.
const FIELD_VERSIONS: i32 = 100_000;

/// All tables in one state: P and what the catalog held when it stood there.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) ledger: LedgerRecord,
    tables: HashMap<u32, Table>,
}

impl Pinned {
    /// Reads P, all tables, and P again, until nothing came between.
    ///
    /// # Errors
    /// `NO_POSITION` (fatal), `LAKE_BUSY` (transient), and those of the catalog.
    pub(super) async fn new(lake: &Lake, subjects: &[Subject]) -> Result<Self> {
        for _ in 0..PINS_MAX {
            let ledger = position(lake).await?;
            let tables = tables(lake, subjects).await?;
            if position(lake).await?.lake_commit == ledger.lake_commit {
                return Ok(Self { ledger, tables });
            }
            tokio::time::sleep(PAUSE).await;
        }
        let what = "lake commits come faster than all tables can be looked at";
        Err(Error::transient("LAKE_BUSY", what).with_cure("fewer tables at a time: --tables"))
    }

    /// The lake table of a source table, if there is one.
    pub(super) fn table(&self, oid: u32) -> Option<&Table> {
        self.tables.get(&oid)
    }
}

/// Where the lake stands.
pub(super) async fn position(lake: &Lake) -> Result<LedgerRecord> {
    lake.committer.position().await?.ok_or_else(|| {
        Error::fatal("NO_POSITION", "the lake has no position: there is nothing to verify yet")
            .with_cure("let `frazil run` finish its initial snapshot")
    })
}

/// The tables by the oid they are bound to, wherever they are in the lake.
async fn tables(lake: &Lake, subjects: &[Subject]) -> Result<HashMap<u32, Table>> {
    let mut found = HashMap::new();
    let mut elsewhere = Vec::new();
    for subject in subjects {
        let relation = &subject.table.relation;
        let ident = table_ident(&relation.namespace, &relation.name);
        match lake.committer.table(&ident).await?.filter(|t| bound_to(t) == Some(relation.oid)) {
            Some(table) => _ = found.insert(relation.oid, table),
            None => elsewhere.push(relation.oid),
        }
    }
    if !elsewhere.is_empty() {
        for ident in lake.committer.tables().await? {
            let Some(table) = lake.committer.table(&ident).await? else { continue };
            if let Some(oid) = bound_to(&table).filter(|oid| elsewhere.contains(oid)) {
                found.insert(oid, table);
            }
        }
    }
    Ok(found)
}

fn bound_to(table: &Table) -> Option<u32> {
    table.metadata().properties().get(OID_KEY)?.parse().ok()
}

/// The source table as the lake knows it.
pub(super) fn facts(table: &Table) -> Option<SourceFacts> {
    serde_json::from_str(table.metadata().properties().get(FACTS_KEY)?).ok()
}

/// How the lake stores a column: a setting may have chosen another type than the usual one.
fn kept<'a>(column: &'a relation::Column, facts: &'a Option<SourceFacts>) -> &'a PgType {
    let known = facts.iter().flat_map(|facts| &facts.relation.columns);
    let known = known.filter(|known| known.attnum == column.attnum);
    known.map(|known| &known.pg_type).next().unwrap_or(&column.pg_type)
}

/// Whether a field is a column's, and not one of frazil's own.
fn is_column(id: i32) -> bool {
    !(RAW_FIELD_ID..=relation::HIDDEN_KEY_FIELD_ID).contains(&id)
}

/// How one source column is compared.
#[derive(Debug)]
enum Column {
    /// With this column of the lake's batches.
    With(usize, Form),
    /// The lake has no such column yet: every value should be NULL.
    Absent,
    /// Not at all.
    Not,
}

/// How the rows of one table are compared.
#[derive(Debug)]
pub(super) struct Columns {
    columns: Vec<Column>,
    names: Vec<String>,
    raw: Option<usize>,
    /// Places of the key among the columns; empty where rows are told apart by all of them.
    pub(super) key: Vec<usize>,
    /// What a reader of the report should know.
    pub(super) notes: Vec<String>,
    /// Columns that are not compared.
    pub(super) skipped: Vec<String>,
}

impl Columns {
    /// For this source table and its lake table.
    ///
    /// # Errors
    /// `LAKE_METADATA` (fatal).
    pub(super) fn new(subject: &Subject, table: Option<&Table>) -> Result<Self> {
        let relation = &subject.table.relation;
        let names: Vec<String> = relation.columns.iter().map(|c| c.name.clone()).collect();
        let (mut notes, mut skipped) = (Vec::new(), Vec::new());
        let Some(table) = table else {
            let columns = relation.columns.iter().map(|_| Column::Absent).collect();
            notes.push("the lake has no such table".to_owned());
            let key = relation.key.clone();
            return Ok(Self { columns, names, raw: None, key, notes, skipped });
        };
        let arrow = layout::arrow_schema(table.metadata().current_schema())?;
        let facts = facts(table);
        let ids: Vec<Option<i32>> = arrow.fields().iter().map(field_id).collect();
        let mut columns = Vec::with_capacity(names.len());
        for column in &relation.columns {
            let of_column = ids.iter().enumerate().filter(|(_, id)| {
                id.is_some_and(|id| {
                    id % FIELD_VERSIONS == i32::from(column.attnum) && is_column(id)
                })
            });
            let newest = of_column.max_by_key(|(_, id)| **id).map(|(at, _)| at);
            let field = newest.and_then(|at| Some((at, arrow.fields().get(at)?)));
            columns.push(match field {
                None => {
                    notes.push(format!("the lake has no column {} yet", column.name));
                    Column::Absent
                }
                Some((at, field)) => match Form::of(kept(column, &facts), field.data_type()) {
                    Some(form) => Column::With(at, form),
                    None => {
                        skipped.push(column.name.clone());
                        Column::Not
                    }
                },
            });
        }
        let raw = arrow.fields().iter().position(|field| field.name() == RAW_COLUMN);
        let comparable = |at: &usize| matches!(columns.get(*at), Some(Column::With(..)));
        let key = match relation.key.iter().all(comparable) {
            true => relation.key.clone(),
            false => Vec::new(),
        };
        Ok(Self { columns, names, raw, key, notes, skipped })
    }

    /// Names of the columns.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// The canonical form of a source row.
    pub(super) fn source_cells(&self, row: &TextRow<'_>, cells: &mut Cells) {
        cells.clear();
        for (at, column) in self.columns.iter().enumerate() {
            match (column, row.get(at).copied().flatten()) {
                (Column::Not, _) | (_, None) => cells.null(),
                (Column::Absent, Some(text)) => cells.value(|into| into.extend_from_slice(text)),
                (Column::With(_, form), Some(text)) => {
                    cells.value(|into| form.write_text(text, into));
                }
            }
        }
    }

    /// The canonical form of a lake row.
    ///
    /// # Errors
    /// `VERIFY_VALUE` (fatal).
    pub(super) fn lake_cells(
        &self,
        batch: &RecordBatch,
        row: usize,
        cells: &mut Cells,
    ) -> Result<()> {
        cells.clear();
        let raw = self.raw.and_then(|at| batch.columns().get(at)).filter(|raw| raw.is_valid(row));
        for (column, name) in self.columns.iter().zip(&self.names) {
            let Column::With(at, form) = column else {
                cells.null();
                continue;
            };
            let array = batch.columns().get(*at).ok_or_else(|| {
                Error::fatal("VERIFY_VALUE", "a batch lacks a column").with_column(name)
            })?;
            if array.is_valid(row) {
                let written = cells.value(|into| form.write_lake(array, row, into));
                written.map_err(|e| e.with_column(name))?;
            } else if let Some(text) = raw.and_then(|raw| raw_text(raw, row, name)) {
                cells.value(|into| form.write_text(text.as_bytes(), into));
            } else {
                cells.null();
            }
        }
        Ok(())
    }
}

/// The Postgres text that `_pg_raw` has for a column.
fn raw_text(raw: &arrow_array::ArrayRef, row: usize, name: &str) -> Option<String> {
    let entries = raw.as_map_opt()?.value(row);
    let (keys, values) = (entries.column(0), entries.column(1));
    let (keys, values) = (keys.as_string_opt::<i32>()?, values.as_string_opt::<i32>()?);
    let at = keys.iter().position(|key| key == Some(name))?;
    values.is_valid(at).then(|| values.value(at).to_owned())
}

/// Gives every live row of a table to `each`.
///
/// # Errors
/// `LAKE_IO` (transient), `VERIFY_VALUE` (fatal), and those of `each`.
pub(super) async fn rows(
    (lake, reader): (&Lake, &Reader),
    table: Option<&Table>,
    columns: &Columns,
    each: &mut (dyn FnMut(&Cells) -> Result<()> + Send),
) -> Result<()> {
    let Some(table) = table else { return Ok(()) };
    let mut rows = Rows::open(lake, reader, table).await?;
    let mut cells = Cells::default();
    while let Some(batch) = rows.next().await? {
        for row in 0..batch.num_rows() {
            columns.lake_cells(&batch, row, &mut cells)?;
            each(&cells)?;
        }
    }
    Ok(())
}

/// Who reads the lake.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Reader {
    /// frazil's own merge on read.
    #[default]
    Frazil,
    /// DuckDB's, by this program.
    DuckDb(String),
}

/// The rows of one table.
enum Rows {
    Frazil(Box<LiveRows>),
    DuckDb(Box<DuckRows>),
}

impl Rows {
    async fn open(lake: &Lake, reader: &Reader, table: &Table) -> Result<Self> {
        Ok(match reader {
            Reader::Frazil => Self::Frazil(Box::new(LiveRows::open(&lake.storage, table).await?)),
            Reader::DuckDb(program) => {
                Self::DuckDb(Box::new(DuckRows::open(program, table).await?))
            }
        })
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        match self {
            Self::Frazil(rows) => rows.next().await,
            Self::DuckDb(rows) => rows.next(),
        }
    }
}
