//! The lake's part of `frazil check`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytesize::ByteSize;

use crate::config::{Config, LakeSettings};
use crate::error::{Error, Result};
use crate::iceberg::lake::Lake;
use crate::iceberg::ledger::ledger_ident;
use crate::iceberg::storage::LakeStorage;
use crate::postgres::check::{Finding, Severity};
use crate::progress::Lsn;

use super::check::{finding, of_error};

/// Less free space than this is worth a warning.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// What stops a run, or is worth knowing, on the lake's side.
pub(super) async fn lake_findings(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let LakeSettings::Folder(folder) = &config.lake {
        let probed = nearest_folder(folder).and_then(|folder| probe(&folder).map(|()| folder));
        match probed {
            Ok(folder) => findings.extend(free_space(&folder)),
            Err(error) => findings.push(of_error(&error)),
        }
    }
    match stands(config, &mut findings).await {
        Ok(Some(position)) => {
            let what = format!("the lake stands at {position}: a run goes on from there");
            findings.push(finding(Severity::Info, "LAKE_POSITION", what, ""));
        }
        Ok(None) => {
            let what = "the lake is empty: a run begins with the initial snapshot".to_owned();
            findings.push(finding(Severity::Info, "LAKE_EMPTY", what, ""));
        }
        Err(error) => findings.push(of_error(&error)),
    }
    findings
}

/// P, after the storage was tried where it is known before there are tables.
async fn stands(config: &Config, findings: &mut Vec<Finding>) -> Result<Option<Lsn>> {
    if let LakeSettings::Postgres { warehouse, storage, .. } = &config.lake {
        let storage = LakeStorage::open(warehouse, storage.clone())?;
        storage.probe(storage.root()).await?;
    }
    let Some(lake) = super::existing_lake(config).await? else { return Ok(None) };
    if lake.is_torn {
        let what = "the catalog commits tables one by one: readers may see half a source \
                    transaction, and a crash leaves tables at different positions for a while";
        let cure = "use a catalog that commits several tables at once, as Nessie does";
        findings.push(finding(Severity::Warning, "TORN_COMMITS", what.to_owned(), cure));
    }
    if matches!(config.lake, LakeSettings::Rest(..)) {
        probe_table_storage(&lake).await?;
    }
    Ok(lake.committer.position().await?.map(|ledger| ledger.committed_lsn))
}

/// The storage behind a REST catalog is known by its tables: the ledger's, or where it would be.
async fn probe_table_storage(lake: &Lake) -> Result<()> {
    let ident = ledger_ident(&lake.pipeline_id);
    let location = match lake.committer.table(&ident).await? {
        Some(ledger) => ledger.metadata().location().to_owned(),
        None => match lake.committer.tables().await?.into_iter().next() {
            Some(any) => match lake.committer.table(&any).await? {
                Some(table) => table.metadata().location().to_owned(),
                None => return Ok(()),
            },
            None => return Ok(()),
        },
    };
    lake.storage.probe(&location).await
}

/// The folder itself, or the one above in which it would be made.
fn nearest_folder(folder: &Path) -> Result<PathBuf> {
    let full =
        std::path::absolute(folder).map_err(|e| unwritable(folder, "is no path").with_source(e))?;
    let found = full.ancestors().find(|above| above.exists());
    match found {
        Some(found) if found.is_dir() => Ok(found.to_owned()),
        Some(file) => Err(unwritable(file, "is not a folder")),
        None => Err(unwritable(folder, "is not there")),
    }
}

/// Writes, syncs and deletes a file.
fn probe(folder: &Path) -> Result<()> {
    let path = folder.join(format!(".frazil-check-{}", std::process::id()));
    let written = File::create_new(&path).and_then(|mut file| {
        file.write_all(b"frazil")?;
        file.sync_all()
    });
    let removed = std::fs::remove_file(&path);
    written.and(removed).map_err(|e| unwritable(folder, "cannot be written to").with_source(e))
}

fn unwritable(folder: &Path, why: &str) -> Error {
    Error::config("LAKE_UNWRITABLE", format!("{} {why}", folder.display()))
        .with_cure("choose another folder with --into, or give this user the right to write there")
}

/// Free space as `df` tells it; where it tells nothing, nothing is found.
fn free_space(folder: &Path) -> Option<Finding> {
    let output = Command::new("df").arg("-Pk").arg(folder).output().ok()?;
    let free = free_bytes(&String::from_utf8_lossy(&output.stdout))?;
    let what = format!("{} free in {}", ByteSize(free), folder.display());
    Some(if free < FREE_BYTES_MIN {
        finding(Severity::Warning, "LAKE_SPACE", what, "make room, or choose another folder")
    } else {
        finding(Severity::Info, "LAKE_SPACE", what, "")
    })
}

/// The fourth field of the second line, in KiB (POSIX, `df -P -k`).
fn free_bytes(df: &str) -> Option<u64> {
    let field = df.lines().nth(1)?.split_whitespace().nth(3)?;
    field.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn df_is_read() {
        let df =
            "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/a 9 8 2048 1% /\n";
        assert_eq!(free_bytes(df), Some(2 << 20));
        assert_eq!(free_bytes("df: nonsense"), None);
    }

    #[test]
    fn a_file_is_no_folder_and_a_missing_folder_is_looked_for_above() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("a/b");
        assert_eq!(nearest_folder(&missing).unwrap(), folder.path());
        probe(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        std::fs::write(folder.path().join("a"), "").unwrap();
        assert_eq!(nearest_folder(&missing).unwrap_err().code(), "LAKE_UNWRITABLE");
    }
}
