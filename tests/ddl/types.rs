//! Types that change under the columns made of them.

use super::stage::in_every_way;

const TABLE: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy'); \
     CREATE TYPE pair AS (a int, m mood); CREATE DOMAIN feeling AS mood; \
     CREATE TABLE t(id int PRIMARY KEY, m mood, ms mood[], f feeling); \
     CREATE TABLE c(id int PRIMARY KEY, p pair); \
     INSERT INTO t SELECT g, 'sad', '{sad,ok}', 'ok' FROM generate_series(1, 9) g; \
     INSERT INTO c SELECT g, (g, 'ok')::pair FROM generate_series(1, 9) g;";

// cases: 47 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_label_is_in_old_rows_too() {
    in_every_way(TABLE, async |stage| {
        stage.ddl(&["ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'"]).await;
        stage.settles_equal(&["public.t", "public.c"]).await;
        stage
            .ddl(&[
                "ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'",
                "INSERT INTO t VALUES (20, 'fine', '{blue}', 'fine')",
            ])
            .await;
        stage.settles_equal(&["public.t", "public.c"]).await;
    })
    .await;
}

// cases: 48 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_new_label_copies_nothing() {
    in_every_way(TABLE, async |stage| {
        stage
            .ddl(&[
                "ALTER TYPE mood ADD VALUE 'bored' BEFORE 'ok'",
                "INSERT INTO t VALUES (20, 'bored', '{bored,sad}', 'ok')",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
        assert!(!stage.log().contains("copied afresh"), "{}", stage.log());
    })
    .await;
}

// cases: 50 holds
#[tokio::test(flavor = "multi_thread")]
async fn a_composite_type_with_other_attributes() {
    in_every_way(TABLE, async |stage| {
        stage.ddl(&["ALTER TYPE pair ADD ATTRIBUTE more text"]).await;
        stage.settles_equal(&["public.c"]).await;
        stage
            .ddl(&[
                "INSERT INTO c VALUES (20, (1, 'ok', 'x'))",
                "ALTER TYPE pair RENAME ATTRIBUTE a TO b",
                "ALTER TYPE pair DROP ATTRIBUTE more",
                "INSERT INTO c VALUES (21, (1, 'sad'))",
            ])
            .await;
        stage.settles_equal(&["public.c", "public.t"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_takes_its_columns_along() {
    in_every_way(TABLE, async |stage| {
        stage
            .ddl(&[
                "DROP TYPE mood CASCADE",
                "INSERT INTO t VALUES (20)",
                "DELETE FROM t WHERE id = 1",
            ])
            .await;
        stage.settles_equal(&["public.t"]).await;
    })
    .await;
}
