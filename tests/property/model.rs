//! The model: tables as rows of Postgres texts, and random operations that change both, the model
//! here and the source by SQL.

use std::fmt::Write as _;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Types with values whose text Postgres gives back as it was typed.
pub const KINDS: &[(&str, &[&str])] = &[
    ("int", &["0", "-1", "2147483647", "-2147483648", "42"]),
    ("bigint", &["0", "9223372036854775807", "-9223372036854775808", "7"]),
    ("text", &["", "a", "it's \"quoted\", {braced} \\ é", "NULL", "x\ny"]),
    ("varchar(40)", &["", "short", "ü"]),
    ("bool", &["t", "f"]),
    ("numeric(10,2)", &["0.00", "-12345678.90", "1.50", "NaN"]),
    ("numeric", &["0", "1.500", "-10000000000", "NaN", "Infinity"]),
    ("float8", &["0.5", "-0", "NaN", "Infinity", "1e+300"]),
    ("float4", &["0.25", "-1", "NaN"]),
    ("bytea", &["\\x", "\\x00ff", "\\xdeadbeef"]),
    ("date", &["2020-02-29", "infinity", "0001-01-01", "4713-11-24 BC"]),
    ("time", &["00:00:00", "24:00:00", "23:59:59.999999"]),
    ("timestamp", &["2000-01-01 00:00:00", "infinity", "1969-12-31 23:59:59.999999"]),
    ("timestamptz", &["2020-01-01 00:00:00+00", "-infinity", "2024-06-01 12:30:00.5+00"]),
    ("interval", &["1 mon", "-1 days", "00:00:01", "1 year 2 mons 3 days 04:05:06"]),
    ("uuid", &["00000000-0000-0000-0000-000000000000", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"]),
    ("jsonb", &["{}", "{\"a\": [1, \"b\"]}", "null", "1.50"]),
    ("int[]", &["{}", "{1,NULL,3}", "{{1,2},{3,4}}", "[0:1]={7,8}"]),
    ("text[]", &["{\"a,b\",c}", "{NULL}"]),
    ("inet", &["10.0.0.1", "2001:db8::/32"]),
    ("int4range", &["[1,5)", "empty", "(,)"]),
    ("bit varying(9)", &["", "1010"]),
    ("mood", &["sad", "ok"]),
];

/// Longer than a page: stored out of line, and left out of UPDATEs that do not touch it.
const LARGE: usize = 3_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    Key,
    Full,
    /// REPLICA IDENTITY FULL without a primary key.
    Keyless,
}

#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    pub kind: &'static str,
    /// A value that stands out of line.
    large: bool,
}

pub type Row = Vec<Option<String>>;

/// The first column is `id`, an int that operations address rows by.
#[derive(Debug, Clone)]
pub struct Table {
    pub name: String,
    pub columns: Vec<Column>,
    pub identity: Identity,
    pub rows: Vec<Row>,
    /// Partitioned by ranges of ids, published as one: its partitions.
    pub partitions: Vec<Partition>,
}

#[derive(Debug, Clone)]
pub struct Partition {
    pub name: String,
    pub from: i64,
    pub to: i64,
}

pub struct Model {
    pub random: StdRng,
    pub tables: Vec<Table>,
    /// Labels of the enum as they are now, in place of those of `KINDS`.
    labels: Vec<String>,
    next_id: i64,
    next_name: u32,
}

fn quoted(value: &Option<String>) -> String {
    value.as_ref().map_or("NULL".into(), |text| format!("'{}'", text.replace('\'', "''")))
}

impl Model {
    pub fn new(seed: u64) -> Self {
        let labels = vec!["sad".to_owned(), "ok".to_owned()];
        let random = StdRng::seed_from_u64(seed);
        Self { random, tables: Vec::new(), labels, next_id: 1, next_name: 0 }
    }

    fn name(&mut self, prefix: &str) -> String {
        self.next_name += 1;
        format!("{prefix}{}", self.next_name)
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    /// A table with some rows; the SQL that makes it.
    pub fn new_table(&mut self, name: Option<String>, partitioned: bool) -> String {
        let name = name.unwrap_or_else(|| self.name("t"));
        let id = Column { name: "id".into(), kind: "int", large: false };
        let mut columns = vec![id];
        for _ in 0..self.random.random_range(1..6) {
            let column = self.new_column();
            columns.push(column);
        }
        let identity = match self.random.random_range(0..6) {
            _ if partitioned => Identity::Key,
            0 => Identity::Full,
            1 => Identity::Keyless,
            _ => Identity::Key,
        };
        let definitions: Vec<String> =
            columns.iter().map(|c| format!("{} {}", c.name, c.kind)).collect();
        let key = if identity == Identity::Keyless { "" } else { ", PRIMARY KEY (id)" };
        let by = if partitioned { " PARTITION BY RANGE (id)" } else { "" };
        let mut sql = format!("CREATE TABLE {name}({}{key}){by};", definitions.join(", "));
        let mut table =
            Table { name: name.clone(), columns, identity, rows: Vec::new(), partitions: vec![] };
        if partitioned {
            for (from, to) in [(0, 1_000), (1_000, 1_000_000)] {
                let leaf = self.name("p");
                write!(
                    sql,
                    "CREATE TABLE {leaf} PARTITION OF {name} FOR VALUES FROM ({from}) TO ({to});"
                )
                .unwrap();
                table.partitions.push(Partition { name: leaf, from, to });
            }
        }
        if identity != Identity::Key {
            write!(sql, "ALTER TABLE {name} REPLICA IDENTITY FULL;").unwrap();
        }
        for column in table.columns.iter().filter(|column| column.large) {
            let column = &column.name;
            write!(sql, "ALTER TABLE {name} ALTER {column} SET STORAGE EXTERNAL;").unwrap();
        }
        self.tables.push(table);
        let at = self.tables.len() - 1;
        for _ in 0..self.random.random_range(0..20) {
            sql += &self.insert(at);
        }
        sql
    }

    fn new_column(&mut self) -> Column {
        let (kind, _) = KINDS.choose(&mut self.random).unwrap();
        let large = *kind == "text" && self.chance(60);
        Column { name: self.name("c"), kind, large }
    }

    fn value(&mut self, column: &Column) -> Option<String> {
        if self.chance(15) {
            return None;
        }
        if column.large {
            let letter = char::from(b'a' + self.random.random_range(0..26_u8));
            return Some(format!("{}{letter}", letter.to_string().repeat(LARGE)));
        }
        if column.kind == "mood" {
            return self.labels.choose(&mut self.random).cloned();
        }
        let (_, values) = KINDS.iter().find(|(kind, _)| *kind == column.kind).unwrap();
        let value = values.choose(&mut self.random).unwrap();
        Some((*value).to_owned())
    }

    pub fn insert(&mut self, at: usize) -> String {
        let table = self.tables[at].clone();
        if table.columns.is_empty() || (!table.partitions.is_empty() && table.partitions.len() < 2)
        {
            return String::new();
        }
        let mut row: Row = table.columns.iter().map(|column| self.value(column)).collect();
        row[0] = Some(self.next_id.to_string());
        self.next_id += 1;
        let copies = if table.identity == Identity::Keyless && self.chance(30) { 3 } else { 1 };
        let values: Vec<String> = row.iter().map(quoted).collect();
        let sql = format!("INSERT INTO {} VALUES ({});", table.name, values.join(", "));
        self.tables[at].rows.extend(std::iter::repeat_n(row, copies));
        sql.repeat(copies)
    }

    fn some_id(&mut self, at: usize) -> Option<String> {
        let rows = self.tables[at].rows.len();
        let row = (rows > 0).then(|| self.random.random_range(0..rows))?;
        self.tables[at].rows[row][0].clone()
    }

    fn update(&mut self, at: usize) -> String {
        let Some(id) = self.some_id(at) else { return String::new() };
        let table = self.tables[at].clone();
        let columns = table.columns.len();
        if columns == 1 || (table.partitions.is_empty() && self.chance(10)) {
            let new = self.next_id.to_string();
            self.next_id += 1;
            for row in self.tables[at].rows.iter_mut().filter(|row| row[0].as_ref() == Some(&id)) {
                row[0] = Some(new.clone());
            }
            return format!("UPDATE {} SET id = {new} WHERE id = {id};", table.name);
        }
        let column = self.random.random_range(1..columns);
        let value = self.value(&table.columns[column]);
        for row in self.tables[at].rows.iter_mut().filter(|row| row[0].as_ref() == Some(&id)) {
            row[column] = value.clone();
        }
        let (name, set) = (&table.columns[column].name, quoted(&value));
        format!("UPDATE {} SET {name} = {set} WHERE id = {id};", table.name)
    }

    fn delete(&mut self, at: usize) -> String {
        let Some(id) = self.some_id(at) else { return String::new() };
        let table = &mut self.tables[at];
        let row = table.rows.iter().position(|row| row[0].as_ref() == Some(&id)).unwrap();
        table.rows.remove(row);
        match table.identity {
            // One of those that are equal.
            Identity::Keyless => format!(
                "DELETE FROM {0} WHERE ctid = (SELECT min(ctid) FROM {0} WHERE id = {id});",
                table.name
            ),
            _ => format!("DELETE FROM {} WHERE id = {id};", table.name),
        }
    }

    fn change(&mut self) -> String {
        let at = self.random.random_range(0..self.tables.len());
        match self.random.random_range(0..100) {
            0..45 => self.insert(at),
            45..75 => self.update(at),
            75..97 => self.delete(at),
            _ => {
                self.tables[at].rows.clear();
                format!("TRUNCATE {};", self.tables[at].name)
            }
        }
    }

    /// One source transaction, now and then with parts that are rolled back.
    pub fn transaction(&mut self) -> String {
        let mut sql = "BEGIN;".to_owned();
        for _ in 0..self.random.random_range(1..12) {
            if self.chance(8) {
                let before = self.tables.clone();
                sql += "SAVEPOINT s;";
                for _ in 0..3 {
                    sql += &self.change();
                }
                sql += "ROLLBACK TO s;";
                self.tables = before;
            } else {
                sql += &self.change();
            }
            if self.chance(4) {
                sql += &self.reshape();
            }
        }
        sql + "COMMIT"
    }

    /// A change of a table's shape that may stand within a source transaction.
    fn reshape(&mut self) -> String {
        let at = self.random.random_range(0..self.tables.len());
        let name = self.tables[at].name.clone();
        let columns = self.tables[at].columns.len();
        let some = (columns > 1).then(|| self.random.random_range(1..columns));
        match (self.random.random_range(0..8), some) {
            (0 | 1, _) | (_, None) => self.add_column(at),
            (2, Some(column)) => {
                let gone = self.tables[at].columns.remove(column);
                self.tables[at].rows.iter_mut().for_each(|row| drop(row.remove(column)));
                format!("ALTER TABLE {name} DROP COLUMN {};", gone.name)
            }
            (3, Some(column)) => {
                let again = self.tables[at].columns.remove(column);
                self.tables[at].rows.iter_mut().for_each(|row| {
                    row.remove(column);
                    row.push(None);
                });
                let (column, kind) = (again.name.clone(), again.kind);
                self.tables[at].columns.push(Column { large: false, ..again });
                format!(
                    "ALTER TABLE {name} DROP COLUMN {column}; ALTER TABLE {name} ADD COLUMN {column} {kind};"
                )
            }
            (4, Some(column)) => {
                let new = self.name("r");
                let old = std::mem::replace(&mut self.tables[at].columns[column].name, new.clone());
                format!("ALTER TABLE {name} RENAME COLUMN {old} TO {new};")
            }
            (5 | 6, Some(column)) => self.change_type(at, column),
            (_, Some(_)) => self.change_identity(at),
        }
    }

    fn add_column(&mut self, at: usize) -> String {
        let column = Column { large: false, ..self.new_column() };
        let value = if self.chance(60) { self.value(&column) } else { None };
        let default = match &value {
            Some(_) => format!(" DEFAULT {}", quoted(&value)),
            None => String::new(),
        };
        let table = &mut self.tables[at];
        table.rows.iter_mut().for_each(|row| row.push(value.clone()));
        let sql = format!(
            "ALTER TABLE {} ADD COLUMN {} {}{default};",
            table.name, column.name, column.kind
        );
        table.columns.push(column);
        sql
    }

    fn change_type(&mut self, at: usize, column: usize) -> String {
        let (table, name) =
            (self.tables[at].name.clone(), self.tables[at].columns[column].name.clone());
        let negative = self.chance(50);
        let change = match self.tables[at].columns[column].kind {
            "int" if negative => {
                for row in &mut self.tables[at].rows {
                    let value = row[column].as_ref().map(|text| text.parse::<i64>().unwrap());
                    row[column] = value.map(|value| (-value).to_string());
                }
                self.tables[at].columns[column].kind = "bigint";
                format!("bigint USING -{name}::bigint")
            }
            "int" => {
                self.tables[at].columns[column].kind = "bigint";
                "bigint".to_owned()
            }
            "varchar(40)" => {
                self.tables[at].columns[column].kind = "text";
                "text".to_owned()
            }
            "bigint" | "uuid" | "inet" | "jsonb" | "int4range" | "bytea" => {
                self.tables[at].columns[column].kind = "text";
                format!("text USING format('%s', {name})")
            }
            _ => return String::new(),
        };
        let nulls = match change.contains("format(") {
            // format() makes a text of NULL.
            true => change.replace(
                &format!("format('%s', {name})"),
                &format!("CASE WHEN num_nulls({name}) = 0 THEN format('%s', {name}) END"),
            ),
            false => change,
        };
        format!("ALTER TABLE {table} ALTER {name} TYPE {nulls};")
    }

    fn change_identity(&mut self, at: usize) -> String {
        let table = &mut self.tables[at];
        let name = &table.name;
        match table.identity {
            Identity::Key if table.partitions.is_empty() => {
                table.identity = Identity::Full;
                format!("ALTER TABLE {name} REPLICA IDENTITY FULL;")
            }
            Identity::Full => {
                table.identity = Identity::Key;
                format!("ALTER TABLE {name} REPLICA IDENTITY DEFAULT;")
            }
            _ => String::new(),
        }
    }

    /// A change that stands alone.
    pub fn ddl(&mut self) -> String {
        let at = self.random.random_range(0..self.tables.len());
        let table = self.tables[at].clone();
        match self.random.random_range(0..9) {
            0 => format!("VACUUM FULL {}", table.name),
            1 if table.partitions.is_empty() => {
                let new = self.name("n");
                self.tables[at].name.clone_from(&new);
                format!("ALTER TABLE {} RENAME TO {new}", table.name)
            }
            2 if table.partitions.is_empty() => {
                self.tables.remove(at);
                let made = self.new_table(Some(table.name.clone()), false);
                let name = &table.name;
                format!(
                    "BEGIN; DROP TABLE {name}; {made} ALTER PUBLICATION frazil ADD TABLE {name}; COMMIT"
                )
            }
            3 if self.tables.len() < 6 => {
                let made = self.new_table(None, false);
                let name = self.tables.last().unwrap().name.clone();
                format!("{made} ALTER PUBLICATION frazil ADD TABLE {name}")
            }
            4 => {
                let (nth, new) =
                    (self.random.random_range(0..self.labels.len()), self.name("mood "));
                let old = std::mem::replace(&mut self.labels[nth], new.clone());
                self.rename_label(&old, &new);
                format!("ALTER TYPE mood RENAME VALUE '{old}' TO '{new}'")
            }
            5 | 6 if !table.partitions.is_empty() => self.repartition(at),
            _ => {
                let sql = self.reshape();
                sql.trim_end_matches(';').to_owned()
            }
        }
    }

    fn rename_label(&mut self, old: &str, new: &str) {
        for table in &mut self.tables {
            for (column, _) in table.columns.iter().enumerate().filter(|(_, c)| c.kind == "mood") {
                for row in &mut table.rows {
                    if row[column].as_deref() == Some(old) {
                        row[column] = Some(new.to_owned());
                    }
                }
            }
        }
    }

    fn repartition(&mut self, at: usize) -> String {
        let table = self.tables[at].clone();
        let within = |row: &Row, leaf: &Partition| {
            let id: i64 = row[0].as_ref().unwrap().parse().unwrap();
            (leaf.from..leaf.to).contains(&id)
        };
        let leaf = &table.partitions[0];
        if self.chance(50) {
            self.tables[at].rows.retain(|row| !within(row, leaf));
            return format!("TRUNCATE {}", leaf.name);
        }
        // Out with its rows, and in again with others.
        self.tables[at].rows.retain(|row| !within(row, leaf));
        let mut row: Row = table.columns.iter().map(|column| self.value(column)).collect();
        row[0] = Some("0".into());
        let values: Vec<String> = row.iter().map(quoted).collect();
        self.tables[at].rows.push(row);
        let (name, leaf, new) = (&table.name, leaf.name.clone(), self.name("p"));
        let (from, to) = (table.partitions[0].from, table.partitions[0].to);
        self.tables[at].partitions[0].name.clone_from(&new);
        format!(
            "ALTER TABLE {name} DETACH PARTITION {leaf}; DROP TABLE {leaf}; \
             CREATE TABLE {new} (LIKE {name} INCLUDING ALL); INSERT INTO {new} VALUES ({}); \
             ALTER TABLE {name} ATTACH PARTITION {new} FOR VALUES FROM ({from}) TO ({to})",
            values.join(", ")
        )
    }
}
