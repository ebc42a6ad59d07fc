//! One random source transaction after the other: rows, savepoints, rollbacks, DDL between them.
//! Each statement is written and done to the model at once.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::model::{Key, Model, Row};
use super::values::{Value, pick, quoted};

/// Makes the statements, and knows what they come to.
pub(super) struct Generator {
    pub(super) random: StdRng,
    pub(super) model: Model,
    pub(super) sql: String,
    /// What cannot run inside a transaction block.
    pub(super) alone: Option<String>,
    /// Whether tables come into the publication by themselves.
    pub(super) all_tables: bool,
    /// A column whose values only Postgres knows: the table, and the column's place.
    pub(super) read_back: Option<(String, usize)>,
}

/// What is run next.
pub(super) struct Step {
    pub(super) sql: String,
    /// Values to be read from Postgres into the model: of this table, for this column.
    pub(super) read_back: Option<(String, usize)>,
}

impl Generator {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let model = Model::new(&mut random);
        let all_tables = random.random();
        Self { random, model, sql: String::new(), alone: None, all_tables, read_back: None }
    }

    /// The first tables and the publication.
    pub(super) fn schema(&self) -> String {
        let labels: Vec<String> =
            self.model.labels.iter().map(|l| quoted(&Some(l.as_str().into()))).collect();
        let mut sql = format!("CREATE TYPE mood AS ENUM ({});\n", labels.join(", "));
        sql += "CREATE TABLE beside(id int PRIMARY KEY);\nINSERT INTO beside VALUES (0);\n";
        sql += "CREATE FUNCTION dice() RETURNS int LANGUAGE sql VOLATILE AS \
                'SELECT (random() * 1000000)::int';\n";
        for table in &self.model.tables {
            sql += &table.ddl();
        }
        let mut names: Vec<&str> = self.model.tables.iter().map(|t| t.name.as_str()).collect();
        names.push("beside");
        let tables = if self.all_tables {
            "ALL TABLES".into()
        } else {
            format!("TABLE {}", names.join(", "))
        };
        sql + &format!(
            "CREATE PUBLICATION frazil FOR {tables} WITH (publish_via_partition_root = true);\n"
        )
    }

    pub(super) fn chance(&mut self, of: f64) -> bool {
        self.random.random_bool(of)
    }

    pub(super) fn push(&mut self, statement: &str) {
        self.sql.push_str(statement);
        self.sql.push_str(";\n");
    }

    /// Rows only.
    pub(super) fn rows(&mut self) -> Step {
        self.sql = "BEGIN;\n".into();
        for _ in 0..self.random.random_range(1..8) {
            self.change();
        }
        self.push("COMMIT");
        Step { sql: std::mem::take(&mut self.sql), read_back: None }
    }

    /// The next source transaction.
    pub(super) fn step(&mut self) -> Step {
        let before = self.model.clone();
        self.sql = "BEGIN;\n".into();
        for _ in 0..self.random.random_range(1..6) {
            match self.random.random_range(0..10) {
                0 => self.savepoint(),
                1 | 2 => self.schema_change(),
                _ => self.change(),
            }
        }
        if self.chance(0.08) {
            self.model = before;
            self.read_back = None;
            self.push("ROLLBACK");
        } else {
            self.push("COMMIT");
        }
        let mut sql = std::mem::take(&mut self.sql);
        if let Some(alone) = self.alone.take() {
            // The model may have gone back to before the table of that name.
            let table = self.model.tables.iter().any(|t| alone.ends_with(&format!(" {}", t.name)));
            sql = if table { format!("{sql}---\n{alone};\n") } else { sql };
        }
        Step { sql, read_back: self.read_back.take() }
    }

    /// Some changes, released or rolled back.
    fn savepoint(&mut self) {
        let (before, read_back) = (self.model.clone(), self.read_back.clone());
        self.push("SAVEPOINT s");
        for _ in 0..self.random.random_range(1..4) {
            match self.chance(0.3) {
                true => self.schema_change(),
                false => self.change(),
            }
        }
        if self.chance(0.5) {
            self.push("ROLLBACK TO s");
            let names = self.model.names;
            self.model = Model { names, ..before };
            self.read_back = read_back;
        } else {
            self.push("RELEASE s");
        }
    }

    /// One statement that changes rows.
    pub(super) fn change(&mut self) {
        if self.model.tables.is_empty() {
            return;
        }
        let at = self.random.random_range(0..self.model.tables.len());
        match self.random.random_range(0..20) {
            0..=6 => self.insert(at),
            7..=11 => self.update_one(at),
            12 => self.update_group(at),
            13 | 14 => self.change_key(at),
            15 => self.shift_keys(at),
            16 | 17 => self.delete(at),
            18 => self.delete_group(at),
            _ if self.chance(0.3) => self.truncate(at),
            _ => self.update_nothing(at),
        }
    }

    fn insert(&mut self, at: usize) {
        let many = if self.chance(0.1) { 60 } else { self.random.random_range(1..5) };
        let mut lists = Vec::new();
        for _ in 0..many {
            let table = &mut self.model.tables[at];
            let Some(n) = table.fresh_key(&mut self.random) else { continue };
            let mut values = vec![Some(self.random.random_range(0..5).to_string().into())];
            for column in &table.columns[1..] {
                values.push(column.kind.value(&mut self.random, &self.model.labels));
            }
            let row = Row { n, key: table.key_of(n), values };
            let texts = row.key.iter().map(|k| Some(k.clone())).chain(row.values.iter().cloned());
            let list = format!("({})", texts.map(|v| quoted(&v)).collect::<Vec<_>>().join(", "));
            // Equal rows, where nothing forbids them (case 74).
            let copies = if table.key == Key::None { self.random.random_range(1..4) } else { 1 };
            for _ in 0..copies {
                lists.push(list.clone());
                table.rows.push(row.clone());
            }
        }
        if !lists.is_empty() {
            let table = &self.model.tables[at];
            let (name, columns) = (&table.name, table.names().join(", "));
            let statement = format!("INSERT INTO {name}({columns}) VALUES {}", lists.join(", "));
            self.push(&statement);
        }
    }

    fn some_row(&mut self, at: usize) -> Option<i64> {
        let rows = &self.model.tables[at].rows;
        (!rows.is_empty()).then(|| pick(&mut self.random, rows).n)
    }

    /// A new value for some columns: large ones often stay (case 76).
    fn assignments(&mut self, at: usize) -> Vec<(usize, Value)> {
        let table = &self.model.tables[at];
        let mut set = vec![(0, Some(self.random.random_range(0..5).to_string().into()))];
        if self.random.random_bool(0.2) {
            return set;
        }
        for (i, column) in table.columns.iter().enumerate().skip(1) {
            if self.random.random_bool(0.3) {
                set.push((i, column.kind.value(&mut self.random, &self.model.labels)));
            }
        }
        set
    }

    fn update_where(&mut self, at: usize, condition: &str, is_meant: impl Fn(&Row) -> bool) {
        let set = self.assignments(at);
        let table = &mut self.model.tables[at];
        let sql: Vec<String> = set
            .iter()
            .map(|(i, v)| format!("{} = {}", table.columns[*i].name, quoted(v)))
            .collect();
        for row in table.rows.iter_mut().filter(|row| is_meant(row)) {
            for (i, value) in &set {
                row.values[*i] = value.clone();
            }
        }
        let statement = format!("UPDATE {} SET {} WHERE {condition}", table.name, sql.join(", "));
        self.push(&statement);
    }

    fn update_one(&mut self, at: usize) {
        let Some(n) = self.some_row(at) else { return self.insert(at) };
        let condition = self.model.tables[at].condition(n);
        self.update_where(at, &condition, |row| row.n == n);
    }

    fn update_group(&mut self, at: usize) {
        let group = self.random.random_range(0..5).to_string();
        let condition = format!("{} = {group}", self.model.tables[at].columns[0].name);
        self.update_where(at, &condition, |row| row.values[0].as_deref() == Some(&group));
    }

    fn update_nothing(&mut self, at: usize) {
        let table = &self.model.tables[at];
        let group = &table.columns[0].name;
        let statement = format!("UPDATE {} SET {group} = {group} WHERE {group} < 3", table.name);
        self.push(&statement);
    }

    fn change_key(&mut self, at: usize) {
        let Some(n) = self.some_row(at) else { return self.insert(at) };
        let table = &mut self.model.tables[at];
        let condition = table.condition(n);
        if table.key == Key::Numeric && self.random.random_bool(0.5) {
            // Equal by value, other bytes (case 68).
            let text = if self.random.random() { format!("{n}.00") } else { n.to_string() };
            let statement = format!("UPDATE {} SET id = {text} WHERE {condition}", table.name);
            for row in table.rows.iter_mut().filter(|row| row.n == n) {
                row.key = vec![text.as_str().into()];
            }
            return self.push(&statement);
        }
        let Some(to) = table.fresh_key(&mut self.random) else { return };
        let key = table.key_of(to);
        let names = table.key_columns().iter().map(|(name, _)| *name);
        let set: Vec<_> =
            names.zip(&key).map(|(c, v)| format!("{c} = {}", quoted(&Some(v.clone())))).collect();
        let statement = format!("UPDATE {} SET {} WHERE {condition}", table.name, set.join(", "));
        for row in table.rows.iter_mut().filter(|row| row.n == n) {
            (row.n, row.key) = (to, key.clone());
        }
        self.push(&statement);
    }

    /// `id = id + n` of all rows.
    fn shift_keys(&mut self, at: usize) {
        let table = &mut self.model.tables[at];
        if !matches!(table.key, Key::Int | Key::None) {
            return self.change_key(at);
        }
        let by = table.next + 1;
        table.next += by;
        for row in &mut table.rows {
            row.n += by;
            row.key = vec![row.n.to_string().into()];
        }
        let statement = format!("UPDATE {} SET id = id + {by}", table.name);
        self.push(&statement);
    }

    fn delete(&mut self, at: usize) {
        let Some(n) = self.some_row(at) else { return };
        let table = &mut self.model.tables[at];
        let (name, condition) = (&table.name, table.condition(n));
        // One of the rows that are equal.
        let one = table.key == Key::None && self.random.random_bool(0.7);
        let statement = match one {
            true => format!(
                "DELETE FROM {name} WHERE ctid = (SELECT ctid FROM {name} WHERE {condition} LIMIT 1)"
            ),
            false => format!("DELETE FROM {name} WHERE {condition}"),
        };
        match table.rows.iter().position(|row| row.n == n).filter(|_| one) {
            Some(first) => _ = table.rows.remove(first),
            None => table.rows.retain(|row| row.n != n),
        }
        self.push(&statement);
    }

    fn delete_group(&mut self, at: usize) {
        let group = self.random.random_range(0..5).to_string();
        let table = &mut self.model.tables[at];
        table.rows.retain(|row| row.values[0].as_deref() != Some(&group));
        let column = &table.columns[0].name;
        let statement = format!("DELETE FROM {} WHERE {column} = {group}", table.name);
        self.push(&statement);
    }

    fn truncate(&mut self, at: usize) {
        let other = self.random.random_range(0..self.model.tables.len());
        let mut names = Vec::new();
        for which in if at == other { vec![at] } else { vec![at, other] } {
            self.model.tables[which].rows.clear();
            names.push(self.model.tables[which].name.clone());
        }
        let statement = format!("TRUNCATE {}", names.join(", "));
        self.push(&statement);
    }
}
