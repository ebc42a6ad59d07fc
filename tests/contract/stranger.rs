//! Somebody else who writes into the catalog, as any engine would: knows Iceberg and no frazil.

use std::path::PathBuf;
use std::str::FromStr;

use frazil::iceberg::committer::Connect;
use frazil::iceberg::row_delta::{RowDelta, Staged};
use frazil::iceberg::{Table, TableIdent};
use iceberg::MetadataLocation;
use serde_json::{Value, json};

use crate::support::nessie::{Branch, answer, http_client};

/// By which door the stranger comes in.
#[derive(Clone)]
pub(crate) enum Stranger {
    /// The SQLite file.
    Sqlite(PathBuf),
    /// The Postgres database.
    Postgres(Connect),
    /// Nessie's REST catalog and its own API.
    Nessie(Branch),
}

impl Stranger {
    /// Commits to one table, if it stands as `table` says; false if it moved.
    pub(crate) async fn commit(&self, table: &Table, delta: &RowDelta) -> bool {
        self.commit_staged(&delta.stage(table).await.unwrap()).await
    }

    /// The same for what was staged.
    pub(crate) async fn commit_staged(&self, staged: &Staged) -> bool {
        if let Self::Nessie(branch) = self {
            let body = json!({ "requirements": staged.requirements, "updates": staged.updates });
            let url = table_url(branch, &staged.ident);
            let response = http_client().post(url).json(&body).send().await.unwrap();
            let status = response.status().as_u16();
            let text = response.text().await.unwrap();
            assert!([200, 409].contains(&status), "{status}: {text}");
            return status == 200;
        }
        let metadata = staged.apply().unwrap();
        let old = staged.table.metadata_location().unwrap();
        let last = MetadataLocation::from_str(old).unwrap();
        let new = last.with_next_version();
        metadata.write_to(staged.table.file_io(), &new).await.unwrap();
        self.swap(&staged.ident, old, Some(&new.to_string())).await
    }

    /// Drops a table from the catalog.
    pub(crate) async fn drop_table(&self, table: &Table) {
        let ident = table.identifier();
        match self {
            Self::Nessie(branch) => {
                answer(http_client().delete(table_url(branch, ident))).await;
            }
            _ => assert!(self.swap(ident, table.metadata_location().unwrap(), None).await),
        }
    }

    /// Puts an older version of a table in the place of the current one.
    pub(crate) async fn rewind(&self, table: &Table) {
        let ident = table.identifier();
        let Self::Nessie(branch) = self else {
            let older = &table.metadata().metadata_log().last().unwrap().metadata_file;
            let swapped = self.swap(ident, table.metadata_location().unwrap(), Some(older));
            assert!(swapped.await);
            return;
        };
        let name = format!("{}.{}", ident.namespace().join("."), ident.name());
        let log = branch.log().await;
        let older = log.iter().filter(|commit| commit.puts.contains(&name)).nth(1).unwrap();
        let at = format!("{}/trees/{}@{}", branch.api(), branch.name(), older.hash);
        let content = answer(http_client().get(format!("{at}/contents/{name}"))).await;
        let elements = [ident.namespace().join("."), ident.name().to_owned()];
        let put = json!({ "type": "PUT", "key": { "elements": elements },
            "content": content["content"] });
        let body = json!({ "commitMeta": { "message": "rewind" }, "operations": [put] });
        let head = branch.head().await;
        let at = format!("{}/trees/{}@{head}", branch.api(), branch.name());
        answer(http_client().post(format!("{at}/history/commit")).json(&body)).await;
    }

    /// Puts another table of the same name in the place of a table.
    pub(crate) async fn replace(&self, table: &Table) {
        let metadata = table.metadata();
        if let Self::Nessie(branch) = self {
            self.drop_table(table).await;
            let schema = metadata.current_schema();
            let ident = table.identifier();
            let new = json!({ "name": ident.name(), "schema": schema, "stage-create": false });
            branch.post(&format!("namespaces/{}/tables", ident.namespace().join(".")), &new).await;
            return;
        }
        let old = table.metadata_location().unwrap();
        let text = serde_json::to_string(metadata).unwrap();
        let other = uuid::Uuid::new_v4().to_string();
        let text = text.replace(&metadata.uuid().to_string(), &other);
        let new = MetadataLocation::from_str(old).unwrap().with_next_version().to_string();
        table.file_io().new_output(&new).unwrap().write(text.into()).await.unwrap();
        assert!(self.swap(table.identifier(), old, Some(&new)).await);
    }

    /// Compare and swap of a table's pointer in a SQL catalog.
    async fn swap(&self, ident: &TableIdent, old: &str, new: Option<&str>) -> bool {
        let (delete, update) = (
            "DELETE FROM iceberg_tables WHERE metadata_location = $1 AND table_name = $2",
            "UPDATE iceberg_tables SET metadata_location = $3
             WHERE metadata_location = $1 AND table_name = $2",
        );
        let name = ident.name();
        let done = match self {
            Self::Sqlite(path) => {
                let db = rusqlite::Connection::open(path).unwrap();
                db.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
                let done = match new {
                    Some(new) => db.execute(&update.replace('$', "?"), [old, name, new]),
                    None => db.execute(&delete.replace('$', "?"), [old, name]),
                };
                u64::try_from(done.unwrap()).unwrap()
            }
            Self::Postgres(connect) => {
                let client = connect().await.unwrap();
                let done = match new {
                    Some(new) => client.execute(update, &[&old, &name, &new]).await,
                    None => client.execute(delete, &[&old, &name]).await,
                };
                done.unwrap()
            }
            Self::Nessie(_) => panic!("no SQL catalog"),
        };
        done == 1
    }
}

/// A table's URL in the REST catalog.
fn table_url(branch: &Branch, ident: &TableIdent) -> String {
    let path = format!("namespaces/{}/tables/{}", ident.namespace().join("."), ident.name());
    format!("{}/v1/{}/{path}", branch.uri(), branch.name())
}

/// A staged change as if it had been made `later_ms` from now.
pub(crate) fn later(mut staged: Staged, later_ms: i64) -> Staged {
    for update in &mut staged.updates {
        let mut json: Value = serde_json::to_value(&*update).unwrap();
        if let Some(time) = json.pointer_mut("/snapshot/timestamp-ms") {
            *time = (time.as_i64().unwrap() + later_ms).into();
            *update = serde_json::from_value(json).unwrap();
        }
    }
    staged
}
