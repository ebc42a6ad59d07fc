//! A connection of our own, for replication or COPY: start-up, login, and the commands of the
//! replication grammar.
//!
//! Source of the rules: Postgres manual, "Message Flow", "SASL Authentication" and "Streaming
//! Replication Protocol". Our own layer because the stream's bytes must arrive in the caller's
//! memory in large reads (`facts/hotpath.md`); SQL goes over tokio-postgres instead
//! ([`super::sql`]).

use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_postgres::config::ChannelBinding;

use crate::error::{Error, Result};
use crate::postgres::copy_out::CopyOut;
use crate::postgres::dsn::Source;
use crate::postgres::hosts;
use crate::postgres::quote::{identifier, literal, slot_name};
use crate::postgres::server_error::{ServerError, password_missing};
use crate::postgres::socket::{IN_CLEAR, Socket, lost};
use crate::postgres::stream::{ReplicationStream, StreamOptions};
use crate::progress::Lsn;

/// Settings that decide how values look (case 59), set at start-up so that no role or database
/// setting can come between.
pub(super) const PINNED: [(&str, &str); 12] = [
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "3"),
    ("TimeZone", "UTC"),
    ("row_security", "off"),
    ("statement_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("search_path", ""),
    ("lc_monetary", "C"),
    // A warning may mean that changes are left out.
    ("client_min_messages", "warning"),
];

/// SQL sessions pin this one after the login, so that RESET still shows what the database has.
pub(super) const PIN_MONETARY: &str = "SET lc_monetary = 'C'";

/// For sessions that read rows: in a database of encoding SQL_ASCII texts come as they are stored,
/// for the server would refuse those that are no UTF-8 (case 58).
pub(crate) const AS_STORED: &str = "\
    SELECT pg_catalog.set_config('client_encoding', 'SQL_ASCII', false) \
    WHERE pg_catalog.current_setting('server_encoding') = 'SQL_ASCII'";

/// Pinned too, where the server has it (14 and later); at start-up 13 would refuse it.
pub(super) const NO_IDLE_TIMEOUT: &str = "\
    SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings \
    WHERE name = 'idle_session_timeout'";

/// Answers outside the stream are small; a longer message is no Postgres.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What IDENTIFY_SYSTEM says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemIdentity {
    /// Identifies the cluster for ever; a decimal number.
    pub system_id: String,
    /// Current timeline.
    pub timeline: u32,
    /// Current end of flushed WAL.
    pub xlogpos_lsn: Lsn,
}

/// What CREATE_REPLICATION_SLOT says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedSlot {
    /// Source transactions with `commit_lsn` at or after this are streamed, those before are in
    /// the exported snapshot.
    pub consistent_point: Lsn,
    /// For SET TRANSACTION SNAPSHOT; dies at the session's next command or end (case 131).
    pub snapshot_name: Option<String>,
}

/// How a slot is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct SlotOptions {
    /// Gone with the session.
    pub temporary: bool,
    /// Export a snapshot.
    pub export_snapshot: bool,
    /// Synchronised to standbys (server 17 and later).
    pub failover: bool,
    /// Decode at PREPARE.
    pub two_phase: bool,
}

/// A row's values as text.
pub type TextRow = Vec<Option<String>>;

/// A logged-in connection of our own: for replication, or for COPY.
#[derive(Debug)]
pub struct Session {
    socket: Socket,
    server_version: u32,
    backend_pid: i32,
}

impl Session {
    /// Connects and logs in with `replication=database`; `application_name` is `frazil/<purpose>`.
    pub async fn connect(source: &Source, purpose: &str) -> Result<Self> {
        Self::open(source, purpose, Some("database")).await
    }

    /// The same without `replication`: for COPY, which takes none of the server's walsenders so.
    pub async fn connect_for_copy(source: &Source, purpose: &str) -> Result<Self> {
        Self::open(source, purpose, None).await
    }

    async fn open(source: &Source, purpose: &str, replication: Option<&str>) -> Result<Self> {
        let source = hosts::choose(source).await?;
        let connecting = async {
            let socket = Socket::open(&source).await?;
            let mut session = Self { socket, server_version: 0, backend_pid: 0 };
            session.start(&source, purpose, replication).await?;
            Ok(session)
        };
        timeout(source.login_timeout(), connecting).await.map_err(|_| {
            Error::transient("CONNECTION", "Postgres did not finish the login in time")
        })?
    }

    /// `server_version_num`, for instance 150018.
    pub fn server_version(&self) -> u32 {
        self.server_version
    }

    /// The server's process, which another session can cancel.
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// IDENTIFY_SYSTEM.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity> {
        let rows = self.query("IDENTIFY_SYSTEM").await?;
        let row = one_row(&rows, "IDENTIFY_SYSTEM")?;
        Ok(SystemIdentity {
            system_id: cell(row, 0)?.to_owned(),
            timeline: cell(row, 1)?.parse().map_err(|e| protocol("timeline").with_source(e))?,
            xlogpos_lsn: cell(row, 2)?.parse()?,
        })
    }

    /// TIMELINE_HISTORY: the timelines before `timeline`, each with the LSN it was left at. Empty
    /// for timeline 1, which has no history.
    pub async fn timeline_history(&mut self, timeline: u32) -> Result<Vec<(u32, Lsn)>> {
        if timeline <= 1 {
            return Ok(Vec::new());
        }
        let rows = self.query(&format!("TIMELINE_HISTORY {timeline}")).await?;
        parse_history(cell(one_row(&rows, "TIMELINE_HISTORY")?, 1)?)
    }

    /// SHOW.
    pub async fn show(&mut self, name: &str) -> Result<String> {
        let rows = self.query(&format!("SHOW {}", identifier(name))).await?;
        Ok(cell(one_row(&rows, "SHOW")?, 0)?.to_owned())
    }

    /// CREATE_REPLICATION_SLOT for pgoutput. Waits for every source transaction that is writing now
    /// (case 132); dropping the future and the session leaves no slot behind only if temporary.
    pub async fn create_slot(&mut self, name: &str, options: SlotOptions) -> Result<CreatedSlot> {
        let sql = create_slot_sql(name, options, self.server_version)?;
        let rows = self.query(&sql).await?;
        let row = one_row(&rows, "CREATE_REPLICATION_SLOT")?;
        Ok(CreatedSlot {
            consistent_point: cell(row, 1)?.parse()?,
            snapshot_name: row.get(2).cloned().flatten(),
        })
    }

    /// DROP_REPLICATION_SLOT; an active slot is refused as `SLOT_ACTIVE`, never waited for.
    pub async fn drop_slot(&mut self, name: &str) -> Result<()> {
        let sql = format!("DROP_REPLICATION_SLOT {}", identifier(slot_name(name)?));
        self.query(&sql).await.map(|_| ())
    }

    /// START_REPLICATION. The session becomes the stream.
    pub async fn start_replication(mut self, options: &StreamOptions) -> Result<ReplicationStream> {
        let patience = self.show("wal_sender_timeout").await.and_then(|t| parse_duration(&t))?;
        let sql = start_sql(options, self.server_version)?;
        self.send(|buf| frontend::query(&sql, buf)).await?;
        loop {
            match self.receive().await? {
                (b'W', _) => return Ok(ReplicationStream::new(self.socket, patience)),
                (b'E', body) => return Err(ServerError::parse(&body).into()),
                (b'N' | b'S', _) => {}
                (tag, _) => return Err(protocol(&format!("type byte 0x{tag:02x} for W"))),
            }
        }
    }

    /// `COPY ... TO STDOUT`, whose rows are read to the end before anything else.
    pub async fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_>> {
        self.send(|buf| frontend::query(sql, buf)).await?;
        loop {
            match self.receive().await? {
                (b'H', _) => return Ok(CopyOut::new(&mut self.socket)),
                (b'E', body) => return Err(ServerError::parse(&body).into()),
                (b'N' | b'S', _) => {}
                (tag, _) => return Err(protocol(&format!("type byte 0x{tag:02x} for H"))),
            }
        }
    }

    /// Runs one statement by the simple protocol; rows as text.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<TextRow>> {
        Ok(self.try_query(sql).await??)
    }

    /// As [`Session::query`], with what the server says against it for the caller to judge.
    pub async fn try_query(&mut self, sql: &str) -> Result<Result<Vec<TextRow>, ServerError>> {
        self.send(|buf| frontend::query(sql, buf)).await?;
        let (mut rows, mut failure) = (Vec::new(), None);
        loop {
            match self.receive().await? {
                (b'D', body) => rows.push(data_row(&body)?),
                (b'E', body) => failure = Some(ServerError::parse(&body)),
                (b'N', body) => tracing::warn!("{}", ServerError::parse(&body).message),
                (b'Z', _) => break,
                _ => {}
            }
        }
        Ok(failure.map_or(Ok(rows), Err))
    }

    /// Ends the session.
    pub async fn close(mut self) {
        let mut buf = BytesMut::new();
        frontend::terminate(&mut buf);
        // The server ends it either way.
        let _ = self.socket.write_all(&buf).await;
        let _ = self.socket.shutdown().await;
    }

    async fn start(
        &mut self,
        source: &Source,
        purpose: &str,
        replication: Option<&str>,
    ) -> Result<()> {
        let name = format!("frazil/{purpose}");
        let mut parameters = vec![
            ("user", source.user.as_str()),
            ("database", &source.database),
            ("application_name", &name),
        ];
        parameters.extend(replication.map(|mode| ("replication", mode)));
        parameters.extend(source.options.as_deref().map(|options| ("options", options)));
        parameters.extend(PINNED);
        self.send(|buf| frontend::startup_message(parameters, buf)).await?;
        self.log_in(source).await?;
        loop {
            match self.receive().await? {
                (b'S', body) => self.parameter(&body),
                (b'K', body) => {
                    let pid = body.first_chunk().map(|pid| i32::from_be_bytes(*pid));
                    self.backend_pid = pid.unwrap_or_default();
                }
                (b'E', body) => return Err(ServerError::parse(&body).into()),
                (b'Z', _) => break,
                _ => {}
            }
        }
        self.query(AS_STORED).await?;
        self.query(NO_IDLE_TIMEOUT).await.map(|_| ())
    }

    /// ParameterStatus: only the version is of interest, `15.18 (Debian ...)` or `18beta1`.
    fn parameter(&mut self, body: &[u8]) {
        let text = String::from_utf8_lossy(body);
        let mut parts = text.split('\0');
        if let (Some("server_version"), Some(version)) = (parts.next(), parts.next()) {
            self.server_version = version_number(version);
        }
    }

    async fn log_in(&mut self, source: &Source) -> Result<()> {
        loop {
            let (tag, body) = self.receive().await?;
            match (tag, body.split_first_chunk::<4>()) {
                (b'E', _) => return Err(ServerError::parse(&body).into()),
                (b'R', Some((code, rest))) => match u32::from_be_bytes(*code) {
                    0 => return Ok(()),
                    3 => self.password(self.in_clear(source)?.as_bytes()).await?,
                    5 => {
                        let salt = *rest.first_chunk().ok_or_else(|| protocol("no salt"))?;
                        let password = self.in_clear(source)?.as_bytes();
                        let user = source.user.as_bytes();
                        self.password(md5_hash(user, password, salt).as_bytes()).await?;
                    }
                    10 => self.scram(source, rest).await?,
                    other => return Err(unsupported(other)),
                },
                (b'N' | b'v', _) => {}
                _ => return Err(protocol("something else than a login")),
            }
        }
    }

    /// The password, if it may be sent where others could listen in.
    fn in_clear<'a>(&self, source: &'a Source) -> Result<&'a str> {
        if source.channel_binding == ChannelBinding::Require {
            return Err(no_binding());
        }
        if !self.socket.is_private() {
            return Err(Error::config("AUTH", IN_CLEAR)
                .with_cure("use TLS (sslmode=verify-full), or password_encryption=scram-sha-256"));
        }
        source.password().ok_or_else(password_missing)
    }

    async fn password(&mut self, password: &[u8]) -> Result<()> {
        self.send(|buf| frontend::password_message(password, buf)).await
    }

    async fn scram(&mut self, source: &Source, mechanisms: &[u8]) -> Result<()> {
        let password = source.password().ok_or_else(password_missing)?;
        let offers = |name: &str| mechanisms.split(|&b| b == 0).any(|m| m == name.as_bytes());
        let (mechanism, binding) = self.mechanism(source, offers(sasl::SCRAM_SHA_256_PLUS))?;
        if !offers(mechanism) {
            return Err(unsupported(10));
        }
        let mut scram = sasl::ScramSha256::new(password.as_bytes(), binding);
        self.send(|buf| frontend::sasl_initial_response(mechanism, scram.message(), buf)).await?;
        let first = self.sasl(11).await?;
        scram.update(&first).map_err(|e| protocol("SCRAM").with_source(e))?;
        self.send(|buf| frontend::sasl_response(scram.message(), buf)).await?;
        let last = self.sasl(12).await?;
        scram.finish(&last).map_err(|e| {
            Error::config(
                "AUTH",
                "the server does not know the password itself: is it the right one?",
            )
            .with_source(e)
        })
    }

    fn mechanism(
        &self,
        source: &Source,
        plus: bool,
    ) -> Result<(&'static str, sasl::ChannelBinding)> {
        let wanted = source.channel_binding;
        match self.socket.end_point() {
            Some(end_point) if plus && wanted != ChannelBinding::Disable => {
                let binding = sasl::ChannelBinding::tls_server_end_point(end_point.to_vec());
                Ok((sasl::SCRAM_SHA_256_PLUS, binding))
            }
            _ if wanted == ChannelBinding::Require => Err(no_binding()),
            // "We could, you did not offer it": lets the server notice a meddler in between.
            Some(_) if !plus => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested())),
            _ => Ok((sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported())),
        }
    }

    /// The SASL message with `code`.
    async fn sasl(&mut self, code: u32) -> Result<Vec<u8>> {
        let (tag, body) = self.receive().await?;
        match (tag, body.split_first_chunk::<4>()) {
            (b'E', _) => Err(ServerError::parse(&body).into()),
            (b'R', Some((head, rest))) if u32::from_be_bytes(*head) == code => Ok(rest.to_vec()),
            _ => Err(protocol("SCRAM out of step")),
        }
    }

    async fn send(
        &mut self,
        write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
    ) -> Result<()> {
        let mut buf = BytesMut::new();
        write(&mut buf).map_err(|e| protocol("a zero byte in a string").with_source(e))?;
        self.socket.write_all(&buf).await.map_err(lost)?;
        self.socket.flush().await.map_err(lost)
    }

    /// One whole message. Nothing beyond it is read, so that the stream starts at a frame.
    async fn receive(&mut self) -> Result<(u8, Vec<u8>)> {
        let tag = self.socket.read_u8().await.map_err(lost)?;
        let length = self.socket.read_u32().await.map_err(lost)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let length = length.checked_sub(4).filter(|&length| length <= ANSWER_BYTES_MAX);
        let mut body = vec![0; length.ok_or_else(|| protocol("a length out of range"))?];
        self.socket.read_exact(&mut body).await.map_err(lost)?;
        Ok((tag, body))
    }
}

fn protocol(what: &str) -> Error {
    Error::fatal("BAD_MESSAGE", format!("Postgres's answer is not as documented: {what}"))
}

fn unsupported(code: u32) -> Error {
    Error::config("AUTH", format!("Postgres asks for a login frazil does not have (code {code})"))
        .with_cure("use scram-sha-256, cert or trust in pg_hba.conf for this role")
}

fn no_binding() -> Error {
    Error::config("AUTH", "channel_binding=require, but the server or its certificate has none")
        .with_cure("use TLS and scram-sha-256 (certificates signed with SHA-256 or SHA-384)")
}

fn one_row<'a>(rows: &'a [Vec<Option<String>>], what: &str) -> Result<&'a [Option<String>]> {
    rows.first().map(Vec::as_slice).ok_or_else(|| protocol(&format!("no row for {what}")))
}

fn cell(row: &[Option<String>], at: usize) -> Result<&str> {
    row.get(at).and_then(Option::as_deref).ok_or_else(|| protocol("a value is missing"))
}

fn data_row(body: &[u8]) -> Result<Vec<Option<String>>> {
    let short = || protocol("a row cut short");
    let (count, mut rest) = body.split_first_chunk::<2>().ok_or_else(short)?;
    let mut row = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        rest = after;
        row.push(match usize::try_from(i32::from_be_bytes(*length)) {
            Err(_) => None,
            Ok(length) => {
                let (value, after) = rest.split_at_checked(length).ok_or_else(short)?;
                rest = after;
                Some(String::from_utf8_lossy(value).into_owned())
            }
        });
    }
    Ok(row)
}

/// `15.18 (Debian)` is 150018, `18beta1` is 180000.
fn version_number(text: &str) -> u32 {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    let major: u32 = numbers.next().unwrap_or(0);
    let minor = if text.starts_with(&format!("{major}.")) { numbers.next() } else { None };
    major * 10_000 + minor.unwrap_or(0)
}

/// Lines of a timeline history file: timeline, LSN it was left at, reason; `#` comments.
fn parse_history(text: &str) -> Result<Vec<(u32, Lsn)>> {
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines
        .map(|line| {
            let mut parts = line.split_whitespace();
            let timeline = parts.next().and_then(|t| t.parse().ok());
            let lsn = parts.next().and_then(|l| l.parse().ok());
            timeline.zip(lsn).ok_or_else(|| protocol("a timeline history"))
        })
        .collect()
}

/// A setting's time: `1min`, `30s`, `2000ms`, `0`.
fn parse_duration(text: &str) -> Result<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(split).unwrap_or((text, ""));
    let number: u64 = number.parse().map_err(|e| protocol("wal_sender_timeout").with_source(e))?;
    Ok(match unit {
        "s" => Duration::from_secs(number),
        "min" => Duration::from_secs(number.saturating_mul(60)),
        "h" => Duration::from_secs(number.saturating_mul(3_600)),
        "d" => Duration::from_secs(number.saturating_mul(86_400)),
        _ => Duration::from_millis(number),
    })
}

/// The old grammar (13, 14) has bare words, the new one (15 and later) a list in parentheses.
fn create_slot_sql(name: &str, options: SlotOptions, version: u32) -> Result<String> {
    let name = identifier(slot_name(name)?);
    let temporary = if options.temporary { " TEMPORARY" } else { "" };
    let head = format!("CREATE_REPLICATION_SLOT {name}{temporary} LOGICAL pgoutput");
    if options.failover && version < 170_000 {
        return Err(Error::config("FAILOVER_UNSUPPORTED", "failover slots need Postgres 17")
            .with_cure("use source.failover: auto, or a newer server"));
    }
    if version < 150_000 {
        let export = if options.export_snapshot { "EXPORT_SNAPSHOT" } else { "NOEXPORT_SNAPSHOT" };
        let two_phase = if options.two_phase { " TWO_PHASE" } else { "" };
        return Ok(format!("{head} {export}{two_phase}"));
    }
    let export = if options.export_snapshot { "export" } else { "nothing" };
    let failover = if options.failover { ", FAILOVER true" } else { "" };
    let two_phase = if options.two_phase { ", TWO_PHASE true" } else { "" };
    Ok(format!("{head} (SNAPSHOT '{export}'{failover}{two_phase})"))
}

fn start_sql(options: &StreamOptions, version: u32) -> Result<String> {
    if (options.binary || options.messages) && version < 140_000 {
        let what = "binary mode and logical messages need Postgres 14";
        return Err(Error::config("STREAM_OPTION", what));
    }
    if options.origin.is_some() && version < 160_000 {
        return Err(Error::config("STREAM_OPTION", "source.origin: none needs Postgres 16")
            .with_cure("use source.origin: any, or a newer server"));
    }
    let publications: Vec<_> = options.publications.iter().map(|p| identifier(p)).collect();
    let mut list = vec![
        format!("proto_version '{}'", options.protocol),
        format!("publication_names {}", literal(&publications.join(","))),
    ];
    for (wanted, name) in [
        (options.binary, "binary 'true'"),
        (options.messages, "messages 'true'"),
        (options.streaming, "streaming 'on'"),
        (options.two_phase, "two_phase 'on'"),
    ] {
        list.extend(wanted.then(|| name.to_owned()));
    }
    list.extend(options.origin.as_ref().map(|origin| format!("origin {}", literal(origin))));
    let slot = identifier(slot_name(&options.slot)?);
    Ok(format!("START_REPLICATION SLOT {slot} LOGICAL {} ({})", options.start, list.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version_number("15.18 (Debian 15.18-0+deb12u1)"), 150_018);
        assert_eq!(version_number("18beta1"), 180_000);
        assert_eq!(version_number("13.0"), 130_000);
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("1min").unwrap(), Duration::from_secs(60));
        assert_eq!(parse_duration("2500ms").unwrap(), Duration::from_millis(2_500));
        assert_eq!(parse_duration("0").unwrap(), Duration::ZERO);
        assert_eq!(parse_duration("x").unwrap_err().code(), "BAD_MESSAGE");
    }

    #[test]
    fn histories() {
        let text = "1\t0/14FFE18\tno recovery target specified\n\n2\t1/0\tx\n";
        assert_eq!(parse_history(text).unwrap(), [(1, Lsn(0x014F_FE18)), (2, Lsn(1 << 32))]);
        assert!(parse_history("what").is_err());
    }

    #[test]
    fn commands_by_version() {
        let options = SlotOptions { export_snapshot: true, ..SlotOptions::default() };
        assert_eq!(
            create_slot_sql("s", options, 150_000).unwrap(),
            "CREATE_REPLICATION_SLOT \"s\" LOGICAL pgoutput (SNAPSHOT 'export')"
        );
        assert_eq!(
            create_slot_sql("s", options, 140_000).unwrap(),
            "CREATE_REPLICATION_SLOT \"s\" LOGICAL pgoutput EXPORT_SNAPSHOT"
        );
        let failover = SlotOptions { failover: true, ..options };
        assert_eq!(
            create_slot_sql("s", failover, 160_000).unwrap_err().code(),
            "FAILOVER_UNSUPPORTED"
        );
        assert_eq!(create_slot_sql("S;", options, 150_000).unwrap_err().code(), "BAD_SLOT_NAME");
    }

    #[test]
    fn publications_are_quoted_twice() {
        let options = StreamOptions {
            slot: "s".to_owned(),
            start: Lsn(16),
            publications: vec!["a'b".to_owned(), "c\"d".to_owned()],
            protocol: 1,
            binary: true,
            messages: false,
            streaming: false,
            two_phase: false,
            origin: None,
        };
        assert_eq!(
            start_sql(&options, 150_000).unwrap(),
            "START_REPLICATION SLOT \"s\" LOGICAL 0/10 (proto_version '1', publication_names \
             '\"a''b\",\"c\"\"d\"', binary 'true')"
        );
    }
}
