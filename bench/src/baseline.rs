//! What frazil is held against: Postgres's own clients, writing to /dev/null.

use std::path::Path;
use std::time::Duration;

use crate::Result;
use crate::figures::Measured;
use crate::postgres::Postgres;
use crate::process::{Running, Used};

/// How long one side may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(3_600);

/// Which form of the stream `pg_recvlogical` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Whole source transactions; large ones are spilled by the server.
    One,
    /// Large source transactions are sent before they commit.
    Streaming,
}

/// Reads everything up to `end_lsn` from a copy of the slot `base`, in binary pgoutput.
pub(crate) fn drain(
    postgres: &Postgres,
    protocol: Protocol,
    end_lsn: &str,
    log: &Path,
) -> Result<Measured> {
    postgres.copy_slot("base", "drain")?;
    let publications = "SELECT string_agg(pubname, ',') FROM pg_publication";
    let publications = format!("publication_names={}", postgres.sql(publications)?);
    let mut command = postgres.program("pg_recvlogical");
    command.args(["-d", "postgres", "-S", "drain", "--start", "-f", "/dev/null", "-F", "0"]);
    command.args(["-s", "10", "--endpos", end_lsn, "-o", &publications, "-o", "binary=true"]);
    match protocol {
        Protocol::One => command.args(["-o", "proto_version=1"]),
        Protocol::Streaming => command.args(["-o", "proto_version=2", "-o", "streaming=on"]),
    };
    postgres.settle()?;
    let server_cpu_s = postgres.cpu_s();
    let used = Running::start(&command, log)?.wait(DEADLINE)?;
    postgres.drop_slot("drain")?;
    Ok(Measured::new(used, postgres.cpu_s() - server_cpu_s))
}

/// Copies the pages of `table` out by as many psql as `workers`, each an equal range of them.
pub(crate) fn copy(
    postgres: &Postgres,
    table: &str,
    workers: u64,
    folder: &Path,
) -> Result<Measured> {
    let pages: u64 = postgres.number(&format!(
        "SELECT pg_relation_size('{table}') / current_setting('block_size')::int"
    ))?;
    postgres.settle()?;
    let server_cpu_s = postgres.cpu_s();
    let mut running = Vec::new();
    for worker in 0..workers {
        let range = range_of(pages, worker, workers);
        let copy = format!("COPY (SELECT * FROM {table}{range}) TO STDOUT (FORMAT binary)");
        let mut command = postgres.psql();
        command.args(["-o", "/dev/null", "-c", &copy]);
        running.push(Running::start(&command, &folder.join(format!("copy-{worker}.log")))?);
    }
    let mut all = Used::default();
    for one in running {
        let used = one.wait(DEADLINE)?;
        all.wall_s = all.wall_s.max(used.wall_s);
        all.cpu_s += used.cpu_s;
        all.peak_rss_bytes += used.peak_rss_bytes;
    }
    Ok(Measured::new(all, postgres.cpu_s() - server_cpu_s))
}

/// The condition for one of `workers` equal ranges of pages; none for a single one.
fn range_of(pages: u64, worker: u64, workers: u64) -> String {
    let bound = |nth: u64| pages * nth / workers;
    let from = format!(" WHERE ctid >= '({},0)'", bound(worker));
    match (workers, worker + 1 == workers) {
        (1, _) => String::new(),
        (_, true) => from,
        (_, false) => format!("{from} AND ctid < '({},0)'", bound(worker + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_meet() {
        assert_eq!(range_of(9, 0, 1), "");
        assert_eq!(range_of(9, 0, 2), " WHERE ctid >= '(0,0)' AND ctid < '(4,0)'");
        assert_eq!(range_of(9, 1, 2), " WHERE ctid >= '(4,0)'");
    }
}
