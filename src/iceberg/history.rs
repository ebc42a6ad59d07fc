//! Which older iceberg_snapshots a table keeps, so that its metadata does not grow with its age.
//!
//! ```text
//!   days          hours         newest
//!   |    |    |   |  |  |  |  | ||||||||  now
//! ```
//!
//! Kept are the newest ones, and, for each full hour of the last day and each full day (UTC) of the
//! last month, the state that held then. Tables and ledger are asked by the same clock, the time at
//! which each lake commit began, so that a lake commit which the ledger keeps is one that each of
//! its tables keeps too. What a branch or tag names stays. Nothing but manifest lists is deleted:
//! data files and manifests that nothing names any more are maintenance's.

use std::collections::{HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use iceberg::TableUpdate;
use iceberg::spec::{SnapshotRef, TableMetadata};
use serde::Deserialize;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::iceberg::ledger::LAKE_COMMIT_KEY;

/// Table property (Iceberg docs, Table behavior properties): how many of the newest
/// iceberg_snapshots a table keeps, [`NEWEST`] where it does not say.
pub(crate) const NEWEST_KEY: &str = "history.expire.min-snapshots-to-keep";
/// More than there are older metadata files, so that each of them can be read.
pub(crate) const NEWEST: usize = 64;
const HOURS: i64 = 24;
const DAYS: i64 = 30;

/// As many may outlive their time: they go together, since only then branches and tags are looked
/// for.
const TOGETHER: usize = 16;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// What of a table's history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// All: the catalog has its own way (Nessie: its commits).
    All,
    /// As many of the newest, and older states as the module says.
    Newest(usize),
}

impl Keep {
    /// As the table's property says.
    pub(crate) fn of(metadata: &TableMetadata) -> Self {
        let newest = metadata.properties().get(NEWEST_KEY).and_then(|text| text.parse().ok());
        Self::Newest(newest.unwrap_or(NEWEST).max(1))
    }

    /// Removes what need not be kept, once it is enough; gives the manifest lists of it.
    ///
    /// # Errors
    /// `LAKE_METADATA` (fatal) where the metadata is not what the Iceberg spec says.
    pub(crate) fn expire(
        self,
        metadata: &TableMetadata,
        updates: &mut Vec<TableUpdate>,
    ) -> Result<Vec<String>> {
        let Self::Newest(newest) = self else { return Ok(Vec::new()) };
        if metadata.snapshots().len() < newest + TOGETHER {
            return Ok(Vec::new());
        }
        let mut gone = outlived(metadata, newest.saturating_sub(1), now_ms());
        if gone.len() < TOGETHER {
            return Ok(Vec::new());
        }
        let named = named(metadata)?;
        gone.retain(|snapshot| !named.contains(&snapshot.snapshot_id()));
        let ids: Vec<i64> = gone.iter().map(|snapshot| snapshot.snapshot_id()).collect();
        if !ids.is_empty() {
            updates.push(TableUpdate::RemoveSnapshots { snapshot_ids: ids });
        }
        Ok(gone.iter().map(|snapshot| snapshot.manifest_list().to_owned()).collect())
    }
}

/// The iceberg_snapshots beyond the `newest` that were not what held at a full hour or day.
fn outlived(metadata: &TableMetadata, newest: usize, now_ms: i64) -> Vec<&SnapshotRef> {
    let mut snapshots: Vec<&SnapshotRef> = metadata.snapshots().collect();
    snapshots.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.sequence_number()));
    let instants = |unit: i64, count: i64| {
        let last = now_ms - now_ms.rem_euclid(unit);
        (0..count).map(move |back| last - back * unit)
    };
    let held: HashSet<i64> = instants(HOUR_MS, HOURS)
        .chain(instants(DAY_MS, DAYS))
        .filter_map(|at| snapshots.iter().find(|snapshot| time_ms(snapshot) <= at))
        .map(|snapshot| snapshot.snapshot_id())
        .collect();
    let older = snapshots.into_iter().skip(newest);
    older.filter(|snapshot| !held.contains(&snapshot.snapshot_id())).collect()
}

/// When the lake commit began that made an iceberg_snapshot; one of somebody else has its own time.
fn time_ms(snapshot: &SnapshotRef) -> i64 {
    let lake_commit = snapshot.summary().additional_properties.get(LAKE_COMMIT_KEY);
    let began = lake_commit.and_then(|text| text.parse::<Uuid>().ok()?.get_timestamp());
    let (seconds, nanos) = began.map_or((0, 0), |began| began.to_unix());
    let ms = seconds.saturating_mul(1_000) + u64::from(nanos / 1_000_000);
    i64::try_from(ms).ok().filter(|ms| *ms > 0).unwrap_or_else(|| snapshot.timestamp_ms())
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// What branches and tags of the table name. The crate does not tell, its JSON does.
fn named(metadata: &TableMetadata) -> Result<HashSet<i64>> {
    #[derive(Deserialize)]
    struct References {
        #[serde(default)]
        refs: HashMap<String, Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        #[serde(rename = "snapshot-id")]
        snapshot_id: i64,
    }
    let json = serde_json::to_vec(metadata);
    let read = json.and_then(|json| serde_json::from_slice::<References>(&json));
    let read = read.map_err(|e| {
        Error::fatal("LAKE_METADATA", "a table's branches and tags are not readable").with_source(e)
    })?;
    Ok(read.refs.into_values().map(|named| named.snapshot_id).collect())
}

#[cfg(test)]
mod tests {
    use iceberg::spec::{
        MAIN_BRANCH, Operation, Snapshot, SnapshotReference, SnapshotRetention, Summary,
    };

    use super::*;
    use crate::iceberg::committer::Birthplace;
    use crate::iceberg::ledger::new_ledger;

    /// A table with one iceberg_snapshot at each of `times`, numbered from 1.
    fn table(times: &[i64], tagged: Option<i64>) -> TableMetadata {
        let place = Birthplace::fresh("file:///t".into());
        let metadata = new_ledger().unwrap().metadata(&place).unwrap();
        let reference = |id, retention| SnapshotReference::new(id, retention);
        let mut builder = metadata.into_builder(None);
        for (id, time) in (1..).zip(times) {
            let summary =
                Summary { operation: Operation::Append, additional_properties: HashMap::new() };
            let snapshot = Snapshot::builder()
                .with_snapshot_id(id)
                .with_sequence_number(id)
                .with_timestamp_ms(*time)
                .with_manifest_list(format!("list-{id}"))
                .with_summary(summary)
                .with_schema_id(0)
                .build();
            let branch = reference(id, SnapshotRetention::branch(None, None, None));
            builder = builder.add_snapshot(snapshot).unwrap();
            builder = builder.set_ref(MAIN_BRANCH, branch).unwrap();
        }
        if let Some(id) = tagged {
            let tag = reference(id, SnapshotRetention::Tag { max_ref_age_ms: None });
            builder = builder.set_ref("audit", tag).unwrap();
        }
        builder.build().unwrap().metadata
    }

    fn ids(snapshots: &[&SnapshotRef]) -> Vec<i64> {
        snapshots.iter().map(|snapshot| snapshot.snapshot_id()).collect()
    }

    #[test]
    fn what_held_at_full_hours_and_days_stays() {
        let day = 20_000 * DAY_MS;
        let minutes = |n: i64| n * 60_000;
        // Numbers 1 to 5: two days ago twice, 3 h 30 ago, 2 h 40 ago, half an hour ago.
        let times = [
            day - 2 * DAY_MS + 1,
            day - 2 * DAY_MS + 2,
            day + minutes(30),
            day + minutes(80),
            day + minutes(210),
        ];
        let metadata = table(&times, None);
        let now = day + minutes(240);
        assert_eq!(ids(&outlived(&metadata, 1, now)), [1]);
        // A day later the hours are forgotten but for the one at which the day began.
        assert_eq!(ids(&outlived(&metadata, 1, now + 2 * DAY_MS)), [4, 3, 1]);
        // After a month only the newest is left, which held at all full hours since.
        assert_eq!(ids(&outlived(&metadata, 1, now + 40 * DAY_MS)), [4, 3, 2, 1]);
    }

    #[test]
    fn they_go_together_and_never_what_a_tag_names() {
        let now = now_ms();
        let time = |n: i64| now - 50 * DAY_MS + n;
        let times: Vec<i64> = (1..=40).map(time).collect();
        let mut updates = Vec::new();
        let few = table(&times[..20], Some(3));
        assert!(Keep::Newest(5).expire(&few, &mut updates).unwrap().is_empty());
        assert!(Keep::All.expire(&table(&times, None), &mut updates).unwrap().is_empty());
        assert!(updates.is_empty());
        let lists = Keep::Newest(5).expire(&table(&times, Some(3)), &mut updates).unwrap();
        // With the one that is added five are left, and the tagged one.
        assert_eq!((lists.len(), lists.contains(&"list-3".to_owned())), (35, false));
        assert!(!lists.iter().any(|list| ["list-37", "list-40"].contains(&list.as_str())));
        assert!(matches!(&updates[..], [TableUpdate::RemoveSnapshots { snapshot_ids }]
            if snapshot_ids.len() == 35));
    }
}
