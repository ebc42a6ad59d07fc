//! A test over the repository's own text: sizes, forbidden imports, words, dead files.
//!
//! Compiled as a module of `tests/main.rs`. Each rule is a pure function from a file's text to its
//! complaints, and each has a test that sees it fail.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;
const LINE_COLUMNS_MAX: usize = 100;

/// Folders (or files) of src that lead; nobody below may know them.
const CONDUCTORS: &[&str] =
    &["pipeline", "initial_snapshot", "maintenance", "publish", "verify", "cli"];
/// Folders that know none of each other, but for the types of `window`.
const WORKERS: &[&str] = &["postgres", "window", "iceberg", "kafka", "shape"];
/// What a folder without I/O may not name.
const IO_PATHS: &[&str] =
    &["tokio::", "std::fs", "std::net", "std::io::", "object_store", "rusqlite", "tokio_postgres"];

/// Whole identifiers that the glossary replaces (ARCHITECTURE.md, "Words"), and by what.
const BANNED_WORDS: &[(&str, &str)] = &[
    ("tx", "source_transaction"),
    ("txn", "source_transaction"),
    ("xact", "source_transaction"),
    ("lsn_offset", "an _lsn"),
    ("wal_pos", "an _lsn"),
    ("flush_lsn", "acknowledged_lsn"),
    ("flushed_lsn", "acknowledged_lsn"),
    ("toast_unchanged", "unchanged_toast"),
    ("eq_delete", "equality_delete"),
    ("pos_delete", "position_delete"),
    ("dv", "deletion_vector"),
    ("rel", "relation"),
];
/// Functions of ours may not be called so: `write`, `commit` and `acknowledge` are the words.
const BANNED_FUNCTIONS: &[&str] = &["flush", "flush_window", "checkpoint", "ack"];

type Rule = fn(&str, &str) -> Vec<String>;

/// Rules for product code; a rule gets the path below src and the text.
const SRC_RULES: &[Rule] =
    &[file_size, line_width, function_size, leftovers, sleeps, imports, pure_folders, words];
const TEST_RULES: &[Rule] = &[file_size, test_line_width, function_size];

#[test]
fn the_repository_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut complaints = Vec::new();
    for (folder, rules) in [("src", SRC_RULES), ("tests", TEST_RULES), ("bench/src", TEST_RULES)] {
        let files = rust_files(&root.join(folder));
        assert!(!files.is_empty(), "no Rust files in {folder}");
        for file in &files {
            let text = fs::read_to_string(file).unwrap();
            let path = file.strip_prefix(root.join(folder)).unwrap().to_str().unwrap();
            let found = rules.iter().flat_map(|rule| rule(path, &text));
            complaints.extend(found.map(|complaint| format!("{folder}/{path}{complaint}")));
        }
        let reached = reachable(&root.join(folder));
        let dead = files.iter().filter(|file| !reached.contains(*file));
        complaints.extend(dead.map(|file| format!("{}: no `mod` reaches it", file.display())));
    }
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// A code that a person may meet stands in docs/errors.md.
#[test]
fn every_error_code_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documented = fs::read_to_string(root.join("docs/errors.md")).unwrap();
    let mut missing = BTreeSet::new();
    for file in rust_files(&root.join("src")) {
        let text = without_tests(&fs::read_to_string(file).unwrap());
        let codes = error_codes(&text).into_iter().map(str::to_string);
        missing.extend(codes.filter(|code| !documented.contains(&format!("`{code}`"))));
    }
    assert!(missing.is_empty(), "not in docs/errors.md: {missing:?}");
}

/// The codes given to the constructors of `Error`: the first string after each.
fn error_codes(text: &str) -> Vec<&str> {
    let makers = ["new", "transient", "conflict", "table", "config", "fatal"];
    let mut found = Vec::new();
    for (at, _) in text.match_indices("Error::") {
        let Some((maker, arguments)) = text[at + "Error::".len()..].split_once('(') else {
            continue;
        };
        let first = arguments.trim_start();
        let first =
            if maker == "new" { first.split_once(',').map_or("", |(_, r)| r) } else { first };
        let literal = first.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
        let is_code = |text: &&str| text.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        found.extend(literal.filter(|_| makers.contains(&maker)).filter(is_code));
    }
    found
}

fn rust_files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => files.extend(rust_files(&path)),
            false if path.extension().is_some_and(|e| e == "rs") => _ = files.insert(path),
            false => {}
        }
    }
    files
}

fn file_size(_: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    let complaint = format!(": {lines} lines, more than {FILE_LINES_MAX}");
    if lines > FILE_LINES_MAX { vec![complaint] } else { vec![] }
}

/// What shows that a long line in a test is SQL.
const SQL_WORDS: [&str; 8] =
    ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "CREATE ", "ALTER ", "TRUNCATE ", "LOCK "];

/// A line may be longer only for a URL, a picture, or a string literal of its own.
fn line_width(_: &str, text: &str) -> Vec<String> {
    wide_lines(text, |_| false)
}

/// In tests also for a SQL statement, which is read best in one piece.
fn test_line_width(_: &str, text: &str) -> Vec<String> {
    wide_lines(text, |line| SQL_WORDS.iter().any(|word| line.contains(word)))
}

fn wide_lines(text: &str, is_excused: impl Fn(&str) -> bool) -> Vec<String> {
    let too_long = |line: &str| {
        let code = line.trim_start();
        let picture = code.starts_with("//") && code.contains(['►', '│', '└', '─']);
        let literal =
            code.starts_with(['"', 'r']) || (!code.starts_with("//") && code.ends_with('\\'));
        let excused = line.contains("://") || picture || literal || is_excused(line);
        line.chars().count() > LINE_COLUMNS_MAX && !excused
    };
    let wide = text.lines().enumerate().filter(|(_, line)| too_long(line));
    wide.map(|(i, _)| format!(":{}: wider than {LINE_COLUMNS_MAX} columns", i + 1)).collect()
}

/// Relies on rustfmt: a function ends at the first line that is its indentation and `}`.
fn function_size(_: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut complaints = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let end = format!("{indent}}}");
        let body = lines[start..].iter().position(|l| **l == end || *l == format!("{end})"));
        let declared = lines[start..].iter().position(|l| l.ends_with(';') || l.ends_with('{'));
        if declared.is_some_and(|i| lines[start + i].ends_with(';')) {
            continue;
        }
        let length = body.map_or(0, |i| i + 1);
        if length > FUNCTION_LINES_MAX {
            complaints.push(format!(":{}: fn {name} has {length} lines", start + 1));
        }
    }
    complaints
}

fn function_name(line: &str) -> Option<&str> {
    let code = line.trim_start();
    if code.starts_with("//") {
        return None;
    }
    let (before, after) = code.split_once("fn ")?;
    let modifiers = ["pub", "pub(crate)", "pub(super)", "async", "const", "unsafe", "extern"];
    let plain = before.split_whitespace().all(|word| modifiers.contains(&word));
    let name = after.split(['(', '<']).next()?;
    (plain && !name.is_empty()).then_some(name)
}

fn leftovers(_: &str, text: &str) -> Vec<String> {
    let marks = ["todo!", "unimplemented!", "FIXME", "XXX", "TODO", "#[ignore", "HACK"];
    lines_with(text, |line| marks.iter().find(|mark| line.contains(**mark)).map(|m| m.to_string()))
}

fn sleeps(_: &str, text: &str) -> Vec<String> {
    let code = without_tests(text);
    lines_with(&code, |line| {
        let blocking = line.contains("thread::sleep");
        blocking.then(|| "thread::sleep blocks; use tokio::time::sleep".into())
    })
}

/// Workers know no conductor, and no other worker but `window`.
fn imports(path: &str, text: &str) -> Vec<String> {
    let area = area_of(path);
    if !WORKERS.contains(&area) {
        return vec![];
    }
    lines_with(&without_tests(text), |line| {
        let named = crate_paths(line);
        let forbidden = named.into_iter().find(|other| {
            let worker = WORKERS.contains(other) && *other != "window" && *other != area;
            CONDUCTORS.contains(other) || worker
        });
        forbidden.map(|other| format!("{area} may not know {other}"))
    })
}

/// All `x` of `crate::x` and `crate::{x, y::z}` in a line.
fn crate_paths(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = &line[at + "crate::".len()..];
        let items =
            rest.strip_prefix('{').map_or(rest, |list| list.split('}').next().unwrap_or(""));
        let several = rest.starts_with('{');
        for item in items.split(',').take(if several { usize::MAX } else { 1 }) {
            let end = item.trim().find(|c: char| !c.is_alphanumeric() && c != '_');
            found.push(&item.trim()[..end.unwrap_or(item.trim().len())]);
        }
    }
    found
}

fn pure_folders(path: &str, text: &str) -> Vec<String> {
    if !["window", "shape"].contains(&area_of(path)) {
        return vec![];
    }
    lines_with(&without_tests(text), |line| {
        let code = line.split("//").next().unwrap_or("");
        let named = IO_PATHS.iter().find(|io| code.contains(**io));
        named.map(|io| format!("{} does no I/O, but names {io}", area_of(path)))
    })
}

fn words(_: &str, text: &str) -> Vec<String> {
    lines_with(&without_tests(text), |line| {
        let code = line.split("//").next().unwrap_or("");
        let not_in_strings: String = code.split('"').step_by(2).collect::<Vec<_>>().join(" ");
        let mut names = not_in_strings.split(|c: char| !c.is_alphanumeric() && c != '_');
        let word = names.find_map(|n| BANNED_WORDS.iter().find(|(banned, _)| *banned == n));
        let function = function_name(line).filter(|name| BANNED_FUNCTIONS.contains(name));
        word.map(|(banned, say)| format!("say {say}, not `{banned}`"))
            .or_else(|| function.map(|name| format!("fn {name}: say write, commit or acknowledge")))
    })
}

fn area_of(path: &str) -> &str {
    path.split('/').next().unwrap_or("").trim_end_matches(".rs")
}

fn lines_with(text: &str, complaint: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let found = text.lines().enumerate().filter_map(|(i, line)| complaint(line).map(|c| (i, c)));
    found.map(|(i, complaint)| format!(":{}: {complaint}", i + 1)).collect()
}

/// The text with its `#[cfg(test)] mod` (the last thing in a file) left out.
fn without_tests(text: &str) -> String {
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines.collect::<Vec<_>>().join("\n")
}

/// All files that a `mod x;` or `#[path]` reaches from main.rs and lib.rs.
fn reachable(folder: &Path) -> BTreeSet<PathBuf> {
    let roots = ["main.rs", "lib.rs"].map(|name| folder.join(name));
    let mut reached = BTreeSet::new();
    let mut ahead: Vec<_> = roots.into_iter().filter(|root| root.exists()).collect();
    while let Some(file) = ahead.pop() {
        let text = fs::read_to_string(&file).unwrap();
        ahead.extend(modules(&file, &text).into_iter().filter(|module| module.exists()));
        reached.insert(file);
    }
    reached
}

/// Where the modules that `text` declares may stand.
fn modules(file: &Path, text: &str) -> Vec<PathBuf> {
    let folder = file.parent().unwrap();
    let stem = file.file_stem().unwrap().to_str().unwrap();
    let below = match stem {
        "main" | "lib" | "mod" => folder.to_path_buf(),
        _ => folder.join(stem),
    };
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(path) = line.strip_prefix("#[path = \"").and_then(|l| l.strip_suffix("\"]")) {
            found.push(folder.join(path));
        }
        let code = line.strip_prefix("pub ").or(line.strip_prefix("pub(crate) ")).unwrap_or(line);
        if let Some(name) = code.strip_prefix("mod ").and_then(|l| l.strip_suffix(';')) {
            found.push(below.join(format!("{name}.rs")));
            found.push(below.join(name).join("mod.rs"));
        }
    }
    found
}

mod tests {
    use super::*;

    #[test]
    fn sizes_are_noticed() {
        let long_file = "x\n".repeat(FILE_LINES_MAX + 1);
        assert_eq!(file_size("a.rs", &long_file).len(), 1);
        assert!(file_size("a.rs", "x\n").is_empty());
        assert_eq!(
            line_width("a.rs", &format!("let a = {};", "1".repeat(100))),
            [":1: wider than 100 columns"]
        );
        assert!(line_width("a.rs", &format!("// https://x/{}", "1".repeat(100))).is_empty());
        assert!(line_width("a.rs", &format!("//! slot ──► {}", "─".repeat(99))).is_empty());
        let body = "        x();\n".repeat(FUNCTION_LINES_MAX);
        let function = format!("    pub async fn long<T>(\n    ) {{\n{body}    }}\n");
        assert_eq!(function_size("a.rs", &function), [":1: fn long has 73 lines"]);
        let declared = format!("    fn declared();\n    fn next() {{\n{}    }}\n", "\n".repeat(60));
        assert!(function_size("a.rs", &declared).is_empty());
    }

    #[test]
    fn leftovers_and_sleeps_are_noticed() {
        for line in ["todo!()", "// FIXME: later", "// XXX", "#[ignore]"] {
            assert_eq!(leftovers("a.rs", line).len(), 1, "{line}");
        }
        let sleep = "std::thread::sleep(second);";
        assert_eq!(sleeps("a.rs", sleep).len(), 1);
        assert!(sleeps("a.rs", &format!("#[cfg(test)]\nmod tests {{\n{sleep}\n}}")).is_empty());
    }

    #[test]
    fn forbidden_imports_are_noticed() {
        let bad = [
            ("postgres/copy.rs", "use crate::pipeline::run;"),
            ("window/fold.rs", "use crate::iceberg::schema;"),
            ("iceberg/mod.rs", "use crate::{error::Error, cli::Args};"),
            ("kafka/mirror.rs", "    crate::initial_snapshot::plan()"),
        ];
        for (path, line) in bad {
            assert_eq!(imports(path, line).len(), 1, "{path}: {line}");
        }
        let good = [
            ("postgres/copy.rs", "use crate::window::relation::Relation;"),
            ("iceberg/mod.rs", "use crate::iceberg::schema; use ::iceberg::spec::Schema;"),
            ("pipeline.rs", "use crate::{postgres::stream, iceberg::committer};"),
            ("window/fold.rs", "use crate::error::{Error, Result};"),
        ];
        for (path, line) in good {
            assert!(imports(path, line).is_empty(), "{path}: {line}");
        }
    }

    #[test]
    fn input_and_output_in_pure_folders_are_noticed() {
        assert_eq!(pure_folders("window/arena.rs", "use std::fs::File;").len(), 1);
        assert_eq!(pure_folders("shape/mask.rs", "tokio::net::lookup_host(x)").len(), 1);
        assert!(pure_folders("window/arena.rs", "//! unlike std::fs").is_empty());
        assert!(pure_folders("postgres/copy.rs", "use std::fs::File;").is_empty());
    }

    #[test]
    fn banned_words_are_noticed() {
        for line in ["let tx = 1;", "fn f(txn: u8) {}", "pub fn flush(&self) {", "self.dv.len()"] {
            assert_eq!(words("a.rs", line).len(), 1, "{line}");
        }
        for line in ["// the tx of others", "let text = \"a tx b\";", "file.flush()?;", "let mtx;"]
        {
            assert!(words("a.rs", line).is_empty(), "{line}");
        }
    }

    #[test]
    fn error_codes_are_found() {
        let text = "Error::fatal(\n \"A_B\",\n \"x\"); Error::new(Kind::Table, \"C\", y); \
                    Error::config(code, \"no\"); IoError::other(\"D\"); \
                    io::Error::new(Kind::Other, \"no address\")";
        assert_eq!(error_codes(text), ["A_B", "C"]);
    }

    #[test]
    fn files_that_no_module_names_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        write("lib.rs", "pub mod a;\n#[path = \"odd_name.rs\"]\nmod tests;\n");
        write("a/mod.rs", "mod b;\n");
        for name in ["a/b.rs", "odd_name.rs", "a/dead.rs"] {
            write(name, "");
        }
        let reached = reachable(folder.path());
        let dead: Vec<_> = rust_files(folder.path()).difference(&reached).cloned().collect();
        assert_eq!(dead, [folder.path().join("a/dead.rs")]);
    }
}
