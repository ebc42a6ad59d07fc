//! A random, seeded workload over twelve tables of different shapes.
//!
//! A model of the live keys makes every statement valid, so that a transaction fails only when the
//! test's own server does. The seed is printed; `FRAZIL_SEED` replays it.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::Client;

use super::shapes::{Shape, shapes};

/// Keys at or above this one came from a mass key shift; each key shifts at most once.
const SHIFT: i64 = 10_000_000;
/// The largest source transaction, in row changes.
const TRANSACTION_CHANGES_MAX: usize = 5_000;

/// What a run did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Stats {
    /// Transactions that were committed.
    pub committed: usize,
    /// Transactions that were rolled back.
    pub rolled_back: usize,
    /// Savepoints that were rolled back in transactions that went on.
    pub savepoints_rolled_back: usize,
    /// Row changes sent, rolled-back ones included (a truncate counts as one).
    pub changes: usize,
    /// TRUNCATE statements.
    pub truncates: usize,
    /// Changes of a key.
    pub key_changes: usize,
    /// Row changes of the largest transaction.
    pub largest_transaction: usize,
}

/// The generator; goes on from its own model at each [`Workload::run`].
pub struct Workload {
    random: StdRng,
    tables: Vec<Table>,
    raw_values: bool,
    stats: Stats,
}

struct Table {
    shape: Shape,
    keys: Keys,
    next_key: i64,
}

/// The part of the model that a rollback restores.
#[derive(Clone, Default)]
struct Keys {
    live: Vec<i64>,
    free: Vec<i64>,
}

impl Workload {
    /// Seeded by `FRAZIL_SEED` where that is set, else by `seed`.
    pub fn new(seed: u64) -> Self {
        let replayed = std::env::var("FRAZIL_SEED").ok().and_then(|text| text.parse().ok());
        let seed = replayed.unwrap_or(seed);
        eprintln!("workload seed: FRAZIL_SEED={seed}");
        let table = |shape| Table { shape, keys: Keys::default(), next_key: 1 };
        Self {
            random: StdRng::seed_from_u64(seed),
            tables: shapes().into_iter().map(table).collect(),
            raw_values: true,
            stats: Stats::default(),
        }
    }

    /// Leaves out values that the lake's types cannot hold (infinite dates, 24:00, NaN decimals).
    #[must_use]
    pub fn without_raw_values(mut self) -> Self {
        self.raw_values = false;
        self
    }

    /// Creates types and tables; run it once before the publication.
    pub fn schema_sql(&self) -> String {
        let prelude = "CREATE SCHEMA IF NOT EXISTS work; \
             CREATE TYPE work.mood AS ENUM ('sad', 'so so', 'happy'); \
             CREATE DOMAIN work.price AS numeric(8,3);";
        let tables: Vec<_> = self.tables.iter().map(|table| table.shape.ddl()).collect();
        format!("{prelude}\n{}", tables.join("\n"))
    }

    /// The tables' names, `schema.name`.
    pub fn tables(&self) -> Vec<&'static str> {
        self.tables.iter().map(|table| table.shape.name).collect()
    }

    /// Runs transactions until at least `changes` row changes were sent; the sums of this call.
    pub async fn run(&mut self, client: &Client, changes: usize) -> Stats {
        self.stats = Stats::default();
        while self.stats.changes < changes {
            let sql = self.next_transaction();
            if let Err(error) = client.batch_execute(&sql).await {
                let _ = client.batch_execute("ROLLBACK").await;
                panic!("{:?}\nin: {}", error, sql.chars().take(3_000).collect::<String>());
            }
        }
        self.stats
    }

    /// The SQL of one whole transaction.
    pub fn next_transaction(&mut self) -> String {
        let size = match self.random.random_range(0..1000) {
            0..600 => self.random.random_range(1..=5),
            600..900 => self.random.random_range(6..=200),
            900..985 => self.random.random_range(201..=1000),
            _ => self.random.random_range(1001..=TRANSACTION_CHANGES_MAX),
        };
        let before = self.model();
        let rolls_back = self.random.random_bool(0.03);
        let mut sql = String::from("BEGIN;\n");
        let mut done = 0;
        while done < size {
            let part = self.random.random_range(1..=size - done);
            done += match self.random.random_bool(0.1) {
                true => self.savepoint(part, &mut sql),
                false => self.changes(part, &mut sql),
            };
        }
        if rolls_back {
            self.restore(before);
            self.stats.rolled_back += 1;
            sql.push_str("ROLLBACK;");
        } else {
            self.stats.committed += 1;
            sql.push_str("COMMIT;");
        }
        self.stats.changes += done;
        self.stats.largest_transaction = self.stats.largest_transaction.max(done);
        sql
    }

    fn savepoint(&mut self, size: usize, sql: &mut String) -> usize {
        let before = self.model();
        sql.push_str("SAVEPOINT s;\n");
        let done = self.changes(size, sql);
        if self.random.random_bool(0.5) {
            self.restore(before);
            self.stats.savepoints_rolled_back += 1;
            sql.push_str("ROLLBACK TO s;\n");
        } else {
            sql.push_str("RELEASE s;\n");
        }
        done
    }

    fn changes(&mut self, size: usize, sql: &mut String) -> usize {
        let mut done = 0;
        while done < size {
            let at = self.random.random_range(0..self.tables.len());
            done += self.change(at, size - done, sql);
        }
        done
    }

    /// One statement (a swap is three) of at most `size` changes; how many it made.
    fn change(&mut self, at: usize, size: usize, sql: &mut String) -> usize {
        let Self { random, tables, raw_values, stats } = self;
        let table = &mut tables[at];
        let mut draft = Draft { random, raw_values: *raw_values, sql };
        let roll = draft.random.random_range(0..1000);
        if roll == 0 {
            stats.truncates += 1;
            return draft.truncate(table);
        }
        let may_update = table.shape.has_key() && !table.keys.live.is_empty();
        match roll {
            _ if !may_update => draft.insert(table, size),
            0..400 => draft.insert(table, size),
            400..720 => draft.update(table),
            720..750 => draft.no_op(table),
            750..800 => {
                stats.key_changes += 1;
                draft.change_key(table)
            }
            800..810 if size >= 3 && table.keys.live.len() > 1 => {
                stats.key_changes += 3;
                draft.swap_keys(table)
            }
            810..820 if table.shape.shifts => {
                let made = draft.shift_keys(table, size);
                stats.key_changes += made;
                made
            }
            _ => draft.delete(table, size),
        }
    }

    fn model(&self) -> Vec<Keys> {
        self.tables.iter().map(|table| table.keys.clone()).collect()
    }

    fn restore(&mut self, model: Vec<Keys>) {
        for (table, keys) in self.tables.iter_mut().zip(model) {
            table.keys = keys;
        }
    }
}

/// Writes statements and keeps the model in step.
struct Draft<'a> {
    random: &'a mut StdRng,
    raw_values: bool,
    sql: &'a mut String,
}

impl Draft<'_> {
    fn truncate(&mut self, table: &mut Table) -> usize {
        self.push(&format!("TRUNCATE {}", table.shape.name));
        let gone = std::mem::take(&mut table.keys.live);
        table.keys.free.extend(gone);
        1
    }

    fn insert(&mut self, table: &mut Table, size: usize) -> usize {
        let rows = match self.random.random_range(0..10) {
            0 => self.random.random_range(1..=size.min(100)),
            _ => 1,
        };
        let mut tuples = Vec::with_capacity(rows);
        for _ in 0..rows {
            let key = self.unused_key(table);
            table.keys.live.push(key);
            let mut values = table.shape.key_values(key);
            for (_, kind) in table.shape.columns {
                values.push(kind.literal(self.random, self.raw_values));
            }
            tuples.push(format!("({})", values.join(",")));
        }
        self.push(&format!("INSERT INTO {} VALUES {}", table.shape.name, tuples.join(",")));
        rows
    }

    /// One or two columns of one row, the others (large ones too) left as they are.
    fn update(&mut self, table: &mut Table) -> usize {
        let shape = &table.shape;
        let condition = shape.condition(self.live_key(&table.keys).1);
        let mut sets = Vec::new();
        let first = self.random.random_range(0..shape.columns.len());
        for (name, kind) in shape.columns.iter().skip(first).take(self.random.random_range(1..=2)) {
            sets.push(format!("{name} = {}", kind.literal(self.random, self.raw_values)));
        }
        self.push(&format!("UPDATE {} SET {} WHERE {condition}", shape.name, sets.join(", ")));
        1
    }

    fn no_op(&mut self, table: &mut Table) -> usize {
        let (name, set) = (table.shape.name, table.shape.no_op());
        let condition = table.shape.condition(self.live_key(&table.keys).1);
        self.push(&format!("UPDATE {name} SET {set} WHERE {condition}"));
        1
    }

    fn change_key(&mut self, table: &mut Table) -> usize {
        let (at, old) = self.live_key(&table.keys);
        let new = self.unused_key(table);
        table.keys.live[at] = new;
        table.keys.free.push(old);
        self.rekey(table, old, new);
        1
    }

    fn swap_keys(&mut self, table: &mut Table) -> usize {
        let first = table.keys.live[0];
        let last = table.keys.live[table.keys.live.len() - 1];
        let between = fresh_key(table);
        self.rekey(table, first, between);
        self.rekey(table, last, first);
        self.rekey(table, between, last);
        3
    }

    /// `id = id + SHIFT` over several rows in one statement.
    fn shift_keys(&mut self, table: &mut Table, size: usize) -> usize {
        let most = self.random.random_range(1..=size.min(20));
        let low = table.keys.live.iter_mut().filter(|key| **key < SHIFT).take(most);
        let mut shifted = Vec::new();
        for key in low {
            shifted.push(key.to_string());
            *key += SHIFT;
        }
        if shifted.is_empty() {
            return self.insert(table, size);
        }
        let (name, list) = (table.shape.name, shifted.join(","));
        self.push(&format!("UPDATE {name} SET id = id + {SHIFT} WHERE id IN ({list})"));
        shifted.len()
    }

    fn delete(&mut self, table: &mut Table, size: usize) -> usize {
        let rows = match self.random.random_range(0..10) {
            0 => self.random.random_range(1..=size.min(20)).min(table.keys.live.len()),
            _ => 1,
        };
        let mut conditions = Vec::new();
        for _ in 0..rows {
            let (at, key) = self.live_key(&table.keys);
            table.keys.live.swap_remove(at);
            table.keys.free.push(key);
            conditions.push(format!("({})", table.shape.condition(key)));
        }
        self.push(&format!("DELETE FROM {} WHERE {}", table.shape.name, conditions.join(" OR ")));
        rows
    }

    fn rekey(&mut self, table: &Table, old: i64, new: i64) {
        let values = table.shape.key_values(new);
        let pairs = table.shape.key_names().iter().zip(values);
        let sets: Vec<_> = pairs.map(|(name, value)| format!("{name} = {value}")).collect();
        let condition = table.shape.condition(old);
        self.push(&format!(
            "UPDATE {} SET {} WHERE {condition}",
            table.shape.name,
            sets.join(", ")
        ));
    }

    /// A live key and where it stands; the newest ones come up again and again.
    fn live_key(&mut self, keys: &Keys) -> (usize, i64) {
        let count = keys.live.len();
        let from = if self.random.random_bool(0.3) { count.saturating_sub(3) } else { 0 };
        let at = self.random.random_range(from..count);
        (at, keys.live[at])
    }

    /// A key that no live row has; sometimes one that a row had before.
    fn unused_key(&mut self, table: &mut Table) -> i64 {
        match self.random.random_bool(0.3) {
            true => table.keys.free.pop().unwrap_or_else(|| fresh_key(table)),
            false => fresh_key(table),
        }
    }

    fn push(&mut self, statement: &str) {
        self.sql.push_str(statement);
        self.sql.push_str(";\n");
    }
}

fn fresh_key(table: &mut Table) -> i64 {
    table.next_key += 1;
    table.next_key
}

mod tests {
    use super::*;
    use crate::support::postgres::{Postgres, PostgresOptions};

    #[tokio::test]
    async fn every_statement_is_valid_and_the_model_knows_every_row() {
        let postgres = Postgres::start(PostgresOptions::default()).await;
        let mut workload = Workload::new(7);
        postgres.sql(&workload.schema_sql()).await;
        postgres.sql("CREATE PUBLICATION p FOR ALL TABLES").await;
        let stats = workload.run(&postgres.client().await, 20_000).await;
        eprintln!("{stats:?}");
        assert!(stats.rolled_back > 0 && stats.savepoints_rolled_back > 0, "{stats:?}");
        assert!(stats.truncates > 0 && stats.key_changes > 100, "{stats:?}");
        for table in &workload.tables {
            let count = postgres.value(&format!("SELECT count(*) FROM {}", table.shape.name)).await;
            assert_eq!(count, table.keys.live.len().to_string(), "{}", table.shape.name);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_statements() {
        let (mut one, mut two, mut other) = (Workload::new(1), Workload::new(1), Workload::new(2));
        let first: Vec<_> = (0..20).map(|_| one.next_transaction()).collect();
        assert!(first == (0..20).map(|_| two.next_transaction()).collect::<Vec<_>>());
        let replayed = std::env::var_os("FRAZIL_SEED").is_some();
        assert!(replayed || first[0] != other.next_transaction());
    }
}
