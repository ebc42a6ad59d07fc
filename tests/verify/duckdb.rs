//! `--reader duckdb`: the lake is read by DuckDB, whose merge on read is not ours.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use frazil::verify::{Options, Reader};

use super::{Scene, assert_equal, counts, of};
use crate::support::lake::python;

const SCHEMA: &str = "CREATE TABLE kinds(id int PRIMARY KEY, n numeric(9,2), at timestamptz, b bytea, \
         u uuid, f float8, l int[], i interval, d date, j jsonb); \
     INSERT INTO kinds SELECT g, g / 7.0, now(), '\\x00ff', gen_random_uuid(), -0.0, ARRAY[g, NULL], \
         '1 mon 2 days', CASE g % 5 WHEN 0 THEN 'infinity' ELSE '2020-02-29' END::date, '{\"a\": 1}' \
         FROM generate_series(1, 300) g; \
     CREATE TABLE many(id int, v text); ALTER TABLE many REPLICA IDENTITY FULL; \
     INSERT INTO many SELECT g % 3, 'x' FROM generate_series(1, 9) g; \
     CREATE TABLE t(id bigint PRIMARY KEY, v text); INSERT INTO t VALUES (5, 'a'), (6, 'b')";

/// The `duckdb` command line in the form of the tests' Python.
pub(super) fn command_line(folder: &Path) -> String {
    let program = folder.join("duckdb");
    let script = format!(
        "#!{}\nimport duckdb, glob, os, sys\n\
         c = duckdb.connect(config={{'allow_unsigned_extensions': 'true'}})\n\
         root = os.path.dirname(os.path.dirname(duckdb.__file__))\n\
         for name in ('avro', 'httpfs', 'iceberg'):\n\
         \x20   found = glob.glob(f'{{root}}/duckdb_extension_{{name}}/extensions/*/*.duckdb_extension')\n\
         \x20   c.execute(\"LOAD '\" + found[0] + \"'\")\n\
         c.execute(sys.argv[2])\n",
        python()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    program.display().to_string()
}

// cases: 178 holds
#[tokio::test(flavor = "multi_thread")]
async fn duckdb_sees_the_source() {
    let scene = Scene::new(SCHEMA).await;
    scene.catch_up();
    scene.sql("UPDATE kinds SET n = -n, l = '{}' WHERE id % 3 = 0; DELETE FROM kinds WHERE id % 7 = 0").await;
    scene.sql("UPDATE kinds SET id = id + 1000 WHERE id < 20").await;
    scene.sql("DELETE FROM many WHERE ctid IN (SELECT min(ctid) FROM many GROUP BY id)").await;
    scene.catch_up();
    let folder = tempfile::tempdir().unwrap();
    let reader = Reader::DuckDb(command_line(folder.path()));
    let options = Options { reader, ..Options::default() };
    let report = scene.try_verify("*", &options).await.unwrap();
    assert_equal(&report);
    assert!(of(&report, "public.kinds").lake_rows > 200);
    // What the lake lacks, DuckDB lacks.
    scene.tamper(&[], &[5]).await;
    let report = scene.try_verify("*", &options).await.unwrap();
    assert!(!report.equal);
    assert_eq!(counts(of(&report, "public.t")), (1, 0, 0));
    let nobody = Options { reader: Reader::DuckDb("/nowhere/duckdb".into()), ..Options::default() };
    let error = scene.try_verify("*", &nobody).await.unwrap_err();
    assert_eq!(error.code(), "VERIFY_READER");
}
