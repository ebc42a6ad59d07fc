//! Branches, tags and the lake's own history: `publish`, `tag_interval`, `frazil lake`, `frazil
//! sql-hint`.

mod failing_check;
mod first_publish;
mod history_in_a_folder;
mod sql_hint;
mod states;
mod tags;

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::frazil::{Finished, Frazil};
use crate::support::lake::Lake;
use crate::support::minio::Minio;
use crate::support::nessie::{Branch, Nessie};
use crate::support::postgres::{Postgres, PostgresOptions};

const TABLE: &str = "public.account";

/// A source with 100 rows, the branch that readers see, and the branch that is written to.
struct Scene {
    postgres: Postgres,
    minio: &'static Minio,
    readers: Branch,
    ingest: Branch,
    folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let nessie = Nessie::shared().await;
        let readers = nessie.branch().await;
        let ingest = nessie.branch_named(&format!("{}_ingest", readers.name()));
        let postgres = Postgres::start(PostgresOptions::default()).await;
        postgres
            .sql(
                "CREATE TABLE account (id int8 PRIMARY KEY, balance int4);
                 INSERT INTO account SELECT g, 0 FROM generate_series(1, 100) g",
            )
            .await;
        let folder = tempfile::tempdir().unwrap();
        Self { postgres, minio: Minio::shared().await, readers, ingest, folder }
    }

    /// A configuration that publishes after `checks`.
    fn publishing(&self, checks: &str) -> PathBuf {
        self.config(&format!(
            "publish: {{branch: {}, into: {}, interval: 100ms, checks: [{checks}]}}",
            self.ingest.name(),
            self.readers.name()
        ))
    }

    fn config(&self, more: &str) -> PathBuf {
        let text = format!(
            "source: {{url: '{}'}}\ncatalog: {{url: 'nessie+{}'}}\ncommit: {{interval: 100ms}}\n\
             {more}\n",
            self.postgres.dsn(),
            self.readers.uri()
        );
        let path = self.folder.path().join("frazil.yaml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn frazil(&self, args: &[&str]) -> Frazil {
        Frazil::new(args)
            .env("AWS_ACCESS_KEY_ID", self.minio.access_key())
            .env("AWS_SECRET_ACCESS_KEY", self.minio.secret_key())
    }

    fn run(&self, config: &std::path::Path) -> Frazil {
        self.frazil(&["run", "--config", config.to_str().unwrap()])
    }

    fn until_caught_up(&self, config: &std::path::Path) -> Finished {
        self.run(config).arg("--until-caught-up").finish()
    }

    /// `frazil lake ARGS` on the branch that readers see, which frazil writes to here.
    fn lake(&self, args: &[&str]) -> Finished {
        let catalog = format!("nessie+{}", self.readers.uri());
        let place = ["--catalog", catalog.as_str(), "--ref", self.readers.name()];
        self.frazil(&[&["lake"], args, &place].concat()).finish()
    }

    /// The same, its JSON.
    fn lake_json(&self, args: &[&str]) -> Value {
        json(&self.lake(&[args, &["-o", "json"]].concat()).succeeded())
    }

    fn seen_by_readers(&self) -> Lake {
        Lake::nessie(&self.readers, self.minio)
    }
}

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap()
}

fn count(lake: &mut Lake, table: &str) -> String {
    let rows = lake.query_now(&format!("SELECT count(*) FROM {{{table}}}"));
    rows[0][0].clone().unwrap()
}
