//! `scripts/cases`: what it makes of a list, of tests and of their outcomes.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cases");
const LIST: &str = "# a comment\nA\t\tFirst\n1\tA\tone\n2\tA\ttwo\n3\tA\tthree\n4\tA\tfour\n";
const TESTS: &str = concat!(
    "// cases: 1 2 holds\n#[test]\nfn both() {}\n\n",
    "// cases: 2 stops SOME_CODE\n// cases: 3 not applicable: no such thing\n",
    "#[tokio::test(flavor = \"multi_thread\")]\nasync fn stops() {}\n",
);
const PASSED: &str = "test area::one::both ... ok\ntest area::one::stops ... ok\n";

/// A project with a list, one file of tests and the log of their run.
struct Project(TempDir);

impl Project {
    fn new(tests: &str, log: &str) -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        project.write("scripts/cases", &fs::read_to_string(SCRIPT).unwrap());
        project.write("docs/reference/cases.tsv", LIST);
        project.write("docs/reference/open.tsv", "4\tnot tried\n");
        project.write("tests/area/one.rs", tests);
        project.write("log", log);
        project
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn page(&self) -> String {
        fs::read_to_string(self.path("docs/reference/cases.md")).unwrap()
    }

    /// Whether it succeeds, and what it says.
    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new("python3");
        command.arg(self.path("scripts/cases")).arg("--log").arg(self.path("log"));
        let output = command.args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }
}

#[track_caller]
fn refused(project: &Project, word: &str) {
    let (ok, said) = project.run(&["--check"]);
    assert!(!ok && said.contains(word), "{said}");
}

#[test]
fn a_page_says_what_the_tests_showed() {
    let project = Project::new(TESTS, PASSED);
    let (ok, said) = project.run(&[]);
    assert!(
        ok && said.contains("4 cases: 2 hold, 0 stop loudly, 1 not applicable, 1 open"),
        "{said}"
    );
    let page = project.page();
    let one = "[area/one](../../tests/area/one.rs)";
    assert!(page.contains(&format!("| 1 | one | holds | {one} |")), "{page}");
    let two = format!("| 2 | two | holds; stops loudly with `SOME_CODE` | {one} |");
    assert!(page.contains(&two), "{page}");
    assert!(page.contains("| 3 | three | not applicable: no such thing |"), "{page}");
    assert!(page.contains("| 4 | four | open: not tried |"), "{page}");
    assert!(project.run(&["--check"]).0);
}

#[test]
fn a_test_that_failed_or_did_not_run_shows_nothing() {
    let project = Project::new(TESTS, PASSED);
    project.run(&[]);
    project.write("log", &PASSED.replace("both ... ok", "both ... FAILED"));
    refused(&project, "case 1 got worse: holds, now open: its test `area::one::both`: FAILED");
    project.write("log", "test area::one::stops ... ok\n");
    refused(&project, "its test `area::one::both` did not run");
    project.write("log", &PASSED.replace("one::both", "one::both::on_sqlite"));
    assert!(project.run(&["--check"]).0, "a test that a macro made");
}

#[test]
fn a_stale_page_and_an_open_case_without_a_reason_are_refused() {
    let project = Project::new(TESTS, PASSED);
    project.run(&[]);
    project.write("tests/area/two.rs", "// cases: 1 holds\n#[test]\nfn more() {}\n");
    project.write("log", &format!("{PASSED}test area::two::more ... ok\n"));
    refused(&project, "stale");
    project.write("docs/reference/open.tsv", "");
    refused(&project, "case 4 is open and docs/reference/open.tsv does not say why");
}

#[test]
fn a_reason_goes_when_a_test_comes() {
    let project = Project::new(&format!("{TESTS}// cases: 4 holds\nfn four() {{}}\n"), PASSED);
    project.write("log", &format!("{PASSED}test area::one::four ... ok\n"));
    refused(&project, "case 4 has a test");
    project.run(&[]);
    assert_eq!(fs::read_to_string(project.path("docs/reference/open.tsv")).unwrap().trim(), "");
}

#[test]
fn other_lines_are_refused() {
    for line in
        ["// cases: 1 hold", "// cases: 1, 2 holds", "// cases: 1 stops", "// cases: 9 holds"]
    {
        let project = Project::new(&format!("{line}\n#[test]\nfn one() {{}}\n"), PASSED);
        assert!(!project.run(&[]).0, "{line}");
    }
    let stray = Project::new("// cases: 1 holds\nconst X: u8 = 1;\n", PASSED);
    assert!(stray.run(&[]).1.contains("no test"));
}

/// Of this repository: every line is one that the script knows.
#[test]
fn the_lines_of_this_repository_are_known() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("python3").arg(root.join("scripts/cases")).arg("--lint").output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
