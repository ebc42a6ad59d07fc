//! An HTTP proxy in front of a real server that fails when a test says so.
//!
//! Each request is matched against the rules in their order; the first rule whose turn it is acts,
//! else the request goes through, byte for byte: `Host` too, for S3 signs it, and Nessie answers
//! with URLs made of it, so that its clients come back to the proxy. Bodies are streamed both ways.
//!
//! It runs on a thread of its own, so that a test may block.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// The longest start line and headers.
const HEAD_BYTES_MAX: u64 = 1 << 16;

/// What happens to a request whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is answered here; the server never sees it.
    Answer {
        /// The HTTP status.
        status: u16,
        /// Headers of the answer, `Retry-After` for instance.
        headers: Vec<(String, String)>,
        /// The answer's body.
        body: String,
    },
    /// The server does the work and answers; the client sees a reset connection instead.
    DropAnswer,
    /// The client sees a reset connection; the server never sees the request.
    Reset,
    /// It goes through after a wait.
    Delay(Duration),
    /// It goes through: an exception before a wider rule.
    Forward,
}

/// Which of the matching requests a rule acts on.
#[derive(Debug)]
enum Turn {
    Always,
    Next(u64),
    Every(u64),
    Chance(f64, Box<StdRng>),
}

/// A pattern, a turn and an action: `Rule::on("POST", "/transactions/commit").next(2).answer(503)`.
#[derive(Debug)]
pub struct Rule {
    method: String,
    path: String,
    without: Option<String>,
    skipped: u64,
    turn: Turn,
    action: Action,
    /// Matching requests so far.
    matched: u64,
}

impl Rule {
    /// Matches requests of `method` (`*` for any) whose path and query contain `path`; it acts on
    /// every one of them and forwards, until it is told otherwise.
    pub fn on(method: &str, path: &str) -> Self {
        let (method, path, without) = (method.into(), path.into(), None);
        let (turn, action) = (Turn::Always, Action::Forward);
        Self { method, path, without, skipped: 0, turn, action, matched: 0 }
    }

    /// Matches only requests whose headers do not contain `text`.
    #[must_use]
    pub fn without(self, text: &str) -> Self {
        Self { without: Some(text.into()), ..self }
    }

    /// Leaves the first `n` matching requests alone.
    #[must_use]
    pub fn skip(self, n: u64) -> Self {
        Self { skipped: n, ..self }
    }

    /// Acts on the next `n` only.
    #[must_use]
    pub fn next(self, n: u64) -> Self {
        Self { turn: Turn::Next(n), ..self }
    }

    /// Acts on each `k`-th.
    #[must_use]
    pub fn every(self, k: u64) -> Self {
        Self { turn: Turn::Every(k), ..self }
    }

    /// Acts with `probability`, the same for the same `seed`.
    #[must_use]
    pub fn chance(self, probability: f64, seed: u64) -> Self {
        Self { turn: Turn::Chance(probability, Box::new(StdRng::seed_from_u64(seed))), ..self }
    }

    /// Answers with `status` without forwarding.
    #[must_use]
    pub fn answer(self, status: u16) -> Self {
        self.action(Action::Answer { status, headers: Vec::new(), body: String::new() })
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let Action::Answer { headers, .. } = &mut self.action else { panic!("answer() first") };
        headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body of the answer.
    #[must_use]
    pub fn body(mut self, text: &str) -> Self {
        let Action::Answer { body, .. } = &mut self.action else { panic!("answer() first") };
        *body = text.into();
        self
    }

    /// Lets the server do the work, then resets the connection.
    #[must_use]
    pub fn drop_answer(self) -> Self {
        self.action(Action::DropAnswer)
    }

    /// Resets the connection before the server sees the request.
    #[must_use]
    pub fn reset(self) -> Self {
        self.action(Action::Reset)
    }

    /// Forwards after `wait`.
    #[must_use]
    pub fn delay(self, wait: Duration) -> Self {
        self.action(Action::Delay(wait))
    }

    /// Sets any action.
    #[must_use]
    pub fn action(self, action: Action) -> Self {
        Self { action, ..self }
    }

    /// Counts a matching request; whether it is this rule's turn.
    fn acts_on(&mut self, head: &Head) -> bool {
        let (method, path) = (head.word(0), head.word(1));
        if (self.method != "*" && self.method != method) || !path.contains(&self.path) {
            return false;
        }
        if self.without.as_ref().is_some_and(|text| head.text.contains(text)) {
            return false;
        }
        self.matched += 1;
        let Some(nth) = self.matched.checked_sub(self.skipped).filter(|nth| *nth > 0) else {
            return false;
        };
        match &mut self.turn {
            Turn::Always => true,
            Turn::Next(n) => nth <= *n,
            Turn::Every(k) => nth.is_multiple_of(*k),
            Turn::Chance(probability, random) => random.random_bool(*probability),
        }
    }
}

/// A request that came to the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `GET`, `POST`, ...
    pub method: String,
    /// Path and query as sent.
    pub path: String,
    /// Start line and headers as sent.
    pub head: String,
    /// When it came.
    pub at: Instant,
    /// What the server answered, seen by the client or not; `None` when it was not asked, has not
    /// answered yet, or could not be reached.
    pub status: Option<u16>,
    /// What a rule did to it; `None` when it simply went through.
    pub fault: Option<Action>,
}

/// A running proxy; it and its connections end when it is dropped.
pub struct FaultProxy {
    port: u16,
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
}

struct Shared {
    upstream: String,
    rules: Mutex<Vec<Rule>>,
    journal: Mutex<Vec<Entry>>,
}

impl Entry {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

impl FaultProxy {
    /// Starts one in front of `upstream`, `http://127.0.0.1:PORT` (a path after it is ignored).
    pub fn start(upstream: &str) -> Self {
        let url = url::Url::parse(upstream).unwrap();
        let upstream = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
        let shared = Shared { upstream, rules: Mutex::default(), journal: Mutex::default() };
        let shared = Arc::new(shared);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (_stop, stopped) = oneshot::channel();
        let accepting = shared.clone();
        std::thread::spawn(move || {
            let builder = tokio::runtime::Builder::new_current_thread().enable_all().build();
            builder.unwrap().block_on(async move {
                tokio::select! {
                    biased;
                    _ = stopped => {}
                    () = accept(listener, accepting) => {}
                }
            });
        });
        Self { port, shared, _stop }
    }

    /// `http://127.0.0.1:PORT`, to be used in place of the server's own.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Replaces all rules; their counts begin at zero.
    pub fn set_rules(&self, rules: impl IntoIterator<Item = Rule>) {
        *locked(&self.shared.rules) = rules.into_iter().collect();
    }

    /// Removes all rules and empties the journal.
    pub fn clear(&self) {
        locked(&self.shared.rules).clear();
        locked(&self.shared.journal).clear();
    }

    /// All requests since the start or the last [`FaultProxy::clear`], in the order they came.
    pub fn journal(&self) -> Vec<Entry> {
        locked(&self.shared.journal).clone()
    }

    /// Those of `method` (`*` for any) whose path and query contain `path`.
    pub fn requests(&self, method: &str, path: &str) -> Vec<Entry> {
        let matches = |e: &Entry| (method == "*" || e.method == method) && e.path.contains(path);
        self.journal().into_iter().filter(matches).collect()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl Shared {
    /// Notes the request and says what is to be done with it.
    fn arrival(&self, head: &Head) -> (Arrival, Option<Action>) {
        let mut rules = locked(&self.rules);
        let rule = rules.iter_mut().find_map(|rule| rule.acts_on(head).then_some(rule));
        let fault = rule.map(|rule| rule.action.clone());
        let (method, path) = (head.word(0).to_string(), head.word(1).to_string());
        let mut journal = locked(&self.journal);
        journal.push(Entry {
            method: method.clone(),
            path: path.clone(),
            head: head.text.clone(),
            at: Instant::now(),
            status: None,
            fault: fault.clone(),
        });
        (Arrival { at: journal.len() - 1, method, path }, fault)
    }

    /// Notes the server's answer; a journal that was cleared meanwhile no longer has the request.
    fn answered(&self, arrival: &Arrival, status: u16) {
        let mut journal = locked(&self.journal);
        let entry = journal.get_mut(arrival.at);
        let same = |e: &&mut Entry| e.method == arrival.method && e.path == arrival.path;
        if let Some(entry) = entry.filter(same) {
            entry.status = Some(status);
        }
    }
}

/// Where a request stands in the journal.
struct Arrival {
    at: usize,
    method: String,
    path: String,
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        tokio::spawn(serve(client, shared.clone()));
    }
}

/// One connection of a client, kept alive over its requests until a rule or the client ends it.
async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let (reader, mut writer) = client.split();
    let mut reader = BufReader::new(reader);
    let ended = loop {
        match exchange(&mut reader, &mut writer, &shared).await {
            Ok(true) => {}
            ended => break ended,
        }
    };
    if ended.is_err() {
        // Closed so, the client gets a reset and not a clean end.
        let _ = client.set_zero_linger();
    }
}

/// One request and its answer. False ends the connection cleanly, an error resets it.
async fn exchange(
    reader: &mut (impl AsyncBufRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    shared: &Shared,
) -> io::Result<bool> {
    let Some(request) = Head::read(reader).await? else { return Ok(false) };
    let method = request.word(0);
    let (arrival, fault) = shared.arrival(&request);
    match &fault {
        Some(Action::Answer { status, headers, body }) => {
            if request.header("expect").is_some() {
                writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            }
            // A server reads the request before it refuses it.
            request.framing(Framing::Length(0)).copy(reader, &mut tokio::io::sink()).await?;
            let mut head = format!("HTTP/1.1 {status} Fault\r\nContent-Length: {}\r\n", body.len());
            headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
            let body = if method == "HEAD" { "" } else { body };
            writer.write_all(format!("{head}\r\n{body}").as_bytes()).await?;
            return Ok(!request.says_close());
        }
        Some(Action::Reset) => return Err(io::ErrorKind::ConnectionReset.into()),
        Some(Action::Delay(wait)) => tokio::time::sleep(*wait).await,
        Some(Action::Forward | Action::DropAnswer) | None => {}
    }
    // A connection of its own to the server for each request: none goes stale behind a test's back.
    let mut server = TcpStream::connect(&shared.upstream).await?;
    let (server_reader, mut server_writer) = server.split();
    let upload = async {
        server_writer.write_all(&request.bytes).await?;
        request.framing(Framing::Length(0)).copy(reader, &mut server_writer).await
    };
    let download = async {
        let mut server_reader = BufReader::new(server_reader);
        let dropped = fault == Some(Action::DropAnswer);
        relay_answer(&mut server_reader, writer, method == "HEAD", dropped, |status| {
            shared.answered(&arrival, status);
        })
        .await
    };
    both(upload, download).await.map(|keeps_alive| keeps_alive && !request.says_close())
}

/// Runs both directions until the answer is complete; whether the connection can be kept.
async fn both(
    upload: impl Future<Output = io::Result<()>>,
    download: impl Future<Output = io::Result<bool>>,
) -> io::Result<bool> {
    let (mut upload, mut download) = (std::pin::pin!(upload), std::pin::pin!(download));
    tokio::select! {
        biased;
        // An answer before the end of the request: its rest is not read, so nothing can follow it.
        answered = &mut download => answered.map(|_| false),
        uploaded = &mut upload => match uploaded {
            Ok(()) => download.await,
            // A server may refuse before it has read all; a client that is gone leaves silence.
            Err(error) => match tokio::time::timeout(Duration::from_secs(1), download).await {
                Ok(answered) => answered.map(|_| false),
                Err(_) => Err(error),
            },
        },
    }
}

/// Passes on interim answers and the final one; whether the connection can be kept.
async fn relay_answer(
    server: &mut (impl AsyncBufRead + Unpin),
    client: &mut (impl AsyncWrite + Unpin),
    is_head: bool,
    dropped: bool,
    answered: impl Fn(u16),
) -> io::Result<bool> {
    loop {
        let head = Head::read(server).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status: u16 = head.word(1).parse().map_err(io::Error::other)?;
        let is_final = status >= 200;
        let bodiless = is_head || !is_final || status == 204 || status == 304;
        let framing = if bodiless { Framing::Length(0) } else { head.framing(Framing::ToTheEnd) };
        if is_final {
            answered(status);
        }
        if is_final && dropped {
            framing.copy(server, &mut tokio::io::sink()).await?;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        client.write_all(&head.bytes).await?;
        framing.copy(server, client).await?;
        if is_final {
            return Ok(framing != Framing::ToTheEnd && !head.says_close());
        }
    }
}

/// The start line and the headers of a message, as they were sent.
struct Head {
    bytes: Vec<u8>,
    text: String,
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let mut values = headers.filter(|(n, _)| n.eq_ignore_ascii_case(name));
    values.next().map(|(_, value)| value.trim())
}

/// How a body ends (RFC 9112, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    ToTheEnd,
}

impl Head {
    /// `None` at the end of the connection.
    async fn read(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            let before = bytes.len();
            reader.take(HEAD_BYTES_MAX).read_until(b'\n', &mut bytes).await?;
            match bytes.len() {
                0 => return Ok(None),
                after if after == before => return Err(io::ErrorKind::UnexpectedEof.into()),
                after => assert!((after as u64) < HEAD_BYTES_MAX, "a head without an end"),
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(Some(Self { bytes, text }))
    }

    /// A word of the start line.
    fn word(&self, at: usize) -> &str {
        self.text.lines().next().unwrap_or("").split(' ').nth(at).unwrap_or("")
    }

    fn header(&self, name: &str) -> Option<&str> {
        header(&self.text, name)
    }

    fn says_close(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// How its body ends, `unsaid` when it has neither a length nor chunks.
    fn framing(&self, unsaid: Framing) -> Framing {
        if self.header("transfer-encoding").is_some() {
            return Framing::Chunked;
        }
        let length = self.header("content-length");
        length.map_or(unsaid, |length| Framing::Length(length.parse().unwrap()))
    }
}

impl Framing {
    /// Copies a body as it is, chunk sizes and trailers included.
    async fn copy(
        self,
        from: &mut (impl AsyncBufRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        match self {
            Self::Length(length) => copy_exactly(length, from, to).await?,
            Self::ToTheEnd => _ = tokio::io::copy_buf(from, to).await?,
            Self::Chunked => {
                while let size @ 1.. = copy_chunk_size(from, to).await? {
                    copy_exactly(size + 2, from, to).await?;
                }
                while copy_line(from, to).await? != "\r\n" {}
            }
        }
        to.flush().await
    }
}

async fn copy_exactly(
    length: u64,
    from: &mut (impl AsyncBufRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let copied = tokio::io::copy_buf(&mut from.take(length), to).await?;
    if copied == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn copy_chunk_size(
    from: &mut (impl AsyncBufRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<u64> {
    let line = copy_line(from, to).await?;
    let digits = line.split([';', '\r']).next().unwrap_or("").trim();
    u64::from_str_radix(digits, 16).map_err(io::Error::other)
}

async fn copy_line(
    from: &mut (impl AsyncBufRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<String> {
    let mut line = String::new();
    if from.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    to.write_all(line.as_bytes()).await?;
    Ok(line)
}
