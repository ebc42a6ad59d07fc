//! A shop under load: orders whose totals are the sums of their items, money that moves between
//! accounts in several tables, and a log without a key that has one row per source transaction.
//!
//! Each writer numbers its transactions, so that one state of the lake shows whether it holds a
//! prefix of every writer's transactions, each of them once and whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinHandle;

use crate::support::lake::{Lake, LakeState};
use crate::support::postgres::Postgres;

const ACCOUNTS: i64 = 20;
const BALANCE: i64 = 1_000;

/// How many tables of each kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shop {
    /// Tables of orders, each with one of items.
    pub(super) pairs: usize,
    /// Tables of accounts.
    pub(super) banks: usize,
}

/// What one state of the lake holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Source transactions of the writers.
    pub(super) transactions: u64,
}

impl Shop {
    /// Twenty tables.
    pub(super) const LARGE: Self = Self { pairs: 5, banks: 9 };
    /// Five tables.
    pub(super) const SMALL: Self = Self { pairs: 1, banks: 2 };

    pub(super) fn sql(&self) -> String {
        let mut sql = String::from(
            "CREATE SCHEMA shop; CREATE TABLE shop.log(writer int, n bigint, what text);",
        );
        for k in 1..=self.pairs {
            sql.push_str(&format!(
                "CREATE TABLE shop.orders_{k}(id bigint PRIMARY KEY, total bigint, note text);
                 CREATE TABLE shop.items_{k}(order_id bigint, line int, amount bigint, \
                    PRIMARY KEY (order_id, line));"
            ));
        }
        for k in 1..=self.banks {
            sql.push_str(&format!(
                "CREATE TABLE shop.bank_{k}(id int PRIMARY KEY, owner text, balance bigint);
                 INSERT INTO shop.bank_{k} SELECT g, 'o' || g, {BALANCE} \
                    FROM generate_series(1, {ACCOUNTS}) g;"
            ));
        }
        sql
    }

    /// `schema.name` of all tables.
    pub(super) fn tables(&self) -> Vec<String> {
        let mut tables = vec![String::from("shop.log")];
        for k in 1..=self.pairs {
            tables.extend([format!("shop.orders_{k}"), format!("shop.items_{k}")]);
        }
        tables.extend((1..=self.banks).map(|k| format!("shop.bank_{k}")));
        tables
    }

    /// Asserts that a state of the lake is one state of the source.
    #[track_caller]
    pub(super) fn assert_whole(&self, lake: &mut Lake, state: &LakeState) -> Seen {
        let found = lake.query(state, &self.whole_sql());
        self.judge(&found, &format!("{state:?}"))
    }

    /// The same by the attached catalog, at a hash or by the name of a reference.
    #[track_caller]
    pub(super) fn assert_whole_attached(&self, lake: &mut Lake, at: &str) -> Seen {
        let found = lake.query_attached(at, &self.whole_sql());
        self.judge(&found, at)
    }

    #[track_caller]
    fn judge(&self, found: &[Vec<Option<String>>], at: &str) -> Seen {
        let number = |column: usize| -> u64 { found[0][column].as_ref().unwrap().parse().unwrap() };
        let [wrong_orders, wrong_banks, wrong_writers, transactions] = [0, 1, 2, 3].map(number);
        assert_eq!(
            (wrong_orders, wrong_banks, wrong_writers),
            (0, 0, 0),
            "orders, banks, writers that are torn at {at}"
        );
        Seen { transactions }
    }

    /// Orders that are not the sum of their items, whether money was made or lost, writers whose
    /// transactions are not 1..n, and how many transactions there are.
    fn whole_sql(&self) -> String {
        let order = |k: usize| {
            format!(
                "(SELECT count(*) FROM {{shop.orders_{k}}} o FULL JOIN \
                  (SELECT order_id, sum(amount) s FROM {{shop.items_{k}}} GROUP BY order_id) i \
                  ON o.id = i.order_id WHERE o.total IS DISTINCT FROM i.s)"
            )
        };
        let orders: Vec<_> = (1..=self.pairs).map(order).collect();
        let bank = |k: usize| format!("(SELECT sum(balance) FROM {{shop.bank_{k}}})");
        let banks: Vec<_> = (1..=self.banks).map(bank).collect();
        let money = ACCOUNTS * BALANCE * i64::try_from(self.banks).unwrap();
        format!(
            "SELECT {}, CASE WHEN {} = {money} THEN 0 ELSE 1 END, \
               count(*) FILTER (WHERE c <> d OR c <> m), coalesce(sum(c), 0)::BIGINT \
             FROM (SELECT count(*) c, count(DISTINCT n) d, max(n) m FROM {{shop.log}} \
               GROUP BY writer)",
            orders.join(" + "),
            banks.join(" + ")
        )
    }

    /// Starts writers that commit a source transaction every `pause` or so.
    pub(super) fn start(
        &self,
        postgres: &Postgres,
        (writers, seed): (u64, u64),
        pause: Duration,
    ) -> Load {
        let control = Arc::new(Control::default());
        let tasks = (0..writers)
            .map(|n| {
                let writer = Writer {
                    shop: *self,
                    number: n + seed * 100,
                    random: StdRng::seed_from_u64(seed * 100 + n),
                    orders: Vec::new(),
                    made: 0,
                };
                tokio::spawn(writer.run(postgres.dsn(), pause, Arc::clone(&control)))
            })
            .collect();
        Load { control, tasks }
    }
}

#[derive(Debug, Default)]
struct Control {
    ends: AtomicBool,
    is_paused: AtomicBool,
    resting: AtomicU64,
    done: AtomicU64,
}

/// Running writers.
pub(super) struct Load {
    control: Arc<Control>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// How many transactions were committed.
    pub(super) fn done(&self) -> u64 {
        self.control.done.load(Ordering::Acquire)
    }

    /// Returns once no writer is in a transaction.
    pub(super) async fn pause(&self) {
        self.control.resting.store(0, Ordering::Release);
        self.control.is_paused.store(true, Ordering::Release);
        let writers = self.tasks.len() as u64;
        super::until("the writers rest", Duration::from_secs(120), async || {
            self.control.resting.load(Ordering::Acquire) >= 3 * writers
        })
        .await;
    }

    pub(super) fn resume(&self) {
        self.control.is_paused.store(false, Ordering::Release);
    }

    /// Ends the writers; how many transactions they committed.
    pub(super) async fn end(self) -> u64 {
        self.control.ends.store(true, Ordering::Release);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.control.done.load(Ordering::Acquire)
    }
}

struct Order {
    pair: usize,
    id: i64,
    amounts: Vec<i64>,
}

struct Writer {
    shop: Shop,
    number: u64,
    random: StdRng,
    orders: Vec<Order>,
    made: i64,
}

impl Writer {
    async fn run(mut self, dsn: String, pause: Duration, control: Arc<Control>) {
        let (client, connection) =
            tokio_postgres::connect(&dsn, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let mut n = 0;
        while !control.ends.load(Ordering::Acquire) {
            if control.is_paused.load(Ordering::Acquire) {
                // Three rests of all writers: each has seen the pause.
                control.resting.fetch_add(1, Ordering::AcqRel);
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            let work = self.transaction(n + 1);
            client.batch_execute(&work).await.unwrap_or_else(|e| panic!("{e:?}\nin {work}"));
            n += 1;
            control.done.fetch_add(1, Ordering::AcqRel);
            tokio::time::sleep(pause.mul_f64(self.random.random_range(0.5..1.5))).await;
        }
    }

    /// Locks of accounts are taken in one order, and orders belong to their writer: no deadlock.
    fn transaction(&mut self, n: u64) -> String {
        let mut sql = String::from("BEGIN;");
        if self.random.random_bool(0.1) {
            sql.push_str(
                "SAVEPOINT s; UPDATE shop.bank_1 SET balance = 7 WHERE id = 1; ROLLBACK TO s;",
            );
        }
        sql.push_str(&self.transfers());
        for _ in 0..self.random.random_range(1..=2) {
            sql.push_str(&self.order());
        }
        let (number, what) = (self.number, self.random.random_range(0..1000));
        sql.push_str(&format!("INSERT INTO shop.log VALUES ({number}, {n}, 'w{what}'); COMMIT"));
        sql
    }

    fn transfers(&mut self) -> String {
        let count = self.random.random_range(2..=4.min(self.shop.banks));
        let mut moves = Vec::new();
        let mut left = 0;
        for i in 0..count {
            let amount = if i + 1 == count { -left } else { self.random.random_range(-50..50) };
            left += amount;
            let bank = self.random.random_range(1..=self.shop.banks);
            moves.push((bank, self.random.random_range(1..=ACCOUNTS), amount));
        }
        moves.sort_unstable();
        let update = |(bank, id, amount): &(usize, i64, i64)| {
            format!("UPDATE shop.bank_{bank} SET balance = balance + {amount} WHERE id = {id};")
        };
        moves.iter().map(update).collect()
    }

    fn order(&mut self) -> String {
        let at = self.random.random_range(0..self.orders.len().max(1));
        match self.random.random_range(0..10) {
            0..5 => self.insert(),
            _ if self.orders.is_empty() => self.insert(),
            5..8 => {
                let delta = self.random.random_range(-9..=9);
                let order = &mut self.orders[at];
                order.amounts[0] += delta;
                let (k, id, amount) = (order.pair, order.id, order.amounts[0]);
                let total: i64 = order.amounts.iter().sum();
                format!(
                    "UPDATE shop.items_{k} SET amount = {amount} WHERE order_id = {id} AND line = 0;
                     UPDATE shop.orders_{k} SET total = {total} WHERE id = {id};"
                )
            }
            8 => {
                let Order { pair: k, id, .. } = self.orders.swap_remove(at);
                format!(
                    "DELETE FROM shop.orders_{k} WHERE id = {id};
                     DELETE FROM shop.items_{k} WHERE order_id = {id};"
                )
            }
            _ => {
                let new = self.new_id();
                let order = &mut self.orders[at];
                let (k, id) = (order.pair, std::mem::replace(&mut order.id, new));
                format!(
                    "UPDATE shop.orders_{k} SET id = {new} WHERE id = {id};
                     UPDATE shop.items_{k} SET order_id = {new} WHERE order_id = {id};"
                )
            }
        }
    }

    fn insert(&mut self) -> String {
        let id = self.new_id();
        let pair = self.random.random_range(1..=self.shop.pairs);
        let lines = self.random.random_range(1..=4);
        let amounts: Vec<i64> = (0..lines).map(|_| self.random.random_range(1..500)).collect();
        let total: i64 = amounts.iter().sum();
        let items: Vec<_> =
            amounts.iter().enumerate().map(|(line, a)| format!("({id}, {line}, {a})")).collect();
        let items = items.join(", ");
        self.orders.push(Order { pair, id, amounts });
        format!(
            "INSERT INTO shop.orders_{pair} VALUES ({id}, {total}, 'n{id}');
             INSERT INTO shop.items_{pair} VALUES {items};"
        )
    }

    fn new_id(&mut self) -> i64 {
        self.made += 1;
        i64::try_from(self.number).unwrap() * 1_000_000 + self.made
    }
}
