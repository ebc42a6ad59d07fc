//! What the catalog knows of the source tables and the stream does not say: true keys (cases 71,
//! 72), what a domain or array is made of, attnums, files, missing values.
//!
//! Source of the rules: Postgres manual, "System Catalogs" (pg_class, pg_attribute, pg_index,
//! pg_type) and `pg_publication_tables`. Servers 13 to 18.

use std::collections::HashMap;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use crate::error::{Error, Result};
use crate::postgres::catalog_rows::{Attribute, Class, KeyIndex};
use crate::postgres::pg_types::{PgTypes, load_types};
use crate::postgres::pgoutput::WireRelation;
use crate::postgres::server_error::from_sql;
use crate::postgres::unannounced::{self, Unannounced};
use crate::progress::Lsn;
use crate::window::relation::{Column, KeyForm, Relation, ReplicaIdentity};
use crate::window::rules::{TypeRules, ValueRules};

/// A published table as the catalog has it now.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceTable {
    /// Published columns, key and identity.
    pub relation: Relation,
    /// `pg_class.relfilenode` as the reading transaction sees it; changes with every rewrite.
    pub relfilenode: u32,
    /// `attnum:xmin` of every live column, comma separated: changes with every ALTER of a column,
    /// also where a Relation message would look the same as before.
    pub attribute_xmins: String,
    /// `pg_class.relkind`: `r`, `p`, ...
    pub kind: char,
    /// Is itself a partition.
    pub is_partition: bool,
    /// `pg_class.relpersistence`: `p`, `u`, `t`.
    pub persistence: char,
    /// The publications' row filters joined by OR; `None` where one has none (case 111).
    pub row_filter: Option<String>,
    /// What rows older than a column have in it, by published column.
    pub missing: Vec<ColumnDefault>,
    /// `pg_class.reltuples`; -1 where the table was never analysed.
    pub estimated_rows: f32,
    /// `pg_class.relpages`, of 8 KiB as a rule.
    pub relpages: i32,
    /// `pg_class.relnatts`: the largest attribute number there ever was.
    pub attnum_max: i16,
    /// Columns of the true key that no publication shows: then there is no usable key.
    pub unpublished_key: Vec<String>,
    /// The primary key is deferrable, so it is treated as none (case 74).
    pub deferrable_key: bool,
    /// What may change its rows in the lake without an event.
    pub unannounced: Unannounced,
}

/// Defaults of one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDefault {
    /// `pg_attribute.attnum`.
    pub attnum: i16,
    /// `atthasmissing`: rows from before the column are read with `missing`.
    pub has_missing: bool,
    /// `attmissingval` as text, an array of one element: `{42}`. `None` beside `has_missing`: it is
    /// not known, for leaf partitions have several, or it was too long for a message.
    pub missing: Option<String>,
    /// There is a DEFAULT expression.
    pub has_default: bool,
}

/// Every table that `publications` show, or those of them with one of `oids`, by oid. Read in one
/// go per question, so call it inside a REPEATABLE READ transaction where that matters.
///
/// # Errors
/// `TYPE_OVERRIDE` where the settings give a column a lake type that it can't have.
pub async fn load_relations(
    client: &Client,
    publications: &[String],
    oids: Option<&[u32]>,
    rules: &TypeRules,
) -> Result<Vec<SourceTable>> {
    let version = server_version(client).await?;
    let published = published(client, version, publications, oids).await?;
    let oids: Vec<u32> = published.keys().copied().collect();
    // On one connection: together they take one way to the server and back.
    let (mut tables, mut unannounced) = tokio::try_join!(
        assemble(client, version, &published, rules),
        unannounced::load(client, publications, &oids),
    )?;
    for table in &mut tables {
        let found = unannounced.remove(&table.relation.oid).unwrap_or_default();
        table.unannounced.leaves = found.leaves;
        table.unannounced.type_shapes = found.type_shapes;
        table.unannounced.published.insert_str(0, &found.published);
    }
    Ok(tables)
}

/// The tables `oids` as they would be published without a column list or row filter: for looking
/// at them before there is a publication.
pub async fn load_unpublished(
    client: &Client,
    oids: &[u32],
    rules: &TypeRules,
) -> Result<Vec<SourceTable>> {
    let version = server_version(client).await?;
    let published = oids.iter().map(|oid| (*oid, Published::default())).collect();
    assemble(client, version, &published, rules).await
}

async fn assemble(
    client: &Client,
    version: u32,
    published: &HashMap<u32, Published>,
    rules: &TypeRules,
) -> Result<Vec<SourceTable>> {
    let oids: Vec<u32> = published.keys().copied().collect();
    let attributes = attributes_sql(version);
    let parameters: [&(dyn ToSql + Sync); 1] = [&oids];
    let (classes, attributes, keys) = tokio::try_join!(
        client.query(CLASSES, &parameters),
        client.query(&attributes, &parameters),
        client.query(KEYS, &parameters),
    )
    .map_err(from_sql)?;
    let types =
        load_types(client, version, attributes.iter().map(|row| row.get("atttypid"))).await?;
    let (mut attributes, keys) = (by_oid(&attributes, Attribute::of), by_oid(&keys, KeyIndex::of));
    missing_of_leaves(client, &classes, &mut attributes).await?;
    let mut tables = Vec::with_capacity(classes.len());
    for class in classes.iter().map(Class::of) {
        let Some(published) = published.get(&class.oid) else { continue };
        let attributes = attributes.get(&class.oid).map(Vec::as_slice).unwrap_or_default();
        let keys = keys.get(&class.oid).map(Vec::as_slice).unwrap_or_default();
        tables.push(table((&class, attributes, keys), published, (&types, rules))?);
    }
    Ok(tables)
}

fn by_oid<T>(rows: &[Row], of: impl Fn(&Row) -> T) -> HashMap<u32, Vec<T>> {
    let mut grouped: HashMap<u32, Vec<T>> = HashMap::new();
    for row in rows {
        grouped.entry(row.get("oid")).or_default().push(of(row));
    }
    grouped
}

/// A partitioned table has no rows, so what older rows have in a column stands at its leaves.
async fn missing_of_leaves(
    client: &Client,
    classes: &[Row],
    attributes: &mut HashMap<u32, Vec<Attribute>>,
) -> Result<()> {
    let partitioned = classes.iter().filter(|class| class.get::<_, &str>("kind") == "p");
    let roots: Vec<u32> = partitioned.map(|class| class.get("oid")).collect();
    if roots.is_empty() {
        return Ok(());
    }
    for row in client.query(MISSING_OF_LEAVES, &[&roots]).await.map_err(from_sql)? {
        let name: &str = row.get("name");
        let columns = attributes.get_mut(&row.get("oid"));
        let column = columns.and_then(|columns| columns.iter_mut().find(|c| c.name == name));
        if let Some(column) = column {
            (column.has_missing, column.missing) = (true, row.get("missing"));
        }
    }
    Ok(())
}

/// `server_version_num` of a SQL connection.
pub async fn server_version(client: &Client) -> Result<u32> {
    let row = client
        .query_one("SELECT current_setting('server_version_num')::int4", &[])
        .await
        .map_err(from_sql)?;
    Ok(u32::try_from(row.get::<_, i32>(0)).unwrap_or(0))
}

/// Where the server's WAL ends, unwritten parts included: an asynchronous commit is visible before
/// it is written.
pub async fn wal_position(client: &Client) -> Result<Lsn> {
    let sql = "SELECT (CASE WHEN pg_catalog.pg_is_in_recovery() \
               THEN pg_catalog.pg_last_wal_replay_lsn() \
               ELSE pg_catalog.pg_current_wal_insert_lsn() END)::text";
    client.query_one(sql, &[]).await.map_err(from_sql)?.get::<_, &str>(0).parse()
}

/// Whether what the transaction `xid` did is visible to others; its epoch is that of now.
pub async fn is_visible(client: &Client, xid: u32) -> Result<bool> {
    let row = client.query_one(IS_VISIBLE, &[&i64::from(xid)]).await.map_err(from_sql)?;
    Ok(row.get(0))
}

// Transaction ids have 32 bits in the stream and 64 here: the newest one that is not of the future.
const IS_VISIBLE: &str = "\
    SELECT pg_catalog.pg_visible_in_snapshot(( \
               CASE WHEN $1::int8 < m % 4294967296 THEN m - m % 4294967296 + $1 \
                    ELSE greatest(m - m % 4294967296 - 4294967296, 0) + $1 END)::text::xid8, s) \
    FROM (SELECT s, pg_catalog.pg_snapshot_xmax(s)::text::int8 AS m \
          FROM pg_catalog.pg_current_snapshot() s) now";

/// Whether `wire` shows the columns of `table`, in order, by name, type and type modifier, under
/// the same oid. Names of table and schema may differ: a schema's new name is not announced.
pub fn matches(table: &SourceTable, wire: &WireRelation) -> bool {
    let relation = &table.relation;
    relation.oid == wire.oid
        && relation.columns.len() == wire.columns.len()
        && relation.columns.iter().zip(&wire.columns).all(|(have, sent)| {
            // The stream shows a domain with typmod -1 and its own oid, as pg_attribute does.
            have.name == sent.name && have.type_oid == sent.type_oid && have.typmod == sent.typmod
        })
        && identity(char::from(wire.identity)).is_ok_and(|sent| sent == relation.identity)
}

const CLASSES: &str = "\
    SELECT c.oid, n.nspname::text AS namespace, c.relname::text AS name, c.relfilenode, \
           c.relkind::text AS kind, c.relispartition AS is_partition, \
           c.relpersistence::text AS persistence, c.relreplident::text AS identity, \
           c.reltuples AS estimated_rows, c.relpages, c.relnatts \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.oid = ANY($1) ORDER BY c.oid";

fn attributes_sql(version: u32) -> String {
    // Before 18 no generated column is published, though 15's view may list it.
    let hidden = if version >= 180_000 { "false" } else { "a.attgenerated <> ''" };
    format!(
        "SELECT a.attrelid AS oid, a.attnum, a.attname::text AS name, a.atttypid, a.atttypmod, \
                a.attstorage::text <> 'p' AS toastable, a.atthasmissing AS has_missing, \
                a.attmissingval::text AS missing, a.atthasdef AS has_default, \
                a.xmin::text AS xmin, a.attgenerated <> '' AS generated, {hidden} AS hidden \
         FROM pg_catalog.pg_attribute a \
         WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped \
         ORDER BY a.attrelid, a.attnum"
    )
}

const MISSING_OF_LEAVES: &str = "\
    WITH RECURSIVE tree(root, member) AS ( \
        SELECT r.root, r.root FROM unnest($1::oid[]) AS r(root) \
      UNION ALL \
        SELECT t.root, i.inhrelid FROM tree t \
        JOIN pg_catalog.pg_inherits i ON i.inhparent = t.member) \
    SELECT t.root AS oid, a.attname::text AS name, \
           CASE WHEN count(DISTINCT a.attmissingval::text) = 1 \
                THEN min(a.attmissingval::text) END AS missing \
    FROM tree t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.member \
    WHERE a.atthasmissing AND a.attnum > 0 AND NOT a.attisdropped \
    GROUP BY t.root, a.attname";

const KEYS: &str = "\
    SELECT i.indrelid AS oid, i.indisprimary AS is_primary, i.indisreplident AS is_identity, \
           i.indimmediate AS is_immediate, \
           (SELECT array_agg(k.attnum ORDER BY k.ord) \
            FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, ord) \
            WHERE k.ord <= i.indnkeyatts) AS attnums \
    FROM pg_catalog.pg_index i \
    WHERE i.indrelid = ANY($1) AND i.indisvalid AND (i.indisprimary OR i.indisreplident)";

/// What the publications show of a table.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Column names; `None`: all but generated ones.
    columns: Option<Vec<String>>,
    row_filter: Option<String>,
    seen: bool,
}

impl Published {
    /// The column list and row filter, for comparison.
    fn restrictions(&self) -> String {
        match &self.row_filter {
            None => String::new(),
            Some(filter) => format!(" WHERE {filter}"),
        }
    }

    /// Several publications are united: no filter in one is no filter at all.
    pub(super) fn add(&mut self, columns: Option<Vec<String>>, row_filter: Option<String>) {
        if !self.seen {
            *self = Self { columns, row_filter, seen: true };
            return;
        }
        self.row_filter = self.row_filter.take().zip(row_filter).map(|(a, b)| match a == b {
            true => a,
            false => format!("({a}) OR ({b})"),
        });
        self.columns = self.columns.take().zip(columns).map(|(mut a, b)| {
            a.extend(b);
            a
        });
    }
}

async fn published(
    client: &Client,
    version: u32,
    publications: &[String],
    oids: Option<&[u32]>,
) -> Result<HashMap<u32, Published>> {
    // attnames and rowfilter came with 15; before it every column was published.
    let extra = if version >= 150_000 {
        "t.attnames::text[] AS columns, t.rowfilter::text AS row_filter"
    } else {
        "NULL::text[] AS columns, NULL::text AS row_filter"
    };
    let sql = format!(
        "SELECT c.oid, {extra} FROM pg_catalog.pg_publication_tables t \
         JOIN pg_catalog.pg_namespace n ON n.nspname = t.schemaname \
         JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename \
         WHERE t.pubname = ANY($1) AND ($2::oid[] IS NULL OR c.oid = ANY($2))"
    );
    let rows = client.query(&sql, &[&publications, &oids]).await.map_err(from_sql)?;
    let mut found: HashMap<u32, Published> = HashMap::new();
    for row in rows {
        found.entry(row.get("oid")).or_default().add(row.get("columns"), row.get("row_filter"));
    }
    Ok(found)
}

/// The table that these rows describe.
pub(super) fn table(
    (class, attributes, keys): (&Class, &[Attribute], &[KeyIndex]),
    published: &Published,
    (types, rules): (&PgTypes, &TypeRules),
) -> Result<SourceTable> {
    let shown: Vec<&Attribute> = attributes.iter().filter(|a| is_shown(a, published)).collect();
    let mut columns: Vec<Column> = shown.iter().map(|attribute| column(attribute, types)).collect();
    apply_overrides(class, &mut columns, (types, rules))?;
    let identity = identity(class.identity)?;
    let key = Key::choose(identity, attributes, keys, &columns);
    let xmins = attributes.iter().map(|column| format!("{}:{}", column.attnum, column.xmin));
    Ok(SourceTable {
        relation: Relation {
            oid: class.oid,
            namespace: class.namespace.clone(),
            name: class.name.clone(),
            key_form: KeyForm::of(&columns, &key.indexes, identity),
            columns,
            key: key.indexes,
            identity,
            rules: ValueRules {
                unrepresentable: rules.of_table(&class.namespace, &class.name),
                unchecked_encoding: types.unchecked_encoding,
            },
        },
        relfilenode: class.relfilenode,
        attribute_xmins: xmins.collect::<Vec<_>>().join(","),
        kind: class.kind,
        is_partition: class.is_partition,
        persistence: class.persistence,
        row_filter: published.row_filter.clone(),
        missing: shown.iter().map(|attribute| column_default(attribute)).collect(),
        estimated_rows: class.estimated_rows,
        relpages: class.relpages,
        attnum_max: class.relnatts,
        unpublished_key: key.unpublished,
        deferrable_key: key.deferrable,
        unannounced: Unannounced { published: published.restrictions(), ..Unannounced::default() },
    })
}

/// Gives columns the lake types that the settings want.
fn apply_overrides(
    class: &Class,
    columns: &mut [Column],
    (types, rules): (&PgTypes, &TypeRules),
) -> Result<()> {
    for column in columns {
        let Some(wanted) = rules.of_column(&class.namespace, &class.name, &column.name) else {
            continue;
        };
        let (base, typmod) = types.base(column.type_oid, column.typmod);
        column.pg_type = wanted.apply(column.pg_type.clone(), base, typmod).map_err(|why| {
            let name = types.name(column.type_oid);
            Error::config("TYPE_OVERRIDE", format!("`types:` can't be obeyed: {why}, not {name}"))
                .with_table(format!("{}.{}", class.namespace, class.name))
                .with_column(&column.name)
                .with_cure("correct `types:` in the configuration, see docs/types.md")
        })?;
    }
    Ok(())
}

fn is_shown(attribute: &Attribute, published: &Published) -> bool {
    match &published.columns {
        Some(columns) => !attribute.hidden && columns.contains(&attribute.name),
        None => !attribute.generated,
    }
}

fn column(attribute: &Attribute, types: &PgTypes) -> Column {
    Column {
        name: attribute.name.clone(),
        attnum: attribute.attnum,
        type_oid: attribute.type_oid,
        typmod: attribute.typmod,
        pg_type: types.resolve(attribute.type_oid, attribute.typmod),
        toastable: attribute.toastable,
        field_version: 0,
    }
}

fn column_default(attribute: &Attribute) -> ColumnDefault {
    ColumnDefault {
        attnum: attribute.attnum,
        has_missing: attribute.has_missing,
        missing: attribute.missing.clone(),
        has_default: attribute.has_default,
    }
}

fn identity(letter: char) -> Result<ReplicaIdentity> {
    match letter {
        'd' => Ok(ReplicaIdentity::Default),
        'n' => Ok(ReplicaIdentity::Nothing),
        'f' => Ok(ReplicaIdentity::Full),
        'i' => Ok(ReplicaIdentity::Index),
        other => Err(Error::fatal("BAD_MESSAGE", format!("unknown replica identity `{other}`"))),
    }
}

/// The key rows are addressed by.
#[derive(Default)]
struct Key {
    indexes: Vec<usize>,
    unpublished: Vec<String>,
    deferrable: bool,
}

impl Key {
    /// DEFAULT and FULL: the primary key, only if it is immediate. INDEX: that index's columns.
    fn choose(
        identity: ReplicaIdentity,
        attributes: &[Attribute],
        keys: &[KeyIndex],
        columns: &[Column],
    ) -> Self {
        let is_it = |key: &&KeyIndex| match identity {
            ReplicaIdentity::Nothing => false,
            ReplicaIdentity::Index => key.is_identity,
            ReplicaIdentity::Default | ReplicaIdentity::Full => key.is_primary,
        };
        let Some(index) = keys.iter().find(is_it) else {
            return Self::default();
        };
        if !index.is_immediate {
            return Self { deferrable: true, ..Self::default() };
        }
        let place = |attnum: &i16| columns.iter().position(|column| column.attnum == *attnum);
        let hidden: Vec<i16> =
            index.attnums.iter().copied().filter(|a| place(a).is_none()).collect();
        if !hidden.is_empty() {
            let hidden = attributes.iter().filter(|column| hidden.contains(&column.attnum));
            let unpublished = hidden.map(|column| column.name.clone()).collect();
            return Self { unpublished, ..Self::default() };
        }
        let mut indexes: Vec<usize> = index.attnums.iter().filter_map(place).collect();
        indexes.sort_unstable();
        Self { indexes, ..Self::default() }
    }
}
