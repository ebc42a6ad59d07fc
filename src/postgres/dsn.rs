//! Where the source is: a DSN as libpq takes it, with TLS modes and password sources of our own.
//!
//! Source of the rules: Postgres manual, "Connection Strings", "The Password File" and "SSL
//! Support". tokio-postgres parses all but what it does not know (`verify-ca`, `verify-full`,
//! `sslrootcert`, `sslcert`, `sslkey`, some of `target_session_attrs`), which is taken out first
//! (case 171).

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::{ChannelBinding, Config, Host};

use crate::error::{Error, Result};
use crate::postgres::pgpass;

/// How much TLS is asked for; the names are libpq's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never
    Disable,
    /// Where the server has it; nothing is verified
    Prefer,
    /// Always; verified only where `sslrootcert` is given
    Require,
    /// Always, with a certificate of a known authority
    VerifyCa,
    /// As `verify-ca`, and the certificate is for this host
    VerifyFull,
}

impl FromStr for SslMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => {
                let what = format!("sslmode `{text}` is not known");
                return Err(bad(what).with_cure(
                    "use disable, prefer, require, verify-ca or verify-full (the default for hosts \
                     other than this one)",
                ));
            }
        })
    }
}

/// Whom to believe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootCert {
    /// The system's authorities
    System,
    /// Those in a PEM file
    File(PathBuf),
}

/// What part the server must play (`target_session_attrs`); the names are libpq's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TargetSession {
    /// Whichever answers first
    #[default]
    Any,
    /// Takes writes
    ReadWrite,
    /// Takes none
    ReadOnly,
    /// Not in recovery
    Primary,
    /// In recovery
    Standby,
    /// A standby where there is one
    PreferStandby,
}

impl TargetSession {
    const ALL: [Self; 6] = [
        Self::Any,
        Self::ReadWrite,
        Self::ReadOnly,
        Self::Primary,
        Self::Standby,
        Self::PreferStandby,
    ];

    /// As it is written in a DSN.
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::PreferStandby => "prefer-standby",
        }
    }
}

impl FromStr for TargetSession {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let named = Self::ALL.into_iter().find(|target| target.name() == text);
        let unknown = || bad(format!("target_session_attrs `{text}` is not known"));
        named.ok_or_else(|| {
            unknown().with_cure(
                "use read-write (the primary after a failover), any, read-only, primary, standby \
                 or prefer-standby",
            )
        })
    }
}

/// One place the server may be at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Host name or address, and port
    Tcp(String, u16),
    /// The socket's folder and the port in its name
    Unix(PathBuf, u16),
}

impl Address {
    /// Whether nobody else can listen in: a Unix socket or this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Address::Unix(..) => true,
            Address::Tcp(host, _) => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp(host, port) => write!(f, "{host}:{port}"),
            Address::Unix(folder, port) => write!(f, "{}/.s.PGSQL.{port}", folder.display()),
        }
    }
}

/// A source database and how to reach it. Neither Display nor Debug shows the password.
#[derive(Clone)]
pub struct Source {
    /// Where the server may be; tried in order.
    pub addresses: Vec<Address>,
    /// What part it must play.
    pub target: TargetSession,
    /// Login role.
    pub user: String,
    /// Database.
    pub database: String,
    /// TLS.
    pub ssl_mode: SslMode,
    /// Whom to believe.
    pub root_cert: Option<RootCert>,
    /// Client certificate and key, PEM.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// SCRAM's channel binding.
    pub channel_binding: ChannelBinding,
    /// Patience for one connection attempt.
    pub connect_timeout: Duration,
    /// `options` of the DSN, before our own pinned settings.
    pub options: Option<String>,
    password: Option<SecretString>,
}

impl Source {
    /// Parses a URL (`postgres://...`) or `key=value` DSN; passwords that are not in it come from
    /// PGPASSWORD, PGPASSFILE or `~/.pgpass`. `BAD_DSN` says what is wrong, never the password.
    pub fn parse(dsn: &str) -> Result<Self> {
        Self::parse_in(dsn, &|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// As [`Source::parse`], with `env` for the environment.
    pub fn parse_in(dsn: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let (rest, own) = Own::take(dsn)?;
        let config: Config = rest.parse().map_err(|e: tokio_postgres::Error| {
            // The inner error names the option, the outer one only says "invalid". After a `?` in
            // a password that is not percent-encoded, the rest of it would be taken for an option.
            let why = std::error::Error::source(&e).map(ToString::to_string).unwrap_or_default();
            let why = if why.contains('@') { "is a character not percent-encoded?" } else { &why };
            bad(format!("the DSN cannot be read: {why}"))
        })?;
        let user = config.get_user().map(str::to_owned).or_else(|| env("PGUSER"));
        let user = user.or_else(|| env("USER")).ok_or_else(|| bad("the DSN names no user"))?;
        let database = config.get_dbname().map_or_else(|| user.clone(), str::to_owned);
        let addresses = addresses(&config)?;
        let local = addresses.iter().all(Address::is_local);
        let default = if local { SslMode::Prefer } else { SslMode::VerifyFull };
        let password = match config.get_password() {
            Some(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            None => match env("PGPASSWORD") {
                None => pgpass::find(&addresses, &database, &user, env)?,
                some => some,
            },
        };
        let ssl_mode = own.ssl_mode.unwrap_or(default);
        own.check(ssl_mode)?;
        Ok(Self {
            addresses,
            target: own.target,
            user,
            database,
            ssl_mode,
            root_cert: own.root_cert,
            client_cert: own.cert.zip(own.key),
            channel_binding: config.get_channel_binding(),
            connect_timeout: config.get_connect_timeout().copied().unwrap_or(CONNECT_TIMEOUT),
            options: config.get_options().map(str::to_owned),
            password: password.map(SecretString::from),
        })
    }

    /// The same database at one of its addresses.
    pub(super) fn at(&self, address: Address) -> Self {
        Self { addresses: vec![address], target: TargetSession::Any, ..self.clone() }
    }

    /// Patience for wire and login together: every address may take its time, then the login too.
    pub(super) fn login_timeout(&self) -> Duration {
        let times = u32::try_from(self.addresses.len()).unwrap_or(u32::MAX).saturating_add(1);
        self.connect_timeout.saturating_mul(times)
    }

    /// The password, where there is one.
    pub(crate) fn password(&self) -> Option<&str> {
        self.password.as_ref().map(|secret| secret.expose_secret())
    }
}

/// Patience for one connection attempt, where `connect_timeout` says nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        write!(f, "{}@{}/{}", self.user, places.join(","), self.database)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self}, sslmode {:?})", self.ssl_mode)
    }
}

fn bad(what: impl Into<String>) -> Error {
    Error::config("BAD_DSN", what).with_cure(
        "write postgres://user@host:5432/database?sslmode=verify-full, or \
         `host=... user=... dbname=...`; keep the password in PGPASSWORD or PGPASSFILE",
    )
}

fn addresses(config: &Config) -> Result<Vec<Address>> {
    let ports = config.get_ports();
    let port = |i: usize| ports.get(i).or_else(|| ports.first()).copied().unwrap_or(5432);
    let hosts: Vec<Address> = match config.get_hosts() {
        [] => config
            .get_hostaddrs()
            .iter()
            .enumerate()
            .map(|(i, ip)| Address::Tcp(ip.to_string(), port(i)))
            .collect(),
        hosts => hosts
            .iter()
            .enumerate()
            .map(|(i, host)| match host {
                Host::Tcp(name) => Address::Tcp(name.clone(), port(i)),
                Host::Unix(folder) => Address::Unix(folder.clone(), port(i)),
            })
            .collect(),
    };
    if hosts.is_empty() {
        return Err(bad("the DSN names no host"));
    }
    Ok(hosts)
}

/// What tokio-postgres does not know.
#[derive(Default)]
struct Own {
    ssl_mode: Option<SslMode>,
    target: TargetSession,
    root_cert: Option<RootCert>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Own {
    /// The DSN without our own parameters, and those.
    fn take(dsn: &str) -> Result<(String, Self)> {
        let mut own = Self::default();
        let is_url = dsn.starts_with("postgres://") || dsn.starts_with("postgresql://");
        let rest = if is_url { own.take_url(dsn)? } else { own.take_pairs(dsn)? };
        Ok((rest, own))
    }

    fn take_url(&mut self, dsn: &str) -> Result<String> {
        // A password may have a `?` in it: what stands before the `@` is not looked at.
        let credentials = dsn.find('@').unwrap_or(0);
        let (before, after) = dsn.split_at_checked(credentials).unwrap_or(("", dsn));
        let Some((place, query)) = after.split_once('?') else { return Ok(dsn.to_owned()) };
        let base = format!("{before}{place}");
        let mut rest = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let mut pairs = url::form_urlencoded::parse(part.as_bytes());
            let (key, value) = pairs.next().unwrap_or_default();
            if !self.set(&key, &value)? {
                rest.push(part);
            }
        }
        Ok(if rest.is_empty() { base } else { format!("{base}?{}", rest.join("&")) })
    }

    fn take_pairs(&mut self, dsn: &str) -> Result<String> {
        let mut rest = String::new();
        for (key, value) in pairs(dsn)? {
            if !self.set(&key, &value)? {
                let value = value.replace('\\', "\\\\").replace('\'', "\\'");
                rest.push_str(&format!("{key}='{value}' "));
            }
        }
        Ok(rest)
    }

    /// Whether `key` is ours.
    fn set(&mut self, key: &str, value: &str) -> Result<bool> {
        match key {
            "target_session_attrs" => self.target = value.parse()?,
            "sslmode" => self.ssl_mode = Some(value.parse()?),
            "sslrootcert" if value == "system" => self.root_cert = Some(RootCert::System),
            "sslrootcert" => self.root_cert = Some(RootCert::File(value.into())),
            "sslcert" => self.cert = Some(value.into()),
            "sslkey" => self.key = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn check(&self, mode: SslMode) -> Result<()> {
        if self.cert.is_some() != self.key.is_some() {
            return Err(bad("sslcert and sslkey are given together or not at all"));
        }
        if self.root_cert == Some(RootCert::System) && mode != SslMode::VerifyFull {
            return Err(bad("sslrootcert=system goes with sslmode=verify-full only, as in libpq"));
        }
        Ok(())
    }
}

/// The pairs of a `key=value` DSN: blanks around `=`, single quotes, backslash escapes.
fn pairs(dsn: &str) -> Result<Vec<(String, String)>> {
    let mut chars = dsn.chars().peekable();
    let mut found = Vec::new();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(found);
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|&c| c != '=' && !c.is_whitespace()) {
            key.push(c);
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.next() != Some('=') {
            // What stands there may be a password with a blank in it: do not repeat it.
            return Err(bad("the DSN is neither a URL nor a list of key=value"));
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let quoted = chars.next_if_eq(&'\'').is_some();
        let value = value(&mut chars, quoted)?;
        found.push((key, value));
    }
}

fn value(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, quoted: bool) -> Result<String> {
    let mut value = String::new();
    loop {
        match chars.next() {
            Some('\\') => value.extend(chars.next()),
            Some('\'') if quoted => return Ok(value),
            Some(c) if !quoted && c.is_whitespace() => return Ok(value),
            Some(c) => value.push(c),
            None if quoted => return Err(bad("a quote in the DSN is not closed")),
            None => return Ok(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(dsn: &str) -> Result<Source> {
        Source::parse_in(dsn, &|name| (name == "PGPASSFILE").then(|| "/nonexistent".to_owned()))
    }

    #[test]
    fn both_forms_say_the_same() {
        let url =
            parse("postgres://u:p%40ss@db.example:6432/app?sslmode=verify-ca&connect_timeout=3")
                .unwrap();
        let pairs = parse(
            "host = db.example port=6432 user=u password='p@ss' dbname=app sslmode=verify-ca \
             connect_timeout=3",
        )
        .unwrap();
        for source in [url, pairs] {
            assert_eq!(source.addresses, [Address::Tcp("db.example".to_owned(), 6432)]);
            assert_eq!((source.user.as_str(), source.database.as_str()), ("u", "app"));
            assert_eq!(source.ssl_mode, SslMode::VerifyCa);
            assert_eq!(source.password(), Some("p@ss"));
            assert_eq!(source.connect_timeout, Duration::from_secs(3));
            let shown = format!("{source} {source:?}");
            assert!(!shown.contains("p@ss"), "{shown}");
        }
    }

    #[test]
    fn sslmode_defaults_by_host() {
        let mode = |dsn| parse(dsn).unwrap().ssl_mode;
        assert_eq!(mode("postgres://u@db.example/x"), SslMode::VerifyFull);
        assert_eq!(mode("postgres://u@localhost/x"), SslMode::Prefer);
        assert_eq!(mode("postgres://u@127.0.0.1/x"), SslMode::Prefer);
        assert_eq!(mode("host=/run/postgresql user=u"), SslMode::Prefer);
        assert_eq!(mode("host=localhost,db.example user=u"), SslMode::VerifyFull);
        assert_eq!(mode("postgres://u@db.example/x?sslmode=disable"), SslMode::Disable);
    }

    #[test]
    fn several_hosts_and_the_part_they_play() {
        let both = [
            "postgres://u@a:5433,b/x?target_session_attrs=read-write",
            "host=a,b port=5433,5432 user=u dbname=x target_session_attrs=read-write",
        ];
        for dsn in both {
            let source = parse(dsn).unwrap();
            let places: Vec<_> = source.addresses.iter().map(ToString::to_string).collect();
            assert_eq!(places, ["a:5433", "b:5432"], "{dsn}");
            assert_eq!(source.target, TargetSession::ReadWrite);
        }
        let target = parse("postgres://u@a/x?target_session_attrs=prefer-standby").unwrap().target;
        assert_eq!(target, TargetSession::PreferStandby);
        assert_eq!(parse("postgres://u@a/x").unwrap().target, TargetSession::Any);
    }

    #[test]
    fn refusals_name_the_cure_and_not_the_password() {
        for dsn in [
            "postgres://u:geheim@h/x?sslmode=allow",
            "postgres://u:geheim@h/x?target_session_attrs=master",
            "host=h user=u password=geheim sslmode=maybe",
            "host=h user=u password='geheim",
            "host=h password=gar geheim",
            "host=h user=u password=geheim nonsense=1",
            "user=u password=geheim",
            "host=h user=u password=geheim sslcert=/x",
            "host=h user=u password=geheim sslmode=require sslrootcert=system",
            "postgres://u:geheim@h:port/x",
        ] {
            let error = parse(dsn).unwrap_err();
            assert_eq!(error.code(), "BAD_DSN", "{dsn}");
            assert!(error.cure().is_some(), "{dsn}");
            assert!(!format!("{error} {error:?}").contains("geheim"), "{error:?}");
        }
    }
}
