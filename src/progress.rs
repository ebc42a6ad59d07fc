//! Positions in the WAL and the order between them.
//!
//! `received_lsn >= written_lsn >= committed_lsn >= acknowledged_lsn` holds at all times. Only
//! [`Progress::acknowledge`] gives a position that may be sent to the server, and it can only give
//! `committed_lsn` (= P): what the lake holds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A position in the write-ahead log, in bytes from its beginning (Postgres manual, `pg_lsn`).
/// Written as two hexadecimal numbers, `16/B374D848`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position before all others, which Postgres calls invalid.
    pub const ZERO: Lsn = Lsn(0);

    /// Bytes from `earlier` to `self`; 0 where `earlier` is not earlier.
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::config("BAD_LSN", format!("`{text}` is not an LSN"))
                .with_cure("write it as Postgres does, for instance 16/B374D848")
        };
        let half = |part: &str| match part.len() {
            1..=8 => u64::from_str_radix(part, 16).map_err(|_| bad()),
            _ => Err(bad()),
        };
        let (high, low) = text.split_once('/').ok_or_else(bad)?;
        Ok(Lsn(half(high)? << 32 | half(low)?))
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

impl TryFrom<String> for Lsn {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

/// The four positions of one pipeline, each monotone.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    received_lsn: Lsn,
    written_lsn: Lsn,
    committed_lsn: Lsn,
    acknowledged_lsn: Lsn,
}

impl Progress {
    /// A pipeline that resumes where the lake stands.
    pub fn resume(committed_lsn: Lsn) -> Self {
        Self {
            received_lsn: committed_lsn,
            written_lsn: committed_lsn,
            committed_lsn,
            acknowledged_lsn: Lsn::ZERO,
        }
    }

    /// WAL has arrived up to `lsn`. An earlier `lsn` than before changes nothing: the messages of
    /// a source transaction carry LSNs below the end of an earlier one (case 3).
    pub fn receive(&mut self, lsn: Lsn) {
        self.received_lsn = self.received_lsn.max(lsn);
    }

    /// Everything up to `lsn` stands in files.
    pub fn write(&mut self, lsn: Lsn) -> Result<()> {
        self.check("written_lsn", lsn, self.written_lsn, "received_lsn", self.received_lsn)?;
        self.written_lsn = lsn;
        Ok(())
    }

    /// A lake commit that ends at `lsn` has been made.
    pub fn commit(&mut self, lsn: Lsn) -> Result<()> {
        self.check("committed_lsn", lsn, self.committed_lsn, "written_lsn", self.written_lsn)?;
        self.committed_lsn = lsn;
        Ok(())
    }

    /// The position to acknowledge: P, and nothing beyond it (cases 1, 8).
    pub fn acknowledge(&mut self) -> Lsn {
        self.acknowledged_lsn = self.committed_lsn;
        self.acknowledged_lsn
    }

    /// The end of what has arrived.
    pub fn received_lsn(&self) -> Lsn {
        self.received_lsn
    }

    /// P: the `end_lsn` of the last source transaction in the lake.
    pub fn committed_lsn(&self) -> Lsn {
        self.committed_lsn
    }

    /// The last position that was sent to the server as flushed.
    pub fn acknowledged_lsn(&self) -> Lsn {
        self.acknowledged_lsn
    }

    fn check(&self, name: &str, lsn: Lsn, floor: Lsn, above: &str, ceiling: Lsn) -> Result<()> {
        if lsn < floor || lsn > ceiling {
            return Err(Error::fatal(
                "POSITION_ORDER",
                format!("{name} would go from {floor} to {lsn} while {above} is {ceiling}"),
            )
            .with_cure("this is a defect of frazil: nothing was acknowledged; please report it"));
        }
        Ok(())
    }
}
