//! Names that are no file names stay inside the lake's folder (case 176).

use super::{Lake, app, create, files, want};

#[tokio::test]
async fn names_stay_in_their_folder() {
    let lake = Lake::new().await;
    let mut base = None;
    for (lsn, name) in ["../x", "a/b", "sp ace", "ünï.x", "a%2Fb", ".", "q?*[x]"].iter().enumerate()
    {
        let (ident, lsn) = (app(name), lsn as u64 + 1);
        let rows = lake.segment(&ident, &[(1, "x")], &[]).await;
        lake.commit(base, lsn, vec![create(&ident, vec![rows])]).await.unwrap();
        base = Some(lsn);
        let again = lake.another().await.table(&ident).await.unwrap().unwrap();
        assert_eq!(super::rows(&lake.storage, &again).await, want(&[(1, "x")]), "{name}");
    }
    let root = lake.folder.path();
    let names: Vec<_> = std::fs::read_dir(root.join("app")).unwrap().collect();
    assert_eq!(names.len(), 7);
    assert!(files(root).iter().all(|f| f.starts_with(root.to_str().unwrap())));
    assert!(!root.parent().unwrap().join("x").exists());
}
