//! Tables that enter and leave the publication.

use super::stage::in_every_way;

const TABLE: &str = "CREATE TABLE t(id int PRIMARY KEY, a text); \
     INSERT INTO t SELECT g, 'old' FROM generate_series(1, 5) g; \
     CREATE TABLE late(id int PRIMARY KEY, v text); INSERT INTO late VALUES (1, 'early');";

const LISTED: &str = "CREATE PUBLICATION frazil FOR TABLE t, beside;";

// cases: 107 holds
#[tokio::test(flavor = "multi_thread")]
async fn an_added_table_comes_with_its_older_rows() {
    in_every_way(&format!("{TABLE}{LISTED}"), async |stage| {
        stage.ddl(&["ALTER PUBLICATION frazil ADD TABLE late"]).await;
        stage.settles_equal(&["public.t", "public.late"]).await;
        stage
            .ddl(&[
                "CREATE TABLE later(id int PRIMARY KEY)",
                "INSERT INTO later VALUES (1)",
                "ALTER PUBLICATION frazil ADD TABLE later",
                "INSERT INTO later VALUES (2)",
                "INSERT INTO t VALUES (6, 'x')",
                "UPDATE late SET v = 'late'",
            ])
            .await;
        stage.settles_equal(&["public.t", "public.late", "public.later"]).await;
    })
    .await;
}

// cases: 108 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_table_stays_as_it_was() {
    let listed = "CREATE PUBLICATION frazil FOR TABLE t, beside, late;";
    in_every_way(&format!("{TABLE}{listed}"), async |stage| {
        stage.ddl(&["ALTER PUBLICATION frazil DROP TABLE late"]).await;
        stage.settle().await;
        stage.sql("INSERT INTO late VALUES (2, 'unseen')").await;
        stage.settles_equal(&["public.t"]).await;
        let rows = stage.scene.lake.query_now("SELECT count(*) FROM {public.late}");
        assert_eq!(rows[0][0].as_deref(), Some("1"));
        if stage.position == super::stage::Position::Live {
            assert!(stage.log().contains("no longer published"), "{}", stage.log());
        }
        stage.ddl(&["ALTER PUBLICATION frazil ADD TABLE late"]).await;
        stage.settles_equal(&["public.t", "public.late"]).await;
    })
    .await;
}

/// Between two looks at it nothing seems to have happened.
// cases: 108 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_table_removed_and_added_again_is_copied_afresh() {
    let listed = "CREATE PUBLICATION frazil FOR TABLE t, beside, late;";
    in_every_way(&format!("{TABLE}{listed}"), async |stage| {
        stage
            .ddl(&[
                "ALTER PUBLICATION frazil DROP TABLE late",
                "INSERT INTO late VALUES (2, 'unseen')",
                "UPDATE late SET v = 'unseen' WHERE id = 1",
                "ALTER PUBLICATION frazil ADD TABLE late",
            ])
            .await;
        stage.settles_equal(&["public.t", "public.late"]).await;
    })
    .await;
}

// cases: 109 holds
#[tokio::test(flavor = "multi_thread")]
async fn new_tables_of_a_publication_of_all() {
    for all in ["FOR ALL TABLES", "FOR TABLES IN SCHEMA public"] {
        let publication = format!("{TABLE}CREATE PUBLICATION frazil {all};");
        in_every_way(&publication, async |stage| {
            stage
                .ddl(&[
                    "CREATE TABLE made(id int PRIMARY KEY, v text)",
                    "INSERT INTO made VALUES (1, 'x')",
                    "CREATE TABLE selected AS SELECT id, a FROM t",
                    "BEGIN; CREATE TABLE at_once(id int PRIMARY KEY); \
                     INSERT INTO at_once VALUES (1); COMMIT",
                    "CREATE TABLE empty(id int PRIMARY KEY)",
                ])
                .await;
            let tables =
                ["public.t", "public.made", "public.selected", "public.at_once", "public.empty"];
            stage.settles_equal(&tables).await;
        })
        .await;
    }
}
