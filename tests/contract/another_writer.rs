//! Two frazils on one ledger: the second to commit on a base stops.

use super::{Lake, app, change, create, lake_commit, on_every_catalog};

on_every_catalog! {
    the_second_writer_on_a_base_stops,
    the_second_writer_stops_where_the_position_did_not_move,
    two_first_commits_do_not_both_pass,
    a_lake_commit_that_was_made_is_not_made_again,
}

// cases: 148 stops ANOTHER_WRITER
async fn the_second_writer_on_a_base_stops(lake: Lake) {
    let t = app("t");
    lake.commit(None, 10, vec![create(&t, vec![])]).await.unwrap();
    let other = lake.another().await;
    assert_eq!(other.position().await.unwrap().unwrap().committed_lsn.0, 10);

    other.commit(&lake_commit(Some(10), 20, vec![])).await.unwrap();
    let one = lake.segment(&t, &[(1, "x")], &[]).await;
    let error = lake.commit(Some(10), 30, vec![change(&t, vec![one])]).await.unwrap_err();

    assert_eq!(error.code(), "ANOTHER_WRITER");
    assert_eq!(other.position().await.unwrap().unwrap().committed_lsn.0, 20);
}

/// P alone does not tell writers apart while it stands still.
async fn the_second_writer_stops_where_the_position_did_not_move(lake: Lake) {
    lake.commit(None, 10, vec![]).await.unwrap();
    let other = lake.another().await;
    other.commit(&lake_commit(Some(10), 10, vec![])).await.unwrap();
    assert_eq!(lake.commit(Some(10), 30, vec![]).await.unwrap_err().code(), "ANOTHER_WRITER");
}

async fn two_first_commits_do_not_both_pass(lake: Lake) {
    let other = lake.another().await;
    let (one, two) = (lake_commit(None, 10, vec![]), lake_commit(None, 11, vec![]));
    let (one, two) = tokio::join!(lake.committer.commit(&one), other.commit(&two));
    assert_ne!(one.is_ok(), two.is_ok());
    assert_eq!(one.err().or(two.err()).unwrap().code(), "ANOTHER_WRITER");
}

/// The answer was lost and the same lake commit comes again: it is not made twice.
// cases: 146 holds
async fn a_lake_commit_that_was_made_is_not_made_again(lake: Lake) {
    let t = app("t");
    lake.commit(None, 10, vec![create(&t, vec![])]).await.unwrap();
    let files = lake.segment(&t, &[(1, "x")], &[]).await;
    let commit = lake_commit(Some(10), 20, vec![change(&t, vec![files])]);
    lake.committer.commit(&commit).await.unwrap();
    let again = lake.another().await;
    assert_eq!(again.commit(&commit).await.unwrap().0, 20);
    assert_eq!(lake.rows(&t).await.len(), 1);
    assert_eq!(super::summary(&lake.table(&t).await, "total-records"), 1);
}
