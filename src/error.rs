//! The one error type: what went wrong, where (table, column, LSN), and what a person does about
//! it.
//!
//! Kinds are few because each stands for one reaction (see [`Kind`]); codes are many because each
//! stands for one cure. The source error is always kept.

use std::fmt;

use crate::progress::Lsn;

/// Result with frazil's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the program does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The world is in the way (network, restart, disk full): back off, reconnect, try again.
    Transient,
    /// The lake moved under a lake commit: reload, rebuild, commit again.
    Conflict,
    /// A fact of the data: this table cannot go on, and trying again gives the same.
    Table,
    /// Something typed or granted is wrong: stop, exit 78, say the cure.
    Config,
    /// A position is in doubt: stop, acknowledge nothing.
    Fatal,
}

/// An error with its code, its place and its cure.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    code: &'static str,
    message: String,
    table: Option<String>,
    column: Option<String>,
    lsn: Option<Lsn>,
    cure: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `code` is UPPER_SNAKE, stable and documented in `docs/errors.md`.
    pub fn new(kind: Kind, code: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            code,
            message: message.into(),
            table: None,
            column: None,
            lsn: None,
            cure: None,
            source: None,
        }))
    }

    /// See [`Kind::Transient`].
    pub fn transient(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Transient, code, message)
    }

    /// See [`Kind::Conflict`].
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, code, message)
    }

    /// See [`Kind::Table`]; `table` is `namespace.name`.
    pub fn table(code: &'static str, table: impl fmt::Display, message: impl Into<String>) -> Self {
        Self::new(Kind::Table, code, message).with_table(table)
    }

    /// See [`Kind::Config`].
    pub fn config(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Config, code, message)
    }

    /// See [`Kind::Fatal`].
    pub fn fatal(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Fatal, code, message)
    }

    /// The same once more, without its source: for what several wait for.
    #[must_use]
    pub(crate) fn again(&self) -> Self {
        let Inner { kind, code, message, table, column, lsn, cure, source: _ } = &*self.0;
        Self(Box::new(Inner {
            kind: *kind,
            code,
            message: message.clone(),
            table: table.clone(),
            column: column.clone(),
            lsn: *lsn,
            cure: cure.clone(),
            source: None,
        }))
    }

    /// Names the table, as `namespace.name`.
    #[must_use]
    pub fn with_table(mut self, table: impl fmt::Display) -> Self {
        self.0.table = Some(table.to_string());
        self
    }

    /// Names the column.
    #[must_use]
    pub fn with_column(mut self, column: impl fmt::Display) -> Self {
        self.0.column = Some(column.to_string());
        self
    }

    /// Names the position in the WAL.
    #[must_use]
    pub fn with_lsn(mut self, lsn: Lsn) -> Self {
        self.0.lsn.get_or_insert(lsn);
        self
    }

    /// Says what mends it: a command, a statement, a setting.
    #[must_use]
    pub fn with_cure(mut self, cure: impl Into<String>) -> Self {
        self.0.cure = Some(cure.into());
        self
    }

    /// Keeps the error underneath.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What the program does about it.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The table, as `namespace.name`, where it is about one.
    pub fn table_name(&self) -> Option<&str> {
        self.0.table.as_deref()
    }

    /// The cure, where one is known.
    pub fn cure(&self) -> Option<&str> {
        self.0.cure.as_deref()
    }

    /// The position in the WAL, where it is known.
    pub fn lsn(&self) -> Option<Lsn> {
        self.0.lsn
    }

    /// The process's exit status (sysexits.h): 69 unavailable, 75 temporary failure, 78
    /// configuration, 1 for the rest. 2 (usage) is clap's own.
    pub fn exit_code(&self) -> u8 {
        match (self.0.kind, self.0.code) {
            (_, "TIMEOUT") => 75,
            (Kind::Transient, _) => 69,
            (Kind::Config, _) => 78,
            _ => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let e = &self.0;
        write!(f, "{}: {}", e.code, e.message)?;
        if let Some(table) = &e.table {
            write!(f, " [table {table}]")?;
        }
        if let Some(column) = &e.column {
            write!(f, " [column {column}]")?;
        }
        if let Some(lsn) = e.lsn {
            write!(f, " [LSN {lsn}]")?;
        }
        if let Some(source) = &e.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|e| e as _)
    }
}
