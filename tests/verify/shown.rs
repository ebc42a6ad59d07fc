//! What a person and a program are shown, and the exit status.

use serde_json::{Value, json};

use super::Scene;

const SQL: &str = "
    CREATE TABLE t(id bigint PRIMARY KEY, v text);
    INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 100) g;
    CREATE TABLE u(a int, b text, PRIMARY KEY (b, a)); INSERT INTO u VALUES (1, 'x')";

#[tokio::test(flavor = "multi_thread")]
async fn json_has_the_documented_fields() {
    let scene = Scene::copied(SQL).await;
    let equal = scene.command().finish().succeeded();
    assert!(equal.stdout.contains(": equal"), "{}", equal.stdout);
    scene.tamper(&[(7, "other")], &[7, 9]).await;
    let ended = scene.command().arg("-ojson").finish().exited(1);
    let mut found: Value = serde_json::from_str(&ended.stdout).unwrap();
    for key in ["position", "snapshot_position"] {
        assert!(found[key].as_str().unwrap().contains('/'), "{found}");
        found[key] = Value::Null;
    }
    let example = |kind: &str, id: &str, columns: &[&str]| {
        let key = json!([["id", id]]);
        json!({"kind": kind, "key": key, "columns": columns})
    };
    let want = json!({
        "equal": false, "position": null, "snapshot_position": null, "sample": null,
        "repaired": null,
        "tables": [
            {"table": "public.t", "equal": false, "source_rows": 100, "lake_rows": 99,
             "missing": 1, "extra": 0, "differing": 1,
             "examples": [example("differing", "7", &["v"]), example("missing", "9", &[])],
             "not_compared": [], "notes": []},
            {"table": "public.u", "equal": true, "source_rows": 1, "lake_rows": 1,
             "missing": 0, "extra": 0, "differing": 0, "examples": [], "not_compared": [],
             "notes": []},
        ],
    });
    assert_eq!(found, want, "{found:#}");
    let text = scene.command().finish().exited(1).stdout;
    for part in ["NOT EQUAL", "public.t: differing id = 7 (in v)", "public.t: missing id = 9"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    scene.command().arg("--tables=public.u").finish().succeeded();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_of_a_sample_find_it_together() {
    let scene = Scene::copied(SQL).await;
    scene.tamper(&[], &[9]).await;
    let (mut rows, mut found) = (0, 0);
    for part in 1..=3 {
        let run = scene.command().arg(&format!("--sample={part}/3")).arg("-ojson").finish();
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(report["sample"], format!("{part}/3"));
        assert_eq!(run.code, Some(i32::from(report["equal"] == false)));
        rows += report["tables"][0]["source_rows"].as_u64().unwrap();
        found += report["tables"][0]["missing"].as_u64().unwrap();
    }
    assert_eq!((rows, found), (100, 1));
    scene.command().arg("--sample=4/3").finish().exited(2);
}
