//! Which PostgreSQL the tests run on.
//!
//! `FRAZIL_TEST_PG=13` (a major, or a version as Maven knows it, `17.6.0`) runs any test on that
//! server; without it `FRAZIL_PG_BIN`, or the newest server that Debian installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::process::output_of;

/// The folder of the binaries of the server that the tests run on.
pub fn bin_dir() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| match std::env::var("FRAZIL_TEST_PG") {
        Ok(version) if !version.is_empty() => bin_dir_of(&version),
        _ => std::env::var_os("FRAZIL_PG_BIN").map_or_else(newest_of_debian, PathBuf::from),
    })
}

/// The binaries of a version: Debian's where it has that major, else from Maven.
pub fn bin_dir_of(version: &str) -> PathBuf {
    let debian = Path::new(DEBIAN).join(version).join("bin");
    if debian.join("initdb").exists() { debian } else { binaries_from_maven(version) }
}

/// The binaries of a version that Debian does not have, from the local Maven client, kept for the
/// next time; `version` is a major, or as Maven knows it, `17.6.0`.
pub fn binaries_from_maven(version: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/postgres-binaries");
    PathBuf::from(output_of(Command::new(script).arg(version)).trim())
}

/// The major version of the server that the tests run on.
pub fn major() -> u32 {
    static MAJOR: OnceLock<u32> = OnceLock::new();
    *MAJOR.get_or_init(|| major_of(bin_dir()))
}

/// 15 of the server in `bin_dir`.
pub fn major_of(bin_dir: &Path) -> u32 {
    let version = version_of(bin_dir);
    let digits = version.split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).expect("15.18 or 18beta1")
}

/// `15.18` of the server in `bin_dir`.
pub fn version_of(bin_dir: &Path) -> String {
    let version = output_of(Command::new(bin_dir.join("postgres")).arg("--version"));
    version.split_whitespace().nth(2).expect("postgres (PostgreSQL) 15.18 ...").to_owned()
}

/// The binaries of a server of `major` or later: those the tests run on, else the newest.
pub fn bin_dir_at_least(major: u32) -> PathBuf {
    if self::major() >= major { bin_dir().to_owned() } else { bin_dir_of(NEWEST) }
}

/// Whether the server that the tests run on is older than `major`; says what is passed over then.
pub fn is_before(major: u32, what: &str) -> bool {
    let before = self::major() < major;
    if before {
        eprintln!("passed over: {what} came with Postgres {major}");
    }
    before
}

/// The newest major version.
pub const NEWEST: &str = "18";

const DEBIAN: &str = "/usr/lib/postgresql";

fn newest_of_debian() -> PathBuf {
    let major = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/initdb").exists())
        .max_by_key(major)
        .expect("no PostgreSQL server found: run scripts/setup")
        .join("bin")
}
