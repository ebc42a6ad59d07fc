//! Identities that do not fit in memory: written to unlinked temporary files by part of the key's
//! hash, read back part by part.

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};

use crate::error::{Error, Result};
use crate::verify::cells::Identity;

/// Identities in one part, about: what is held in memory per side.
const PART_ROWS: u64 = 2_000_000;
/// Parts, at most: each is an open file per side.
const PARTS_MAX: u64 = 256;
/// Key hash, row hash, count.
const ENTRY_BYTES: usize = 40;

/// One side's identities, each with how often it is there.
#[derive(Debug)]
pub(super) struct Spill {
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Memory(Vec<(Identity, i64)>),
    Disk(BufWriter<File>),
}

impl Spill {
    /// For about `rows` of them: in memory where that is little.
    ///
    /// # Errors
    /// `TEMPORARY_FOLDER` (transient).
    pub(super) fn new(rows: u64) -> Result<Self> {
        let parts = parts(rows);
        let part = |_| {
            Ok(match parts {
                1 => Part::Memory(Vec::new()),
                _ => Part::Disk(BufWriter::new(tempfile::tempfile().map_err(no_room)?)),
            })
        };
        Ok(Self { parts: (0..parts).map(part).collect::<Result<_>>()? })
    }

    /// How many parts there are; the same for both sides if they were made for the same `rows`.
    pub(super) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// Adds one.
    ///
    /// # Errors
    /// `TEMPORARY_FOLDER` (transient).
    pub(super) fn add(&mut self, identity: Identity, count: i64) -> Result<()> {
        let parts = u128::try_from(self.parts.len()).unwrap_or(1).max(1);
        let at = usize::try_from(identity.key % parts).unwrap_or(0);
        match self.parts.get_mut(at) {
            Some(Part::Memory(all)) => all.push((identity, count)),
            Some(Part::Disk(file)) => {
                file.write_all(&identity.key.to_le_bytes()).map_err(no_room)?;
                file.write_all(&identity.row.to_le_bytes()).map_err(no_room)?;
                file.write_all(&count.to_le_bytes()).map_err(no_room)?;
            }
            None => {}
        }
        Ok(())
    }

    /// The identities of one part, sorted, equal ones added up.
    ///
    /// # Errors
    /// `TEMPORARY_FOLDER` (transient).
    pub(super) fn take(&mut self, part: usize) -> Result<Vec<(Identity, i64)>> {
        let mut all = match self.parts.get_mut(part) {
            Some(Part::Memory(all)) => std::mem::take(all),
            Some(Part::Disk(file)) => read_back(file).map_err(no_room)?,
            None => Vec::new(),
        };
        all.sort_unstable();
        all.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
        all.retain(|(_, count)| *count != 0);
        Ok(all)
    }
}

fn parts(rows: u64) -> u64 {
    rows.div_ceil(PART_ROWS).clamp(1, PARTS_MAX)
}

fn read_back(file: &mut BufWriter<File>) -> std::io::Result<Vec<(Identity, i64)>> {
    file.flush()?;
    let mut file = file.get_ref().try_clone()?;
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(file);
    let mut all = Vec::new();
    let mut entry = [0; ENTRY_BYTES];
    loop {
        match reader.read_exact(&mut entry) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(all),
            Err(e) => return Err(e),
        }
        let (key, rest) = entry.split_at(16);
        let (row, count) = rest.split_at(16);
        let number = |bytes: &[u8]| u128::from_le_bytes(bytes.try_into().unwrap_or_default());
        let count = i64::from_le_bytes(count.try_into().unwrap_or_default());
        all.push((Identity { key: number(key), row: number(row) }, count));
    }
}

fn no_room(error: std::io::Error) -> Error {
    Error::transient("TEMPORARY_FOLDER", "a temporary file cannot be written or read")
        .with_source(error)
        .with_cure("is TMPDIR there, writable and not full?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_spilled_comes_back_sorted_and_added_up() {
        for rows in [10, PART_ROWS * 3] {
            let mut spill = Spill::new(rows).unwrap();
            for n in (0..1000).rev() {
                spill.add(Identity { key: n, row: n * 7 }, 1).unwrap();
                spill.add(Identity { key: n, row: n * 7 }, i64::from(n != 5) * 2 - 1).unwrap();
            }
            let all: Vec<_> = (0..spill.parts()).map(|p| spill.take(p).unwrap()).collect();
            assert!(all.iter().all(|part| part.is_sorted()));
            let mut all: Vec<_> = all.into_iter().flatten().collect();
            all.sort_unstable();
            assert_eq!(all.len(), 999, "one was taken away again");
            assert!(all.iter().all(|(one, count)| one.row == one.key * 7 && *count == 2));
        }
    }
}
