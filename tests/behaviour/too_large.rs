//! A value over `memory.max_value_bytes` stops the stream before it is held in memory, with its
//! table, column and position; once the limit is raised, it comes (case 44).

use super::scene::{Scene, following};
use crate::support::frazil::DEADLINE;

const TABLE: &str = "CREATE TABLE docs(id int PRIMARY KEY, title text, body text); \
     ALTER TABLE docs ALTER body SET STORAGE EXTERNAL; INSERT INTO docs VALUES (1, 'a', 'b')";

// cases: 44 stops VALUE_TOO_LARGE
#[tokio::test(flavor = "multi_thread")]
async fn a_value_over_the_limit_stops_and_is_named() {
    let mut scene = Scene::new(TABLE).await;
    let limited = || scene.run().env("FRAZIL_MEMORY__MAX_VALUE_BYTES", "1MiB");
    let running = following(limited().spawn());
    scene.sql("INSERT INTO docs VALUES (2, 'small', repeat('x', 900000))").await;
    scene.sql("INSERT INTO docs VALUES (3, 'large', repeat('x', 30000000))").await;
    let ended = running.wait(DEADLINE).exited(1).said("VALUE_TOO_LARGE").said("cure: ");
    let ended = ended.said("[table public.docs]").said("[column body]").said("LSN");
    assert!(ended.peak_rss_bytes < 200 << 20, "{} bytes", ended.peak_rss_bytes);
    limited().arg("--until-caught-up").finish().exited(1).said("VALUE_TOO_LARGE");
    scene.assert_catches_up(&["public.docs"]).await;
}
