//! The figures a person watches. Written by the data path, read by the live view; all relaxed.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use crate::progress::Lsn;

/// Counters and positions of one run.
#[derive(Debug, Default)]
pub struct Stats {
    is_copying: AtomicBool,
    rows_to_copy: AtomicU64,
    rows_copied: AtomicU64,
    bytes_copied: AtomicU64,
    table_bytes_left: AtomicU64,
    snapshot_age: AtomicU64,
    snapshot_retained_wal_bytes: AtomicU64,
    changes: AtomicU64,
    rows_written: AtomicU64,
    lake_commits: AtomicU64,
    received_lsn: AtomicU64,
    committed_lsn: AtomicU64,
    server_lsn: AtomicU64,
    received_commit_time_us: AtomicI64,
    committed_at_us: AtomicI64,
}

/// A reading of [`Stats`].
#[derive(Debug, Clone, Copy, Default)]
pub struct View {
    /// Tables are being copied: the initial snapshot, or some afresh while the stream goes on.
    pub is_copying: bool,
    /// Rows that the copy expects: an estimate, which gets better with every range.
    pub rows_to_copy: u64,
    /// Rows it has copied.
    pub rows_copied: u64,
    /// Bytes of COPY data it has received.
    pub bytes_copied: u64,
    /// Bytes, at the source, of ranges that are not copied whole yet.
    pub table_bytes_left: u64,
    /// How old the copy's snapshot is, in source transactions: vacuum removes nothing younger.
    pub snapshot_age: u64,
    /// WAL that the source keeps for the copy, in bytes.
    pub snapshot_retained_wal_bytes: u64,
    /// Changes in the lake since the start.
    pub changes: u64,
    /// Rows inserted into the lake by the stream since the start.
    pub rows_written: u64,
    /// Lake commits since the start.
    pub lake_commits: u64,
    /// End of what has arrived.
    pub received_lsn: Lsn,
    /// P.
    pub committed_lsn: Lsn,
    /// End of the server's WAL when it last said so.
    pub server_lsn: Lsn,
    /// When the newest source transaction that arrived was committed, in Unix microseconds.
    pub received_commit_time_us: i64,
    /// When the last lake commit was made, in Unix microseconds; 0 before the first.
    pub committed_at_us: i64,
}

impl Stats {
    /// A copy begins and expects about this many rows, which are so many bytes at the source.
    pub fn to_copy(&self, rows: u64, table_bytes: u64) {
        self.expect_rows(rows, table_bytes);
        self.rows_copied.store(0, Relaxed);
        self.bytes_copied.store(0, Relaxed);
        self.is_copying.store(true, Relaxed);
    }

    /// What it expects is known better; it has this many bytes of the source's tables to go.
    pub fn expect_rows(&self, rows: u64, table_bytes_left: u64) {
        self.rows_to_copy.store(rows, Relaxed);
        self.table_bytes_left.store(table_bytes_left, Relaxed);
    }

    /// It has copied this many more.
    pub fn copied(&self, rows: u64, bytes: u64) {
        self.rows_copied.fetch_add(rows, Relaxed);
        self.bytes_copied.fetch_add(bytes, Relaxed);
    }

    /// These will be copied again.
    pub fn uncopied(&self, rows: u64, bytes: u64) {
        self.rows_copied.fetch_sub(rows, Relaxed);
        self.bytes_copied.fetch_sub(bytes, Relaxed);
    }

    /// What it costs the source: the age of its snapshot, in source transactions, and WAL.
    pub fn copy_costs(&self, snapshot_age: u64, retained_wal_bytes: u64) {
        self.snapshot_age.store(snapshot_age, Relaxed);
        self.snapshot_retained_wal_bytes.store(retained_wal_bytes, Relaxed);
    }

    /// It is complete.
    pub fn copy_ended(&self) {
        self.is_copying.store(false, Relaxed);
    }

    /// A source transaction has arrived.
    pub fn received(&self, end_lsn: Lsn, commit_time_us: i64) {
        self.received_lsn.fetch_max(end_lsn.0, Relaxed);
        self.server_lsn.fetch_max(end_lsn.0, Relaxed);
        self.received_commit_time_us.store(commit_time_us, Relaxed);
    }

    /// The server's WAL ends here.
    pub fn server_at(&self, wal_end: Lsn) {
        self.server_lsn.fetch_max(wal_end.0, Relaxed);
    }

    /// The lake stands here at the start.
    pub fn resumed(&self, committed_lsn: Lsn) {
        self.committed_lsn.fetch_max(committed_lsn.0, Relaxed);
    }

    /// A lake commit was made.
    pub fn committed(&self, committed_lsn: Lsn, changes: u64, rows: u64) {
        self.committed_lsn.fetch_max(committed_lsn.0, Relaxed);
        self.changes.fetch_add(changes, Relaxed);
        self.rows_written.fetch_add(rows, Relaxed);
        self.lake_commits.fetch_add(1, Relaxed);
        self.committed_at_us.store(super::now_us(), Relaxed);
    }

    /// The figures now.
    pub fn view(&self) -> View {
        View {
            is_copying: self.is_copying.load(Relaxed),
            rows_to_copy: self.rows_to_copy.load(Relaxed),
            rows_copied: self.rows_copied.load(Relaxed),
            bytes_copied: self.bytes_copied.load(Relaxed),
            table_bytes_left: self.table_bytes_left.load(Relaxed),
            snapshot_age: self.snapshot_age.load(Relaxed),
            snapshot_retained_wal_bytes: self.snapshot_retained_wal_bytes.load(Relaxed),
            changes: self.changes.load(Relaxed),
            rows_written: self.rows_written.load(Relaxed),
            lake_commits: self.lake_commits.load(Relaxed),
            received_lsn: Lsn(self.received_lsn.load(Relaxed)),
            committed_lsn: Lsn(self.committed_lsn.load(Relaxed)),
            server_lsn: Lsn(self.server_lsn.load(Relaxed)),
            received_commit_time_us: self.received_commit_time_us.load(Relaxed),
            committed_at_us: self.committed_at_us.load(Relaxed),
        }
    }
}

impl View {
    /// WAL the lake does not hold yet, in bytes.
    pub fn lag_bytes(&self) -> u64 {
        self.server_lsn.bytes_since(self.committed_lsn)
    }
}
