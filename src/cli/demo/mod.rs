//! `frazil demo`: a private Postgres with a shop under load, copied and followed into a lake; at
//! the end both sides are compared. Needs nothing, leaves nothing (but with `--keep`).

mod compare;
mod server;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use comfy_table::Cell;
use indicatif::HumanCount;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::config::{Config, RawConfig, Scalar};
use crate::error::{Error, Result};
use crate::ops::view::Live;
use crate::ops::{Shutdown, Stats};
use crate::postgres::server_error::from_sql;
use crate::postgres::sql::connect_sql;

use super::report::{number, print, table};
use super::{run, wait};
use compare::Compared;
use server::PrivatePostgres;

const SCHEMA: &str = include_str!("../demo_schema.sql");
const LOAD: &str = include_str!("../demo_load.sql");
/// Customers at scale 1; the other tables grow with them.
const CUSTOMERS: u64 = 2_000;
/// Pause between two steps of the load, so that it is a load and not a bench.
const STEP_PAUSE: Duration = Duration::from_millis(50);
/// The longest the copy, and later the rest of the stream, may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often the removal of the folder is tried.
const REMOVE_TRIES: usize = 5;
/// Exit status after Ctrl-C: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// `frazil demo`
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave the server running and the lake in place
    #[arg(long)]
    keep: bool,
    /// How long the load runs
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// Size of the shop: 1 is 2,000 customers and some 200,000 rows
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    scale: u64,
}

impl Demo {
    pub(crate) async fn run(self, on_terminal: bool) -> Result<ExitCode> {
        let shutdown = Shutdown::on_signals()?;
        let folder = Folder::make(self.keep)?;
        print("1. a private Postgres with a shop")?;
        let server = start_server(folder.path.clone(), self.keep).await?;
        let config = config(&server.dsn(), &folder.path.join("lake"))?;
        let stop = Shutdown::default();
        let outcome = tokio::select! {
            biased;
            // Ctrl-C: everything is cleaned up.
            () = shutdown.requested() => None,
            // The show.
            outcome = self.show(&config, &stop, on_terminal) => Some(outcome),
        };
        if self.keep && !matches!(outcome, Some(Ok(_))) {
            print(&kept(&server, &folder.path))?;
        }
        let Some(outcome) = outcome else {
            print("interrupted")?;
            return Ok(ExitCode::from(INTERRUPTED));
        };
        let equal = outcome?;
        print(&self.farewell(&server, &folder.path))?;
        Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Load, follow, wait, compare. Whether both sides are equal.
    async fn show(&self, config: &Config, stop: &Shutdown, on_terminal: bool) -> Result<bool> {
        let source = super::source(config)?;
        let client = connect_sql(&source, "demo").await?;
        let size = CUSTOMERS.saturating_mul(self.scale).to_string();
        for sql in [&SCHEMA.replace("@SIZE@", &size), LOAD] {
            client.batch_execute(sql).await.map_err(from_sql)?;
        }
        print("2. frazil copies it, then follows it under load: inserts, updates, deletes")?;
        let started = Instant::now();
        let stats = Arc::new(Stats::default());
        let live = Live::start(Arc::clone(&stats), on_terminal);
        let mut following = Following::start(config, stop, &stats);
        let (steps, took) = tokio::select! {
            biased;
            // It may only end when told to.
            ended = following.ended() => return Err(ended),
            // The load runs, and then the lake gets all of it.
            done = self.load_and_wait(&client, config, &stats) => done?,
        };
        drop(live);
        stop.request();
        following.finish().await?;
        let view = stats.view();
        print(&format!(
            "3. {} changes in {} steps; {:.1} s after the last one the lake held them all \
             ({} lake commits, {:.1} s in all)",
            HumanCount(view.changes),
            steps,
            took.as_secs_f64(),
            HumanCount(view.lake_commits),
            started.elapsed().as_secs_f64()
        ))?;
        let lake = super::lake(config).await?;
        let compared = compare::compare(&client, &lake, config).await?;
        print(&comparison(&compared))?;
        Ok(!compared.is_empty() && compared.iter().all(Compared::is_equal))
    }

    /// The load; then the time from its end until the lake holds it.
    async fn load_and_wait(
        &self,
        client: &Client,
        config: &Config,
        stats: &Stats,
    ) -> Result<(u64, Duration)> {
        let begun = Instant::now();
        let mut streaming_since = None;
        let mut step = 0_u64;
        loop {
            step += 1;
            client.batch_execute(&format!("CALL shop.step({step})")).await.map_err(from_sql)?;
            tokio::time::sleep(STEP_PAUSE).await;
            if stats.view().lake_commits == 0 {
                if begun.elapsed() > PATIENCE {
                    return Err(Error::transient("TIMEOUT", "the copy is not done in time")
                        .with_cure("choose a smaller --scale"));
                }
                continue;
            }
            let since = *streaming_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= Duration::from_secs(self.seconds) {
                break;
            }
        }
        let ended = Instant::now();
        let target = wait::mark(&super::source(config)?).await?;
        wait::until(config, target, PATIENCE).await?;
        Ok((step, ended.elapsed()))
    }

    fn farewell(&self, server: &PrivatePostgres, folder: &Path) -> String {
        match self.keep {
            true => {
                let examples = examples(&folder.join("lake").display().to_string());
                format!("\n{examples}\n\n{}", kept(server, folder))
            }
            false => format!(
                "\nThis lake and its Postgres are gone now; `frazil demo --keep` leaves them. How to \
                 query a lake in ./lake:\n{}",
                examples("$PWD/lake")
            ),
        }
    }
}

/// `frazil run`'s own loop, in this process.
struct Following {
    task: JoinHandle<Result<()>>,
}

impl Following {
    fn start(config: &Config, stop: &Shutdown, stats: &Arc<Stats>) -> Self {
        let (config, stop, stats) = (config.clone(), stop.clone(), Arc::clone(stats));
        Self { task: tokio::spawn(async move { run::follow(&config, false, &stop, &stats).await }) }
    }

    /// Returns only where it ends by itself, which it must not.
    async fn ended(&mut self) -> Error {
        match (&mut self.task).await {
            Ok(Err(error)) => error,
            Ok(Ok(())) => Error::fatal("DEMO_ENDED", "the run ended before it was told to"),
            Err(panic) => Error::fatal("DEMO_ENDED", "the run broke off").with_source(panic),
        }
    }

    /// Waits for the end of a run that was told to stop.
    async fn finish(&mut self) -> Result<()> {
        let ended = tokio::time::timeout(PATIENCE, &mut self.task).await;
        match ended {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => {
                Err(Error::fatal("DEMO_ENDED", "the run broke off").with_source(panic))
            }
            Err(_) => Err(Error::fatal("DEMO_ENDED", "the run did not stop in time")),
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where everything is; removed at the end, unless it is kept.
struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    /// In the system's temporary folder, as the server's user must be able to get there.
    fn make(keep: bool) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("frazil-demo-{}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) => Ok(Self { path, keep }),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                let what = format!("{} is there already", path.display());
                Err(Error::config("DEMO_FOLDER", what)
                    .with_cure("remove it, if no demo that was kept runs there"))
            }
            Err(e) => Err(no_folder(e)),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // A writer that was broken off may still add a file.
        let removed = (0..REMOVE_TRIES).find_map(|_| std::fs::remove_dir_all(&self.path).ok());
        if removed.is_none() {
            tracing::warn!("cannot remove {}", self.path.display());
        }
    }
}

fn no_folder(error: std::io::Error) -> Error {
    Error::config("DEMO_FOLDER", "cannot make the demo's folder").with_source(error)
}

async fn start_server(folder: PathBuf, keep: bool) -> Result<PrivatePostgres> {
    let started = tokio::task::spawn_blocking(move || PrivatePostgres::start(&folder, keep));
    started.await.unwrap_or_else(|panic| {
        Err(Error::fatal("DEMO_SERVER", "the start broke off").with_source(panic))
    })
}

/// What `--keep` leaves, and how to be rid of it.
fn kept(server: &PrivatePostgres, folder: &Path) -> String {
    format!(
        "Postgres:   psql {}\nstop it:    {}\nremove all: rm -r {}",
        server.dsn(),
        server.how_to_stop(),
        folder.display()
    )
}

/// The settings of the demo: nothing from the environment.
fn config(dsn: &str, lake: &Path) -> Result<Config> {
    let mut raw = RawConfig::default();
    raw.source.url = Some(Scalar(dsn.to_owned()));
    raw.lake.into = Some(Scalar(lake.display().to_string()));
    raw.commit.interval = Some(Scalar("1s".to_owned()));
    Config::resolve(raw)
}

fn comparison(compared: &[Compared]) -> String {
    let mut shown =
        table(&["table", "source rows", "lake rows", "source hash", "lake hash", "equal"]);
    for one in compared {
        shown.add_row([
            Cell::new(&one.table),
            number(HumanCount(one.source.rows)),
            number(HumanCount(one.lake.rows)),
            Cell::new(short(one.source.hash)),
            Cell::new(short(one.lake.hash)),
            Cell::new(if one.is_equal() { "yes" } else { "NO" }),
        ]);
    }
    let unequal = compared.iter().filter(|one| !one.is_equal()).count();
    let verdict = match unequal {
        0 => "source and lake are equal, row for row".to_owned(),
        count => {
            format!("{count} tables are NOT equal: this is a defect of frazil; please report it")
        }
    };
    format!("{shown}\n{verdict}")
}

/// The first half of a hash: enough for the eye.
fn short(hash: u128) -> String {
    format!("{:016x}", hash >> 64)
}

/// How to query the lake in `folder`.
fn examples(folder: &str) -> String {
    format!(
        "\
DuckDB: duckdb -c \"INSTALL iceberg; LOAD iceberg; SELECT status, count(*) FROM iceberg_scan('$(
  sqlite3 {folder}/catalog.db \"SELECT replace(metadata_location, 'file://', '') FROM \
iceberg_tables
    WHERE table_namespace = 'shop' AND table_name = 'orders'\")') GROUP BY 1\"
Spark:  spark-sql --packages \
org.apache.iceberg:iceberg-spark-runtime-4.0_2.13:1.11.0,org.xerial:sqlite-jdbc:3.50.3.0 \\
  --conf spark.sql.catalog.frazil=org.apache.iceberg.spark.SparkCatalog \\
  --conf spark.sql.catalog.frazil.type=jdbc \\
  --conf spark.sql.catalog.frazil.uri=jdbc:sqlite:{folder}/catalog.db \\
  --conf spark.sql.catalog.frazil.jdbc.schema-version=V1 \\
  --conf spark.sql.catalog.frazil.warehouse=file://{folder} \\
  -e \"SELECT status, count(*) FROM frazil.shop.orders GROUP BY 1\""
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use compare::Content;

    #[test]
    fn a_difference_is_shown() {
        let content = |rows| Content { rows, hash: 7 };
        let equal = Compared { table: "s.a".to_owned(), source: content(1), lake: content(1) };
        let other = Compared { table: "s.b".to_owned(), source: content(1), lake: content(2) };
        assert!(comparison(&[equal]).ends_with("source and lake are equal, row for row"));
        let shown = comparison(&[other]);
        assert!(shown.contains(" NO ") && shown.contains("1 tables are NOT equal"), "{shown}");
    }

    #[test]
    fn the_folder_goes_with_the_demo() {
        let folder = Folder::make(false).unwrap();
        let path = folder.path.clone();
        assert!(path.is_dir());
        assert_eq!(Folder::make(false).err().unwrap().code(), "DEMO_FOLDER");
        drop(folder);
        assert!(!path.exists());
    }
}
