//! What a person may say about a REST catalog.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

/// How to reach a catalog that speaks the Iceberg REST protocol.
#[derive(Clone)]
pub struct RestSettings {
    /// Where it is: `http://127.0.0.1:19120/iceberg`.
    pub uri: String,
    /// Whether it is a Nessie, with branches, tags and a log of its own.
    pub is_nessie: bool,
    /// The branch to write to (Nessie); the catalog's default branch where nothing is said.
    pub reference: Option<String>,
    /// Make `reference` from this branch if it is not there.
    pub branch_from: Option<String>,
    /// The warehouse, by the catalog's name for it.
    pub warehouse: Option<String>,
    /// How to log in.
    pub login: Login,
    /// Sent with every request.
    pub headers: BTreeMap<String, String>,
    /// PEM file with further certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// Proxy for all requests; else `HTTPS_PROXY` and its like decide.
    pub proxy: Option<String>,
    /// The longest a connection may take.
    pub connect_timeout: Duration,
    /// The longest a request may take.
    pub request_timeout: Duration,
    /// Ask the catalog for storage keys; `None`: where no other keys are known.
    pub vended_credentials: Option<bool>,
    /// Go on with a catalog that can't commit several tables at once.
    pub allow_torn_commits: bool,
}

/// Without what may be a secret: headers, the proxy's URL.
impl std::fmt::Debug for RestSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("RestSettings");
        shown.field("uri", &self.uri).field("reference", &self.reference);
        shown.field("warehouse", &self.warehouse).field("login", &self.login);
        shown.finish_non_exhaustive()
    }
}

/// How to log in to a REST catalog.
#[derive(Debug, Clone, Default)]
pub enum Login {
    /// Not at all.
    #[default]
    None,
    /// With a bearer token.
    Token(SecretString),
    /// With the bearer token that stands in a file, read again when the catalog refuses it.
    TokenFile(PathBuf),
    /// With OAuth2 client credentials (RFC 6749, section 4.4).
    OAuth2 {
        /// Client id; some servers need none.
        client_id: Option<String>,
        /// Client secret.
        client_secret: SecretString,
        /// Where tokens are given; else the catalog's own `/v1/oauth/tokens`.
        server_uri: Option<String>,
        /// Scope, `catalog` by default (Iceberg REST spec).
        scope: String,
    },
}
