//! The password file. Source of the rules: Postgres manual, "The Password File".

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::postgres::dsn::Address;

/// The password for the first address that has one. PGPASSFILE names the file, else it is
/// `~/.pgpass`. A file that others can read is refused: `PGPASSFILE_MODE`.
pub(super) fn find(
    addresses: &[Address],
    database: &str,
    user: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>> {
    let default = || env("HOME").map(|home| Path::new(&home).join(".pgpass"));
    let Some(path) = env("PGPASSFILE").map(PathBuf::from).or_else(default) else { return Ok(None) };
    let Ok(facts) = std::fs::metadata(&path) else { return Ok(None) };
    if facts.permissions().mode() & 0o077 != 0 {
        let what = format!("{} can be read by others", path.display());
        return Err(Error::config("PGPASSFILE_MODE", what)
            .with_cure(format!("chmod 600 {}", path.display())));
    }
    let text = std::fs::read_to_string(&path).map_err(|e| {
        Error::config("BAD_DSN", format!("{} cannot be read", path.display())).with_source(e)
    })?;
    Ok(addresses.iter().find_map(|address| {
        let (host, port) = match address {
            Address::Tcp(host, port) => (host.as_str(), port.to_string()),
            Address::Unix(_, port) => ("localhost", port.to_string()),
        };
        lookup(&text, [host, &port, database, user])
    }))
}

fn lookup(text: &str, wanted: [&str; 4]) -> Option<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(split).find_map(|fields| {
        let [pattern @ .., password] = fields.as_slice() else { return None };
        let hit = pattern.len() == wanted.len()
            && pattern.iter().zip(wanted).all(|(p, w)| p == "*" || p == w);
        hit.then(|| password.clone())
    })
}

/// The fields of a line; a backslash takes the next character as it is.
fn split(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut chars) = (Vec::new(), String::new(), line.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => field.extend(chars.next()),
            ':' => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_wins() {
        let text = "# note\nh:5432:a:u:one\n*:*:*:u:t\\:wo\nh:5432:a:u:three\n";
        assert_eq!(lookup(text, ["h", "5432", "a", "u"]).unwrap(), "one");
        assert_eq!(lookup(text, ["x", "5433", "b", "u"]).unwrap(), "t:wo");
        assert_eq!(lookup(text, ["x", "5433", "b", "v"]), None);
    }

    #[test]
    fn a_file_that_others_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "*:*:*:*:secret").unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let env = |name: &str| (name == "PGPASSFILE").then(|| path.clone());
        let addresses = [Address::Tcp("h".to_owned(), 5432)];
        let mode = |mode| {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            find(&addresses, "d", "u", &env)
        };
        assert_eq!(mode(0o644).unwrap_err().code(), "PGPASSFILE_MODE");
        assert_eq!(mode(0o600).unwrap().as_deref(), Some("secret"));
    }
}
