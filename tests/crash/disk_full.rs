//! The lake's disk is full: frazil says so, tries again, and goes on when there is space (case
//! 154).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Load, SCHEMA, assert_whole, run};
use crate::support::postgres::{Postgres, PostgresOptions};

/// A small file system of its own; unmounted on drop.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this user or container may not mount.
    fn mount(at: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=400m", "tmpfs"]).arg(at);
        let output = mount.output().ok()?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            eprintln!("SKIPPED: a full disk was not tried, no tmpfs can be mounted: {why}");
            return None;
        }
        Some(Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Takes all the space there is.
fn fill(filler: &Path) {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(filler).unwrap();
    while file.write_all(&[7; 4096]).is_ok() {}
}

// cases: 154 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path()) else { return };
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres.sql(SCHEMA).await;
    let (lake, filler) = (folder.path().join("lake"), folder.path().join("filler"));
    let mut frazil = run(&postgres, &lake, "frazil").spawn();
    frazil.wait_for_log("following the stream", Duration::from_secs(60));
    let load = Load::start(&postgres, 9);
    for round in 1..=3 {
        let before = frazil.stderr().matches("retry_in").count();
        tokio::time::sleep(Duration::from_millis(500)).await;
        super::until(
            &format!("trouble reported, round {round}"),
            Duration::from_secs(30),
            async || {
                fill(&filler);
                assert!(frazil.is_running(), "ended:\n{}", frazil.stderr());
                frazil.stderr().matches("retry_in").count() > before
            },
        )
        .await;
        let streams = frazil.stderr().matches("following the stream").count();
        std::fs::remove_file(&filler).unwrap();
        super::until("going on", Duration::from_secs(30), async || {
            frazil.stderr().matches("following the stream").count() > streams
        })
        .await;
    }
    let log = frazil.stderr();
    eprintln!("{}", log.lines().filter(|l| l.contains("retry_in")).collect::<Vec<_>>().join("\n"));
    load.end().await;
    frazil.signal("TERM");
    frazil.wait(Duration::from_secs(30)).succeeded();
    assert_whole(&postgres, &lake, "frazil").await;
    drop(disk);
}
