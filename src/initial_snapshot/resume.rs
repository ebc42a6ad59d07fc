//! Going on with an initial snapshot that broke off (case 135).
//!
//! ```text
//!                 L1 (the slot)                  L2 (a temporary slot, now)
//!   ranges done   ████ ████ ███   ── K: keys of all changes in between ──►   ranges left  ██ ████
//!   table at L2 = (all ranges, less the rows with keys in K) + (those rows, as they are at L2)
//! ```
//! A row that did not change between L1 and L2 is one and the same tuple at the same place, so it
//! is in exactly one range, whenever that was copied: no matter what vacuum did, or where other
//! rows went. The others are all in K, by their old keys and by their new ones. So K is deleted
//! from the ranges and read once more at L2: two segments of the first lake commit, the second with
//! equality deletes. Postgres gives the rows whole, so unchanged TOAST needs no care.
//!
//! That holds only while the stream tells of every change: a table whose file, shape or publication
//! is another one than at L1 begins again, and so does one that has no key and has changed, or one
//! whose updates and deletes are not published.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use serde_json::json;
use tokio_postgres::Client;

use crate::config::Settings;
use crate::error::{Error, Result};
use crate::iceberg::lake::Lake;
use crate::iceberg::row_delta::SegmentFiles;
use crate::pipeline::{ParquetTarget, SourceFacts};
use crate::postgres::catalog::{self, SourceTable};
use crate::postgres::dsn::Source;
use crate::postgres::server_error::from_sql;
use crate::postgres::slot;
use crate::progress::Lsn;
use crate::window::relation::{PgType, Relation};

use super::changed_keys::{Changed, Gap};
use super::plan::PageRange;
use super::record::{Origin, RangeRecord, Record, TableRecord};
use super::workers::Copied;

/// Files whose sizes are asked for at the same time.
const FILES_PARALLEL: usize = 16;

/// What an earlier start has copied, as far as it can be used.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// L1, where something is kept.
    pub(super) since: Option<Lsn>,
    /// Ranges that are there.
    pub(super) ranges: Vec<Copied>,
    /// Their descriptions, by table.
    records: HashMap<u32, Vec<RangeRecord>>,
    /// Keys of rows that changed since, by table.
    pub(super) keys: HashMap<u32, HashSet<Box<[u8]>>>,
}

/// The source as it is seen through the snapshot that is copied now.
pub(super) struct Now<'a> {
    pub(super) origin: &'a Origin,
    /// L2.
    pub(super) consistent_point: Lsn,
    pub(super) tables: &'a [SourceTable],
    pub(super) targets: &'a [Arc<ParquetTarget>],
    /// By table, in their order.
    pub(super) shapes: &'a Shapes,
}

/// What must be the same for a range to be kept.
#[derive(Debug)]
pub(super) struct Shapes {
    /// Of the publications.
    publications: String,
    /// Of each table, in their order.
    tables: Vec<String>,
    /// Oids of tables whose inserts, updates, deletes and truncates are all published.
    published: HashSet<u32>,
    /// Oids of tables whose keys are equal exactly where their texts are.
    keyed: HashSet<u32>,
}

impl Shapes {
    /// As `client` sees them, in its snapshot.
    pub(super) async fn load(
        client: &Client,
        publications: &[String],
        tables: &[SourceTable],
    ) -> Result<Self> {
        let oids: Vec<u32> = tables.iter().map(|table| table.relation.oid).collect();
        // A row of the catalog that was written anew may have been something else meanwhile.
        let schemas = match catalog::server_version(client).await? {
            150_000.. => {
                "(SELECT string_agg(s.xmin::text, ',' ORDER BY s.oid) \
                  FROM pg_catalog.pg_publication_namespace s WHERE s.pnpubid = p.oid)"
            }
            _ => "NULL",
        };
        let of_publications = format!(
            "SELECT coalesce(string_agg(format('%s:%s:%s', p.oid, p.xmin, {schemas}), ';' \
                 ORDER BY p.oid), '') \
             FROM pg_catalog.pg_publication p WHERE p.pubname = ANY($1)"
        );
        let row = client.query_one(&of_publications, &[&publications]).await.map_err(from_sql)?;
        let publications_shape: String = row.get(0);
        let of_tables = "\
            SELECT c.oid, format('%s:%s:%s', c.xmin, \
                (SELECT string_agg(format('%s:%s', i.inhrelid, i.xmin), ',' \
                    ORDER BY i.inhrelid) \
                 FROM pg_catalog.pg_inherits i WHERE c.relkind = 'p' AND i.inhparent = c.oid), \
                (SELECT string_agg(format('%s:%s', r.oid, r.xmin), ',' ORDER BY r.oid) \
                 FROM pg_catalog.pg_publication_rel r WHERE r.prrelid = c.oid)) \
            FROM pg_catalog.pg_class c WHERE c.oid = ANY($1)";
        let rows = client.query(of_tables, &[&oids]).await.map_err(from_sql)?;
        let rows: HashMap<u32, String> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
        let shape = |table: &SourceTable| -> Result<String> {
            let facts = SourceFacts::of(table).to_json()?;
            let rules = format!("{:?}", table.relation.rules);
            let row = rows.get(&table.relation.oid);
            Ok(json!([facts, rules, table.row_filter, row]).to_string())
        };
        Ok(Self {
            publications: publications_shape,
            tables: tables.iter().map(shape).collect::<Result<_>>()?,
            published: published(client, publications, &oids).await?,
            keyed: keyed(client, tables).await?,
        })
    }
}

/// Tables of which everything is published.
async fn published(client: &Client, publications: &[String], oids: &[u32]) -> Result<HashSet<u32>> {
    let sql = "\
        SELECT c.oid FROM pg_catalog.pg_publication_tables t \
            JOIN pg_catalog.pg_publication p ON p.pubname = t.pubname \
            JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname \
            JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename \
        WHERE t.pubname = ANY($1) AND c.oid = ANY($2) \
          AND p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate";
    let rows = client.query(sql, &[&publications, &oids]).await.map_err(from_sql)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Tables whose keys are equal exactly where their texts are, so that no row has two of them.
async fn keyed(client: &Client, tables: &[SourceTable]) -> Result<HashSet<u32>> {
    // Types of extensions have equalities of their own, and so have some collations.
    let sql = "\
        SELECT a.attrelid, a.attnum \
        FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
            LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation \
        WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND l.collisdeterministic IS NOT FALSE \
          AND (t.typtype = 'e' OR t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace) \
          AND (t.typname <> 'bpchar' OR a.atttypmod > 0)";
    let oids: Vec<u32> = tables.iter().map(|table| table.relation.oid).collect();
    let rows = client.query(sql, &[&oids]).await.map_err(from_sql)?;
    let plain: HashSet<(u32, i16)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let is_keyed = |relation: &&Relation| {
        let mut key = relation.key.iter().filter_map(|&at| relation.columns.get(at));
        key.all(|c| plain.contains(&(relation.oid, c.attnum)) && is_plain(&c.pg_type))
    };
    let relations = tables.iter().map(|table| &table.relation);
    Ok(relations.filter(is_keyed).map(|relation| relation.oid).collect())
}

fn is_plain(pg_type: &PgType) -> bool {
    matches!(
        pg_type,
        PgType::Bool
            | PgType::Int2
            | PgType::Int4
            | PgType::Int8
            | PgType::Oid
            | PgType::Numeric { .. }
            | PgType::Text
            | PgType::Bytea
            | PgType::Date
            | PgType::Time
            | PgType::Timestamp
            | PgType::TimestampTz
            | PgType::Uuid
    )
}

/// The record of an earlier start, where the slot can still tell what changed since.
pub(super) async fn usable(
    client: &Client,
    (lake, location): (&Lake, &str),
    settings: &Settings,
    (origin, wal_end, database): (&Origin, Lsn, &str),
) -> Result<Option<Record>> {
    let Some(record) = Record::load(lake, location).await? else { return Ok(None) };
    if record.ranges() == 0 {
        return Ok(None);
    }
    let why = if record.pipeline_id != lake.pipeline_id || record.origin != *origin {
        Some("it is of another source or timeline")
    } else if record.newest_consistent_point > wal_end {
        Some("the server was set back")
    } else {
        match slot::slot_info(client, &settings.slot).await? {
            None => Some("the slot is gone"),
            Some(slot) if slot.is_lost() || slot.plugin.as_deref() != Some("pgoutput") => {
                Some("the slot is lost")
            }
            Some(slot) if slot.database.as_deref() != Some(database) => {
                Some("the slot is for another database")
            }
            // A PREPARE would bring changes that the search for changed keys does not look at.
            Some(slot) if slot.two_phase => Some("the slot sends prepared transactions early"),
            Some(slot) => match slot.confirmed_flush_lsn {
                Some(stands) if stands <= record.consistent_point => None,
                _ => Some("the slot has moved"),
            },
        }
    };
    if let Some(why) = why {
        let ranges = record.ranges();
        tracing::warn!(ranges, "the initial snapshot begins again: {why}");
        return Ok(None);
    }
    Ok(Some(record))
}

impl Kept {
    /// What of `record` can be used `now`; says of the rest why it can't.
    pub(super) async fn of(
        record: Record,
        now: &Now<'_>,
        (source, lake, settings): (&Source, &Lake, &Settings),
        publications: &[String],
    ) -> Result<Self> {
        if record.publications != now.shapes.publications {
            tracing::warn!("the initial snapshot begins again: a publication was changed");
            return Ok(Self::default());
        }
        let mut kept = Self { since: Some(record.consistent_point), ..Self::default() };
        for known in record.tables {
            kept.table(known, now, lake).await?;
        }
        let gap = Gap {
            source,
            slot: &settings.slot,
            publications,
            from: record.consistent_point,
            to: now.consistent_point,
            bytes_max: settings.window_bytes_max / 2,
            max_message_bytes: settings.max_value_bytes,
        };
        let relations = now.tables.iter().map(|table| &table.relation);
        let relations = relations.filter(|relation| kept.records.contains_key(&relation.oid));
        let changed = gap.read(relations).await?;
        for (at, table) in now.tables.iter().enumerate() {
            if let Some(changed) = changed.get(&table.relation.oid) {
                kept.judge((at, table), changed, now.shapes);
            }
        }
        kept.keys = keys_of(changed, &kept.records);
        kept.say();
        Ok(kept)
    }

    /// Takes the ranges of one table, where it is still the same and they are there.
    async fn table(&mut self, known: TableRecord, now: &Now<'_>, lake: &Lake) -> Result<()> {
        if known.ranges.is_empty() {
            return Ok(());
        }
        let is_it = |table: &SourceTable| table.relation.oid == known.oid;
        let Some(at) = now.tables.iter().position(is_it) else { return Ok(()) };
        if now.shapes.tables.get(at) != Some(&known.shape) {
            begins_again(&known.table, "it was altered, rewritten or truncated");
            return Ok(());
        }
        let Some(target) = now.targets.get(at) else { return Ok(()) };
        for range in known.ranges {
            let files = range.files(&target.raw.schema)?;
            if !are_there(lake, &files).await? {
                begins_again(&known.table, "files of a range are gone");
                continue;
            }
            self.ranges.push(Copied { table: at, range: range.range, files });
            self.records.entry(known.oid).or_default().push(range);
        }
        Ok(())
    }

    /// Gives the table up where what changed does not say all that changed.
    fn judge(&mut self, (at, table): (usize, &SourceTable), changed: &Changed, shapes: &Shapes) {
        let oid = table.relation.oid;
        let is_published = shapes.published.contains(&oid);
        let is_whole = is_whole(self.records.get(&oid).map(Vec::as_slice).unwrap_or_default());
        let why = match changed {
            Changed::All(why) => Some(*why),
            _ if changed.is_nothing() && (is_published || is_whole) => None,
            _ if !is_published => Some("its updates and deletes are not all published"),
            _ if !shapes.keyed.contains(&oid) => {
                Some("it has changed, and its key's type has an equality of its own")
            }
            Changed::Keys(_) => None,
        };
        if let Some(why) = why {
            begins_again(&table.relation.display(), why);
            self.ranges.retain(|copied| copied.table != at);
            self.records.remove(&oid);
        }
    }

    fn say(&self) {
        let rows: u64 = self.ranges.iter().map(|copied| copied.files.rows_inserted).sum();
        let changed: usize = self.keys.values().map(HashSet::len).sum();
        let ranges = self.ranges.len();
        tracing::info!(
            ranges,
            rows,
            changed,
            "the initial snapshot goes on: these ranges are kept"
        );
    }

    /// Ranges that are done, by table.
    pub(super) fn done(&self, tables: usize) -> Vec<Vec<PageRange>> {
        let mut done = vec![Vec::new(); tables];
        for copied in &self.ranges {
            if let Some(done) = done.get_mut(copied.table) {
                done.push(copied.range);
            }
        }
        done
    }

    /// The record of this start, with what is kept.
    pub(super) fn take_record(&mut self, lake: &Lake, now: &Now<'_>) -> Record {
        let since = self.since.filter(|_| !self.ranges.is_empty());
        let table = |(table, shape): (&SourceTable, &String)| TableRecord {
            oid: table.relation.oid,
            table: table.relation.display(),
            shape: shape.clone(),
            ranges: self.records.remove(&table.relation.oid).unwrap_or_default(),
        };
        let tables = now.tables.iter().zip(&now.shapes.tables).map(table).collect();
        let since = since.unwrap_or(now.consistent_point);
        let (at, publications) = ((since, now.consistent_point), now.shapes.publications.clone());
        Record::new(&lake.pipeline_id, now.origin.clone(), at, publications, tables)
    }
}

fn begins_again(table: &str, why: &str) {
    tracing::warn!(table, "the table is copied from the beginning: {why}");
}

fn keys_of(
    changed: HashMap<u32, Changed>,
    kept: &HashMap<u32, Vec<RangeRecord>>,
) -> HashMap<u32, HashSet<Box<[u8]>>> {
    let keys = changed.into_iter().filter_map(|(oid, changed)| match changed {
        Changed::Keys(keys) if !keys.is_empty() && kept.contains_key(&oid) => Some((oid, keys)),
        _ => None,
    });
    keys.collect()
}

/// Whether the ranges are all of a table.
fn is_whole(ranges: &[RangeRecord]) -> bool {
    let mut ranges: Vec<PageRange> = ranges.iter().map(|range| range.range).collect();
    ranges.sort_unstable();
    let mut reached = 0;
    for range in ranges {
        match range.to {
            _ if range.from > reached => return false,
            None => return true,
            Some(to) => reached = reached.max(to),
        }
    }
    false
}

async fn are_there(lake: &Lake, files: &SegmentFiles) -> Result<bool> {
    let sizes = files.data.iter().map(async |file| {
        let size = lake.storage.size_if_there(file.file_path()).await?;
        Ok::<_, Error>(size == Some(file.file_size_in_bytes()))
    });
    let sizes: Vec<_> = sizes.collect();
    let sizes = futures::stream::iter(sizes).buffer_unordered(FILES_PARALLEL);
    sizes.try_fold(true, async |all, is_there| Ok(all && is_there)).await
}
