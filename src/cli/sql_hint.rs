//! `frazil sql-hint`: what to type into a reader, ready to copy. Secrets are never shown: where a
//! reader needs one, its variable stands.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::config::{Config, LakeSettings};
use crate::error::Result;
use crate::iceberg::committer::CATALOG_NAME;
use crate::iceberg::committer::rest::RestSettings;
use crate::iceberg::lake::Lake;
use crate::iceberg::storage::S3Place;

use super::lake::{When, find, snapshots_at};
use super::report::print;
use super::{LakeArgs, existing_lake, no_lake};

/// Version of Iceberg's Spark runtime that was tried with these lines.
const ICEBERG: &str = "1.11.0";

/// `frazil sql-hint`
#[derive(Debug, Args)]
pub(crate) struct SqlHint {
    /// Only this reader
    #[arg(value_enum)]
    reader: Option<Reader>,
    #[command(flatten)]
    lake: LakeArgs,
    #[command(flatten)]
    when: When,
    /// The table in the examples [default: the first one of the lake]
    #[arg(long, value_name = "SCHEMA.TABLE")]
    table: Option<String>,
}

/// Readers that there are lines for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Reader {
    Duckdb,
    Spark,
    Trino,
    Pyiceberg,
    Dremio,
}

/// What the lines are about.
struct Hint<'a> {
    config: &'a Config,
    namespace: String,
    table: String,
    /// The metadata file of the table now.
    metadata: Option<String>,
    /// `branch@hash`, or a plain branch.
    nessie_at: Option<(String, Option<String>)>,
    /// The table's iceberg_snapshot, where a state was asked for.
    snapshot: Option<i64>,
    s3: S3Place,
}

impl SqlHint {
    pub(crate) async fn run(self) -> Result<ExitCode> {
        let config = self.lake.resolve()?;
        let lake = existing_lake(&config).await?.ok_or_else(|| no_lake(&config))?;
        let hint = self.hint(&config, &lake).await?;
        let all = [
            (Reader::Duckdb, "DuckDB", hint.duckdb()),
            (Reader::Spark, "Spark", hint.spark()),
            (Reader::Trino, "Trino", hint.trino()),
            (Reader::Pyiceberg, "PyIceberg", hint.pyiceberg()),
            (Reader::Dremio, "Dremio", hint.dremio()),
        ];
        let wanted = all.into_iter().filter(|(one, ..)| self.reader.is_none_or(|r| r == *one));
        let text = wanted.map(|(_, name, lines)| format!("-- {name}\n{}", lines.trim_end()));
        print(&text.collect::<Vec<_>>().join("\n\n"))?;
        Ok(ExitCode::SUCCESS)
    }

    async fn hint<'a>(&self, config: &'a Config, lake: &Lake) -> Result<Hint<'a>> {
        let tables = lake.committer.tables().await?;
        let first = tables.iter().find(|t| t.namespace().join(".") != "frazil");
        let named = self.table.as_ref().and_then(|name| name.split_once('.'));
        let (namespace, table) = match (named, first) {
            (Some((namespace, table)), _) => (namespace.to_owned(), table.to_owned()),
            (None, Some(ident)) => (ident.namespace().join("."), ident.name().to_owned()),
            (None, None) => ("public".to_owned(), "orders".to_owned()),
        };
        let found = lake.committer.table(&crate::iceberg::table_ident(&namespace, &table)).await?;
        let metadata = found.and_then(|t| t.metadata_location().map(str::to_owned));
        let state = match self.when.is_now() {
            true => None,
            false => Some(find(lake, &self.when).await?),
        };
        let snapshot = match &state {
            Some(past) if lake.nessie.is_none() => {
                let all = snapshots_at(lake, past.record.committed_lsn).await?;
                let name = format!("{namespace}.{table}");
                all.into_iter().find(|(of, _)| *of == name).map(|(_, id)| id)
            }
            _ => None,
        };
        let hash = state.and_then(|past| past.hash);
        let nessie_at = lake.nessie.as_ref().map(|n| (n.reference().to_owned(), hash));
        let s3 = lake.storage.s3_place();
        Ok(Hint { config, namespace, table, metadata, nessie_at, snapshot, s3 })
    }
}

impl Hint<'_> {
    /// A column's worth of quoting is the same in all these dialects but Spark's.
    fn quoted(&self) -> String {
        format!("{}.{}", double_quoted(&self.namespace), double_quoted(&self.table))
    }

    fn duckdb(&self) -> String {
        let mut out = String::from("INSTALL iceberg; LOAD iceberg;\n");
        if let Some(storage) = self.s3() {
            out.push_str("INSTALL httpfs; LOAD httpfs;\n");
            let _ = writeln!(
                out,
                "CREATE SECRET lake (TYPE s3, KEY_ID getenv('AWS_ACCESS_KEY_ID'), \
                 SECRET getenv('AWS_SECRET_ACCESS_KEY'), REGION '{}'{});",
                region(storage),
                duckdb_endpoint(storage)
            );
        }
        if let (LakeSettings::Rest(rest, _), Some((branch, hash))) =
            (&self.config.lake, &self.nessie_at)
        {
            let at = match hash {
                Some(hash) => format!("@{branch}#{hash}"),
                None => format!("@{branch}"),
            };
            let _ = writeln!(
                out,
                "ATTACH '{}' AS lake (TYPE iceberg, ENDPOINT '{}', AUTHORIZATION_TYPE 'none', \
                 ACCESS_DELEGATION_MODE 'none');\nSELECT * FROM lake.{}.{};",
                warehouse(rest),
                rest.uri,
                double_quoted(&self.namespace),
                double_quoted(&format!("{}{at}", self.table))
            );
            return out;
        }
        let metadata = self.metadata.as_deref().unwrap_or("<metadata location>");
        let snapshot =
            self.snapshot.map_or(String::new(), |id| format!(", snapshot_from_id => {id}"));
        let _ = writeln!(out, "SELECT * FROM iceberg_scan('{metadata}'{snapshot});");
        out
    }

    fn spark(&self) -> String {
        let jdbc = match &self.config.lake {
            LakeSettings::Folder(_) => ",org.xerial:sqlite-jdbc:3.50.3.0",
            LakeSettings::Postgres { .. } => ",org.postgresql:postgresql:42.7.8",
            LakeSettings::Rest(..) => "",
        };
        let aws = match self.s3() {
            Some(_) => format!(",org.apache.iceberg:iceberg-aws-bundle:{ICEBERG}"),
            None => String::new(),
        };
        let mut out = format!(
            "spark-sql --packages \
             org.apache.iceberg:iceberg-spark-runtime-4.0_2.13:{ICEBERG}{aws}{jdbc} \\\n\
             \x20 --conf spark.sql.catalog.{CATALOG_NAME}=org.apache.iceberg.spark.SparkCatalog"
        );
        for (key, value) in self.iceberg_properties() {
            let _ = write!(out, " \\\n  --conf spark.sql.catalog.{CATALOG_NAME}.{key}={value}");
        }
        let table =
            format!("{CATALOG_NAME}.{}.{}", back_quoted(&self.namespace), back_quoted(&self.table));
        let at = self.snapshot.map_or(String::new(), |id| format!(" VERSION AS OF {id}"));
        let _ = writeln!(out, " \\\n  -e 'SELECT * FROM {table}{at}'");
        out
    }

    /// The catalog in the words of Iceberg's Java library.
    fn iceberg_properties(&self) -> Vec<(&'static str, String)> {
        let mut all = match &self.config.lake {
            LakeSettings::Folder(folder) => vec![
                ("type", "jdbc".to_owned()),
                ("uri", format!("jdbc:sqlite:{}/catalog.db", absolute(folder))),
                ("jdbc.schema-version", "V1".to_owned()),
                ("warehouse", format!("file://{}", absolute(folder))),
            ],
            LakeSettings::Rest(rest, _) => {
                let mut all = vec![("type", "rest".to_owned()), ("uri", self.nessie_uri(rest))];
                all.extend(rest.warehouse.clone().map(|name| ("warehouse", name)));
                all
            }
            LakeSettings::Postgres { warehouse, .. } => vec![
                ("type", "jdbc".to_owned()),
                ("uri", "jdbc:postgresql://HOST/DATABASE".to_owned()),
                ("jdbc.user", "USER".to_owned()),
                ("jdbc.password", "PASSWORD".to_owned()),
                ("jdbc.schema-version", "V1".to_owned()),
                ("warehouse", warehouse.clone()),
            ],
        };
        if let Some(storage) = self.s3() {
            all.push(("io-impl", "org.apache.iceberg.aws.s3.S3FileIO".to_owned()));
            all.push(("s3.access-key-id", "$AWS_ACCESS_KEY_ID".to_owned()));
            all.push(("s3.secret-access-key", "$AWS_SECRET_ACCESS_KEY".to_owned()));
            all.push(("s3.remote-signing-enabled", "false".to_owned()));
            all.push(("client.region", region(storage).to_owned()));
            if let Some(endpoint) = &storage.endpoint {
                all.push(("s3.endpoint", endpoint.clone()));
                all.push(("s3.path-style-access", "true".to_owned()));
            }
        }
        all
    }

    fn trino(&self) -> String {
        let mut out = String::from("-- etc/catalog/lake.properties\nconnector.name=iceberg\n");
        match &self.config.lake {
            LakeSettings::Rest(rest, _) => {
                let _ = writeln!(
                    out,
                    "iceberg.catalog.type=rest\niceberg.rest-catalog.uri={}",
                    rest.uri
                );
                if let Some((branch, hash)) = &self.nessie_at {
                    let at = hash.as_ref().map_or(String::new(), |hash| format!("@{hash}"));
                    let _ = writeln!(out, "iceberg.rest-catalog.prefix={branch}{at}");
                }
            }
            LakeSettings::Postgres { warehouse, .. } => {
                let _ = writeln!(
                    out,
                    "iceberg.catalog.type=jdbc\niceberg.jdbc-catalog.catalog-name={CATALOG_NAME}\n\
                     iceberg.jdbc-catalog.driver-class=org.postgresql.Driver\n\
                     iceberg.jdbc-catalog.connection-url=jdbc:postgresql://HOST/DATABASE\n\
                     iceberg.jdbc-catalog.connection-user=USER\n\
                     iceberg.jdbc-catalog.connection-password=PASSWORD\n\
                     iceberg.jdbc-catalog.schema-version=V1\n\
                     iceberg.jdbc-catalog.default-warehouse-dir={warehouse}"
                );
            }
            LakeSettings::Folder(_) => {
                return "Trino opens no catalog in a SQLite file: use --catalog.\n".to_owned();
            }
        }
        if let Some(storage) = self.s3() {
            let _ = writeln!(
                out,
                "fs.native-s3.enabled=true\ns3.aws-access-key=${{ENV:AWS_ACCESS_KEY_ID}}\n\
                 s3.aws-secret-key=${{ENV:AWS_SECRET_ACCESS_KEY}}\ns3.region={}",
                region(storage)
            );
            if let Some(endpoint) = &storage.endpoint {
                let _ = writeln!(out, "s3.endpoint={endpoint}\ns3.path-style-access=true");
            }
        }
        let at = self.snapshot.map_or(String::new(), |id| format!(" FOR VERSION AS OF {id}"));
        let _ = writeln!(out, "-- then\nSELECT * FROM lake.{}{at};", self.quoted());
        out
    }

    fn pyiceberg(&self) -> String {
        let mut out = String::from("from pyiceberg.catalog import load_catalog\n");
        let _ = writeln!(out, "catalog = load_catalog('{CATALOG_NAME}', **{{");
        match &self.config.lake {
            LakeSettings::Folder(folder) => {
                let folder = absolute(folder);
                let _ = writeln!(
                    out,
                    "    'type': 'sql', 'uri': 'sqlite:///{folder}/catalog.db', \
                     'warehouse': 'file://{folder}',"
                );
            }
            LakeSettings::Rest(rest, _) => {
                let _ = writeln!(out, "    'type': 'rest', 'uri': '{}',", self.nessie_uri(rest));
                if let Some(name) = &rest.warehouse {
                    let _ = writeln!(out, "    'warehouse': '{name}',");
                }
            }
            LakeSettings::Postgres { warehouse, .. } => {
                let _ = writeln!(
                    out,
                    "    'type': 'sql', 'uri': 'postgresql+psycopg2://USER:PASSWORD@HOST/DATABASE', \
                     'warehouse': '{warehouse}',"
                );
            }
        }
        if let Some(storage) = self.s3() {
            let endpoint = storage.endpoint.as_ref();
            let endpoint = endpoint.map_or(String::new(), |e| format!("'s3.endpoint': '{e}', "));
            let _ = writeln!(
                out,
                "    {endpoint}'s3.region': '{}',\n    \
                 's3.access-key-id': os.environ['AWS_ACCESS_KEY_ID'],\n    \
                 's3.secret-access-key': os.environ['AWS_SECRET_ACCESS_KEY'],",
                region(storage)
            );
            out.insert_str(0, "import os\n");
        }
        let at = self.snapshot.map_or(String::new(), |id| format!("snapshot_id={id}"));
        let _ = writeln!(
            out,
            "}})\n# refuses tables with equality deletes until they are compacted\n\
             catalog.load_table(({:?}, {:?})).scan({at}).to_arrow()",
            self.namespace, self.table
        );
        out
    }

    fn dremio(&self) -> String {
        match (&self.config.lake, &self.nessie_at) {
            (LakeSettings::Rest(rest, _), Some((branch, hash))) => {
                let api = rest.uri.trim_end_matches('/').trim_end_matches("/iceberg");
                let at = match hash {
                    Some(hash) => format!("COMMIT {}", double_quoted(hash)),
                    None => format!("BRANCH {}", double_quoted(branch)),
                };
                format!(
                    "-- add a source of type Nessie: endpoint {api}/api/v2, authentication none, \
                     storage S3 with your keys{}\nSELECT * FROM lake.{} AT {at};\n",
                    self.s3().and_then(|s| s.endpoint.as_ref()).map_or(String::new(), |e| format!(
                        ", connection properties fs.s3a.endpoint={} and \
                         fs.s3a.path.style.access=true",
                        e.trim_start_matches("http://")
                    )),
                    self.quoted()
                )
            }
            (LakeSettings::Rest(rest, _), None) => format!(
                "-- add a source of type Iceberg REST Catalog: {}\nSELECT * FROM lake.{};\n",
                rest.uri,
                self.quoted()
            ),
            _ => "Dremio opens no SQL catalog: use Nessie or a REST catalog.\n".to_owned(),
        }
    }

    /// Nessie serves a branch below its own path, and one commit of it.
    fn nessie_uri(&self, rest: &RestSettings) -> String {
        let uri = rest.uri.trim_end_matches('/');
        match &self.nessie_at {
            Some((branch, None)) => format!("{uri}/{branch}"),
            Some((branch, Some(hash))) => format!("{uri}/{branch}@{hash}"),
            None => uri.to_owned(),
        }
    }

    /// Where S3 is, if the lake's files are there.
    fn s3(&self) -> Option<&S3Place> {
        match &self.config.lake {
            LakeSettings::Rest(..) => Some(&self.s3),
            LakeSettings::Postgres { warehouse, .. } if warehouse.contains("://") => Some(&self.s3),
            _ => None,
        }
    }
}

fn region(s3: &S3Place) -> &str {
    s3.region.as_deref().unwrap_or("us-east-1")
}

fn duckdb_endpoint(s3: &S3Place) -> String {
    let Some(endpoint) = &s3.endpoint else { return String::new() };
    let (scheme, host) = endpoint.split_once("://").unwrap_or(("https", endpoint));
    format!(", ENDPOINT '{host}', URL_STYLE 'path', USE_SSL {}", scheme == "https")
}

fn warehouse(rest: &RestSettings) -> &str {
    rest.warehouse.as_deref().unwrap_or("warehouse")
}

fn absolute(folder: &Path) -> String {
    let full = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    full.display().to_string()
}

fn double_quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn back_quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}
