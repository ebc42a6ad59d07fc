//! What Postgres's errors mean for frazil: one `match` from SQLSTATE to kind, code and cure.
//!
//! Source of the rules: Postgres manual, appendix "PostgreSQL Error Codes", and what servers 13 to
//! 18 send for slots and publications (cases 16-18, 24, 27, 140, 169).

use crate::error::{Error, Kind};

/// An ErrorResponse or NoticeResponse in parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, ... (not translated where the server sends that form)
    pub severity: String,
    /// SQLSTATE, five characters.
    pub sqlstate: String,
    /// What the server says.
    pub message: String,
    /// Its detail.
    pub detail: Option<String>,
    /// Its hint.
    pub hint: Option<String>,
    /// The function of the server that says it: not translated, as messages are.
    pub routine: Option<String>,
}

impl ServerError {
    /// Parses the body of an `E` or `N` message; what is missing or not UTF-8 is made up for.
    pub fn parse(body: &[u8]) -> Self {
        let mut error = Self::default();
        for part in body.split(|&byte| byte == 0) {
            let Some((tag, value)) = part.split_first() else { continue };
            let value = String::from_utf8_lossy(value).into_owned();
            match tag {
                b'S' if error.severity.is_empty() => error.severity = value,
                b'V' => error.severity = value,
                b'C' => error.sqlstate = value,
                b'M' => error.message = value,
                b'D' => error.detail = Some(value),
                b'H' => error.hint = Some(value),
                b'R' => error.routine = Some(value),
                _ => {}
            }
        }
        error
    }

    /// What it means in a replication stream: what no other rule knows may be the fault of one
    /// value. It is tried again, and whoever does that counts (case 169).
    pub fn of_the_stream(self) -> Error {
        let (kind, code, cure) = meaning(&self);
        if kind != Kind::Fatal || !matches!(code, "SERVER_ERROR" | "ENCODING") {
            return self.into();
        }
        let error = Error::transient("DECODING", self.sentence());
        with_cure(error, cure, self.hint)
    }

    fn says(&self, word: &str) -> bool {
        self.message.contains(word)
    }

    /// Whether a warning means that changes are left out: from 18 on a publication that does not
    /// exist where the WAL is being read is passed over, which was an error before.
    pub fn is_publication_skipped(&self) -> bool {
        self.routine.as_deref() == Some("LoadPublications")
    }

    /// The message with detail and SQLSTATE.
    fn sentence(&self) -> String {
        let detail = self.detail.as_ref().map(|d| format!(" ({d})")).unwrap_or_default();
        format!("Postgres says {}: {}{detail}", self.sqlstate, self.message)
    }
}

impl From<ServerError> for Error {
    fn from(server: ServerError) -> Self {
        let (kind, code, cure) = meaning(&server);
        let error = Error::new(kind, code, server.sentence());
        with_cure(error, cure, server.hint)
    }
}

/// Our cure, or else the server's hint.
fn with_cure(error: Error, cure: &str, hint: Option<String>) -> Error {
    match (cure, hint) {
        ("", Some(hint)) => error.with_cure(hint),
        ("", None) => error,
        (cure, _) => error.with_cure(cure),
    }
}

/// An error of tokio-postgres: the server's own is read by SQLSTATE, all else is the connection's.
pub fn from_sql(error: tokio_postgres::Error) -> Error {
    if let Some(db) = error.as_db_error() {
        let server = ServerError {
            severity: db.severity().to_owned(),
            sqlstate: db.code().code().to_owned(),
            message: db.message().to_owned(),
            detail: db.detail().map(str::to_owned),
            hint: db.hint().map(str::to_owned),
            routine: db.routine().map(str::to_owned),
        };
        return Error::from(server).with_source(error);
    }
    let refused = std::error::Error::source(&error)
        .and_then(|e| e.downcast_ref::<std::io::Error>())
        .is_some_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied);
    if refused {
        return Error::config("AUTH", "the SQL connection was refused").with_source(error);
    }
    // tokio-postgres says "invalid configuration" and keeps the reason beneath.
    let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    if reason.contains("password missing") {
        return password_missing();
    }
    Error::transient("CONNECTION", "the SQL connection to Postgres failed").with_source(error)
}

/// The server asks for a password and none was found.
pub fn password_missing() -> Error {
    Error::config("AUTH", "Postgres asks for a password and none was given")
        .with_cure("set PGPASSWORD, or PGPASSFILE to a password file, or put it in the DSN")
}

/// The one place where an SQLSTATE becomes a reaction.
fn meaning(e: &ServerError) -> (Kind, &'static str, &'static str) {
    use Kind::{Config, Fatal, Transient};
    match e.sqlstate.as_str() {
        "55006" if e.says("slot") => {
            (Transient, "SLOT_ACTIVE", "another process reads this slot; see pg_replication_slots")
        }
        "42704" if e.says("publication") => (Config, "PUBLICATION_MISSING", PUBLICATION_CURE),
        "55000" | "01000" if e.is_publication_skipped() => {
            (Config, "PUBLICATION_MISSING", PUBLICATION_CURE)
        }
        "42704" if e.says("slot") || e.says("Slot") => (Fatal, "SLOT_LOST", SLOT_CURE),
        "55000" if e.says("wal_level") => (Config, "WAL_LEVEL", WAL_LEVEL_CURE),
        "55000" if is_invalidated(e) => (Fatal, "SLOT_LOST", SLOT_CURE),
        "42710" => (Config, "EXISTS", "it is there already: choose another name or drop it"),
        "53400" => (Config, "SLOTS_FULL", "ALTER SYSTEM SET max_replication_slots = 20; restart"),
        "28P01" | "28000" if e.says("pg_hba") => (Config, "AUTH", PG_HBA_CURE),
        "28P01" | "28000" => (Config, "AUTH", "check user, password and pg_hba.conf"),
        "42501" if e.says("row-level security") => (Config, "RIGHTS", RLS_CURE),
        "42501" => (Config, "RIGHTS", RIGHTS_CURE),
        "53300" if e.says("max_wal_senders") => (Transient, "SENDERS_FULL", SENDERS_CURE),
        "3D000" => (Config, "NO_DATABASE", "check the database name in the DSN"),
        "42P01" => (Config, "NO_TABLE", "the table is not there (any more)"),
        "22021" | "22P05" => (Fatal, "ENCODING", "the source holds text its encoding forbids"),
        "57014" => (Transient, "CANCELLED", ""),
        "57P01" | "57P02" | "57P03" | "53300" | "55P03" | "40001" | "40P01" => {
            (Transient, "UNAVAILABLE", "")
        }
        state if state.starts_with("08") || state.starts_with("53") => {
            (Transient, "UNAVAILABLE", "")
        }
        _ => (Fatal, "SERVER_ERROR", ""),
    }
}

fn is_invalidated(e: &ServerError) -> bool {
    let detail = e.detail.as_deref().unwrap_or_default();
    e.says("can no longer get changes") || e.says("cannot read from") || detail.contains("invalid")
}

const PUBLICATION_CURE: &str = "the WAL that is being read is older than the publication, or it was \
    dropped and made again: changes in between would be missed. Make the publication before the \
    slot; now only a new lake helps (frazil drop, then frazil run into an empty folder)";
const SLOT_CURE: &str = "the WAL after the lake's position is gone: start a new lake (frazil drop, then frazil run into an empty folder); \
    raise max_slot_wal_keep_size to keep it from happening again";
const WAL_LEVEL_CURE: &str = "ALTER SYSTEM SET wal_level = logical; then restart Postgres";
const PG_HBA_CURE: &str = "allow it in pg_hba.conf: `host <database> <user> <address> \
    scram-sha-256` (for replication too), then SELECT pg_reload_conf()";
const RLS_CURE: &str =
    "ALTER ROLE <user> BYPASSRLS: the lake must not hold only what policies show";
const SENDERS_CURE: &str =
    "ALTER SYSTEM SET max_wal_senders = 20; then restart Postgres; or end another replication";
const RIGHTS_CURE: &str = "ALTER ROLE <user> REPLICATION; GRANT USAGE ON SCHEMA <schema> TO <user>; \
    GRANT SELECT ON ALL TABLES IN SCHEMA <schema> TO <user>; publications are made by the owner \
    of the tables, or by a role with CREATE on the database";

#[cfg(test)]
mod tests {
    use super::*;

    fn error(sqlstate: &str, message: &str) -> Error {
        let body = format!("SFEHLER\0VERROR\0C{sqlstate}\0M{message}\0\0");
        ServerError::parse(body.as_bytes()).into()
    }

    #[test]
    fn states_become_reactions() {
        for (state, message, kind, code) in [
            ("55006", "replication slot \"x\" is active for PID 7", Kind::Transient, "SLOT_ACTIVE"),
            ("42704", "replication slot \"x\" does not exist", Kind::Fatal, "SLOT_LOST"),
            ("42704", "publication \"p\" does not exist", Kind::Config, "PUBLICATION_MISSING"),
            ("55000", "cannot read from logical replication slot", Kind::Fatal, "SLOT_LOST"),
            ("55000", "can no longer get changes from replication slot", Kind::Fatal, "SLOT_LOST"),
            ("55000", "logical decoding requires wal_level >= logical", Kind::Config, "WAL_LEVEL"),
            ("57P01", "terminating connection", Kind::Transient, "UNAVAILABLE"),
            ("08006", "gone", Kind::Transient, "UNAVAILABLE"),
            ("28P01", "password authentication failed", Kind::Config, "AUTH"),
            ("42501", "permission denied", Kind::Config, "RIGHTS"),
            ("XX000", "invalid memory alloc request size", Kind::Fatal, "SERVER_ERROR"),
        ] {
            let error = error(state, message);
            assert_eq!((error.kind(), error.code()), (kind, code), "{state} {message}");
        }
    }

    #[test]
    fn what_may_be_the_fault_of_one_value_is_told_apart_in_the_stream() {
        let code = |state: &str| {
            let body = format!("SERROR\0C{state}\0Mslot publication\0\0");
            let error = ServerError::parse(body.as_bytes()).of_the_stream();
            (error.kind(), error.code())
        };
        for state in ["XX000", "22021", "22P05", "0A000", "XX001", "54000"] {
            assert_eq!(code(state), (Kind::Transient, "DECODING"), "{state}");
        }
        assert_eq!(code("57P01"), (Kind::Transient, "UNAVAILABLE"));
        assert_eq!(code("42704"), (Kind::Config, "PUBLICATION_MISSING"));
        assert_eq!(code("42501"), (Kind::Config, "RIGHTS"));
    }

    #[test]
    fn garbage_is_survived() {
        assert_eq!(ServerError::parse(b""), ServerError::default());
        assert_eq!(ServerError::parse(b"M\xff").message, "\u{fffd}");
    }
}
