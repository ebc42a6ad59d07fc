//! Many tables, and one source transaction that changes half of them.

use super::stage::in_both_modes;

/// `FRAZIL_MANY_TABLES=10000` for the full size.
const TABLES: usize = 200;

// cases: 120 holds
#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_over_half_of_the_tables() {
    let tables = std::env::var("FRAZIL_MANY_TABLES").map_or(TABLES, |n| n.parse().unwrap());
    let create = format!(
        "DO $$BEGIN FOR n IN 1..{tables} LOOP \
         EXECUTE format('CREATE TABLE m%s(id int PRIMARY KEY, v text)', n); \
         EXECUTE format('INSERT INTO m%s VALUES (1, %L)', n, n); \
         IF n % 500 = 0 THEN NULL; END IF; END LOOP; END$$;"
    );
    in_both_modes(&create, async |stage| {
        let touch = format!(
            "DO $$BEGIN FOR n IN 1..{} LOOP \
             EXECUTE format('INSERT INTO m%s VALUES (2, %L)', n * 2, n); \
             IF n % 10 = 0 THEN EXECUTE format('ALTER TABLE m%s ADD COLUMN c int DEFAULT 5', n * 2); \
             EXECUTE format('UPDATE m%s SET c = 6 WHERE id = 2', n * 2); END IF; END LOOP; END$$",
            tables / 2
        );
        stage.sql(&touch).await;
        let names: Vec<String> = (1..=tables).map(|n| format!("public.m{n}")).collect();
        let sampled: Vec<&str> = names.iter().step_by(tables / 40).map(String::as_str).collect();
        stage.settles_equal(&sampled).await;
        let some = ["public.m2", "public.m20", "public.m40", "public.m3"];
        stage.settles_equal(&some).await;
    })
    .await;
}
