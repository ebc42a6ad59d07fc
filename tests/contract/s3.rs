//! Files in S3 over a network that fails: MinIO behind a proxy.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, Int64Array, StringArray};
use frazil::error::{Kind, Result};
use frazil::iceberg::DataFile;
use frazil::iceberg::committer::NewTable;
use frazil::iceberg::data_files::{ColumnHints, FileContent, FileWriter};
use frazil::iceberg::layout::Layout;
use frazil::iceberg::read::read_rows;
use frazil::iceberg::storage::{LakeStorage, StorageSettings};

use super::lake::{key, minio_settings};
use super::{noise, relation};
use crate::support::fault_proxy::{Action, FaultProxy, Rule};
use crate::support::minio::{BUCKET, Minio};

/// A part of an upload is 5 MiB.
const VALUES: usize = 4;

/// A place in MinIO behind a proxy.
struct Place {
    proxy: FaultProxy,
    storage: LakeStorage,
}

impl Place {
    async fn new() -> Self {
        let proxy = FaultProxy::start(&Minio::shared().await.endpoint());
        let settings = StorageSettings { endpoint: Some(proxy.url()), ..minio_settings().await };
        let root = format!("s3://{BUCKET}/s3/{}", uuid::Uuid::new_v4());
        Self { proxy, storage: LakeStorage::open(&root, settings).unwrap() }
    }

    fn root(&self) -> &str {
        self.storage.root()
    }

    fn writer(&self) -> FileWriter {
        let schema = NewTable::for_relation(&relation("t"), false).unwrap().schema;
        let hints = Arc::new(ColumnHints::default());
        FileWriter::new(&self.storage, self.root(), &schema, FileContent::Data, &hints).unwrap()
    }

    /// Writes a file of `values`, a row each.
    async fn write(&self, values: &[String]) -> Result<DataFile> {
        let mut writer = self.writer();
        write_rows(&mut writer, values).await?;
        Ok(writer.close().await?.unwrap())
    }

    async fn read(&self, file: &DataFile) -> Vec<String> {
        let schema = NewTable::for_relation(&relation("t"), false).unwrap().schema;
        let rows: Vec<u64> = (0..file.record_count()).collect();
        let found = read_rows(&self.storage, &schema, file, &rows, &[2]).await.unwrap();
        found.column(0).as_string::<i32>().iter().map(|v| v.unwrap().to_owned()).collect()
    }

    async fn files(&self) -> Vec<String> {
        Minio::shared().await.list(key(self.root())).await
    }

    /// Waits until no upload is half done.
    async fn assert_nothing_half_done(&self) {
        for _ in 0..200 {
            let left = Minio::shared().await.incomplete_uploads(key(self.root())).await;
            if left.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("an upload was left half done");
    }
}

async fn write_rows(writer: &mut FileWriter, values: &[String]) -> Result<()> {
    let schema = NewTable::for_relation(&relation("t"), false).unwrap().schema;
    let layout = Layout::new(&schema, &relation("t")).unwrap();
    for value in values {
        let id: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let value: ArrayRef = Arc::new(StringArray::from(vec![value.as_str()]));
        writer.write(&layout.rows(&[id, value], &[], 1).unwrap()).await?;
    }
    Ok(())
}

fn large() -> Vec<String> {
    let mut noise = noise();
    (0..VALUES).map(|_| noise()).collect()
}

// cases: 153 holds
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_right_over_a_network_that_fails() {
    let slow_down =
        "<Error><Code>SlowDown</Code><Message>Please reduce your rate</Message></Error>";
    let (small, large) = (vec!["one".to_owned(), "two".to_owned()], large());
    for rule in [
        Rule::on("*", "/s3/").every(100_000),
        Rule::on("*", "/s3/").every(2).answer(500),
        Rule::on("*", "/s3/").every(2).answer(503).body(slow_down),
        Rule::on("*", "/s3/").chance(0.1, 7).reset(),
        Rule::on("*", "/s3/").delay(Duration::from_millis(100)),
    ] {
        let place = Place::new().await;
        let shown = format!("{rule:?}");
        place.proxy.set_rules([rule]);
        for values in [&small, &large] {
            let file = place.write(values).await.unwrap_or_else(|e| panic!("{shown}: {e}"));
            assert!(&place.read(&file).await == values, "{shown}");
            let stored = Minio::shared().await.get(key(file.file_path())).await.unwrap();
            assert_eq!(stored.len() as u64, file.file_size_in_bytes(), "{shown}");
        }
        let parts = place.proxy.requests("PUT", "partNumber=");
        assert!(parts.len() >= 2, "{shown}: in one piece");
        assert_eq!(place.files().await.len(), 2);
        place.assert_nothing_half_done().await;
    }
}

/// The answer to the last step of an upload is lost: it is asked for, or done again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_an_upload_whose_answer_is_lost() {
    let place = Place::new().await;
    let values = large();
    place.proxy.set_rules([Rule::on("POST", "uploadId=").next(1).drop_answer()]);
    let written = place.write(&values).await;
    assert!(place.proxy.requests("POST", "uploadId=")[0].fault == Some(Action::DropAnswer));
    match written {
        Ok(file) => assert!(place.read(&file).await == values),
        // Then it is written again under another name.
        Err(error) => assert_eq!((error.code(), error.kind()), ("LAKE_IO", Kind::Transient)),
    }
    place.assert_nothing_half_done().await;
}

// cases: 153 holds
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_breaks_off_is_aborted() {
    let place = Place::new().await;
    let values = large();
    // Given up half-way.
    let mut writer = place.writer();
    write_rows(&mut writer, &[values.clone(), values.clone()].concat()).await.unwrap();
    drop(writer);
    place.assert_nothing_half_done().await;
    // A part is refused.
    place.proxy.set_rules([Rule::on("PUT", "partNumber=2").answer(403)]);
    let error = place.write(&values).await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("LAKE_IO", Kind::Transient), "{error}");
    assert!(!place.proxy.requests("PUT", "partNumber=2").is_empty());
    place.assert_nothing_half_done().await;
    assert!(place.files().await.is_empty(), "half a file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_tells_what_is_wrong() {
    let place = Place::new().await;
    place.storage.probe(place.root()).await.unwrap();
    assert!(place.files().await.is_empty(), "the probe stays");

    let wrong = StorageSettings {
        secret_access_key: Some("not the secret".into()),
        ..minio_settings().await
    };
    let storage = LakeStorage::open(place.root(), wrong).unwrap();
    let error = storage.probe(place.root()).await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), ("STORAGE_DENIED", 78), "{error}");
    assert!(error.cure().unwrap().contains("AWS_ACCESS_KEY_ID"));
    assert!(!error.to_string().contains("not the secret"));

    let elsewhere = format!("s3://no-such-bucket/{}", uuid::Uuid::new_v4());
    let storage = LakeStorage::open(&elsewhere, minio_settings().await).unwrap();
    let error = storage.probe(&elsewhere).await.unwrap_err();
    assert_eq!((error.code(), error.exit_code()), ("LAKE_IO", 69), "{error}");
}

#[test]
fn neither_a_region_nor_an_endpoint_is_said_before_anything_is_sent() {
    if ["AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT", "AWS_ENDPOINT_URL"]
        .iter()
        .any(|name| std::env::var_os(name).is_some())
    {
        return;
    }
    let error = LakeStorage::open("s3://lake/wh", StorageSettings::default()).unwrap_err();
    assert_eq!((error.code(), error.exit_code()), ("STORAGE_REGION", 78), "{error}");
    assert!(error.cure().unwrap().contains("AWS_REGION"));
}
