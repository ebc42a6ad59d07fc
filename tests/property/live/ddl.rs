//! Changes of tables, done to Postgres and to the model.

use rand::Rng;

use super::model::{Column, Key, Leaf, Row};
use super::steps::Generator;
use super::values::{Kind, pick, quoted};

impl Generator {
    /// One statement (or the few that belong together) that changes a table's shape.
    pub(super) fn schema_change(&mut self) {
        if self.model.tables.is_empty() || self.read_back.is_some() {
            return;
        }
        let at = self.random.random_range(0..self.model.tables.len());
        if self.model.tables[at].key == Key::Partitioned && self.chance(0.5) {
            return self.change_partitions(at);
        }
        match self.random.random_range(0..15) {
            0..=2 => self.add_column(at),
            3 => self.drop_column(at),
            4 => self.drop_and_add(at),
            5 => self.rename_column(at),
            6 => self.rename_table(at),
            7..=9 => self.change_type(at),
            10 => self.change_key_columns(at),
            11 => self.add_table(),
            12 => self.make_anew(at),
            13 => self.rename_label(),
            _ => {
                let name = &self.model.tables[at].name;
                self.alone = Some(format!("VACUUM FULL {name}"));
            }
        }
    }

    fn alter(&mut self, at: usize, what: &str) {
        self.model.tables[at].shape += 1;
        let statement = format!("ALTER TABLE {} {what}", self.model.tables[at].name);
        self.push(&statement);
    }

    fn add_column(&mut self, at: usize) {
        let gone = self.model.tables[at].gone.clone();
        let again = !gone.is_empty() && self.chance(0.5);
        let name =
            if again { pick(&mut self.random, &gone).clone() } else { self.model.fresh("c") };
        self.model.tables[at].gone.retain(|one| *one != name);
        self.add_column_named(at, name);
    }

    fn add_column_named(&mut self, at: usize, name: String) {
        let mut column = Column::new(name, Kind::random(&mut self.random));
        let how = self.random.random_range(0..3);
        let mut value = None;
        let default = match how {
            0 => String::new(),
            1 => {
                // The catalog holds it, and has no room for a large one.
                let kind = if column.kind == Kind::Big { Kind::Text } else { column.kind };
                value = kind.value(&mut self.random, &self.model.labels);
                format!(" DEFAULT {}", quoted(&value))
            }
            // Rows that are equal must stay so: there is no telling them apart.
            _ if self.model.tables[at].key == Key::None => String::new(),
            _ => {
                column = Column::new(column.name, Kind::Int);
                self.read_back =
                    Some((self.model.tables[at].name.clone(), self.model.tables[at].columns.len()));
                " DEFAULT dice()".into()
            }
        };
        let (name, sql_type) = (column.name.clone(), column.sql_type.clone());
        let storage = match column.kind {
            Kind::Big => format!(", ALTER {name} SET STORAGE EXTERNAL"),
            _ => String::new(),
        };
        let table = &mut self.model.tables[at];
        table.columns.push(column);
        for row in &mut table.rows {
            row.values.push(value.clone());
        }
        self.alter(at, &format!("ADD {name} {sql_type}{default}{storage}"));
    }

    /// A column that is not the group.
    fn some_column(&mut self, at: usize) -> Option<usize> {
        let count = self.model.tables[at].columns.len();
        (count > 1).then(|| self.random.random_range(1..count))
    }

    fn drop_column(&mut self, at: usize) {
        let Some(which) = self.some_column(at) else { return };
        let name = self.remove_column(at, which);
        self.model.tables[at].gone.push(name);
    }

    fn remove_column(&mut self, at: usize, which: usize) -> String {
        let table = &mut self.model.tables[at];
        let name = table.columns.remove(which).name;
        for row in &mut table.rows {
            row.values.remove(which);
        }
        self.alter(at, &format!("DROP {name}"));
        name
    }

    fn drop_and_add(&mut self, at: usize) {
        let Some(which) = self.some_column(at) else { return };
        let name = self.remove_column(at, which);
        self.add_column_named(at, name);
    }

    fn rename_column(&mut self, at: usize) {
        let which = self.random.random_range(0..self.model.tables[at].columns.len());
        let to = self.model.fresh("r");
        let from = std::mem::replace(&mut self.model.tables[at].columns[which].name, to.clone());
        self.alter(at, &format!("RENAME {from} TO {to}"));
    }

    fn rename_table(&mut self, at: usize) {
        let to = self.model.fresh("moved");
        self.alter(at, &format!("RENAME TO {to}"));
        self.model.tables[at].past.push(to.clone());
        self.model.tables[at].name = to;
    }

    fn change_type(&mut self, at: usize) {
        let Some(which) = self.some_column(at) else { return };
        let column = &self.model.tables[at].columns[which];
        let (name, old) = (column.name.clone(), column.kind);
        let suffix = self.random.random_bool(0.5) && matches!(old, Kind::Text);
        let (kind, sql_type) = match old {
            Kind::Small => (Kind::Int, "int4"),
            Kind::Int if self.random.random_bool(0.5) => (Kind::Long, "int8"),
            Kind::Long if self.random.random_bool(0.5) => (Kind::Numeric, "numeric"),
            Kind::Decimal if column.sql_type == "numeric(12,2)" => (Kind::Decimal, "numeric(20,2)"),
            Kind::Varchar if column.sql_type == "varchar(40)" => (Kind::Varchar, "varchar(80)"),
            Kind::Text if suffix => (Kind::Text, "varchar(400)"),
            Kind::Big => return,
            old if old.casts_to_text() => (Kind::Text, "text"),
            _ => return,
        };
        let table = &mut self.model.tables[at];
        table.columns[which] = Column { name: name.clone(), kind, sql_type: sql_type.into() };
        for value in table.rows.iter_mut().filter_map(|row| row.values[which].as_mut()) {
            if suffix {
                *value = format!("{value}!").into();
            }
        }
        let using = if suffix { format!(" USING {name} || '!'") } else { String::new() };
        self.alter(at, &format!("ALTER {name} DROP DEFAULT, ALTER {name} TYPE {sql_type}{using}"));
    }

    /// The group goes into the key or out of it; or another replica identity.
    fn change_key_columns(&mut self, at: usize) {
        let table = &mut self.model.tables[at];
        if table.key != Key::Int {
            return;
        }
        if self.random.random_bool(0.4) {
            let identity = if self.random.random() { "FULL" } else { "DEFAULT" };
            return self.alter(at, &format!("REPLICA IDENTITY {identity}"));
        }
        table.wide_key = !table.wide_key;
        let key = format!("{}_key", table.past[0]);
        let group = table.columns[0].name.clone();
        let columns = if table.wide_key { format!("id, {group}") } else { "id".into() };
        self.alter(
            at,
            &format!("DROP CONSTRAINT {key}, ADD CONSTRAINT {key} PRIMARY KEY ({columns})"),
        );
    }

    fn add_table(&mut self) {
        if self.model.tables.len() >= 6 {
            return;
        }
        let table = self.model.new_table(&mut self.random);
        self.push(table.ddl().trim_end_matches(";\n"));
        self.publish(&table.name);
        self.model.tables.push(table);
        self.model.tables.rotate_right(1);
        // Rows before the table is known to anybody.
        self.change();
    }

    fn publish(&mut self, name: &str) {
        if !self.all_tables {
            self.push(&format!("ALTER PUBLICATION frazil ADD TABLE {name}"));
        }
    }

    /// The table is dropped, and another takes its name.
    fn make_anew(&mut self, at: usize) {
        let mut table = self.model.new_table(&mut self.random);
        let old = &self.model.tables[at];
        if old.past.len() > 1 {
            return;
        }
        (table.name, table.past) = (old.name.clone(), old.past.clone());
        self.push(&format!("DROP TABLE {}", table.name));
        self.push(table.ddl().trim_end_matches(";\n"));
        self.publish(&table.name);
        self.model.tables[at] = table;
    }

    fn rename_label(&mut self) {
        let which = self.random.random_range(0..self.model.labels.len());
        let to = self.model.fresh("label ");
        let from = quoted(&Some(self.model.labels[which].as_str().into()));
        self.push(&format!("ALTER TYPE mood RENAME VALUE {from} TO '{to}'"));
        self.model.rename_label(which, &to);
    }

    /// TRUNCATE, DETACH, ATTACH or DROP of one partition.
    fn change_partitions(&mut self, at: usize) {
        let which = self.random.random_range(0..self.model.tables[at].leaves.len());
        if !self.model.tables[at].leaves[which].attached {
            return self.attach(at, which);
        }
        let table = &mut self.model.tables[at];
        let (root, from) = (table.name.clone(), table.leaves[which].from);
        let name = table.leaves[which].name.clone();
        let is_in = |row: &Row| (from..from + 100).contains(&row.n);
        let (inside, outside): (Vec<Row>, Vec<Row>) =
            std::mem::take(&mut table.rows).into_iter().partition(is_in);
        table.rows = outside;
        match self.random.random_range(0..3) {
            0 => self.push(&format!("TRUNCATE {name}")),
            1 => {
                let leaf = &mut table.leaves[which];
                (leaf.attached, leaf.aside, leaf.shape) = (false, inside, table.shape);
                self.push(&format!("ALTER TABLE {root} DETACH PARTITION {name}"));
            }
            _ => {
                let leaf = Leaf { shape: u32::MAX, attached: false, ..table.leaves[which].clone() };
                table.leaves[which] = leaf;
                self.push(&format!("DROP TABLE {name}"));
            }
        }
    }

    /// The same leaf with what it held, or a new one.
    fn attach(&mut self, at: usize, which: usize) {
        let shape = self.model.tables[at].shape;
        let fresh = self.model.fresh("leaf");
        let table = &mut self.model.tables[at];
        let root = table.name.clone();
        let leaf = &mut table.leaves[which];
        let is_same = leaf.shape == shape;
        if !is_same {
            leaf.name = fresh;
            leaf.aside.clear();
        }
        leaf.attached = true;
        let (name, from) = (leaf.name.clone(), leaf.from);
        table.rows.extend(std::mem::take(&mut leaf.aside));
        if !is_same {
            self.push(&format!("CREATE TABLE {name} (LIKE {root} INCLUDING ALL)"));
        }
        let range = format!("FROM ({from}) TO ({})", from + 100);
        self.push(&format!("ALTER TABLE {root} ATTACH PARTITION {name} FOR VALUES {range}"));
    }
}
