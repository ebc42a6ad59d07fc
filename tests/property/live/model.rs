//! The rows that each table must hold, kept by who makes the statements.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;

use super::values::{Kind, Value, pick, quoted, uuid};

/// How rows are addressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    Int,
    Text,
    Uuid,
    /// Its texts have more than one scale for equal values (case 68).
    Numeric,
    Float,
    Composite,
    /// `id` is the primary key, `code` the replica identity.
    IndexIdentity,
    /// REPLICA IDENTITY FULL, and rows that are equal.
    None,
    /// The same, and published by partitions' root.
    Partitioned,
}

const KEYS: &[Key] = &[
    Key::Int,
    Key::Int,
    Key::Text,
    Key::Uuid,
    Key::Numeric,
    Key::Float,
    Key::Composite,
    Key::IndexIdentity,
    Key::None,
    Key::Partitioned,
];

#[derive(Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// As ALTER TYPE has left it.
    pub(super) sql_type: String,
}

#[derive(Clone)]
pub(super) struct Row {
    /// What the key is made of.
    pub(super) n: i64,
    pub(super) key: Vec<Arc<str>>,
    /// The group first, then one value per column.
    pub(super) values: Vec<Value>,
}

/// A partition of a root; its range is 100 ids.
#[derive(Clone)]
pub(super) struct Leaf {
    pub(super) name: String,
    pub(super) from: i64,
    pub(super) attached: bool,
    /// What it holds while it is detached, and the root's shape at that moment.
    pub(super) aside: Vec<Row>,
    pub(super) shape: u32,
}

#[derive(Clone)]
pub(super) struct Table {
    pub(super) name: String,
    /// All names it has had, the first one first: the lake keeps the one it met it under.
    pub(super) past: Vec<String>,
    pub(super) key: Key,
    /// The group `g` (0 to 4) first.
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
    pub(super) leaves: Vec<Leaf>,
    /// Rises with each change of the columns.
    pub(super) shape: u32,
    pub(super) next: i64,
    /// Whether the primary key has the group in it too.
    pub(super) wide_key: bool,
    /// Names of columns that are gone.
    pub(super) gone: Vec<String>,
}

/// All tables, and the labels of the enum.
#[derive(Clone, Default)]
pub(super) struct Model {
    pub(super) tables: Vec<Table>,
    pub(super) labels: Vec<String>,
    /// For names that were never used.
    pub(super) names: u32,
}

impl Model {
    pub(super) fn new(random: &mut StdRng) -> Self {
        let labels = ["sad", "ok", "it's fine"].map(String::from).to_vec();
        let mut model = Self { labels, ..Self::default() };
        for _ in 0..random.random_range(1..=4) {
            let table = model.new_table(random);
            model.tables.push(table);
        }
        model
    }

    pub(super) fn fresh(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    pub(super) fn new_table(&mut self, random: &mut StdRng) -> Table {
        let (name, key) = (self.fresh("t"), *pick(random, KEYS));
        let mut columns =
            vec![Column { name: "g".into(), kind: Kind::Int, sql_type: "int4".into() }];
        for _ in 0..random.random_range(1..7) {
            columns.push(Column::new(self.fresh("c"), Kind::random(random)));
        }
        let mut leaves = Vec::new();
        for from in [0, 100, 200].into_iter().filter(|_| key == Key::Partitioned) {
            let name = self.fresh("leaf");
            leaves.push(Leaf { name, from, attached: true, aside: Vec::new(), shape: 0 });
        }
        Table {
            past: vec![name.clone()],
            name,
            key,
            columns,
            rows: Vec::new(),
            leaves,
            shape: 0,
            next: 1,
            wide_key: false,
            gone: Vec::new(),
        }
    }

    /// Renames a label in every row.
    pub(super) fn rename_label(&mut self, at: usize, to: &str) {
        let from = std::mem::replace(&mut self.labels[at], to.to_owned());
        for table in &mut self.tables {
            let aside = table.leaves.iter_mut().flat_map(|leaf| &mut leaf.aside);
            for row in table.rows.iter_mut().chain(aside) {
                for (column, value) in table.columns.iter().zip(&mut row.values) {
                    if column.kind == Kind::Mood && value.as_deref() == Some(&from) {
                        *value = Some(to.into());
                    }
                }
            }
        }
    }
}

impl Column {
    pub(super) fn new(name: String, kind: Kind) -> Self {
        Self { name, kind, sql_type: kind.sql_type().into() }
    }
}

impl Table {
    /// CREATE TABLE and what belongs to it.
    pub(super) fn ddl(&self) -> String {
        let name = &self.name;
        let keys: Vec<String> =
            self.key_columns().iter().map(|(k, t)| format!("{k} {t} NOT NULL")).collect();
        let columns: Vec<String> =
            self.columns.iter().map(|c| format!("{} {}", c.name, c.sql_type)).collect();
        let primary = match self.key {
            Key::None => "CHECK (true)".into(),
            Key::Composite => format!("CONSTRAINT {name}_key PRIMARY KEY (b, a)"),
            Key::IndexIdentity => {
                format!(
                    "CONSTRAINT {name}_key PRIMARY KEY (id), CONSTRAINT {name}_code UNIQUE (code)"
                )
            }
            _ => format!("CONSTRAINT {name}_key PRIMARY KEY (id)"),
        };
        let by = if self.key == Key::Partitioned { " PARTITION BY RANGE (id)" } else { "" };
        let mut sql = format!(
            "CREATE TABLE {name}({}, {}, {primary}){by};\n",
            keys.join(", "),
            columns.join(", ")
        );
        for leaf in self.leaves.iter().filter(|leaf| leaf.attached) {
            let range = format!("FROM ({}) TO ({})", leaf.from, leaf.from + 100);
            sql += &format!("CREATE TABLE {} PARTITION OF {name} FOR VALUES {range};\n", leaf.name);
        }
        for column in self.columns.iter().filter(|c| c.kind == Kind::Big) {
            sql += &format!("ALTER TABLE {name} ALTER {} SET STORAGE EXTERNAL;\n", column.name);
        }
        match self.key {
            Key::None => sql += &format!("ALTER TABLE {name} REPLICA IDENTITY FULL;\n"),
            Key::IndexIdentity => {
                sql += &format!("ALTER TABLE {name} REPLICA IDENTITY USING INDEX {name}_code;\n");
            }
            _ => {}
        }
        sql
    }

    pub(super) fn key_columns(&self) -> &'static [(&'static str, &'static str)] {
        match self.key {
            Key::Int | Key::Partitioned => &[("id", "int")],
            Key::None => &[("id", "bigint")],
            Key::Text => &[("id", "text")],
            Key::Uuid => &[("id", "uuid")],
            Key::Numeric => &[("id", "numeric")],
            Key::Float => &[("id", "float8")],
            Key::Composite => &[("a", "int"), ("b", "text")],
            Key::IndexIdentity => &[("id", "int"), ("code", "text")],
        }
    }

    /// The texts of the key columns of row `n`.
    pub(super) fn key_of(&self, n: i64) -> Vec<Arc<str>> {
        let texts = match self.key {
            Key::Text => vec![format!("key żó'{n}")],
            Key::Uuid => vec![uuid(n.unsigned_abs())],
            Key::Float => vec![format!("{n}.5")],
            Key::Composite => vec![(n / 10).to_string(), format!("part {}", n % 10)],
            Key::IndexIdentity => vec![n.to_string(), format!("code-{n}")],
            _ => vec![n.to_string()],
        };
        texts.into_iter().map(Into::into).collect()
    }

    /// WHERE row `n`.
    pub(super) fn condition(&self, n: i64) -> String {
        let key = self.key_of(n);
        let pairs = self.key_columns().iter().zip(&key);
        let pairs =
            pairs.map(|((name, _), text)| format!("{name} = {}", quoted(&Some(text.clone()))));
        pairs.collect::<Vec<_>>().join(" AND ")
    }

    /// An unused key, or none where a partitioned table has no room.
    pub(super) fn fresh_key(&mut self, random: &mut StdRng) -> Option<i64> {
        if self.key == Key::Partitioned {
            let free: Vec<i64> =
                self.leaves.iter().filter(|leaf| leaf.attached).map(|l| l.from).collect();
            if free.is_empty() {
                return None;
            }
            let from = *pick(random, &free);
            return (0..20)
                .map(|_| from + random.random_range(0..100))
                .find(|n| self.rows.iter().all(|row| row.n != *n));
        }
        let used: Vec<i64> = self.rows.iter().map(|row| row.n).collect();
        self.next += 1;
        let again = random.random_range(1..=self.next);
        Some(if used.contains(&again) { self.next } else { again }).filter(|n| !used.contains(n))
    }

    /// All columns, the key's first.
    pub(super) fn names(&self) -> Vec<&str> {
        let keys = self.key_columns().iter().map(|(name, _)| *name);
        keys.chain(self.columns.iter().map(|c| c.name.as_str())).collect()
    }

    /// The rows as a multiset of texts.
    pub(super) fn contents(&self) -> BTreeMap<Vec<Value>, usize> {
        let mut found = BTreeMap::new();
        for row in &self.rows {
            let key = row.key.iter().map(|text| Some(text.clone()));
            *found.entry(key.chain(row.values.iter().cloned()).collect()).or_default() += 1;
        }
        found
    }
}
