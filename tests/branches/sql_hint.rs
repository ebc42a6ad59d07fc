//! What `frazil sql-hint` prints works as it stands, and shows no secret.

use super::{Scene, TABLE};

#[tokio::test]
async fn the_lines_for_duckdb_read_the_table() {
    let scene = Scene::new().await;
    let config = scene.config("");
    let run = scene.run(&config).arg("--ref").arg(scene.readers.name()).arg("--until-caught-up");
    run.finish().succeeded();
    let catalog = format!("nessie+{}", scene.readers.uri());
    let place = ["--catalog", catalog.as_str(), "--ref", scene.readers.name()];
    let hint = |args: &[&str]| {
        scene.frazil(&[&["sql-hint"], args, &place].concat()).finish().succeeded().stdout
    };

    let all = hint(&[]);
    assert!(!all.contains(scene.minio.secret_key()), "{all}");
    for reader in ["DuckDB", "Spark", "Trino", "PyIceberg", "Dremio"] {
        assert!(all.contains(&format!("-- {reader}\n")), "{all}");
    }
    assert!(all.contains("account"), "{all}");

    let lines = hint(&["duckdb", "--table", TABLE]);
    let lines = lines
        .replace("getenv('AWS_ACCESS_KEY_ID')", &format!("'{}'", scene.minio.access_key()))
        .replace("getenv('AWS_SECRET_ACCESS_KEY')", &format!("'{}'", scene.minio.secret_key()));
    let mut lake = scene.seen_by_readers();
    let state = lake.state();
    let mut rows = Vec::new();
    for line in lines.lines().filter(|l| l.starts_with("ATTACH") || l.starts_with("SELECT")) {
        rows = lake.query(&state, line.trim_end_matches(';'));
    }
    assert_eq!(rows.len(), 100);
    let attach = lines.lines().filter(|l| l.starts_with("CREATE SECRET")).count();
    assert_eq!(attach, 1, "{lines}");
}
