//! Requests to a catalog: logged in, timed, with one place that says what each HTTP status means.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::error::{Error, Result};

use super::auth::Auth;
use super::settings::RestSettings;

/// How often a request that changes nothing is tried, and the pause before the second try.
const READS_MAX: u32 = 4;
const READ_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause that a catalog may wish for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Characters of a catalog's own words that are shown.
const SHOWN_MAX: usize = 400;

/// A catalog's HTTP side.
pub(super) struct Http {
    client: reqwest::Client,
    auth: Auth,
    headers: HeaderMap,
    uri: String,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    /// How long the catalog wishes us to wait.
    pub(super) retry_after: Option<Duration>,
}

impl Http {
    /// A client for `settings.uri`; nothing is sent yet.
    ///
    /// # Errors
    /// `CATALOG_SETTING` (config).
    pub(super) fn new(settings: &RestSettings) -> Result<Self> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("frazil/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.request_timeout)
            .pool_idle_timeout(Duration::from_secs(20));
        if let Some(file) = &settings.ca_file {
            let bad = || setting("ca_file", format!("cannot use {}", file.display()));
            let pem = std::fs::read(file).map_err(|e| bad().with_source(e))?;
            let found = reqwest::Certificate::from_pem_bundle(&pem);
            for certificate in found.map_err(|e| bad().with_source(e))? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        if let Some(proxy) = &settings.proxy {
            // The URL may hold a password.
            let bad = |e: reqwest::Error| {
                setting("proxy", "is no URL of a proxy".to_owned()).with_source(e.without_url())
            };
            builder = builder.proxy(reqwest::Proxy::all(proxy).map_err(bad)?);
        }
        let client = builder.build().map_err(|e| {
            setting("uri", "the HTTP client cannot be made".to_owned()).with_source(e)
        })?;
        let auth = Auth::new(&settings.login, client.clone(), &settings.uri);
        let headers = header_map(&settings.headers)?;
        Ok(Self { client, auth, headers, uri: settings.uri.clone() })
    }

    /// One request, sent once; after a 401 once more with a new token. An answer of any status is
    /// an answer.
    ///
    /// # Errors
    /// `CATALOG_DOWN` (transient) where no answer came: the catalog may have done it all the same;
    /// `CATALOG_SETTING` (config) for a URL that is none.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &HeaderMap,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let answer = self.send_once(&method, url, headers, body).await?;
        if is_login(answer.status) && self.auth.renew().await {
            return self.send_once(&method, url, headers, body).await;
        }
        Ok(answer)
    }

    async fn send_once(
        &self,
        method: &Method,
        url: &str,
        headers: &HeaderMap,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let mut request = self.client.request(method.clone(), url);
        request = request.headers(self.headers.clone()).headers(headers.clone());
        if let Some(token) = self.auth.token().await? {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|e| self.down(e))?;
        let (status, retry_after) = (answer.status(), retry_after(answer.headers()));
        let body = answer.bytes().await.map_err(|e| self.down(e))?;
        tracing::trace!(%method, url, %status, "catalog");
        Ok(Answer { status, body, retry_after })
    }

    /// Reads JSON; tried again while the catalog is in trouble. `None` for 404.
    ///
    /// # Errors
    /// Those of [`Answer::error`], `CATALOG_DOWN` (transient), `CATALOG_ANSWER` (fatal).
    pub(super) async fn get(&self, url: &str, headers: &HeaderMap) -> Result<Option<Value>> {
        let mut pause = READ_PAUSE;
        for last in (0..READS_MAX).map(|n| n + 1 == READS_MAX) {
            match self.send(Method::GET, url, headers, None).await {
                Ok(answer) if answer.status.is_success() => return answer.json().map(Some),
                Ok(answer) if answer.status == StatusCode::NOT_FOUND => return Ok(None),
                Ok(answer) if !answer.is_trouble() || last => return Err(answer.error(url)),
                Ok(answer) => pause = answer.retry_after.unwrap_or(pause),
                Err(error) if last => return Err(error),
                Err(_) => {}
            }
            tokio::time::sleep(pause).await;
            pause *= 3;
        }
        Err(Error::transient("CATALOG_DOWN", format!("no answer from {url}")))
    }

    fn down(&self, error: reqwest::Error) -> Error {
        if error.is_builder() {
            return setting("url", format!("`{}` is no URL", self.uri))
                .with_cure("write it as http://host:19120/iceberg")
                .with_source(error);
        }
        if is_certificate(&error) {
            let what = format!("the certificate of {} is not trusted", self.uri);
            return Error::config("CATALOG_TLS", what)
                .with_cure("name the authority that signed it: catalog.ca_file")
                .with_source(error);
        }
        let what = match (error.is_timeout(), error.is_connect()) {
            (true, _) => "the catalog did not answer in time",
            (_, true) => "the catalog cannot be reached",
            _ => "the catalog's answer was lost",
        };
        Error::transient("CATALOG_DOWN", format!("{what}: {}", self.uri))
            .with_cure("is it running there, and is the URL right? nothing was acknowledged")
            .with_source(error)
    }
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// `CATALOG_ANSWER` (fatal).
    pub(super) fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).map_err(|e| {
            Error::fatal("CATALOG_ANSWER", "the catalog's answer is no JSON")
                .with_cure("is this the URL of an Iceberg REST catalog?")
                .with_source(e)
        })
    }

    /// Whether the same request may succeed later. A request that Nessie cannot read is a 500 that
    /// speaks of a 400.
    pub(super) fn is_trouble(&self) -> bool {
        let is_refusal = self.said().starts_with("HTTP 4");
        let status = self.status;
        (status.is_server_error() && !is_refusal) || status == StatusCode::TOO_MANY_REQUESTS
    }

    /// What a status other than 2xx means (Iceberg REST spec, error responses).
    pub(super) fn error(&self, what: &str) -> Error {
        let said = self.said();
        let message = format!("the catalog answered {}: {said} [{what}]", self.status.as_u16());
        match self.status.as_u16() {
            401 | 403 | 419 => Error::transient("CATALOG_AUTH", message).with_cure(
                "is the token (catalog.token, token_file, credential) valid, and may it do this?",
            ),
            404 => Error::config("CATALOG_NOT_FOUND", message)
                .with_cure("are the URL, --ref and --warehouse right?"),
            409 => Error::conflict("LAKE_CONFLICT", message),
            429 | 500..=599 if self.is_trouble() => Error::transient("CATALOG_DOWN", message)
                .with_cure("see the catalog's log; nothing was acknowledged"),
            _ => Error::fatal("CATALOG_REFUSED", message)
                .with_cure("see the catalog's log; nothing was acknowledged"),
        }
    }

    /// The catalog's own words: Iceberg's `error.message`, Nessie's `message`, or the body.
    pub(super) fn said(&self) -> String {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let message = json.pointer("/error/message").or_else(|| json.get("message"));
        let text = match message.and_then(Value::as_str) {
            Some(message) => message.to_owned(),
            None => String::from_utf8_lossy(&self.body).into_owned(),
        };
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        text.chars().take(SHOWN_MAX).collect()
    }
}

/// rustls's own error lies deep below reqwest's.
fn is_certificate(error: &reqwest::Error) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        // An `io::Error` does not give what it wraps as its source.
        next = match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => cause.source(),
        };
    }
    false
}

fn is_login(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 419)
}

/// Seconds only: dates are not worth their code here, and the usual pause is taken instead.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// Headers by name and value.
///
/// # Errors
/// `CATALOG_SETTING` (config).
pub(super) fn header_map(headers: &BTreeMap<String, String>) -> Result<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        // The value may be a secret.
        let bad = || setting("headers", format!("`{name}` has a name or value that none may have"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| bad().with_source(e))?;
        map.insert(name, HeaderValue::from_str(value).map_err(|e| bad().with_source(e))?);
    }
    Ok(map)
}

fn setting(key: &str, what: String) -> Error {
    Error::config("CATALOG_SETTING", format!("catalog.{key}: {what}"))
}

/// One segment of a URL's path: everything but unreserved characters as `%XX` (RFC 3986).
pub(super) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            b'.' if text != "." && text != ".." => out.push('.'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, body: Bytes::copy_from_slice(body.as_bytes()), retry_after: None }
    }

    #[test]
    fn each_status_has_its_reaction() {
        for (status, code, exit) in [
            (400, "CATALOG_REFUSED", 1),
            (401, "CATALOG_AUTH", 69),
            (404, "CATALOG_NOT_FOUND", 78),
            (409, "LAKE_CONFLICT", 1),
            (429, "CATALOG_DOWN", 69),
            (503, "CATALOG_DOWN", 69),
        ] {
            let error = answer(status, r#"{"error":{"message":"so it is"}}"#).error("x");
            assert_eq!((error.code(), error.exit_code()), (code, exit));
            assert!(error.to_string().contains("so it is"), "{error}");
        }
        let refused = answer(500, r#"{"error":{"message":"HTTP 400 Bad Request"}}"#);
        assert_eq!((refused.error("x").code(), refused.is_trouble()), ("CATALOG_REFUSED", false));
        assert_eq!(answer(500, "a\n  b").said(), "a b");
        assert_eq!(answer(500, r#"{"message":"nessie"}"#).said(), "nessie");
    }

    #[test]
    fn segments_are_encoded() {
        assert_eq!(segment("main|ware house/ü"), "main%7Cware%20house%2F%C3%BC");
        assert_eq!((segment(".."), segment("a.b")), ("%2E%2E".into(), "a.b".into()));
    }

    #[test]
    fn a_header_that_is_none_is_refused() {
        let bad = BTreeMap::from([("a b".to_owned(), "x".to_owned())]);
        assert_eq!(header_map(&bad).unwrap_err().code(), "CATALOG_SETTING");
    }
}
