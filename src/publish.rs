//! Write, audit, publish; and tags. Beside the data path, never in it: lake commits go to a branch,
//! and now and then this looks at the branch as it stands at one commit, runs the checks on that
//! state, and merges exactly it into the branch that readers see. A check that fails keeps readers
//! where they are, until a later state passes.
//!
//! ```text
//!  pipeline ──► branch `ingest` ── at one hash ──► checks ──► merge ──► branch `main` ──► readers
//!                     └── every tag_interval ──► tag `lsn-0-16B3748`
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::{Config, PublishSettings, RowCheck};
use crate::error::{Error, Kind, Result};
use crate::iceberg::committer::PastCommit;
use crate::iceberg::committer::rest::nessie::{Nessie, Reference, ReferenceKind};
use crate::iceberg::lake::Lake;
use crate::iceberg::read::LiveRows;
use crate::iceberg::table_ident;
use crate::ops::Shutdown;
use crate::progress::Lsn;

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_millis(200);
/// The pause after Nessie was in the way.
const TROUBLE_PAUSE: Duration = Duration::from_secs(5);

/// Publishes and tags beside a pipeline.
pub struct Publisher {
    lake: Arc<Lake>,
    nessie: Arc<Nessie>,
    publish: Option<PublishSettings>,
    tag_interval: Option<Duration>,
}

/// Where publishing stands.
#[derive(Debug, Default)]
struct Done {
    /// The state that was looked at last, whatever came of it.
    looked_at: Option<String>,
    tagged: Option<Lsn>,
}

impl Publisher {
    /// A publisher, if `config` asks for one.
    ///
    /// # Errors
    /// `NO_BRANCHES` (config) where the catalog is no Nessie.
    pub fn new(lake: &Arc<Lake>, config: &Config) -> Result<Option<Self>> {
        let (publish, tag_interval) = (config.publish.clone(), config.tag_interval);
        if publish.is_none() && tag_interval.is_none() {
            return Ok(None);
        }
        let nessie = lake.nessie.clone().ok_or_else(no_branches)?;
        Ok(Some(Self { lake: Arc::clone(lake), nessie, publish, tag_interval }))
    }

    /// Publishes and tags until a stop; the last state is for [`Publisher::publish_last`].
    pub fn start(self: &Arc<Self>, shutdown: &Shutdown) -> JoinHandle<()> {
        let (this, shutdown) = (Arc::clone(self), shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                // Somebody asked us to leave.
                () = shutdown.requested() => {}
                // Until then.
                () = this.run() => {}
            }
        })
    }

    async fn run(&self) {
        let (mut done, began) = (Done::default(), Instant::now());
        let (mut published, mut tagged) = (began, began);
        loop {
            tokio::time::sleep(TICK).await;
            let is_due = |last: Instant, every: Option<Duration>| {
                every.is_some_and(|every| last.elapsed() >= every)
            };
            let mut trouble = None;
            if is_due(published, self.publish.as_ref().map(|publish| publish.interval)) {
                published = Instant::now();
                trouble = self.publish_once(&mut done).await.err();
            }
            if is_due(tagged, self.tag_interval) {
                tagged = Instant::now();
                trouble = trouble.or(self.tag_once(&mut done).await.err());
            }
            if let Some(error) = trouble {
                said(&error);
                tokio::time::sleep(TROUBLE_PAUSE).await;
            }
        }
    }

    /// Publishes what the branch holds now.
    ///
    /// # Errors
    /// `PUBLISH_CHECK` (table) where a check failed; `PUBLISH_CONFLICT` (conflict); `CATALOG_DOWN`,
    /// `LAKE_IO` (transient).
    pub async fn publish_last(&self) -> Result<()> {
        self.publish_once(&mut Done::default()).await
    }

    async fn publish_once(&self, done: &mut Done) -> Result<()> {
        let Some(publish) = &self.publish else { return Ok(()) };
        let Some(head) = self.nessie.find(&publish.branch).await? else { return Ok(()) };
        if done.looked_at.as_ref() == Some(&head.hash) {
            return Ok(());
        }
        let at = format!("{}@{}", head.name, head.hash);
        let last = self.newest(&at).await?;
        let before = self.newest(&publish.into).await?;
        done.looked_at = Some(head.hash.clone());
        let Some(last) = last else { return Ok(()) };
        if before.is_some_and(|before| before.record.lake_commit == last.record.lake_commit) {
            return Ok(());
        }
        self.check(publish, &head, &last).await?;
        let properties: BTreeMap<String, String> =
            last.record.to_properties().into_iter().filter(|(_, v)| !v.is_empty()).collect();
        let message = format!("{}: published from {}", last.record.committed_lsn, head.name);
        self.nessie.merge(&head, &publish.into, (&message, &properties)).await?;
        let (position, into) = (last.record.committed_lsn, &publish.into);
        tracing::info!(%position, into, "published");
        Ok(())
    }

    async fn newest(&self, at: &str) -> Result<Option<PastCommit>> {
        let found = self.nessie.lake_commits(at, &self.lake.pipeline_id, 1).await?;
        Ok(found.into_iter().next())
    }

    /// Runs all checks on one state; the error names every one that failed.
    async fn check(
        &self,
        publish: &PublishSettings,
        head: &Reference,
        last: &PastCommit,
    ) -> Result<()> {
        if publish.checks.is_empty() {
            return Ok(());
        }
        let published = self.nessie.find(&publish.into).await?;
        let mut failed = Vec::new();
        for check in &publish.checks {
            failed.extend(self.failure(check, head, published.as_ref()).await?);
        }
        match failed.is_empty() {
            true => Ok(()),
            false => Err(Error::new(Kind::Table, "PUBLISH_CHECK", failed.join("; "))
                .with_lsn(last.record.committed_lsn)
                .with_cure(format!(
                    "{} stays where it is; correct the source or `publish.checks`, and a later \
                     state of {} is published",
                    publish.into, publish.branch
                ))),
        }
    }

    /// What a check finds wrong.
    async fn failure(
        &self,
        check: &RowCheck,
        head: &Reference,
        published: Option<&Reference>,
    ) -> Result<Option<String>> {
        let name = format!("{}.{}", check.table.0, check.table.1);
        let Some(rows) = self.rows(check, head).await? else {
            return Ok(Some(format!("{name} is not in the lake")));
        };
        if rows < check.rows_min {
            return Ok(Some(format!("{name} has {rows} rows, fewer than {}", check.rows_min)));
        }
        if rows > check.rows_max {
            return Ok(Some(format!("{name} has {rows} rows, more than {}", check.rows_max)));
        }
        let (Some(part), Some(published)) = (check.rows_drop_max, published) else {
            return Ok(None);
        };
        let Some(before) = self.rows(check, published).await? else { return Ok(None) };
        if is_drop(before, rows, part) {
            let most = part * 100.0;
            return Ok(Some(format!(
                "{name} went from {before} to {rows} rows, which is more than {most} % less"
            )));
        }
        Ok(None)
    }

    /// Live rows of a table at a commit.
    async fn rows(&self, check: &RowCheck, at: &Reference) -> Result<Option<u64>> {
        let ident = table_ident(&check.table.0, &check.table.1);
        let Some(table) = self.nessie.table_at(at, &ident).await? else { return Ok(None) };
        LiveRows::count(&self.lake.storage, &table).await.map(Some)
    }

    async fn tag_once(&self, done: &mut Done) -> Result<()> {
        let Some(last) = self.newest(self.nessie.reference()).await? else { return Ok(()) };
        if done.tagged == Some(last.record.committed_lsn) {
            return Ok(());
        }
        tag(&self.nessie, &tag_name(last.record.committed_lsn), &last).await?;
        done.tagged = Some(last.record.committed_lsn);
        Ok(())
    }
}

/// Makes a tag at a lake commit; one that is there already is left as it is.
async fn tag(nessie: &Nessie, name: &str, at: &PastCommit) -> Result<()> {
    if nessie.find(name).await?.is_some() {
        return Ok(());
    }
    let hash = at.hash.clone().unwrap_or_default();
    let from = Reference { kind: ReferenceKind::Branch, name: nessie.reference().to_owned(), hash };
    nessie.make(ReferenceKind::Tag, name, &from).await?;
    tracing::info!(tag = name, "tagged");
    Ok(())
}

/// The tag of a position: `lsn-0-16B3748`.
pub(crate) fn tag_name(position: Lsn) -> String {
    format!("lsn-{}", position.to_string().replace('/', "-"))
}

#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a percentage")]
fn is_drop(before: u64, now: u64, part: f64) -> bool {
    before.saturating_sub(now) as f64 > before as f64 * part
}

/// Only Nessie has them.
pub(crate) fn no_branches() -> Error {
    Error::config("NO_BRANCHES", "this lake's catalog has no branches and tags")
        .with_cure("Nessie has: --catalog nessie+http://host:19120/iceberg")
}

/// A failed check is an alarm; a Nessie that does not answer is trouble.
fn said(error: &Error) {
    match error.kind() {
        Kind::Transient => tracing::warn!(code = error.code(), "{error}"),
        _ => tracing::error!(code = error.code(), cure = error.cure(), "{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_named_after_its_position() {
        assert_eq!(tag_name(Lsn(0x16_B374_D848)), "lsn-16-B374D848");
    }

    #[test]
    fn a_drop_is_measured_against_what_is_published() {
        assert!(!is_drop(100, 90, 0.1));
        assert!(is_drop(100, 89, 0.1));
        assert!(!is_drop(100, 200, 0.0));
    }
}
