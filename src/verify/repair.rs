//! `--repair`: only the keys that differ are rewritten, by one normal lake commit at the position
//! where the lake stands.
//!
//! Rows of the lake with such a key are deleted by their own key fields, and the source's rows are
//! inserted, decoded as in the stream. The fence is that of every lake commit. Where a running
//! frazil moves P first, the stream is followed to the new P: keys that changed meanwhile are
//! left to frazil, which has just rewritten them, and the rest is committed there. The lake commit
//! bears a name by which that frazil knows it ([`repair_of`]) and goes on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow_array::{BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;

use crate::error::{Error, Result};
use crate::iceberg::committer::{LakeCommit, TableChange};
use crate::iceberg::data_files::{FileContent, FileWriter};
use crate::iceberg::lake::Lake;
use crate::iceberg::ledger::{LedgerRecord, repair_of};
use crate::iceberg::read::{LiveRows, field_id};
use crate::iceberg::row_delta::{RowDelta, SegmentFiles};
use crate::iceberg::schema::{self, GoOn};
use crate::iceberg::{Table, layout};
use crate::pipeline::{DataWriter, ParquetTarget};
use crate::verify::cells::Cells;
use crate::verify::lake::{Columns, facts, position};
use crate::verify::report::Repaired;
use crate::verify::source::{Expected, Subject, TextRow};
use crate::verify::wire::Cell;
use crate::verify::{Compared, Session};

/// Keys of one table that are repaired, at most.
pub(super) const KEYS_MAX: usize = 1_000_000;
/// Rows of one table that are repaired, in bytes, at most.
const BYTES_MAX: usize = 512 << 20;
/// How often P may move under one repair.
const MOVES_MAX: usize = 20;

/// Repairs all tables that differ; gives what was done.
pub(super) async fn repair(
    session: &mut Session<'_>,
    lake: &Arc<Lake>,
    compared: &mut Compared,
) -> Result<Repaired> {
    let mut ledger = compared.pinned.ledger.clone();
    compared.overlay.mark();
    for _ in 0..MOVES_MAX {
        let mut changes = Vec::new();
        let mut repaired =
            Repaired { rows_inserted: 0, keys_deleted: 0, position: ledger.committed_lsn };
        for (at, differing) in &compared.wrong {
            let Some(subject) = session.subjects.get(*at) else { continue };
            let name = subject.name();
            let made = Repair::new(session, lake, compared, subject, differing.keys().copied());
            let change = made.and_then(Repair::change_later).map_err(|e| e.with_table(&name))?;
            let change = Box::pin(change.change()).await.map_err(|e| e.with_table(&name))?;
            for segment in &change.delta.segments {
                repaired.rows_inserted += segment.rows_inserted;
                repaired.keys_deleted += segment.rows_deleted;
            }
            changes.push(change);
        }
        match lake.committer.commit(&lake_commit(&ledger, changes)).await {
            Ok(_) => return Ok(repaired),
            Err(error) if matches!(error.code(), "ANOTHER_WRITER" | "POSITION_MOVED") => {
                tracing::debug!(%error, "the lake moved under the repair");
            }
            Err(error) => return Err(error),
        }
        ledger = position(lake).await?;
        session.follower.start().await?;
        compared.overlay.follow(&mut session.follower, ledger.committed_lsn).await?;
    }
    let what = "lake commits come faster than the repair can be made";
    Err(Error::transient("LAKE_BUSY", what).with_cure("try again when less is written"))
}

fn lake_commit(ledger: &LedgerRecord, changes: Vec<TableChange>) -> LakeCommit {
    let mut record = ledger.clone();
    record.lake_commit = repair_of(ledger.lake_commit);
    record.source_transactions = 0;
    record.rows = changes
        .iter()
        .map(|change| {
            let rows = change.delta.segments.iter().map(|s| s.rows_inserted + s.rows_deleted);
            let ident = &change.ident;
            (format!("{}.{}", ident.namespace().join("."), ident.name()), rows.sum())
        })
        .collect();
    LakeCommit { base: Some(ledger.committed_lsn), ledger: record, changes }
}

fn refused(what: &str) -> Error {
    Error::new(crate::error::Kind::Table, "REPAIR", what)
        .with_cure("let the table be copied afresh: frazil resync TABLE")
}

/// The repair of one table.
struct Repair<'a> {
    lake: &'a Arc<Lake>,
    table: &'a Table,
    columns: Columns,
    compared: &'a Compared,
    expected: Expected<'a>,
    target: Arc<ParquetTarget>,
    /// Keys to rewrite.
    keys: HashSet<u128>,
    /// Copies of a row that the lake lacks, where rows cannot be deleted.
    missing: Option<HashMap<u128, u64>>,
}

impl<'a> Repair<'a> {
    fn new(
        session: &'a Session<'_>,
        lake: &'a Arc<Lake>,
        compared: &'a Compared,
        subject: &'a Subject,
        keys: impl Iterator<Item = u128>,
    ) -> Result<Self> {
        let table = compared.pinned.table(subject.oid());
        let table = table.ok_or_else(|| refused("the lake has no such table"))?;
        let facts =
            facts(table).ok_or_else(|| refused("the lake table does not say its source"))?;
        let here = |columns: &[crate::window::relation::Column]| -> Vec<(i16, String)> {
            columns.iter().map(|column| (column.attnum, column.name.clone())).collect()
        };
        if here(&facts.relation.columns) != here(&subject.table.relation.columns) {
            return Err(refused("the lake table has other columns than the source's"));
        }
        let columns = Columns::new(subject, Some(table))?;
        let mut keys: HashSet<u128> = keys.collect();
        if keys.len() >= KEYS_MAX {
            return Err(refused("too many keys differ to be repaired one by one"));
        }
        untouched(&mut keys, &columns, compared, subject);
        let (location, ident) = (table.metadata().location(), table.identifier().clone());
        let relation = Arc::new(facts.relation);
        let target = Arc::new(ParquetTarget::new(location.to_owned(), ident, relation)?);
        let expected = Expected::new(&session.client, subject, &compared.overlay)?;
        let missing = None;
        Ok(Self { lake, table, columns, compared, expected, target, keys, missing })
    }

    /// Where no field addresses a row, nothing can be deleted, and only what is missing added.
    fn change_later(mut self) -> Result<Self> {
        let schema = self.table.metadata().current_schema();
        if schema.identifier_field_ids().next().is_some() {
            return Ok(self);
        }
        let mut missing = HashMap::new();
        for (key, difference) in self.compared.wrong.iter().flat_map(|(_, differing)| differing) {
            if self.keys.contains(key) {
                if difference.extra + difference.differing > 0 {
                    return Err(refused("a table without a key has rows too much"));
                }
                missing.insert(*key, difference.missing);
            }
        }
        self.missing = Some(missing);
        Ok(self)
    }

    async fn change(mut self) -> Result<TableChange> {
        let rows = self.source_rows().await?;
        let mut writer = DataWriter::new(Arc::clone(self.lake), Arc::clone(&self.target))?;
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for (key, (tuple, count)) in rows {
            let count = match &self.missing {
                Some(missing) => missing.get(&key).copied().unwrap_or(0),
                None => u64::try_from(count).unwrap_or(0),
            };
            for _ in 0..count {
                starts.push(u32::try_from(bytes.len()).map_err(|_| too_large())?);
                bytes.extend_from_slice(&tuple);
            }
        }
        writer.tuples(&bytes, &mut starts).await?;
        let deletes = match self.missing {
            Some(_) => None,
            None => self.lake_keys().await?,
        };
        let (rows_inserted, has_raw) = (writer.rows, writer.has_raw());
        let rows_deleted = deletes.iter().map(iceberg::spec::DataFile::record_count).sum();
        let deletes = deletes.into_iter().collect();
        let data = writer.close().await?;
        let files = SegmentFiles { data, deletes, rows_inserted, rows_deleted, has_raw };
        let before = self.table.metadata().current_schema();
        let schema = schema::evolve(before, &self.target.relation, has_raw, GoOn::Keep)?;
        let delta = RowDelta { segments: vec![files], schema, ..RowDelta::default() };
        Ok(TableChange { ident: self.target.ident.clone(), create: None, delta })
    }

    /// The source's rows with these keys, by the hash of the row: as the stream would send them,
    /// and how often.
    async fn source_rows(&mut self) -> Result<HashMap<u128, (Vec<u8>, i64)>> {
        let mut rows: HashMap<u128, (Vec<u8>, i64)> = HashMap::new();
        let (columns, hasher, keys) = (&self.columns, &self.compared.hasher, &self.keys);
        let (mut cells, mut bytes) = (Cells::default(), 0);
        let mut each = |row: &TextRow<'_>, count: i64| -> Result<()> {
            columns.source_cells(row, &mut cells);
            let identity = hasher.identify(&cells, &columns.key);
            let Some(identity) = identity.filter(|one| keys.contains(&one.key)) else {
                return Ok(());
            };
            let entry = rows.entry(identity.row).or_insert_with(|| {
                let tuple = as_sent(row);
                bytes += tuple.len();
                (tuple, 0)
            });
            entry.1 += count;
            if bytes > BYTES_MAX { Err(too_large()) } else { Ok(()) }
        };
        self.expected.rows(&mut each).await?;
        Ok(rows)
    }

    /// A delete file with the key fields of the lake's rows that have one of these keys.
    async fn lake_keys(&self) -> Result<Option<iceberg::spec::DataFile>> {
        let schema = schema::key_schema(self.table.metadata().current_schema())?;
        let arrow = layout::arrow_schema(&schema)?;
        let (storage, location) = (&self.lake.storage, self.table.metadata().location());
        let (content, hints) = (FileContent::EqualityDeletes, &self.target.delete_hints);
        let mut file = FileWriter::new(storage, location, &schema, content, hints)?;
        let mut live = LiveRows::open(storage, self.table).await?;
        while let Some(batch) = live.next().await? {
            let wrong = self.only_wrong(&batch)?;
            let found = wrong.schema();
            let of_key = arrow.fields().iter().map(|field| {
                let at = found.fields().iter().position(|f| field_id(f) == field_id(field));
                let column = at.and_then(|at| wrong.columns().get(at)).cloned();
                column.ok_or_else(|| refused("the lake table lacks a key column"))
            });
            let of_key = of_key.collect::<Result<Vec<_>>>()?;
            file.write(&layout::record_batch(&arrow, of_key, wrong.num_rows())?).await?;
        }
        file.close().await
    }

    fn only_wrong(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut cells = Cells::default();
        let mut wrong = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            self.columns.lake_cells(batch, row, &mut cells)?;
            let identity = self.compared.hasher.identify(&cells, &self.columns.key);
            wrong.push(identity.is_some_and(|one| self.keys.contains(&one.key)));
        }
        filter_record_batch(batch, &BooleanArray::from(wrong))
            .map_err(|e| refused("the lake's rows cannot be filtered").with_source(e))
    }
}

fn too_large() -> Error {
    refused("the rows that differ are too large to be repaired one by one")
}

/// Leaves out the keys that changed at the source since they were compared.
fn untouched(keys: &mut HashSet<u128>, columns: &Columns, compared: &Compared, subject: &Subject) {
    let recent = compared.overlay.table(subject.oid()).and_then(|table| table.recent());
    let Some(recent) = recent else { return };
    if recent.truncated {
        keys.clear();
    }
    let mut cells = Cells::default();
    for row in &recent.rows {
        let texts: Vec<Option<&[u8]>> = row.iter().map(Cell::text).collect();
        columns.source_cells(&texts, &mut cells);
        if let Some(identity) = compared.hasher.identify(&cells, &columns.key) {
            keys.remove(&identity.key);
        }
    }
}

/// A row as pgoutput sends it in text mode.
fn as_sent(row: &TextRow<'_>) -> Vec<u8> {
    let mut tuple = Vec::new();
    for cell in row {
        match cell {
            None => tuple.push(b'n'),
            Some(text) => {
                tuple.push(b't');
                tuple.extend_from_slice(
                    &u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes(),
                );
                tuple.extend_from_slice(text);
            }
        }
    }
    tuple
}
