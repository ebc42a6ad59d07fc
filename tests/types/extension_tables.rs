//! Cases 52 to 55: tables with the types of extensions, copied and streamed.

use crate::behaviour::types::the_same_either_way;
use crate::support::postgres::{Postgres, PostgresOptions};

pub(crate) const CONTRIB: &[(&str, &str)] = &[
    ("hstore", "a=>1, b=>NULL, \"c d\"=>\"x, \\\"y\\\"\";"),
    ("ltree", "a.b.c;"),
    ("lquery", "*.a"),
    ("citext", "Ab;aB"),
    ("ltree[]", "{a.b,NULL}"),
];

pub(crate) const PGVECTOR: &[(&str, &str)] =
    &[("vector(3)", "[1,2.5,-0]"), ("halfvec", "[1,65504]"), ("sparsevec", "{1:1.5,3:-2}/5")];

pub(crate) const POSTGIS: &[(&str, &str)] = &[
    (
        "geometry",
        "0101000020E6100000000000000000F03F0000000000000040;POINT EMPTY;POLYGON Z((0 0 1,4 0 1,4 4 1,0 0 1))",
    ),
    ("geometry(Point,4326)", "0101000020E6100000000000000000F03F0000000000000040"),
    ("geometry(Point,4326)[]", "{0101000020E6100000000000000000F03F0000000000000040:NULL}"),
    ("geography", "LINESTRING(0 0,1 1)"),
    ("geography(Point,4326)", "POINT(1 2)"),
];

/// Whether the server can have the extensions. Says so where it can't.
pub(crate) async fn can_have(names: &[&str]) -> bool {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    for name in names {
        let sql = format!("SELECT count(*) FROM pg_available_extensions WHERE name = '{name}'");
        if postgres.value(&sql).await == "0" {
            assert!(std::env::var_os("FRAZIL_EXTENSIONS").is_none(), "no extension {name}");
            println!("NOT RUN: the server has no extension {name}");
            return false;
        }
    }
    true
}

// cases: 52 53 60 holds
#[tokio::test(flavor = "multi_thread")]
async fn types_of_contrib() {
    if can_have(&["hstore", "ltree", "citext"]).await {
        let prelude = "CREATE EXTENSION hstore; CREATE EXTENSION ltree; CREATE EXTENSION citext;";
        the_same_either_way(prelude, CONTRIB, "binary=true").await;
        let aclitem = [CONTRIB, &[("aclitem", "postgres=r/postgres")]].concat();
        the_same_either_way(prelude, &aclitem, "binary=false").await;
    }
}

// cases: 60 holds
#[tokio::test(flavor = "multi_thread")]
async fn types_of_pgvector() {
    if can_have(&["vector"]).await {
        let prelude = "CREATE EXTENSION vector;";
        the_same_either_way(prelude, PGVECTOR, "binary=true").await;
        let aclitem = [PGVECTOR, &[("aclitem", "postgres=r/postgres")]].concat();
        the_same_either_way(prelude, &aclitem, "binary=false").await;
    }
}

// cases: 54 holds with FRAZIL_EXTENSIONS
#[tokio::test(flavor = "multi_thread")]
async fn types_of_postgis() {
    if can_have(&["postgis"]).await {
        let prelude = "CREATE EXTENSION postgis;";
        the_same_either_way(prelude, POSTGIS, "binary=true").await;
        let aclitem = [POSTGIS, &[("aclitem", "postgres=r/postgres")]].concat();
        the_same_either_way(prelude, &aclitem, "binary=false").await;
    }
}
