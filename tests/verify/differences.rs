//! Each way a lake can be wrong has its name, its count and its key.

use frazil::verify::report::Example;

use super::{Scene, assert_equal, counts, of};

const SQL: &str = "
    CREATE TABLE t(id bigint PRIMARY KEY, v text);
    INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 1000) g;
    CREATE TABLE other(id int PRIMARY KEY, v text); INSERT INTO other VALUES (1, 'x')";

fn shown(one: &Example) -> (&str, &str, Vec<&str>) {
    let key = one.key[0].1.as_deref().unwrap();
    (one.kind, key, one.columns.iter().map(String::as_str).collect())
}

// cases: 178 holds
#[tokio::test(flavor = "multi_thread")]
async fn missing_extra_and_differing_rows_are_found() {
    let scene = Scene::copied(SQL).await;
    assert_equal(&scene.verify().await);
    // Gone: 10. Altered: 20. Unknown: 5000. There twice: 30.
    scene.tamper(&[(20, "other"), (5000, "unknown"), (30, "v30")], &[10, 20]).await;
    let report = scene.verify().await;
    assert!(!report.equal);
    let t = of(&report, "public.t");
    assert_eq!((t.source_rows, t.lake_rows, counts(t)), (1000, 1001, (1, 2, 1)));
    let mut examples: Vec<_> = t.examples.iter().map(shown).collect();
    examples.sort_unstable();
    let want = [
        ("differing", "20", vec!["v"]),
        ("extra", "30", vec![]),
        ("extra", "5000", vec![]),
        ("missing", "10", vec![]),
    ];
    assert_eq!(examples, want);
    assert!(of(&report, "public.other").equal);
}

/// Two equal rows are not one.
#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_key_are_counted() {
    let scene = Scene::copied(
        "CREATE TABLE t(id bigint, v text);
         INSERT INTO t SELECT g % 3, 'v' FROM generate_series(1, 90) g; INSERT INTO t VALUES (NULL, NULL)",
    )
    .await;
    assert_equal(&scene.verify().await);
    scene.sql("INSERT INTO t VALUES (1, 'v')").await;
    scene.catch_up();
    assert_equal(&scene.verify().await);
    scene.tamper(&[(1, "v")], &[]).await;
    let report = scene.verify().await;
    let t = of(&report, "public.t");
    assert_eq!((t.source_rows, t.lake_rows, counts(t)), (92, 93, (0, 1, 0)));
    assert_eq!(
        t.examples[0].key,
        [("id".into(), Some("1".into())), ("v".into(), Some("v".into()))]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_can_be_shown_is_counted() {
    let scene = Scene::copied(SQL).await;
    let keys: Vec<i64> = (1..=700).collect();
    scene.tamper(&[], &keys).await;
    let report = scene.verify().await;
    let t = of(&report, "public.t");
    assert_eq!((counts(t), t.examples.len()), ((700, 0, 0), 20));
    scene.refill("t", Vec::new()).await;
    assert_eq!(counts(of(&scene.verify().await, "public.t")), (1000, 0, 0));
}
