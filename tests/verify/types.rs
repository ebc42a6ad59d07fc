//! No type is left out: every one that frazil stores is compared, by both readers, with its extreme
//! values, as it is stored by default and as `types:` can have it.

use frazil::verify::report::Report;
use frazil::verify::{Options, Reader};

use super::duckdb::command_line;
use super::{Scene, assert_equal};
use crate::behaviour::types::every_type;
use crate::support::frazil::Frazil;
use crate::types::extension_tables::{CONTRIB, PGVECTOR, POSTGIS, can_have};

async fn assert_all_is_compared(scene: &Scene) {
    let folder = tempfile::tempdir().unwrap();
    for reader in [Reader::Frazil, Reader::DuckDb(command_line(folder.path()))] {
        let options = Options { reader, ..Options::default() };
        let report: Report = scene.try_verify("*", &options).await.unwrap();
        assert_equal(&report);
        let mut tables = report.tables.iter();
        assert!(tables.all(|one| one.not_compared.is_empty() && one.lake_rows > 0), "{report:?}");
    }
}

// cases: 178 holds
#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_compared() {
    assert_all_is_compared(&Scene::copied(&every_type("", &[])).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn types_of_extensions_are_compared() {
    let (mut prelude, mut types) = (String::new(), Vec::new());
    for (names, more) in [
        (&["hstore", "ltree", "citext"][..], CONTRIB),
        (&["vector"], PGVECTOR),
        (&["postgis"], POSTGIS),
    ] {
        if can_have(names).await {
            prelude.extend(names.iter().map(|name| format!("CREATE EXTENSION {name};")));
            types.extend_from_slice(more);
        }
    }
    assert_all_is_compared(&Scene::copied(&every_type(&prelude, &types)).await).await;
}

const CHOSEN: &str = "
    CREATE TYPE pair AS (a numeric(9,2), b text);
    CREATE TABLE t(id int PRIMARY KEY, n numeric, flag bit(1), code char(4), wait interval, p pair,
        r numrange, days daterange, deep int[], boxes box[]);
    INSERT INTO t VALUES
        (1, 1.50, B'1', 'ab', '1 year -2 mons +3 days -04:05:06.5',
         '(1.50,\"x \"\"y\\\\\")', '[1.50,)', 'empty', '{{1,2},{3,NULL}}', '{(2,2),(1,1);NULL}'),
        (2, 'NaN', B'0', '', '00:00', '(,)', '(,2.0]', '[2024-01-01,infinity)', '{1}', '{}'),
        (3, -0.5, NULL, NULL, '-100:00:01', NULL, NULL, '[2024-01-01,2024-02-01)', '{}', NULL)";

const TYPES: &str = "types:
  public.t.n: decimal(38,9)
  public.t.flag: boolean
  public.t.code: trim
  public.t.wait: iso8601
  public.t.p: struct
  public.t.r: struct
  public.t.days: struct
  public.t.deep: list<list>
";

#[tokio::test(flavor = "multi_thread")]
async fn chosen_types_are_compared() {
    let scene = Scene::new(CHOSEN).await;
    let config = scene.folder.path().join("config.yaml");
    std::fs::write(&config, TYPES).unwrap();
    let run = || {
        let run = Frazil::run(&scene.postgres.dsn(), scene.folder.path()).arg("--until-caught-up");
        run.arg("--config").arg(config.to_str().unwrap()).finish().succeeded();
    };
    run();
    assert_all_is_compared(&scene).await;
    scene.sql("UPDATE t SET id = id + 10, wait = -wait, p = ROW(2, 'z'), r = '(3,4)'").await;
    run();
    assert_all_is_compared(&scene).await;
}
