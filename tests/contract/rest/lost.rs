//! Nobody knows whether the lake commit was made: the ledger is asked, nothing is deleted, and it
//! is made exactly once.

use std::time::Duration;

use frazil::iceberg::row_delta::RowDelta;

use super::{COMMIT, Proxied, assert_made_once};
use crate::contract::{app, segment};
use crate::support::fault_proxy::{Action, Rule};

// cases: 146 holds
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_after_success_is_a_success() {
    let place = Proxied::new().await;
    let (lake, commit) = place.two_tables().await;
    let before = place.branch.log().await.len();
    place.proxy.set_rules([Rule::on("POST", COMMIT).next(1).drop_answer()]);

    assert_eq!(lake.committer.commit(&commit).await.unwrap().0, 20);

    let seen = place.proxy.requests("POST", COMMIT);
    assert_eq!(seen[0].status, Some(204), "Nessie made it");
    assert_eq!(seen[0].fault, Some(Action::DropAnswer));
    assert_eq!(seen.len(), 1, "it was sent again without asking");
    assert_eq!(place.branch.log().await.len(), before + 1, "one lake commit is one of Nessie's");
    assert_made_once(&lake).await;
}

// cases: 146 holds
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_done_is_done_at_the_next_try() {
    for fault in [
        Rule::on("POST", COMMIT).answer(500),
        Rule::on("POST", COMMIT).answer(503).body("<html>busy</html>"),
        Rule::on("POST", COMMIT).reset(),
    ] {
        let place = Proxied::new().await;
        let (lake, commit) = place.two_tables().await;
        place.proxy.set_rules([fault.next(2)]);
        assert_eq!(lake.committer.commit(&commit).await.unwrap().0, 20);
        assert_eq!((place.sent(), place.lake_commits().await.len()), (3, 2));
        assert_made_once(&lake).await;
    }
}

/// The lake commit lands, its answer is lost, and Nessie is away for a moment when it is asked.
// cases: 146 holds
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_landed_and_the_catalog_was_away_meanwhile() {
    let place = Proxied::new().await;
    let (lake, commit) = place.two_tables().await;
    let files = lake.files(&[&app("a"), &app("b")]).await;
    place.proxy.set_rules([
        Rule::on("POST", COMMIT).next(1).drop_answer(),
        // More than the retries of one read.
        Rule::on("GET", "/tables/ledger_p").skip(1).next(6).reset(),
    ]);
    assert_eq!(lake.committer.commit(&commit).await.unwrap().0, 20);
    assert!(place.proxy.requests("GET", "/tables/ledger_p").len() > 7, "it was never away");
    assert_eq!((place.sent(), place.lake_commits().await.len()), (1, 2));
    place.proxy.clear();
    let now = lake.files(&[&app("a"), &app("b")]).await;
    let gone: Vec<_> = files.iter().filter(|file| !now.contains(file)).collect();
    assert!(gone.is_empty(), "deleted: {gone:?}");
    assert_made_once(&lake).await;
}

/// Given up while nobody knew: the next start finds it, or makes it, and never both.
// cases: 146 holds
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_after_a_lost_answer_finds_what_stands() {
    for is_made in [true, false] {
        let place = Proxied::new().await;
        let (lake, commit) = place.two_tables().await;
        let fault = Rule::on("POST", COMMIT);
        let fault = if is_made { fault.drop_answer() } else { fault.reset() };
        place.proxy.set_rules([fault, Rule::on("GET", "/tables/ledger_p").skip(1).reset()]);
        let tried = tokio::time::timeout(Duration::from_secs(1), lake.committer.commit(&commit));
        assert!(tried.await.is_err(), "it should not know");
        assert_eq!(place.sent(), 1);
        place.proxy.clear();

        let next = lake.another().await;
        let stands = next.position().await.unwrap().unwrap();
        assert_eq!(stands.committed_lsn.0, if is_made { 20 } else { 10 });
        assert_eq!(stands.lake_commit == commit.ledger.lake_commit, is_made);
        assert_eq!(next.commit(&commit).await.unwrap().0, 20);
        assert_eq!(place.lake_commits().await.len(), 2);
        assert_made_once(&lake).await;
    }
}

/// Someone else's commit to one of two tables arrives just before ours: both are staged again.
// cases: 148 holds
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_on_one_table_makes_all_be_staged_again() {
    let place = Proxied::new().await;
    let (lake, commit) = place.two_tables().await;
    place.proxy.set_rules([Rule::on("POST", COMMIT).next(1).delay(Duration::from_secs(2))]);
    let (b, storage) = (lake.table(&app("b")).await, lake.storage.clone());
    let (schema, location) = (b.metadata().current_schema(), b.metadata().location());
    let files = segment(&storage, location, schema, &[(7, "theirs")], &[]).await;
    let theirs = RowDelta { segments: vec![files], ..RowDelta::default() };

    let stranger = async {
        while place.sent() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(lake.stranger().commit(&b, &theirs).await, "it came too late");
    };
    let (made, ()) = tokio::join!(lake.committer.commit(&commit), stranger);

    assert_eq!(made.unwrap().0, 20);
    let seen: Vec<_> = place.proxy.requests("POST", COMMIT).iter().map(|e| e.status).collect();
    assert_eq!(seen, [Some(409), Some(204)]);
    assert_eq!(lake.rows(&app("a")).await, super::super::want(&[(1, "x")]));
    assert_eq!(lake.rows(&app("b")).await, super::super::want(&[(1, "x"), (7, "theirs")]));
    assert_eq!(place.lake_commits().await.len(), 2);
}

/// Both have staged on the same base before either is sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_on_the_same_base_one_wins() {
    let place = Proxied::new().await;
    let (lake, one) = place.two_tables().await;
    let other = lake.another().await;
    assert_eq!(other.position().await.unwrap().unwrap().committed_lsn.0, 10);
    let two = lake.insert((10, 20), &[&app("a"), &app("b")], 2).await;
    place.proxy.set_rules([Rule::on("POST", COMMIT).next(2).delay(Duration::from_secs(1))]);

    let (first, second) = tokio::join!(lake.committer.commit(&one), other.commit(&two));
    assert_ne!(first.is_ok(), second.is_ok(), "{first:?} {second:?}");
    let error = first.err().or(second.err()).unwrap();
    assert_eq!(error.code(), "ANOTHER_WRITER", "{error}");
    let statuses: Vec<_> = place.proxy.requests("POST", COMMIT).iter().map(|e| e.status).collect();
    assert!(statuses.contains(&Some(204)) && statuses.contains(&Some(409)), "{statuses:?}");
    assert_eq!(place.lake_commits().await.len(), 2);
    for ident in [app("a"), app("b")] {
        assert_eq!(lake.rows(&ident).await.len(), 1, "{ident}");
    }
}
