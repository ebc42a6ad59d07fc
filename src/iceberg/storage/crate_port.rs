//! The `iceberg` crate's `Storage` port over [`LakeStorage`].

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use iceberg::io::{
    FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage, StorageConfig,
    StorageFactory,
};
use object_store::{ObjectStoreExt, PutPayload};
use serde::{Deserialize, Serialize};

use super::{LakeStorage, Object, Upload};

/// Builds [`LakeStorage`] for the crate.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LakeStorageFactory {
    storage: LakeStorage,
}

impl LakeStorageFactory {
    pub(super) fn of(storage: LakeStorage) -> Self {
        Self { storage }
    }
}

#[typetag::serde]
impl StorageFactory for LakeStorageFactory {
    fn build(&self, _config: &StorageConfig) -> iceberg::Result<Arc<dyn Storage>> {
        Ok(Arc::new(self.storage.clone()))
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
    /// The file system has its own memory.
    fn remember(&self, location: &str, bytes: &Bytes) {
        if !self.is_local(location) {
            self.0.recent.keep(location, bytes);
        }
    }

    fn at(&self, location: &str) -> iceberg::Result<Object> {
        self.object(location).map_err(|e| external("a location of the lake", e))
    }
}

#[async_trait]
#[typetag::serde]
impl Storage for LakeStorage {
    async fn exists(&self, path: &str) -> iceberg::Result<bool> {
        let object = self.at(path)?;
        match object.store.head(&object.path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(external(path, error)),
        }
    }

    async fn metadata(&self, path: &str) -> iceberg::Result<FileMetadata> {
        let object = self.at(path)?;
        let meta = object.store.head(&object.path).await.map_err(|e| external(path, e))?;
        Ok(FileMetadata { size: meta.size })
    }

    async fn read(&self, path: &str) -> iceberg::Result<Bytes> {
        if let Some(bytes) = self.0.recent.get(path) {
            return Ok(bytes);
        }
        let object = self.at(path)?;
        let got = object.store.get(&object.path).await.map_err(|e| external(path, e))?;
        got.bytes().await.map_err(|e| external(path, e))
    }

    async fn reader(&self, path: &str) -> iceberg::Result<Box<dyn FileRead>> {
        Ok(Box::new(Reader(self.at(path)?)))
    }

    async fn write(&self, path: &str, bs: Bytes) -> iceberg::Result<()> {
        let object = self.at(path)?;
        let put = object.store.put(&object.path, PutPayload::from_bytes(bs.clone())).await;
        put.map_err(|e| external(path, e))?;
        self.remember(path, &bs);
        Ok(())
    }

    async fn writer(&self, path: &str) -> iceberg::Result<Box<dyn FileWrite>> {
        let upload = Upload::new(self.at(path)?);
        let (storage, location) = (self.clone(), path.to_owned());
        Ok(Box::new(Writer { upload, storage, location, first: None }))
    }

    async fn delete(&self, path: &str) -> iceberg::Result<()> {
        self.0.recent.forget(path);
        let object = self.at(path)?;
        match object.store.delete(&object.path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(external(path, error)),
        }
    }

    async fn delete_prefix(&self, path: &str) -> iceberg::Result<()> {
        let object = self.at(path)?;
        let mut found = object.store.list(Some(&object.path));
        while let Some(meta) = found.next().await {
            let meta = meta.map_err(|e| external(path, e))?;
            object.store.delete(&meta.location).await.map_err(|e| external(path, e))?;
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

struct Reader(Object);

#[async_trait]
impl FileRead for Reader {
    async fn read(&self, range: Range<u64>) -> iceberg::Result<Bytes> {
        self.0.store.get_range(&self.0.path, range).await.map_err(|e| external("read", e))
    }
}

struct Writer {
    upload: Upload,
    storage: LakeStorage,
    location: String,
    /// All that was written, as long as that is one piece.
    first: Option<Bytes>,
}

#[async_trait]
impl FileWrite for Writer {
    async fn write(&mut self, bs: Bytes) -> iceberg::Result<()> {
        self.first = match self.upload.is_empty() {
            true => Some(bs.clone()),
            false => None,
        };
        self.upload.put(bs).await.map_err(|e| external("write", e))
    }

    async fn close(&mut self) -> iceberg::Result<()> {
        self.upload.finish().await.map_err(|e| external("close", e))?;
        if let Some(all) = &self.first {
            self.storage.remember(&self.location, all);
        }
        Ok(())
    }
}
