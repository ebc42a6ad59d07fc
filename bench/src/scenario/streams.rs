//! Scenarios that stream a load: baseline, frazil, baseline on the same WAL.

use crate::baseline::Protocol;
use crate::figures::{Measured, Row};
use crate::frazil::Frazil;
use crate::postgres::Postgres;
use crate::process::output_of;
use crate::stage::{Followed, Stage};
use crate::{Context, Result};

const EVENTS: &str = include_str!("../../sql/events.sql");
const WIDE: &str = include_str!("../../sql/wide.sql");
const MANY: &str = include_str!("../../sql/many.sql");
/// Changes in a source transaction of the scenarios that don't say otherwise.
const TRANSACTION: u64 = 1_000;
/// Where the keys of a load begin, above all base rows.
const FIRST_KEY: u64 = 20_000_000;

/// How a load is written.
#[derive(Debug, Clone)]
pub(crate) enum Load {
    /// Statements, each its own source transaction.
    Sql(String),
    /// TPC-B by pgbench at full speed for so many seconds.
    Pgbench(u64),
}

/// A run of frazil: a name after the scenario's, settings, and what must hold and is aimed at.
#[derive(Debug, Clone)]
pub(crate) struct Variant {
    pub(crate) suffix: &'static str,
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) limits: fn(Row) -> Row,
}

/// A scenario that streams.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) name: &'static str,
    /// Tables, generators, base rows.
    pub(crate) setup: String,
    pub(crate) load: Load,
    /// Changes in the load; counted from pgbench's transactions where that writes it.
    pub(crate) changes: u64,
    pub(crate) protocol: Protocol,
    pub(crate) variants: Vec<Variant>,
}

/// 1,000,000 single-row inserts in transactions of 1,000.
pub(crate) fn inserts(context: &Context) -> Stream {
    let transactions = context.scaled(1_000, 5);
    let changes = transactions * TRANSACTION;
    Stream {
        name: "inserts",
        setup: events(1_000),
        load: Load::Sql(format!("CALL insert_events({FIRST_KEY}, {changes}, {TRANSACTION})")),
        changes,
        protocol: Protocol::One,
        variants: one(|row| row.ratio_at_least(1.25, 1.8)),
    }
}

/// 500,000 inserts, 200,000 updates of 5,000,000 base rows, 50,000 deletes of rows of the load.
pub(crate) fn mixed(context: &Context) -> Stream {
    let transactions = context.scaled(750, 5);
    Stream {
        name: "mixed",
        setup: events(context.scaled(5_000_000, 5_000)),
        load: Load::Sql(format!("CALL mix_events({FIRST_KEY}, {transactions})")),
        changes: transactions * TRANSACTION,
        protocol: Protocol::One,
        variants: one(|row| row.ratio_at_least(1.25, 1.7).cpu_at_most(1.2, 0.8)),
    }
}

/// One source transaction of 10,000,000 changes: eight of ten are inserts, one updates and one
/// deletes some of these rows.
pub(crate) fn huge(context: &Context) -> Stream {
    let tenth = context.scaled(1_000_000, 5_000);
    let inserted = FIRST_KEY + 8 * tenth;
    let load = format!(
        "BEGIN;
         INSERT INTO events SELECT * FROM ev({FIRST_KEY}, {inserted} - 1);
         UPDATE events SET qty = 7 WHERE id >= {FIRST_KEY} AND id < {FIRST_KEY} + {tenth};
         DELETE FROM events WHERE id >= {inserted} - {tenth};
         COMMIT;"
    );
    let streamed = [("FRAZIL_SOURCE__STREAMING", "on".to_owned())];
    let limits = |row: Row| row.ratio_at_least(1.2, 1.7).rss_at_most(400.0, 250.0);
    Stream {
        name: "huge",
        setup: events(1_000),
        load: Load::Sql(load),
        changes: 10 * tenth,
        protocol: Protocol::Streaming,
        variants: vec![
            Variant { suffix: ", streamed", settings: streamed.to_vec(), limits },
            Variant { suffix: ", not streamed", settings: Vec::new(), limits },
        ],
    }
}

/// 200,000 source transactions of one row.
pub(crate) fn small(context: &Context) -> Stream {
    let changes = context.scaled(200_000, 2_000);
    Stream {
        name: "small",
        setup: events(1_000),
        load: Load::Sql(format!("CALL insert_events({FIRST_KEY}, {changes}, 1)")),
        changes,
        protocol: Protocol::One,
        variants: one(|row| row.ratio_at_least(1.1, 1.5)),
    }
}

/// What pgbench wrote in 60 s, afterwards: four changes a transaction.
pub(crate) fn tpcb(context: &Context) -> Stream {
    Stream {
        name: "small, TPC-B",
        setup: String::new(),
        load: Load::Pgbench(context.scaled(60, 2)),
        changes: 0,
        protocol: Protocol::One,
        variants: one(|row| row.ratio_at_least(1.1, 1.5)),
    }
}

/// 200,000 updates that leave the 8 kB values of 1,000,000 rows as they are.
pub(crate) fn wide(context: &Context) -> Stream {
    let base = context.scaled(1_000_000, 2_000);
    let transactions = context.scaled(200, 2);
    Stream {
        name: "wide",
        setup: format!("{WIDE}\nCALL fill_wide({base});"),
        load: Load::Sql(format!("CALL update_wide({base}, {transactions}, {TRANSACTION})")),
        changes: transactions * TRANSACTION,
        protocol: Protocol::One,
        variants: one(|row| row.ratio_at_least(0.5, 1.0)),
    }
}

/// 1,000 tables; each source transaction inserts and updates a row in 100 of them.
pub(crate) fn many(context: &Context, tables: u64) -> Stream {
    let transactions = context.scaled(1_000, 10);
    let touched = (tables / 10).max(1);
    Stream {
        name: "many",
        setup: format!("{MANY}\nCALL make_tables({tables});"),
        load: Load::Sql(format!("CALL change_tables({tables}, {transactions}, {touched})")),
        changes: transactions * touched * 2,
        protocol: Protocol::One,
        variants: one(|row| row.rss_at_most(500.0, 250.0)),
    }
}

/// The events table with its generators and `rows` base rows.
pub(crate) fn events(rows: u64) -> String {
    format!("{EVENTS}\nINSERT INTO events SELECT * FROM ev(1, {rows});")
}

fn one(limits: fn(Row) -> Row) -> Vec<Variant> {
    vec![Variant { suffix: "", settings: Vec::new(), limits }]
}

impl Stream {
    /// Baseline, frazil, baseline; for each further variant another frazil and another baseline.
    pub(crate) fn run(self, context: &Context) -> Result<Vec<Row>> {
        let mut stage = self.staged(context)?;
        self.measure(&mut stage)
    }

    /// The source with base rows, a lake that holds them, and the load.
    pub(crate) fn staged<'a>(&self, context: &'a Context) -> Result<Stage<'a>> {
        let mut stage = Stage::new(context, &self.setup)?;
        if let Load::Pgbench(_) = self.load {
            pgbench_tables(&stage.postgres, context.scaled(10, 1))?;
        }
        stage.seed()?;
        stage.load(|postgres| self.load.write(postgres))?;
        Ok(stage)
    }

    pub(crate) fn measure(&self, stage: &mut Stage) -> Result<Vec<Row>> {
        let changes = self.changes(&stage.postgres)?;
        let mut before = stage.drain(self.protocol)?;
        let mut rows = Vec::new();
        for variant in &self.variants {
            let settings = variant.settings.clone();
            let frazil = Frazil { settings, ..stage.frazil.clone() };
            let followed = stage.follow(&frazil)?;
            let after = stage.drain(self.protocol)?;
            stage.verify(&frazil)?;
            let name = format!("{}{}", self.name, variant.suffix);
            rows.push((variant.limits)(row(name, changes, (before, &followed, after))));
            before = after;
        }
        Ok(rows)
    }

    /// Changes in the load.
    pub(crate) fn changes(&self, postgres: &Postgres) -> Result<u64> {
        match self.load {
            Load::Sql(_) => Ok(self.changes),
            Load::Pgbench(_) => postgres.number("SELECT 4 * count(*) FROM pgbench_history"),
        }
    }
}

impl Load {
    pub(crate) fn write(&self, postgres: &Postgres) -> Result<()> {
        match self {
            Self::Sql(statements) => postgres.sql(statements)?,
            Self::Pgbench(seconds) => {
                let mut pgbench = postgres.program("pgbench");
                pgbench.args(["-n", "-c", "4", "-j", "2", "-T", &seconds.to_string(), "postgres"]);
                output_of(&mut pgbench)?
            }
        };
        Ok(())
    }
}

/// pgbench's tables: 100,000 accounts per unit of `scale`.
pub(crate) fn pgbench_tables(postgres: &Postgres, scale: u64) -> Result<()> {
    let mut pgbench = postgres.program("pgbench");
    pgbench.args(["-q", "-i", "-s", &scale.to_string(), "postgres"]);
    output_of(&mut pgbench)?;
    postgres.sql("CHECKPOINT")?;
    Ok(())
}

fn row(scenario: String, rows: u64, (before, ours, after): (Measured, &Followed, Measured)) -> Row {
    Row {
        scenario,
        rows,
        before: Some(before),
        frazil: Some(ours.measured),
        after: Some(after),
        bytes_per_row: ours.bytes_per_row(rows),
        lake_commits: Some(ours.lake_commits.len()),
        ..Row::default()
    }
}
