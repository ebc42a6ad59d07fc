//! What a lake commit costs, without a source: `docs/performance.md`, "Lake commits".
//!
//! ```text
//! lake_commits FOLDER          COMMITS TABLES CHANGED
//! lake_commits CATALOG_URI     COMMITS TABLES CHANGED     # Nessie; storage from AWS_*
//! ```
//!
//! Each lake commit brings a row and an equality delete to each of CHANGED of the TABLES, round
//! robin. Prints a line per tenth of the commits (and the first 100): wall and CPU milliseconds per
//! lake commit, files staged before them not counted.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, Int64Array, StringArray};
use frazil::iceberg::committer::rest::{Login, RestSettings};
use frazil::iceberg::committer::{LakeCommit, NewTable, TableChange};
use frazil::iceberg::data_files::{ColumnHints, FileContent, FileWriter};
use frazil::iceberg::lake::{Lake, LakePlace};
use frazil::iceberg::layout::Layout;
use frazil::iceberg::ledger::{LedgerRecord, PipelineState};
use frazil::iceberg::row_delta::{RowDelta, SegmentFiles};
use frazil::iceberg::schema::key_schema;
use frazil::iceberg::storage::StorageSettings;
use frazil::iceberg::{TableIdent, table_ident};
use frazil::progress::Lsn;
use frazil::window::relation::{Column, KeyForm, PgType, Relation, ReplicaIdentity};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// One source table and where its rows go.
struct Target {
    ident: TableIdent,
    relation: Relation,
    location: String,
    hints: Arc<ColumnHints>,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    rustls::crypto::ring::default_provider().install_default().map_err(|_| "rustls")?;
    let mut arguments = std::env::args().skip(1);
    let place = arguments.next().ok_or("where?")?;
    let mut number = || arguments.next().and_then(|text| text.parse::<u64>().ok()).ok_or("number?");
    let (commits, tables, changed) = (number()?, number()?, number()?);
    let lake = Lake::open(place_of(&place), "bench").await?;
    let targets = born(&lake, tables).await?;
    println!("| lake commits | ms p50 | ms p99 | ms mean | CPU ms mean | RSS MiB |");
    let (mut block, mut cpu, mut next) = (Vec::new(), Duration::ZERO, 100.min(commits));
    let mut at = 0;
    for commit in 1..=commits {
        let mut changes = Vec::new();
        for _ in 0..changed {
            let target = targets.get(at % targets.len()).ok_or("no table")?;
            changes.push(change(&lake, target, i64::try_from(commit)?).await?);
            at += 1;
        }
        let base = Some(Lsn(commit));
        let lake_commit = LakeCommit { ledger: record(commit + 1, &changes), base, changes };
        let (began, used) = (Instant::now(), cpu_time()?);
        lake.committer.commit(&lake_commit).await?;
        block.push(began.elapsed());
        cpu += cpu_time()? - used;
        if commit == next {
            report(commit, &mut block, cpu)?;
            (cpu, next) =
                (Duration::ZERO, (commit / (commits / 10).max(1) + 1) * (commits / 10).max(1));
        }
    }
    Ok(())
}

fn place_of(place: &str) -> LakePlace {
    if !place.contains("://") {
        return LakePlace::Folder(Path::new(place).to_owned());
    }
    let rest = RestSettings {
        uri: place.to_owned(),
        is_nessie: true,
        reference: Some("main".into()),
        branch_from: None,
        warehouse: None,
        login: Login::None,
        headers: BTreeMap::new(),
        ca_file: None,
        proxy: None,
        connect_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(60),
        vended_credentials: Some(false),
        allow_torn_commits: false,
    };
    LakePlace::Rest(Box::new(rest), StorageSettings::default())
}

/// Makes the tables by the first lake commit.
async fn born(lake: &Lake, tables: u64) -> Outcome<Vec<Target>> {
    let (mut targets, mut changes) = (Vec::new(), Vec::new());
    for number in 0..tables {
        let name = format!("t{number}");
        let relation = relation(&name, u32::try_from(number)? + 16_384);
        let ident = table_ident("app", &name);
        let new = NewTable::for_relation(&relation, false)?;
        let location = lake.committer.birthplace(&ident, &new).await?.location;
        let delta = RowDelta::default();
        changes.push(TableChange { ident: ident.clone(), create: Some(new), delta });
        targets.push(Target { ident, relation, location, hints: Arc::default() });
    }
    let lake_commit = LakeCommit { ledger: record(1, &changes), base: None, changes };
    lake.committer.commit(&lake_commit).await?;
    Ok(targets)
}

/// A row with this key, and an equality delete of the one before.
async fn change(lake: &Lake, target: &Target, key: i64) -> Outcome<TableChange> {
    let schema = NewTable::for_relation(&target.relation, false)?.schema;
    let layout = Layout::new(&schema, &target.relation)?;
    let (storage, location, hints) = (&lake.storage, &target.location, &target.hints);
    let mut data = FileWriter::new(storage, location, &schema, FileContent::Data, hints)?;
    let mut columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![key]))];
    for _ in 1..target.relation.columns.len() {
        columns.push(Arc::new(StringArray::from(vec![format!("a value of row {key}")])));
    }
    data.write(&layout.rows(&columns, &[], 1)?).await?;
    let keys = key_schema(&schema)?;
    let content = FileContent::EqualityDeletes;
    let mut deletes = FileWriter::new(storage, location, &keys, content, hints)?;
    deletes.write(&layout.key_rows(&[Arc::new(Int64Array::from(vec![key - 1]))])?).await?;
    let segment = SegmentFiles {
        data: data.close().await?.into_iter().collect(),
        deletes: deletes.close().await?.into_iter().collect(),
        rows_inserted: 1,
        rows_deleted: 1,
        has_raw: false,
    };
    let delta = RowDelta { segments: vec![segment], ..RowDelta::default() };
    Ok(TableChange { ident: target.ident.clone(), create: None, delta })
}

/// `id int8 primary key` and nine of text.
fn relation(name: &str, oid: u32) -> Relation {
    let column = |attnum: i16| Column {
        name: if attnum == 1 { "id".to_owned() } else { format!("c{attnum}") },
        attnum,
        type_oid: 0,
        typmod: -1,
        pg_type: if attnum == 1 { PgType::Int8 } else { PgType::Text },
        toastable: false,
        field_version: 0,
    };
    Relation {
        rules: frazil::window::rules::ValueRules::default(),
        oid,
        namespace: "app".into(),
        name: name.into(),
        columns: (1..=10).map(column).collect(),
        key: vec![0],
        identity: ReplicaIdentity::Default,
        key_form: KeyForm::Columns,
    }
}

fn record(lsn: u64, changes: &[TableChange]) -> LedgerRecord {
    let rows = changes.iter().map(|c| (format!("app.{}", c.ident.name()), 2));
    LedgerRecord {
        pipeline_id: "bench".into(),
        committed_lsn: Lsn(lsn),
        timeline: 1,
        system_id: "7".into(),
        source_commit_time: Some("2026-11-25T10:00:00.000001Z".into()),
        source_transactions: 1,
        rows: rows.collect(),
        lake_commit: uuid::Uuid::now_v7(),
        state: PipelineState::Streaming,
        slot: "frazil".into(),
        behind: BTreeMap::default(),
    }
}

fn report(commit: u64, block: &mut Vec<Duration>, cpu: Duration) -> Outcome<()> {
    let count = u32::try_from(block.len())?;
    let (sum, ms) = (block.iter().sum::<Duration>(), |d: Duration| d.as_secs_f64() * 1e3);
    block.sort_unstable();
    let part = |percent: usize| block.get(block.len() * percent / 100).copied().map_or(0.0, ms);
    println!(
        "| to {commit} | {:.2} | {:.2} | {:.2} | {:.2} | {} |",
        part(50),
        part(99),
        ms(sum / count),
        ms(cpu / count),
        status("VmRSS:")? / 1024
    );
    block.clear();
    Ok(())
}

/// CPU time of all threads, from `/proc/self/task/*/schedstat`.
fn cpu_time() -> Outcome<Duration> {
    let mut nanos = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        nanos += text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

/// A line of `/proc/self/status`, in KiB.
fn status(name: &str) -> Outcome<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
    Ok(line.split_whitespace().next().ok_or("no number")?.parse()?)
}
