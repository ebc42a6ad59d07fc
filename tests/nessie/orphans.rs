//! Which objects of the storage no state of the branch refers to: left by tries that failed.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Scene;

/// What lies below the locations of all tables that the branch ever had.
#[derive(Debug)]
pub(super) struct Files {
    /// Named by some state of the branch.
    pub(super) named: usize,
    /// Named by none.
    pub(super) orphans: Vec<String>,
}

impl Scene {
    /// Looks at every table at every hash. Each file that is named must be there.
    pub(super) async fn files(&mut self) -> Files {
        let mut named = BTreeSet::new();
        let mut locations = BTreeSet::new();
        for commit in self.lake_commits().await {
            let state = self.lake.state_at(&commit.hash);
            for table in state.tables() {
                let location = state.location(table).to_string();
                if named.insert(key(&location)) {
                    locations.insert(self.name_files(&location, &mut named).await);
                }
            }
        }
        let mut there = BTreeSet::new();
        for location in &locations {
            there.extend(self.minio.list(location).await);
        }
        let gone: Vec<_> = named.difference(&there).collect();
        assert!(gone.is_empty(), "named by the branch, but gone: {gone:?}");
        let orphans: Vec<String> = there.difference(&named).cloned().collect();
        eprintln!("{} files named, {} that nothing names", named.len(), orphans.len());
        Files { named: named.len(), orphans }
    }

    /// The files of one metadata file: manifest list, manifests, data and delete files. Gives the
    /// table's location.
    async fn name_files(&mut self, metadata: &str, named: &mut BTreeSet<String>) -> String {
        let bytes = self.minio.get(&key(metadata)).await.expect("the metadata file is there");
        let json: Value = serde_json::from_slice(&bytes).unwrap();
        for snapshot in json["snapshots"].as_array().unwrap() {
            named.insert(key(snapshot["manifest-list"].as_str().unwrap()));
        }
        let sql = format!("SELECT manifest_path, file_path FROM iceberg_metadata('{metadata}')");
        for row in self.lake.query_files(&sql) {
            named.extend(row.into_iter().flatten().map(|path| key(&path)));
        }
        key(json["location"].as_str().unwrap())
    }
}

/// `s3://lake/wh/...` without scheme and bucket.
fn key(location: &str) -> String {
    let rest = location.strip_prefix("s3://").unwrap_or(location);
    rest.split_once('/').map_or(rest, |(_, key)| key).trim_end_matches('/').to_string()
}
