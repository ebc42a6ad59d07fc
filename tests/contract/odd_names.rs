//! Names that are no file names stay inside the lake's folder (case 176).

use frazil::error::Kind;

use super::{Lake, app, create, files, on_every_catalog, want};

on_every_catalog! { odd_names_are_kept }

const NAMES: [&str; 9] =
    ["../x", "a/b", "sp ace", "ünï.x", "a%2Fb", ".", "q?*[x]", "t@main", "'t'"];

// cases: 175 holds
async fn odd_names_are_kept(lake: Lake) {
    let mut base = None;
    let (takes, refuses): (Vec<&str>, _) = NAMES.iter().partition(|name| lake.takes(name));
    for name in refuses {
        let error = lake.commit(None, 1, vec![create(&app(name), vec![])]).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), ("TABLE_NAME", Kind::Table), "{name}: {error}");
        assert!(error.cure().is_some());
    }
    for (lsn, name) in (1..).zip(takes.iter().copied()) {
        let ident = app(name);
        let rows = lake.segment(&ident, &[(1, "x")], &[]).await;
        lake.commit(base, lsn, vec![create(&ident, vec![rows])]).await.unwrap();
        base = Some(lsn);
        let again = lake.another().await.table(&ident).await.unwrap().unwrap();
        assert_eq!(super::rows(&lake.storage, &again).await, want(&[(1, "x")]), "{name}");
    }
    let known = lake.committer.tables().await.unwrap();
    for name in takes {
        assert!(known.contains(&app(name)), "{name} is not listed: {known:?}");
    }
}

// cases: 176 holds
#[tokio::test]
async fn names_stay_in_their_folder() {
    let lake = Lake::on_sqlite().await;
    for (lsn, name) in (1..).zip(NAMES) {
        let base = (lsn > 1).then_some(lsn - 1);
        lake.commit(base, lsn, vec![create(&app(name), vec![])]).await.unwrap();
    }
    let root = lake.folder();
    let names: Vec<_> = std::fs::read_dir(root.join("app")).unwrap().collect();
    assert_eq!(names.len(), NAMES.len());
    assert!(files(root).iter().all(|f| f.starts_with(root.to_str().unwrap())));
    assert!(!root.parent().unwrap().join("x").exists());
}
