//! Where the lake's files are: a folder, S3, Google Cloud Storage or Azure, over `object_store`.
//!
//! A location is the literal string that stands in Iceberg metadata, `file:///lake/app/t/data/x` or
//! `s3://bucket/wh/app/t/data/x`. No reader decodes it, so neither do we: names are percent-encoded
//! once, when a table gets its folder, and the encoded text is the file's name or the object's key.
//!
//! Durability: an object counts once the store has answered, with the checksum it was sent with. A
//! local file counts only after `fsync` of the file and of each directory that names it
//! (`local.rs`). Nothing here lists a folder to find out what a table is made of.

mod cloud;
mod crate_port;
mod local;
mod recent;
mod settings;
mod upload;

use std::collections::HashMap;
use std::path::Path as FsPath;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use iceberg::TableIdent;
use iceberg::io::{FileIO, FileIOBuilder};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

pub use cloud::{Refresh, S3Keys, S3Place};
pub use settings::{StorageSettings, s3_setting};
pub(crate) use upload::Upload;

use crate_port::LakeStorageFactory;
use local::SyncedDirectories;
use recent::Recent;

/// How many files are deleted at the same time.
const DELETE_PARALLEL: usize = 8;

/// The lake's storage, also as the `iceberg` crate's `Storage`. Cheap to clone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Root", into = "Root")]
pub struct LakeStorage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: String,
    settings: StorageSettings,
    /// Opened stores: by bucket (`s3://lake`), or by table where the catalog vends keys for it.
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
    synced: SyncedDirectories,
    recent: Recent,
}

/// What is kept of a [`LakeStorage`] when it is serialized: its root location.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Root {
    root: String,
}

impl TryFrom<Root> for LakeStorage {
    type Error = Error;

    fn try_from(root: Root) -> Result<Self> {
        LakeStorage::open(&root.root, StorageSettings::default())
    }
}

impl From<LakeStorage> for Root {
    fn from(storage: LakeStorage) -> Self {
        Root { root: storage.root().to_owned() }
    }
}

/// An object: its store and its path in it.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) path: Path,
}

impl LakeStorage {
    /// The lake in `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// `LAKE_FOLDER` (config) where the folder can't be made, or has a name that is not UTF-8.
    pub fn local(folder: &FsPath) -> Result<Self> {
        Ok(Self::new(local::root(folder)?, StorageSettings::default()))
    }

    /// The lake below `root`: a URL (`s3://bucket/path`, `gs://...`, `abfss://...`, `file:///...`)
    /// or a folder, which is made if it is missing.
    ///
    /// # Errors
    /// `LAKE_FOLDER`, `STORAGE_URL`, `STORAGE_REGION`, `STORAGE_SETTING` (config).
    pub fn open(root: &str, settings: StorageSettings) -> Result<Self> {
        let Some(path) = local::path(root) else {
            if !root.contains("://") {
                return Self::local(FsPath::new(root));
            }
            let storage = Self::new(root.trim_end_matches('/').to_owned(), settings);
            storage.object(&format!("{}/x", storage.root()))?;
            return Ok(storage);
        };
        Self::local(FsPath::new(path))
    }

    /// Storage whose tables stand where their catalog says.
    pub fn of_catalog(settings: StorageSettings) -> Self {
        Self::new(String::new(), settings)
    }

    fn new(root: String, settings: StorageSettings) -> Self {
        let (stores, synced) = (Mutex::default(), SyncedDirectories::default());
        Self(Arc::new(Inner { root, settings, stores, synced, recent: Recent::default() }))
    }

    /// The root location, without a slash at the end; empty for [`LakeStorage::of_catalog`].
    pub fn root(&self) -> &str {
        &self.0.root
    }

    /// Where a table of this name lives: `<root>/<namespace>/<name>`, both percent-encoded.
    pub fn table_location(&self, ident: &TableIdent) -> String {
        let namespace = encode(&ident.namespace().join("."));
        format!("{}/{namespace}/{}", self.root(), encode(ident.name()))
    }

    /// Keys for everything below `location`, which `keys` gave and `refresh` renews.
    ///
    /// # Errors
    /// As [`LakeStorage::open`].
    pub fn vend(&self, location: &str, keys: S3Keys, refresh: Refresh) -> Result<()> {
        let bucket = cloud::bucket(location)?;
        let store = cloud::s3_with(&bucket, &self.0.settings, keys, refresh)?;
        self.stores().insert(location.trim_end_matches('/').to_owned(), store);
        Ok(())
    }

    /// Whether keys were vended for this location already.
    pub(crate) fn has_vended(&self, location: &str) -> bool {
        self.stores().contains_key(location.trim_end_matches('/'))
    }

    /// Where S3 is, as far as settings, environment and catalog say.
    pub fn s3_place(&self) -> S3Place {
        cloud::s3_place(&self.0.settings)
    }

    /// A [`FileIO`] over this storage.
    pub fn file_io(&self) -> FileIO {
        FileIOBuilder::new(Arc::new(LakeStorageFactory::of(self.clone()))).build()
    }

    /// Where a location's object is.
    ///
    /// # Errors
    /// `LAKE_LOCATION` (fatal) where it is no location; else as [`LakeStorage::open`].
    pub(crate) fn object(&self, location: &str) -> Result<Object> {
        let bad = || Error::fatal("LAKE_LOCATION", format!("`{location}` is not a location"));
        if let Some(path) = local::path(location) {
            let path = Path::parse(path).map_err(|e| bad().with_source(e))?;
            return Ok(Object { store: local::store(), path });
        }
        let bucket = cloud::bucket(location)?;
        let path = Path::parse(bucket.key).map_err(|e| bad().with_source(e))?;
        Ok(Object { store: self.store(location, &bucket)?, path })
    }

    /// The store with keys for this very table, else the bucket's.
    fn store(&self, location: &str, bucket: &cloud::Bucket<'_>) -> Result<Arc<dyn ObjectStore>> {
        let mut stores = self.stores();
        let mut above = location;
        while above.len() > bucket.name.len() {
            if let Some(store) = stores.get(above) {
                return Ok(store.clone());
            }
            above = above.rsplit_once('/').map_or("", |(above, _)| above);
        }
        if let Some(store) = stores.get(bucket.name) {
            return Ok(store.clone());
        }
        let store = cloud::open(bucket, &self.0.settings)?;
        stores.insert(bucket.name.to_owned(), store.clone());
        Ok(store)
    }

    fn stores(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<dyn ObjectStore>>> {
        self.0.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An upload of the object at `location`.
    ///
    /// # Errors
    /// As [`LakeStorage::object`].
    pub(crate) fn upload(&self, location: &str) -> Result<Upload> {
        Ok(Upload::new(self.object(location)?))
    }

    /// Whether `location` is a file's.
    pub(crate) fn is_local(&self, location: &str) -> bool {
        local::path(location).is_some()
    }

    /// Size of the object at `location`, in bytes.
    ///
    /// # Errors
    /// `LAKE_IO` (transient).
    pub(crate) async fn size(&self, location: &str) -> Result<u64> {
        let object = self.object(location)?;
        let head = object.store.head(&object.path).await;
        head.map(|meta| meta.size).map_err(|e| storage_error(location, e))
    }

    /// As [`LakeStorage::size`]; `None` where nothing is there.
    ///
    /// # Errors
    /// `LAKE_IO` (transient), `STORAGE_DENIED` (config).
    pub(crate) async fn size_if_there(&self, location: &str) -> Result<Option<u64>> {
        let object = self.object(location)?;
        match object.store.head(&object.path).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(storage_error(location, error)),
        }
    }

    /// Puts a small object in the place of the one at `location`, at once or not at all.
    ///
    /// # Errors
    /// As [`LakeStorage::size_if_there`].
    pub(crate) async fn write_small(&self, location: &str, bytes: Vec<u8>) -> Result<()> {
        let object = self.object(location)?;
        let put = object.store.put(&object.path, PutPayload::from(bytes)).await;
        put.map(|_| ()).map_err(|e| storage_error(location, e))
    }

    /// What [`LakeStorage::write_small`] put there; `None` where nothing is.
    ///
    /// # Errors
    /// As [`LakeStorage::size_if_there`].
    pub(crate) async fn read_small(&self, location: &str) -> Result<Option<Vec<u8>>> {
        let object = self.object(location)?;
        let read = async { object.store.get(&object.path).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(storage_error(location, error)),
        }
    }

    /// Writes, reads and deletes a small object below the root: what a run needs to be allowed.
    ///
    /// # Errors
    /// `STORAGE_DENIED` (config), `LAKE_IO` (transient).
    pub async fn probe(&self, root: &str) -> Result<()> {
        let location = format!("{root}/.frazil-check-{}", uuid::Uuid::new_v4());
        let object = self.object(&location)?;
        let probed = async {
            object.store.put(&object.path, PutPayload::from_static(b"frazil")).await?;
            object.store.get(&object.path).await?.bytes().await?;
            object.store.delete(&object.path).await
        };
        probed.await.map_err(|e| storage_error(root, e))
    }

    /// Makes files, and all directories on the way to them, survive a power loss; objects do.
    ///
    /// # Errors
    /// `LAKE_IO` (transient).
    pub async fn sync(&self, locations: &[String]) -> Result<()> {
        self.sync_files(locations).await?;
        self.sync_directories(locations).await
    }

    /// As [`LakeStorage::sync`], the files' own bytes only.
    pub(crate) async fn sync_files(&self, locations: &[String]) -> Result<()> {
        local::sync_files(locations).await
    }

    /// As [`LakeStorage::sync`], the directories that name the files only.
    pub(crate) async fn sync_directories(&self, locations: &[String]) -> Result<()> {
        self.0.synced.sync(self.root(), locations).await
    }

    /// Deletes files that nothing refers to any more. Best effort: what stays is an orphan, and
    /// orphans are maintenance's.
    pub async fn delete_unreferenced(&self, locations: &[String]) {
        let jobs = locations.iter().map(|location| async move {
            let Ok(object) = self.object(location) else { return };
            self.0.recent.forget(location);
            if let Err(error) = object.store.delete(&object.path).await
                && !matches!(error, object_store::Error::NotFound { .. })
            {
                tracing::debug!(location, %error, "left an unreferenced file behind");
            }
        });
        let jobs: Vec<_> = jobs.collect();
        futures::stream::iter(jobs).buffer_unordered(DELETE_PARALLEL).for_each(async |()| {}).await;
    }
}

/// An error of the store: a right that is missing, or the world in the way.
pub(crate) fn storage_error(location: &str, error: object_store::Error) -> Error {
    use object_store::Error as Store;
    let made = match &error {
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => {
            let what = format!("the storage refuses access to {location}");
            Error::config("STORAGE_DENIED", what).with_cure(
                "give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or storage.access_key_id and \
                 storage.secret_access_key) of a user that may list, get, put and delete there",
            )
        }
        Store::NotFound { .. } => Error::transient("LAKE_IO", format!("{location} is not there"))
            .with_cure("does the bucket exist, and was a file of the lake deleted?"),
        _ => Error::transient("LAKE_IO", format!("cannot reach {location}"))
            .with_cure("is the storage running, and are endpoint and region right?"),
    };
    made.with_source(error)
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
    fn a_location_is_its_store_and_its_literal_key() {
        let settings =
            StorageSettings { region: Some("eu-north-1".into()), ..StorageSettings::default() };
        let storage = LakeStorage::open("s3://lake/wh/", settings).unwrap();
        assert_eq!(storage.root(), "s3://lake/wh");
        let ident = crate::iceberg::table_ident("a/b", "c d");
        assert_eq!(storage.table_location(&ident), "s3://lake/wh/a%2Fb/c%20d");
        let object = storage.object("s3://lake/wh/a%2Fb/c%20d/data/x").unwrap();
        assert_eq!(object.path.as_ref(), "wh/a%2Fb/c%20d/data/x");
        assert!(format!("{:?}", object.store).contains("lake"));
        assert_eq!(storage.object("hdfs://x/y").unwrap_err().code(), "STORAGE_URL");
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
