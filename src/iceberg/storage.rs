//! Where the lake's files are: the crate's `Storage` port over `object_store`.
//!
//! A location is the literal string that stands in Iceberg metadata, `file:///lake/app/t/data/x`.
//! No reader decodes it, so neither do we: names are percent-encoded once, when a table gets its
//! folder, and the encoded text is the name on disk.
//!
//! Durability (local): a file counts only after `fsync` of the file and of each directory that
//! names it. `object_store` writes to a temporary name and renames, but syncs nothing, so
//! [`LakeStorage::sync`] does, before the catalog commit.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use iceberg::TableIdent;
use iceberg::io::{
    FileIO, FileIOBuilder, FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage,
    StorageConfig, StorageFactory,
};
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use crate::error::{Error, Result};

/// How many files are synced at the same time.
const SYNC_PARALLEL: usize = 8;

const SCHEME: &str = "file://";

/// The lake's folder as an object store, and as the `iceberg` crate's `Storage`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Root", into = "Root")]
pub struct LakeStorage {
    root: String,
    store: Arc<dyn ObjectStore>,
    /// Directories that were synced up to the root since the process started.
    synced: Arc<Mutex<HashSet<PathBuf>>>,
}

/// What is kept of a [`LakeStorage`] when it is serialized: its root location.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Root {
    root: String,
}

impl TryFrom<Root> for LakeStorage {
    type Error = Error;

    fn try_from(root: Root) -> Result<Self> {
        Ok(Self {
            root: root.root,
            store: Arc::new(LocalFileSystem::new()),
            synced: Arc::default(),
        })
    }
}

impl From<LakeStorage> for Root {
    fn from(storage: LakeStorage) -> Self {
        Root { root: storage.root }
    }
}

impl LakeStorage {
    /// The lake in `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// `LAKE_FOLDER` (config) where the folder can't be made, or has a name that is not UTF-8.
    pub fn local(folder: &FsPath) -> Result<Self> {
        let bad = |what: &str| {
            Error::config("LAKE_FOLDER", format!("{what} {}", folder.display()))
                .with_cure("choose a folder that this user may write, with `--into`")
        };
        make_folder(folder).map_err(|e| bad("cannot make the folder").with_source(e))?;
        let absolute = folder.canonicalize().map_err(|e| bad("cannot open").with_source(e))?;
        let text = absolute.to_str().ok_or_else(|| bad("not a UTF-8 path:"))?;
        LakeStorage::try_from(Root { root: format!("{SCHEME}{text}") })
    }

    /// The root location, `file:///...` without a slash at the end.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Where a table of this name lives: `<root>/<namespace>/<name>`, both percent-encoded.
    pub fn table_location(&self, ident: &TableIdent) -> String {
        let namespace = encode(&ident.namespace().join("."));
        format!("{}/{namespace}/{}", self.root, encode(ident.name()))
    }

    /// The object store; paths in it come from [`LakeStorage::path`].
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        self.store.clone()
    }

    /// A [`FileIO`] over this storage.
    pub fn file_io(&self) -> FileIO {
        FileIOBuilder::new(Arc::new(LakeStorageFactory { root: self.root.clone() })).build()
    }

    /// A location as a path in the object store.
    ///
    /// # Errors
    /// `LAKE_LOCATION` where it is not an absolute local path.
    pub fn path(&self, location: &str) -> Result<Path> {
        let bad = || Error::fatal("LAKE_LOCATION", format!("`{location}` is not a local path"));
        let text = local_path(location).ok_or_else(bad)?;
        Path::parse(text).map_err(|e| bad().with_source(e))
    }

    /// Makes files, and all directories on the way to them, survive a power loss.
    ///
    /// # Errors
    /// `LAKE_IO` (transient).
    pub async fn sync(&self, locations: &[String]) -> Result<()> {
        self.sync_files(locations).await?;
        self.sync_directories(locations).await
    }

    /// As [`LakeStorage::sync`], the files' own bytes only.
    pub(crate) async fn sync_files(&self, locations: &[String]) -> Result<()> {
        let jobs = locations.iter().filter_map(|l| local_path(l)).map(|p| {
            let path = PathBuf::from(p);
            blocking(move || sync_path(&path))
        });
        collect(jobs.collect()).await
    }

    /// As [`LakeStorage::sync`], the directories that name the files only.
    pub(crate) async fn sync_directories(&self, locations: &[String]) -> Result<()> {
        let paths: Vec<PathBuf> =
            locations.iter().filter_map(|l| local_path(l)).map(PathBuf::from).collect();
        let directories = self.unsynced(&paths);
        let jobs = directories.iter().cloned().map(|d| blocking(move || sync_path(&d)));
        collect(jobs.collect()).await?;
        self.synced.lock().unwrap_or_else(PoisonError::into_inner).extend(directories);
        Ok(())
    }

    /// Parents of `paths`, always; and their ancestors up to the root, once.
    fn unsynced(&self, paths: &[PathBuf]) -> HashSet<PathBuf> {
        let known = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        let top = local_path(&self.root).map(FsPath::new);
        let mut found = HashSet::new();
        for parent in paths.iter().filter_map(|p| p.parent()) {
            found.insert(parent.to_owned());
            let above =
                parent.ancestors().skip(1).take_while(|a| top.is_some_and(|t| a.starts_with(t)));
            found.extend(above.filter(|a| !known.contains(*a)).map(FsPath::to_owned));
        }
        found
    }

    /// Deletes files that nothing refers to any more. Best effort: what stays is an orphan, and
    /// orphans are maintenance's.
    pub async fn delete_unreferenced(&self, locations: &[String]) {
        for location in locations {
            if let Ok(path) = self.path(location)
                && let Err(error) = self.store.delete(&path).await
                && !matches!(error, object_store::Error::NotFound { .. })
            {
                tracing::debug!(location, %error, "left an unreferenced file behind");
            }
        }
    }
}

/// The path of a `file:` location, or of a plain absolute one.
fn local_path(location: &str) -> Option<&str> {
    let rest = location.strip_prefix(SCHEME).or_else(|| location.strip_prefix("file:"));
    rest.or(Some(location)).filter(|path| path.starts_with('/'))
}

/// A name as one path segment: every byte but letters, digits, `_`, `-` and inner dots is written
/// as `%XX`, so that no name can leave its folder or meet another's.
fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => out.push(char::from(byte)),
            b'.' if at > 0 => out.push('.'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Makes a folder that survives a power loss: each directory above is synced once it names a new
/// one.
fn make_folder(folder: &FsPath) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|p| !p.as_os_str().is_empty());
    let parent = parent.unwrap_or(FsPath::new("."));
    make_folder(parent)?;
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_path(parent),
    }
}

fn sync_path(path: &FsPath) -> std::io::Result<()> {
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

/// Builds [`LakeStorage`] for the crate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LakeStorageFactory {
    root: String,
}

#[typetag::serde]
impl StorageFactory for LakeStorageFactory {
    fn build(&self, _config: &StorageConfig) -> iceberg::Result<Arc<dyn Storage>> {
        let storage = LakeStorage::try_from(Root { root: self.root.clone() });
        Ok(Arc::new(storage.map_err(|e| external("open the lake", e))?))
    }
}

fn external(
    what: &str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> iceberg::Error {
    iceberg::Error::new(iceberg::ErrorKind::Unexpected, what.to_owned())
        .with_source(std::io::Error::other(error))
}

impl LakeStorage {
    fn at(&self, location: &str) -> iceberg::Result<Path> {
        self.path(location).map_err(|e| external("a location of the lake", e))
    }
}

#[async_trait]
#[typetag::serde]
impl Storage for LakeStorage {
    async fn exists(&self, path: &str) -> iceberg::Result<bool> {
        match self.store.head(&self.at(path)?).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(external(path, error)),
        }
    }

    async fn metadata(&self, path: &str) -> iceberg::Result<FileMetadata> {
        let meta = self.store.head(&self.at(path)?).await.map_err(|e| external(path, e))?;
        Ok(FileMetadata { size: meta.size })
    }

    async fn read(&self, path: &str) -> iceberg::Result<Bytes> {
        let got = self.store.get(&self.at(path)?).await.map_err(|e| external(path, e))?;
        got.bytes().await.map_err(|e| external(path, e))
    }

    async fn reader(&self, path: &str) -> iceberg::Result<Box<dyn FileRead>> {
        Ok(Box::new(Reader { store: self.store(), path: self.at(path)? }))
    }

    async fn write(&self, path: &str, bs: Bytes) -> iceberg::Result<()> {
        let put = self.store.put(&self.at(path)?, PutPayload::from_bytes(bs)).await;
        put.map(|_| ()).map_err(|e| external(path, e))
    }

    async fn writer(&self, path: &str) -> iceberg::Result<Box<dyn FileWrite>> {
        Ok(Box::new(Writer(BufWriter::new(self.store(), self.at(path)?))))
    }

    async fn delete(&self, path: &str) -> iceberg::Result<()> {
        match self.store.delete(&self.at(path)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(external(path, error)),
        }
    }

    async fn delete_prefix(&self, path: &str) -> iceberg::Result<()> {
        let mut found = self.store.list(Some(&self.at(path)?));
        while let Some(meta) = found.next().await {
            let meta = meta.map_err(|e| external(path, e))?;
            self.store.delete(&meta.location).await.map_err(|e| external(path, e))?;
        }
        Ok(())
    }

    async fn delete_stream(&self, mut paths: BoxStream<'static, String>) -> iceberg::Result<()> {
        while let Some(path) = paths.next().await {
            Storage::delete(self, &path).await?;
        }
        Ok(())
    }

    fn new_input(&self, path: &str) -> iceberg::Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_owned()))
    }

    fn new_output(&self, path: &str) -> iceberg::Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.to_owned()))
    }
}

struct Reader {
    store: Arc<dyn ObjectStore>,
    path: Path,
}

#[async_trait]
impl FileRead for Reader {
    async fn read(&self, range: Range<u64>) -> iceberg::Result<Bytes> {
        self.store.get_range(&self.path, range).await.map_err(|e| external("read", e))
    }
}

struct Writer(BufWriter);

#[async_trait]
impl FileWrite for Writer {
    async fn write(&mut self, bs: Bytes) -> iceberg::Result<()> {
        self.0.put(bs).await.map_err(|e| external("write", e))
    }

    async fn close(&mut self) -> iceberg::Result<()> {
        self.0.shutdown().await.map_err(|e| external("close", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_with_all_above_it() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b/c");
        let storage = LakeStorage::local(&folder).unwrap();
        assert!(folder.is_dir() && storage.root().ends_with("a/b/c"));
        std::fs::write(root.path().join("file"), "").unwrap();
        let error = LakeStorage::local(&root.path().join("file/lake")).unwrap_err();
        assert_eq!((error.code(), error.exit_code()), ("LAKE_FOLDER", 78));
    }

    #[test]
    fn no_name_leaves_its_folder() {
        for (name, want) in [
            ("../x", "%2E.%2Fx"),
            ("a/b", "a%2Fb"),
            ("sp ace", "sp%20ace"),
            ("..", "%2E."),
            ("a%2Fb", "a%252Fb"),
            ("v1.2", "v1.2"),
        ] {
            assert_eq!(encode(name), want);
        }
    }
}
