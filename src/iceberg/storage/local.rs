//! Files in a folder: made, synced, named by `file:` locations.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures::StreamExt;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

use crate::error::{Error, Result};

/// How many files are synced at the same time.
const SYNC_PARALLEL: usize = 8;

const SCHEME: &str = "file://";

/// The local file system as a store; paths in it are absolute.
pub(super) fn store() -> Arc<dyn ObjectStore> {
    static STORE: OnceLock<Arc<LocalFileSystem>> = OnceLock::new();
    STORE.get_or_init(|| Arc::new(LocalFileSystem::new())).clone()
}

/// The path of a `file:` location, or of a plain absolute one.
pub(super) fn path(location: &str) -> Option<&str> {
    let rest = location.strip_prefix(SCHEME).or_else(|| location.strip_prefix("file:"));
    rest.or(Some(location)).filter(|path| path.starts_with('/'))
}

/// The root location of a lake in `folder`, which is made if it is missing.
///
/// # Errors
/// `LAKE_FOLDER` (config) where the folder can't be made, or has a name that is not UTF-8.
pub(super) fn root(folder: &Path) -> Result<String> {
    let bad = |what: &str| {
        Error::config("LAKE_FOLDER", format!("{what} {}", folder.display()))
            .with_cure("choose a folder that this user may write, with `--into`")
    };
    make_folder(folder).map_err(|e| bad("cannot make the folder").with_source(e))?;
    let absolute = folder.canonicalize().map_err(|e| bad("cannot open").with_source(e))?;
    let text = absolute.to_str().ok_or_else(|| bad("not a UTF-8 path:"))?;
    Ok(format!("{SCHEME}{text}"))
}

/// Makes a folder that survives a power loss: each directory above is synced once it names a new
/// one.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    make_folder(parent)?;
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_path(parent),
    }
}

/// Makes the bytes of those `locations` that are files survive a power loss. `object_store` writes
/// to a temporary name and renames, but syncs nothing.
pub(super) async fn sync_files(locations: &[String]) -> Result<()> {
    let jobs = locations.iter().filter_map(|l| path(l)).map(|p| {
        let path = PathBuf::from(p);
        blocking(move || sync_path(&path))
    });
    collect(jobs.collect()).await
}

/// Directories that were synced up to the root since the process started.
#[derive(Debug, Default)]
pub(super) struct SyncedDirectories(Mutex<HashSet<PathBuf>>);

impl SyncedDirectories {
    /// Makes the directories that name those `locations` that are files survive a power loss.
    pub(super) async fn sync(&self, root: &str, locations: &[String]) -> Result<()> {
        let paths: Vec<PathBuf> =
            locations.iter().filter_map(|l| path(l)).map(PathBuf::from).collect();
        let directories = self.unsynced(root, &paths);
        let jobs = directories.iter().cloned().map(|d| blocking(move || sync_path(&d)));
        collect(jobs.collect()).await?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(directories);
        Ok(())
    }

    /// Parents of `paths`, always; and their ancestors up to the root, once.
    fn unsynced(&self, root: &str, paths: &[PathBuf]) -> HashSet<PathBuf> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let top = path(root).map(Path::new);
        let mut found = HashSet::new();
        for parent in paths.iter().filter_map(|p| p.parent()) {
            found.insert(parent.to_owned());
            let above =
                parent.ancestors().skip(1).take_while(|a| top.is_some_and(|t| a.starts_with(t)));
            found.extend(above.filter(|a| !known.contains(*a)).map(Path::to_owned));
        }
        found
    }
}

fn sync_path(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path)?.sync_all()
}

async fn blocking<F>(job: F) -> std::io::Result<()>
where
    F: FnOnce() -> std::io::Result<()> + Send + 'static,
{
    tokio::task::spawn_blocking(job).await.unwrap_or_else(|e| Err(std::io::Error::other(e)))
}

async fn collect<F>(jobs: Vec<F>) -> Result<()>
where
    F: Future<Output = std::io::Result<()>>,
{
    let mut done = futures::stream::iter(jobs).buffer_unordered(SYNC_PARALLEL);
    while let Some(result) = done.next().await {
        result.map_err(|e| {
            Error::transient("LAKE_IO", "a file of the lake could not be synced")
                .with_cure("is the disk full or gone? nothing was acknowledged")
                .with_source(e)
        })?;
    }
    Ok(())
}
