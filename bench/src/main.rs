//! Measures frazil beside Postgres's own clients, on one private server, in one run.
//!
//! `main` reads the arguments, `scenario` has one file per scenario, `stage` the way they all go:
//! base rows, a lake that holds them, a copy of the slot, the load; then baseline, frazil, baseline
//! on the same WAL, and `frazil verify`.

mod baseline;
mod compare;
mod figures;
mod frazil;
mod machine;
mod plot;
mod postgres;
mod process;
mod results;
mod scenario;
mod servers;
mod stage;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use clap::Parser;

use machine::Machine;
use scenario::Scenario;

/// An error is for a person to read: it ends the bench.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T> = std::result::Result<T, Error>;

pub(crate) fn fail<T>(message: impl Into<String>) -> Result<T> {
    Err(message.into().into())
}

/// Scale of `quick` where none is given.
const QUICK: f64 = 0.1;
/// Scale of `--tiny`.
const TINY: f64 = 0.001;

/// Measures frazil beside Postgres's own clients.
#[derive(Debug, Parser)]
#[command(name = "bench-frazil", max_term_width = 100)]
struct Arguments {
    /// Which scenarios: their names, `quick` (those that stream, and the snapshot) or `all`
    #[arg(required = true)]
    scenarios: Vec<String>,
    /// Part of the full size: rows, changes and seconds [default: 1; quick: 0.1]
    #[arg(long)]
    scale: Option<f64>,
    /// Correctness only: a few rows, no figures kept
    #[arg(long, conflicts_with = "scale")]
    tiny: bool,
    /// The binary to measure [default: built now, release profile]
    #[arg(long, value_name = "PATH")]
    frazil: Option<PathBuf>,
    /// Another binary: both are measured in turn, without baselines
    #[arg(long, value_name = "PATH", conflicts_with_all = ["tiny", "results"])]
    against: Option<PathBuf>,
    /// Where servers and lakes are put [default: the temporary folder]
    #[arg(long, value_name = "FOLDER")]
    work: Option<PathBuf>,
    /// The table that is brought up to date [default: bench/RESULTS.md]
    #[arg(long, value_name = "FILE", conflicts_with = "tiny")]
    results: Option<PathBuf>,
}

/// What every scenario is given.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) frazil: PathBuf,
    pub(crate) work: PathBuf,
    /// Where plots go.
    pub(crate) plots: PathBuf,
    pub(crate) scale: f64,
    pub(crate) is_tiny: bool,
    began: Instant,
}

impl Context {
    /// `full` by the scale, at least `least`.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, small")]
    pub(crate) fn scaled(&self, full: u64, least: u64) -> u64 {
        ((figures::count(full) * self.scale).round() as u64).max(least)
    }

    /// A line of progress.
    pub(crate) fn say(&self, text: &str) {
        eprintln!("[{:>6.1} s] {text}", self.began.elapsed().as_secs_f64());
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let (scenarios, is_quick) = Scenario::named(&arguments.scenarios)?;
    let scale = match (arguments.tiny, arguments.scale) {
        (true, _) => TINY,
        (false, Some(scale)) => scale,
        (false, None) => {
            if is_quick {
                QUICK
            } else {
                1.0
            }
        }
    };
    let frazil = match &arguments.frazil {
        Some(path) => path.canonicalize().map_err(|e| format!("{}: {e}", path.display()))?,
        None => build()?,
    };
    let began = Instant::now();
    let results = arguments.results.clone().unwrap_or_else(|| root().join("bench/RESULTS.md"));
    let plots = results.with_file_name("plots");
    if !arguments.tiny {
        // Where nothing can be kept, nothing need be measured.
        std::fs::create_dir_all(&plots).map_err(|e| format!("{}: {e}", plots.display()))?;
    }
    let context = |work: &Path| Context {
        frazil: frazil.clone(),
        work: work.to_owned(),
        // Those of a few rows go with everything else.
        plots: if arguments.tiny { work.to_owned() } else { plots.clone() },
        scale,
        is_tiny: arguments.tiny,
        began,
    };
    if let Some(other) = &arguments.against {
        let other = other.canonicalize().map_err(|e| format!("{}: {e}", other.display()))?;
        return compared(&scenarios, arguments.work.as_deref(), &context, &other);
    }
    let machine = Machine::here(&frazil, root())?;
    let mut done = Vec::new();
    for scenario in scenarios {
        let work = arguments.work.as_deref();
        let rows = in_own_folder(scenario, work, &context, |context| scenario.run(context))?;
        if !arguments.tiny {
            results::keep(&results, &rows, scale, &machine)?;
            plot::bars(&plots, &rows, &machine.run)?;
        }
        done.extend(rows);
    }
    println!("{}", results::table(&done, scale, &machine.run));
    Ok(())
}

/// Two builds, scenario by scenario.
fn compared(
    scenarios: &[Scenario],
    work: Option<&Path>,
    context: &dyn Fn(&Path) -> Context,
    other: &Path,
) -> Result<()> {
    let mut lines = vec![compare::HEAD.to_owned()];
    for scenario in scenarios {
        let run = |context: &Context| compare::run(context, *scenario, other);
        lines.push(in_own_folder(*scenario, work, context, run)?);
    }
    println!("{}", lines.join("\n"));
    Ok(())
}

/// Runs something in a folder of its own, which goes with it, also when we are killed.
fn in_own_folder<T>(
    scenario: Scenario,
    work: Option<&Path>,
    context: &dyn Fn(&Path) -> Context,
    run: impl FnOnce(&Context) -> Result<T>,
) -> Result<T> {
    let mut folder = tempfile::Builder::new();
    folder.prefix("frazil-bench-");
    let folder = match work {
        Some(work) => folder.tempdir_in(work)?,
        None => folder.tempdir()?,
    };
    open_to_all(folder.path())?;
    let mut remover = process::remove_after_us(folder.path())?;
    let context = context(folder.path());
    context.say(&format!("{}: begins", scenario.name()));
    let done = run(&context).map_err(|e| format!("{}: {e}", scenario.name()));
    context.say(&format!("{}: {}", scenario.name(), if done.is_ok() { "done" } else { "failed" }));
    drop(folder);
    drop(remover.stdin.take());
    remover.wait()?;
    Ok(done?)
}

/// Postgres runs as another user where we are root.
pub(crate) fn open_to_all(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?)
}

/// The repository that this was built from.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

fn build() -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--locked"]).current_dir(root());
    // It says what it does: this can take minutes.
    if !cargo.status()?.success() {
        return fail("frazil could not be built");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    Ok(target.unwrap_or_else(|| root().join("target")).join("release/frazil"))
}
