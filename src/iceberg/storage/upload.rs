//! One object on its way into the store.

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload, PutPayloadMut, Result};
use parquet::arrow::async_writer::AsyncFileWriter;
use parquet::errors::{ParquetError, Result as ParquetResult};
use tokio::task::JoinSet;

use super::Object;

/// Bytes of a part; a smaller object is written in one piece. S3 takes no part below 5 MiB but the
/// last.
const PART_BYTES: usize = 5 << 20;
/// More is taken when fewer parts than this are on their way.
const PARTS_PARALLEL: usize = 2;

/// An upload that is aborted, parts and all, unless it is finished: nobody pays for parts of an
/// object that will never be. (`object_store`'s own `BufWriter` leaves them when a part fails.)
pub(crate) struct Upload {
    object: Object,
    buffer: PutPayloadMut,
    parts: Option<Parts>,
}

struct Parts {
    upload: Box<dyn MultipartUpload>,
    tasks: JoinSet<Result<()>>,
}

impl Upload {
    pub(super) fn new(object: Object) -> Self {
        Self { object, buffer: PutPayloadMut::new(), parts: None }
    }

    /// Whether nothing was put yet.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_none() && self.buffer.is_empty()
    }

    pub(super) async fn put(&mut self, mut bytes: Bytes) -> Result<()> {
        if let Some(parts) = &mut self.parts {
            parts.wait(PARTS_PARALLEL - 1).await?;
        }
        // What is put at once is in memory already: its parts go out together.
        while !bytes.is_empty() {
            let room = PART_BYTES - self.buffer.content_length();
            self.buffer.push(bytes.split_to(room.min(bytes.len())));
            if self.buffer.content_length() == PART_BYTES {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    async fn send_part(&mut self) -> Result<()> {
        let parts = match &mut self.parts {
            Some(parts) => parts,
            None => {
                let upload = self.object.store.put_multipart(&self.object.path).await?;
                self.parts.insert(Parts { upload, tasks: JoinSet::new() })
            }
        };
        let part: PutPayload = std::mem::take(&mut self.buffer).into();
        parts.tasks.spawn(parts.upload.put_part(part));
        Ok(())
    }

    /// The object is there, whole, when this returns.
    pub(super) async fn finish(&mut self) -> Result<()> {
        if self.parts.is_none() {
            let all: PutPayload = std::mem::take(&mut self.buffer).into();
            return self.object.store.put(&self.object.path, all).await.map(|_| ());
        }
        if !self.buffer.is_empty() {
            self.send_part().await?;
        }
        if let Some(parts) = &mut self.parts {
            parts.wait(0).await?;
            parts.upload.complete().await?;
            self.parts = None;
        }
        Ok(())
    }
}

impl Parts {
    /// Returns once at most `most` parts are on their way.
    async fn wait(&mut self, most: usize) -> Result<()> {
        while self.tasks.len() > most {
            if let Some(done) = self.tasks.join_next().await {
                done.map_err(|source| object_store::Error::JoinError { source })??;
            }
        }
        Ok(())
    }
}

impl AsyncFileWriter for Upload {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, ParquetResult<()>> {
        self.put(bytes).map(|put| put.map_err(|e| ParquetError::External(Box::new(e)))).boxed()
    }

    fn complete(&mut self) -> BoxFuture<'_, ParquetResult<()>> {
        self.finish().map(|end| end.map_err(|e| ParquetError::External(Box::new(e)))).boxed()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let (Some(mut parts), Ok(runtime)) =
            (self.parts.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        runtime.spawn(async move {
            parts.tasks.shutdown().await;
            if let Err(error) = parts.upload.abort().await {
                tracing::debug!(%error, "an upload that broke off could not be aborted");
            }
        });
    }
}
