//! The commit itself: one request for all tables, or one after another where the catalog has no
//! such request.

use std::collections::HashMap;

use iceberg::spec::{FormatVersion, SchemaRef, TableMetadata};
use iceberg::{TableRequirement, TableUpdate};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::iceberg::committer::staging::Outcome;
use crate::iceberg::lake_error;
use crate::iceberg::row_delta::Staged;

use super::catalog::Catalog;
use super::http::{Answer, segment};

impl Catalog {
    /// Commits all of `staged`, the ledger last.
    ///
    /// # Errors
    /// `CATALOG_REFUSED` (fatal), `CATALOG_TORN` (config): nothing was committed.
    pub(super) async fn commit(
        &self,
        staged: &[Staged],
        mut headers: HeaderMap,
        is_torn: bool,
    ) -> Result<Outcome> {
        // A fresh key for each request: a later one holds other files (Iceberg REST spec).
        if self.properties.contains_key("idempotency-key-lifetime")
            && let Ok(key) = HeaderValue::from_str(&Uuid::now_v7().to_string())
        {
            headers.insert(HeaderName::from_static("idempotency-key"), key);
        }
        if is_torn {
            return self.commit_one_by_one(staged, &headers).await;
        }
        let changes = staged.iter().map(change).collect::<Result<Vec<_>>>()?;
        let body = json!({ "table-changes": changes });
        let url = self.url("transactions/commit");
        match self.http.send(Method::POST, &url, &headers, Some(&body)).await {
            Ok(answer) => outcome(&answer, &url),
            Err(error) => Ok(Outcome::Unknown(error, None)),
        }
    }

    async fn commit_one_by_one(&self, staged: &[Staged], headers: &HeaderMap) -> Result<Outcome> {
        for one in staged {
            let namespace = segment(&one.ident.namespace().as_ref().join("\u{1f}"));
            let table = segment(one.ident.name());
            let url = self.url(&format!("namespaces/{namespace}/tables/{table}"));
            let body = change(one)?;
            let sent = self.http.send(Method::POST, &url, headers, Some(&body)).await;
            let decided = match sent {
                Ok(answer) => outcome(&answer, &url)?,
                Err(error) => Outcome::Unknown(error, None),
            };
            if !matches!(decided, Outcome::Done) {
                return Ok(decided);
            }
            crate::ops::crash_point("one_table_committed");
        }
        Ok(Outcome::Done)
    }
}

/// What an answer says of the commit (Iceberg REST spec, `commitTransaction`).
fn outcome(answer: &Answer, url: &str) -> Result<Outcome> {
    let wished = answer.retry_after;
    match answer.status {
        status if status.is_success() => Ok(Outcome::Done),
        StatusCode::CONFLICT => {
            tracing::info!(said = answer.said(), "a table of the lake moved; staging again");
            Ok(Outcome::Moved)
        }
        // Without such an endpoint; a table that is missing is a 404 that speaks of itself.
        StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => Err(super::torn()),
        _ if answer.is_trouble() => Ok(Outcome::Unknown(answer.error(url), wished)),
        _ => Err(answer.error(url)),
    }
}

/// `CommitTableRequest` of one table.
fn change(staged: &Staged) -> Result<Value> {
    let mut updates = match staged.table.metadata_location() {
        None => creation(staged.table.metadata())?,
        Some(_) => Vec::new(),
    };
    updates.extend(staged.updates.iter().cloned());
    let updates = one_set_properties(updates);
    let requirements: &[TableRequirement] = &staged.requirements;
    let namespace: &[String] = staged.ident.namespace().as_ref();
    let last_column_id = staged.table.metadata().last_column_id();
    let updates = updates.iter().map(|one| update(one, last_column_id));
    Ok(json!({
        "identifier": { "namespace": namespace, "name": staged.ident.name() },
        "requirements": requirements,
        "updates": updates.collect::<Result<Vec<_>>>()?,
    }))
}

/// All properties in one update: Nessie takes no second one.
fn one_set_properties(updates: Vec<TableUpdate>) -> Vec<TableUpdate> {
    let (mut all, mut others) = (HashMap::new(), Vec::with_capacity(updates.len()));
    for update in updates {
        match update {
            TableUpdate::SetProperties { updates } => all.extend(updates),
            other => others.push(other),
        }
    }
    if !all.is_empty() {
        others.push(TableUpdate::SetProperties { updates: all });
    }
    others
}

/// An update as JSON. The crate leaves out `last-column-id`, which the spec has made optional and
/// Nessie asks for.
fn update(update: &TableUpdate, last_column_id: i32) -> Result<Value> {
    let bad = |e| Error::fatal("LAKE_METADATA", "a table update is no JSON").with_source(e);
    let mut value = serde_json::to_value(update).map_err(bad)?;
    if let (TableUpdate::AddSchema { schema }, Some(object)) = (update, value.as_object_mut()) {
        let last = schema.highest_field_id().max(last_column_id);
        object.insert("last-column-id".to_owned(), last.into());
    }
    Ok(value)
}

/// The updates that make a table what its first metadata says. -1 stands for the schema, spec and
/// order that was added last (Iceberg REST spec).
fn creation(metadata: &TableMetadata) -> Result<Vec<TableUpdate>> {
    let spec = metadata.default_partition_spec().as_ref().clone().into_unbound();
    let mut schemas: Vec<_> = metadata.schemas_iter().collect();
    schemas.sort_by_key(|schema| schema.schema_id());
    let add = |schema: &SchemaRef| TableUpdate::AddSchema { schema: schema.as_ref().clone() };
    let mut updates = vec![
        TableUpdate::AssignUuid { uuid: metadata.uuid() },
        TableUpdate::UpgradeFormatVersion { format_version: FormatVersion::V2 },
    ];
    updates.extend(schemas.into_iter().map(add));
    updates.extend([
        TableUpdate::SetCurrentSchema { schema_id: -1 },
        TableUpdate::AddSpec { spec },
        TableUpdate::SetDefaultSpec { spec_id: -1 },
        TableUpdate::AddSortOrder {
            sort_order: iceberg::spec::SortOrder::builder()
                .build_unbound()
                .map_err(|e| lake_error("a sort order", e))?,
        },
        TableUpdate::SetDefaultSortOrder { sort_order_id: -1 },
        TableUpdate::SetLocation { location: metadata.location().to_owned() },
        TableUpdate::SetProperties { updates: metadata.properties().clone() },
    ]);
    Ok(updates)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn an_answer_decides_or_nobody_knows() {
        let of = |status| {
            let status = StatusCode::from_u16(status).unwrap();
            outcome(&Answer { status, body: Bytes::new(), retry_after: None }, "x")
        };
        assert!(matches!(of(204), Ok(Outcome::Done)));
        assert!(matches!(of(409), Ok(Outcome::Moved)));
        for status in [429, 500, 502, 503, 504] {
            assert!(matches!(of(status), Ok(Outcome::Unknown(..))), "{status}");
        }
        let code = |status| of(status).map_err(|e| e.code().to_owned()).unwrap_err();
        assert_eq!((code(400), code(501)), ("CATALOG_REFUSED".into(), "CATALOG_TORN".into()));
    }
}
