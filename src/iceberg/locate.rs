//! Finding rows by key: newest file first, files and row groups skipped by their bounds, keys
//! looked up in a hash map; O(rows read + keys).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Int32Array,
    Int64Array, LargeBinaryArray, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow_row::{OwnedRow, RowConverter, SortField};
use arrow_schema::{DataType, FieldRef};
use futures::TryStreamExt;
use iceberg::spec::{DataContentType, DataFile, Datum, PrimitiveLiteral, Schema};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::file::metadata::PageIndexPolicy;

use crate::error::{Error, Result};
use crate::iceberg::layout::retype;
use crate::iceberg::live_rows::DeletedPositions;
use crate::iceberg::read::{OpenFile, field_id, fields};
use crate::iceberg::storage::LakeStorage;

/// Where a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index of the file.
    pub file: usize,
    /// The row's number in it, from 0.
    pub row: u64,
}

/// Where the newest row of each key is; `keys` are key columns in the order of `key_ids`, `files`
/// come newest first ([`crate::iceberg::read::live_data_files`]). Deletes are not looked at: the
/// newest row of a key that the source says is there is the live one.
///
/// # Errors
/// `LAKE_IO` (transient).
pub async fn locate(
    storage: &LakeStorage,
    schema: &Schema,
    files: &[(DataFile, i64)],
    key_ids: &[i32],
    keys: &[ArrayRef],
) -> Result<Vec<Option<Place>>> {
    let search = Search::new(fields(schema, key_ids)?, keys)?;
    let mut wanted: HashMap<&[u8], Option<Place>, foldhash::fast::RandomState> =
        search.keys.iter().map(|key| (key.as_ref(), None)).collect();
    let mut missing = wanted.len();
    for (index, (file, _)) in files.iter().enumerate() {
        if missing == 0 {
            break;
        }
        if !search.may_hold_file(file) {
            continue;
        }
        let found = |key: &[u8], row| {
            if let Some(known) = wanted.get_mut(key)
                && known.is_none()
            {
                *known = Some(Place { file: index, row });
                missing -= 1;
            }
        };
        search.scan(storage, file, found).await?;
    }
    Ok(search.keys.iter().map(|key| wanted.get(key.as_ref()).copied().flatten()).collect())
}

/// How many live rows each of the keys has, in the files of a table (`data` and `deletes`, each
/// with its sequence number): a row is live unless an equality delete of a larger number names its
/// key, or a position delete it. Data files are all looked at, but for their bounds.
///
/// # Errors
/// `LAKE_IO` (transient).
pub async fn count_live(
    storage: &LakeStorage,
    schema: &Schema,
    (data, deletes): (Files<'_>, Files<'_>),
    key_ids: &[i32],
    keys: &[ArrayRef],
) -> Result<Vec<u64>> {
    let search = Search::new(fields(schema, key_ids)?, keys)?;
    let mut copies: HashMap<&[u8], Copies, foldhash::fast::RandomState> =
        search.keys.iter().map(|key| (key.as_ref(), Copies::default())).collect();
    let is_equality = |file: &DataFile| file.content_type() == DataContentType::EqualityDeletes;
    let mut positions = DeletedPositions::default();
    for (file, number) in deletes.iter().filter(|(file, _)| !is_equality(file)) {
        positions.read(storage, file, *number).await?;
    }
    for (file, number) in data.iter().filter(|(file, _)| search.may_hold_file(file)) {
        let gone = positions.of(file, *number);
        let found = |key: &[u8], row| {
            if let Some(copies) = copies.get_mut(key)
                && !gone.contains(&row)
            {
                *copies.found.entry(*number).or_default() += 1;
            }
        };
        search.scan(storage, file, found).await?;
    }
    let may_name = |file: &DataFile| is_equality(file) && search.may_hold_file(file);
    for (file, number) in deletes.iter().filter(|(file, _)| may_name(file)) {
        let found = |key: &[u8], _| {
            if let Some(copies) = copies.get_mut(key) {
                copies.deleted = copies.deleted.max(*number);
            }
        };
        search.scan(storage, file, found).await?;
    }
    Ok(search.keys.iter().map(|key| copies.get(key.as_ref()).map_or(0, Copies::live)).collect())
}

type Files<'a> = &'a [(DataFile, i64)];

/// Equal rows.
#[derive(Debug, Default)]
struct Copies {
    /// How many there are of each sequence number.
    found: BTreeMap<i64, u64>,
    /// The largest sequence number of a delete.
    deleted: i64,
}

impl Copies {
    fn live(&self) -> u64 {
        self.found.range(self.deleted..).map(|(_, rows)| rows).sum()
    }
}

/// Keys to look for.
struct Search {
    fields: Vec<FieldRef>,
    converter: RowConverter,
    /// In the order given.
    keys: Vec<Box<[u8]>>,
    columns: Vec<KeyColumn>,
}

/// The wanted values of one key column, sorted, to compare bounds with.
struct KeyColumn {
    converter: RowConverter,
    sorted: Vec<OwnedRow>,
}

fn row_error(error: arrow_schema::ArrowError) -> Error {
    Error::fatal("LAYOUT", "keys could not be compared").with_source(error)
}

fn converter(types: impl Iterator<Item = DataType>) -> Result<RowConverter> {
    RowConverter::new(types.map(SortField::new).collect()).map_err(row_error)
}

/// A row converter for keys of these fields.
pub(crate) fn key_converter(fields: &[FieldRef]) -> Result<RowConverter> {
    converter(fields.iter().map(|f| f.data_type().clone()))
}

impl Search {
    fn new(fields: Vec<FieldRef>, keys: &[ArrayRef]) -> Result<Self> {
        let keys = keys.iter().zip(&fields).map(|(k, f)| retype(k, f.data_type()));
        let keys: Vec<ArrayRef> = keys.collect::<Result<_>>()?;
        let converter = key_converter(&fields)?;
        let rows = converter.convert_columns(&keys).map_err(row_error)?;
        Ok(Self {
            columns: keys.iter().map(KeyColumn::new).collect::<Result<_>>()?,
            keys: rows.iter().map(|row| row.as_ref().into()).collect(),
            fields,
            converter,
        })
    }

    fn may_hold_file(&self, file: &DataFile) -> bool {
        self.fields.iter().zip(&self.columns).all(|(field, column)| {
            let id = field_id(field).unwrap_or(0);
            let bound = |datum: Option<&Datum>| datum_array(datum?, field.data_type());
            let low = bound(file.lower_bounds().get(&id));
            let high = bound(file.upper_bounds().get(&id));
            low.zip(high).is_none_or(|(low, high)| column.may_hold(&low, &high, 0))
        })
    }

    /// The row groups that may hold a wanted key.
    fn row_groups(&self, open: &OpenFile) -> Vec<usize> {
        let groups = open.metadata.metadata().row_groups();
        let mut may = vec![true; groups.len()];
        for (field, column) in self.fields.iter().zip(&self.columns) {
            let statistics = || {
                let arrow = open.metadata.schema();
                let found = arrow.fields().iter().find(|f| field_id(f) == field_id(field))?;
                let parquet = open.metadata.parquet_schema();
                let converter = StatisticsConverter::try_new(found.name(), arrow, parquet).ok()?;
                let low =
                    retype(&converter.row_group_mins(groups).ok()?, field.data_type()).ok()?;
                let high = retype(&converter.row_group_maxes(groups).ok()?, field.data_type());
                Some((low, high.ok()?))
            };
            let Some((low, high)) = statistics() else { continue };
            for (group, may) in may.iter_mut().enumerate() {
                *may &= column.may_hold(&low, &high, group);
            }
        }
        may.iter().enumerate().filter_map(|(group, may)| may.then_some(group)).collect()
    }

    /// Shows `found` the key of every row that may be a wanted one, with its number in the file.
    async fn scan(
        &self,
        storage: &LakeStorage,
        file: &DataFile,
        mut found: impl FnMut(&[u8], u64),
    ) -> Result<()> {
        let open = OpenFile::open(storage, file, PageIndexPolicy::Skip).await?;
        let projection = open.project(&self.fields);
        for group in self.row_groups(&open) {
            let before = open.metadata.metadata().row_groups().iter().take(group);
            let first: i64 = before.map(|g| g.num_rows()).sum();
            let mut row = u64::try_from(first).unwrap_or(0);
            let stream = open.builder().with_row_groups(vec![group]);
            let stream = stream.with_projection(projection.mask.clone()).build();
            let mut stream = stream.map_err(|e| open.failed(e))?;
            while let Some(read) = stream.try_next().await.map_err(|e| open.failed(e))? {
                let keys = projection.apply(&read)?;
                let keys = self.converter.convert_columns(keys.columns()).map_err(row_error)?;
                for key in &keys {
                    found(key.as_ref(), row);
                    row += 1;
                }
            }
        }
        Ok(())
    }
}

impl KeyColumn {
    fn new(keys: &ArrayRef) -> Result<Self> {
        let converter = converter(std::iter::once(keys.data_type().clone()))?;
        let rows = converter.convert_columns(std::slice::from_ref(keys)).map_err(row_error)?;
        let mut sorted: Vec<OwnedRow> = rows.iter().map(|row| row.owned()).collect();
        sorted.sort_unstable();
        Ok(Self { converter, sorted })
    }

    /// Whether a wanted value lies within `low[at]..=high[at]`; yes where a bound is unknown.
    fn may_hold(&self, low: &ArrayRef, high: &ArrayRef, at: usize) -> bool {
        if at >= low.len() || at >= high.len() || low.is_null(at) || high.is_null(at) {
            return true;
        }
        let bound = |array: &ArrayRef| {
            let rows = self.converter.convert_columns(&[array.slice(at, 1)]).ok()?;
            Some(rows.row(0).owned())
        };
        let (Some(low), Some(high)) = (bound(low), bound(high)) else { return true };
        let first = self.sorted.partition_point(|value| *value < low);
        self.sorted.get(first).is_some_and(|value| *value <= high)
    }
}

/// A bound as an array of one value; `None` for types that are no keys.
fn datum_array(datum: &Datum, data_type: &DataType) -> Option<ArrayRef> {
    Some(match (datum.literal(), data_type) {
        (PrimitiveLiteral::Boolean(v), DataType::Boolean) => Arc::new(BooleanArray::from(vec![*v])),
        (PrimitiveLiteral::Int(v), DataType::Int32) => Arc::new(Int32Array::from(vec![*v])),
        (PrimitiveLiteral::Int(v), DataType::Date32) => Arc::new(Date32Array::from(vec![*v])),
        (PrimitiveLiteral::Long(v), DataType::Int64) => Arc::new(Int64Array::from(vec![*v])),
        (PrimitiveLiteral::Long(v), DataType::Time64(_)) => {
            Arc::new(Time64MicrosecondArray::from(vec![*v]))
        }
        (PrimitiveLiteral::Long(v), DataType::Timestamp(_, zone)) => {
            Arc::new(TimestampMicrosecondArray::from(vec![*v]).with_timezone_opt(zone.clone()))
        }
        (PrimitiveLiteral::String(v), DataType::Utf8) => {
            Arc::new(StringArray::from(vec![v.as_str()]))
        }
        (PrimitiveLiteral::Binary(v), DataType::LargeBinary) => {
            Arc::new(LargeBinaryArray::from(vec![v.as_slice()]))
        }
        (PrimitiveLiteral::UInt128(v), DataType::FixedSizeBinary(16)) => {
            let bytes = std::iter::once(v.to_be_bytes());
            Arc::new(FixedSizeBinaryArray::try_from_iter(bytes).ok()?)
        }
        (PrimitiveLiteral::Int128(v), DataType::Decimal128(precision, scale)) => {
            let one = Decimal128Array::from(vec![*v]);
            Arc::new(one.with_precision_and_scale(*precision, *scale).ok()?)
        }
        _ => return None,
    })
}
