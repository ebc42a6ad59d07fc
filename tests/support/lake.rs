//! The lake as another engine sees it, compared row for row with Postgres.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use futures::TryStreamExt;
use serde_json::{Value, json};

use super::columns::columns_of;
use super::minio::Minio;
use super::nessie::Branch;
use super::postgres::Postgres;
use super::process::{bound_to_us, spawn};

/// A lake in a folder or on a branch of Nessie, read by DuckDB.
pub struct Lake {
    catalog: Catalog,
    reader: Reader,
}

enum Catalog {
    Folder(PathBuf),
    Nessie(Branch),
    /// The test asks the catalog itself and gives each state.
    Elsewhere,
}

/// One state of the lake: the metadata location of every table, read in one SELECT or, from
/// Nessie, at one hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LakeState {
    locations: BTreeMap<String, String>,
    hash: Option<String>,
}

/// Rows of a table and a hash of their contents that does not depend on their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Number of rows.
    pub rows: u64,
    /// Sum of the hashes of all rows' canonical texts.
    pub content_hash: String,
}

/// What a comparison found.
#[derive(Debug)]
pub struct Comparison {
    /// The source's side.
    pub source: Content,
    /// The lake's side.
    pub lake: Content,
    /// Up to 10 rows that the lake lacks, as canonical texts.
    pub missing: Value,
    /// Up to 10 rows that only the lake has.
    pub unexpected: Value,
    /// Columns of the lake that the source does not have (dropped ones, `_pg_*`).
    pub other_columns: Vec<String>,
}

impl Comparison {
    /// Whether both sides hold the same multiset of rows.
    pub fn is_equal(&self) -> bool {
        let none = |rows: &Value| rows.as_array().is_some_and(Vec::is_empty);
        none(&self.missing) && none(&self.unexpected) && self.source == self.lake
    }
}

impl Lake {
    /// The lake in `folder` (`--into`); it need not exist yet.
    pub fn open(folder: &Path) -> Self {
        Self { catalog: Catalog::Folder(folder.to_path_buf()), reader: Reader::start() }
    }

    /// The lake on `branch`, its files in `minio`.
    pub fn nessie(branch: &Branch, minio: &Minio) -> Self {
        Self { catalog: Catalog::Nessie(branch.clone()), ..Self::in_minio(minio) }
    }

    /// A lake with its files in `minio`, whose states ([`LakeState::of`]) the test finds out.
    pub fn in_minio(minio: &Minio) -> Self {
        let mut reader = Reader::start();
        let secret = json!({
            "op": "s3",
            "key_id": minio.access_key(),
            "secret": minio.secret_key(),
            "endpoint": minio.endpoint().trim_start_matches("http://"),
            "region": minio.region(),
        });
        reader.ask(secret).unwrap();
        Self { catalog: Catalog::Elsewhere, reader }
    }

    /// The folder of a lake that is in one.
    pub fn folder(&self) -> &Path {
        match &self.catalog {
            Catalog::Folder(folder) => folder,
            Catalog::Nessie(_) | Catalog::Elsewhere => panic!("not a folder"),
        }
    }

    /// What the catalog shows now.
    pub fn state(&mut self) -> LakeState {
        match &self.catalog {
            Catalog::Folder(folder) => {
                let answer = self.reader.ask(json!({ "op": "state", "lake": folder })).unwrap();
                LakeState { locations: serde_json::from_value(answer).unwrap(), hash: None }
            }
            Catalog::Nessie(_) => self.nessie_state(None),
            Catalog::Elsewhere => panic!("the test knows the catalog"),
        }
    }

    /// What Nessie shows at a hash of the branch: time travel.
    pub fn state_at(&mut self, hash: &str) -> LakeState {
        self.nessie_state(Some(hash))
    }

    fn nessie_state(&mut self, at: Option<&str>) -> LakeState {
        let branch = self.branch();
        let question = json!({
            "op": "nessie_state", "api": branch.api(), "branch": branch.name(), "at": at,
        });
        let mut answer = self.reader.ask(question).unwrap();
        LakeState {
            locations: serde_json::from_value(answer["locations"].take()).unwrap(),
            hash: serde_json::from_value(answer["hash"].take()).unwrap(),
        }
    }

    /// Runs DuckDB SQL on the attached REST catalog, as a person would; `{namespace.table}` stands
    /// for a table at `at`: a hash of the branch, or the name of a branch or tag.
    pub fn query_attached(&mut self, at: &str, sql: &str) -> Vec<Vec<Option<String>>> {
        let branch = self.branch();
        let reference = if is_hash(at) { format!("{}#{at}", branch.name()) } else { at.into() };
        self.reader.ask(json!({ "op": "attach", "uri": branch.uri() })).unwrap();
        // {namespace.table} becomes d."namespace"."table@reference".
        let mut parts = sql.split(['{', '}']);
        let mut attached = parts.next().unwrap_or_default().to_string();
        while let (Some(table), Some(rest)) = (parts.next(), parts.next()) {
            let (namespace, name) = table.rsplit_once('.').unwrap();
            let name = name.replace('"', "\"\"");
            attached.push_str(&format!("d.\"{namespace}\".\"{name}@{reference}\"{rest}"));
        }
        let answer = self.reader.ask(json!({ "op": "query", "sql": attached }));
        serde_json::from_value(answer.unwrap_or_else(|e| panic!("{e}\nin: {attached}"))).unwrap()
    }

    fn branch(&self) -> Branch {
        match &self.catalog {
            Catalog::Nessie(branch) => branch.clone(),
            Catalog::Folder(_) | Catalog::Elsewhere => panic!("not in Nessie"),
        }
    }

    /// Runs DuckDB SQL on one state; `{namespace.table}` stands for a table. All values as text.
    pub fn query(&mut self, state: &LakeState, sql: &str) -> Vec<Vec<Option<String>>> {
        let mut sql = sql.to_string();
        for (table, location) in &state.locations {
            sql = sql.replace(&format!("{{{table}}}"), &scan(location));
        }
        self.query_files(&sql)
    }

    /// Runs DuckDB SQL that names metadata files itself; all values as text.
    pub fn query_files(&mut self, sql: &str) -> Vec<Vec<Option<String>>> {
        let answer = self.reader.ask(json!({ "op": "query", "sql": sql }));
        serde_json::from_value(answer.unwrap_or_else(|e| panic!("{e}\nin: {sql}"))).unwrap()
    }

    /// [`Lake::query`] on the present state.
    pub fn query_now(&mut self, sql: &str) -> Vec<Vec<Option<String>>> {
        let state = self.state();
        self.query(&state, sql)
    }

    /// Compares `table` (`schema.name`) of a quiet source with one state of the lake.
    pub async fn compare(
        &mut self,
        state: &LakeState,
        postgres: &Postgres,
        table: &str,
    ) -> Comparison {
        self.compare_as(state, postgres, (table, table)).await
    }

    async fn compare_with(
        &mut self,
        relation: &str,
        postgres: &Postgres,
        table: &str,
    ) -> Result<Comparison, String> {
        let columns = columns_of(postgres, table).await;
        let texts: Vec<_> = columns.iter().map(|column| column.text_sql.as_str()).collect();
        let csv = tempfile::NamedTempFile::new().unwrap();
        copy_to(postgres, &format!("SELECT {} FROM {table}", texts.join(", ")), csv.path()).await;
        let described: Vec<_> = columns.iter().map(|column| &column.description).collect();
        let mut answer = self
            .reader
            .ask(json!({
                "op": "compare", "relation": relation, "columns": described, "csv": csv.path(),
            }))
            .map_err(|e| format!("comparing {table}: {e}"))?;
        Ok(Comparison {
            source: content(&answer["source"]),
            lake: content(&answer["lake"]),
            missing: answer["missing"].take(),
            unexpected: answer["unexpected"].take(),
            other_columns: serde_json::from_value(answer["other_columns"].take()).unwrap(),
        })
    }

    /// Compares a table whose names in the lake (`namespace.name`) and in SQL differ by quotes.
    pub async fn compare_as(
        &mut self,
        state: &LakeState,
        postgres: &Postgres,
        (in_lake, in_sql): (&str, &str),
    ) -> Comparison {
        let location = scan(state.location(in_lake));
        self.compare_with(&location, postgres, in_sql).await.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Asserts that each of `tables` holds the rows of a quiet source, all in one lake state.
    pub async fn assert_equal(&mut self, postgres: &Postgres, tables: &[&str]) {
        let state = self.state();
        self.assert_equal_in(&state, postgres, tables).await;
    }

    /// The same in a given state.
    pub async fn assert_equal_in(
        &mut self,
        state: &LakeState,
        postgres: &Postgres,
        tables: &[&str],
    ) {
        for table in tables {
            let found = self.compare(state, postgres, table).await;
            assert!(
                found.is_equal(),
                "{table}: source {:?}, lake {:?}\nmissing in the lake: {:#}\nonly in the lake: {:#}",
                found.source,
                found.lake,
                found.missing,
                found.unexpected
            );
        }
    }
}

impl LakeState {
    /// Tables (`namespace.name`) with their metadata locations.
    pub fn of(locations: BTreeMap<String, String>) -> Self {
        Self { locations, hash: None }
    }

    /// All tables, `namespace.name`.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.locations.keys().map(String::as_str)
    }

    /// The Nessie hash that all tables were read at; panics for a lake in a folder.
    #[track_caller]
    pub fn hash(&self) -> &str {
        self.hash.as_deref().expect("a state of Nessie")
    }

    /// The metadata file of a table; panics when the lake does not have it.
    #[track_caller]
    pub fn location(&self, table: &str) -> &str {
        let tables = self.locations.keys();
        let location = self.locations.get(table);
        location.unwrap_or_else(|| panic!("no {table} in the lake: {tables:?}"))
    }
}

/// A Nessie hash is 32 bytes in hexadecimal.
fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn scan(location: &str) -> String {
    format!("iceberg_scan('{}')", location.replace('\'', "''"))
}

fn content(answer: &Value) -> Content {
    Content {
        rows: answer["rows"].as_u64().unwrap(),
        content_hash: answer["content_hash"].as_str().unwrap().into(),
    }
}

async fn copy_to(postgres: &Postgres, query: &str, path: &Path) {
    let client = postgres.client().await;
    client
        .batch_execute("SET datestyle = 'ISO'; SET timezone = 'UTC'; SET extra_float_digits = 3")
        .await
        .unwrap();
    let copy = format!(
        "COPY ({query}) TO STDOUT (FORMAT csv, NULL '~NULL~', FORCE_QUOTE *, DELIMITER ',')"
    );
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).unwrap());
    let mut rows = std::pin::pin!(client.copy_out(&copy).await.unwrap());
    while let Some(bytes) = rows.try_next().await.unwrap() {
        file.write_all(&bytes).unwrap();
    }
    file.flush().unwrap();
}

/// `duck.py` as a child: a question and an answer per line.
struct Reader {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Reader {
    fn start() -> Self {
        let mut command: Command = bound_to_us("KILL", &python());
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/duck.py"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(command);
        let questions = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, questions, answers }
    }

    fn ask(&mut self, question: Value) -> Result<Value, String> {
        writeln!(self.questions, "{question}").expect("duck.py has ended: run scripts/setup test");
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let mut answer: Value = serde_json::from_str(&line).map_err(|e| format!("{e}: {line}"))?;
        match answer["error"].as_str() {
            Some(error) => Err(error.to_string()),
            None => Ok(answer["ok"].take()),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The Python that `scripts/setup test` made, or `FRAZIL_PYTHON`.
pub fn python() -> String {
    std::env::var("FRAZIL_PYTHON").unwrap_or_else(|_| {
        let cache = std::env::var("FRAZIL_CACHE").unwrap_or_else(|_| {
            format!("{}/.cache/frazil", std::env::var("HOME").expect("HOME is set"))
        });
        let python = format!("{cache}/venv/bin/python");
        assert!(Path::new(&python).exists(), "no {python}: run scripts/setup test");
        python
    })
}

#[path = "lake_tests.rs"]
mod tests;
