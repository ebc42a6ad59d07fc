//! Logging in to a REST catalog.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error::{Error, Result};

use super::settings::Login;

/// How long a token is good for where the server does not say.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// Gives the bearer token for a request.
pub(super) struct Auth {
    login: Login,
    http: reqwest::Client,
    catalog_uri: String,
    /// The token of [`Login::OAuth2`], and when a new one is due.
    token: Mutex<Option<(SecretString, Instant)>>,
}

/// RFC 6749, section 5.1. `token_type` is not looked at: catalogs know bearer tokens only.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: Option<u64>,
}

impl Auth {
    pub(super) fn new(login: &Login, http: reqwest::Client, catalog_uri: &str) -> Self {
        let (login, catalog_uri) = (login.clone(), catalog_uri.to_owned());
        Self { login, http, catalog_uri, token: Mutex::default() }
    }

    /// The token to send, renewed when four fifths of its life are over.
    ///
    /// # Errors
    /// `CATALOG_AUTH` (transient).
    pub(super) async fn token(&self) -> Result<Option<String>> {
        match &self.login {
            Login::None => Ok(None),
            Login::Token(token) => Ok(Some(token.expose_secret().to_owned())),
            Login::TokenFile(path) => {
                let text = tokio::fs::read_to_string(path).await.map_err(|e| {
                    let what = format!("cannot read the token file {}", path.display());
                    Error::transient("CATALOG_AUTH", what)
                        .with_cure("is catalog.token_file right, and may frazil read that file?")
                        .with_source(e)
                })?;
                Ok(Some(text.trim().to_owned()))
            }
            Login::OAuth2 { .. } => {
                let mut token = self.token.lock().await;
                if let Some((token, due)) = token.as_ref()
                    && Instant::now() < *due
                {
                    return Ok(Some(token.expose_secret().to_owned()));
                }
                let (fresh, life) = self.ask().await?;
                let text = fresh.expose_secret().to_owned();
                *token = Some((fresh, Instant::now() + life * 4 / 5));
                Ok(Some(text))
            }
        }
    }

    /// Forgets the token that was refused; false where there will be no other one.
    pub(super) async fn renew(&self) -> bool {
        match &self.login {
            Login::None | Login::Token(_) => false,
            Login::TokenFile(_) => true,
            Login::OAuth2 { .. } => {
                *self.token.lock().await = None;
                true
            }
        }
    }

    async fn ask(&self) -> Result<(SecretString, Duration)> {
        let Login::OAuth2 { client_id, client_secret, server_uri, scope } = &self.login else {
            return Err(Error::fatal("CATALOG_AUTH", "no client credentials"));
        };
        let own = format!("{}/v1/oauth/tokens", self.catalog_uri.trim_end_matches('/'));
        let uri = server_uri.as_deref().unwrap_or(&own);
        let bad = || {
            Error::transient("CATALOG_AUTH", format!("no token from {uri}"))
                .with_cure("are catalog.credential, oauth2_server_uri and oauth2_scope right?")
        };
        let mut form = vec![("grant_type", "client_credentials"), ("scope", scope.as_str())];
        form.extend(client_id.as_deref().map(|id| ("client_id", id)));
        form.push(("client_secret", client_secret.expose_secret()));
        let answer = self.http.post(uri).form(&form).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status);
        let answer = answer.map_err(|e| bad().with_source(e.without_url()))?;
        let token: TokenAnswer = answer.json().await.map_err(|e| bad().with_source(e))?;
        let life = token.expires_in.map_or(TOKEN_LIFE, Duration::from_secs);
        Ok((token.access_token.into(), life))
    }
}
