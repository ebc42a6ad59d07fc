//! A start that ends between the two publications (tables with and without a key) leaves none
//! behind, or the next start would follow only half of the tables.

use super::{SCHEMA, TABLES, run};
use crate::support::lake::Lake;
use crate::support::postgres::{Postgres, PostgresOptions};

const REFUSE: &str = "
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_publication WHERE pubname = 'frazil_append') THEN
    RAISE EXCEPTION 'not this one';
  END IF;
END $$;
CREATE EVENT TRIGGER refuse ON ddl_command_end WHEN TAG IN ('CREATE PUBLICATION')
  EXECUTE FUNCTION refuse();";

#[tokio::test(flavor = "multi_thread")]
async fn both_publications_are_made_or_none() {
    let postgres = Postgres::start(PostgresOptions::default()).await;
    postgres.sql(SCHEMA).await;
    postgres.sql(REFUSE).await;
    let folder = tempfile::tempdir().unwrap();
    let refused = run(&postgres, folder.path(), "frazil").arg("--until-caught-up").spawn();
    let refused = refused.wait(std::time::Duration::from_secs(120));
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("not this one"), "{}", refused.stderr);
    postgres.sql("DROP EVENT TRIGGER refuse").await;
    super::catch_up(&postgres, folder.path(), "frazil");
    Lake::open(folder.path()).assert_equal(&postgres, &TABLES).await;
}
