//! Which of the DSN's hosts: the first that lets us in and plays the wanted part.
//!
//! Source of the rules: Postgres manual, "Connection Strings", "Specifying Multiple Hosts" and
//! `target_session_attrs`. As in libpq a host that refuses the login ends the search, one that
//! cannot be reached or has another part does not.

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::error::{Error, Kind, Result};
use crate::postgres::dsn::{Source, TargetSession};
use crate::postgres::server_error::from_sql;
use crate::postgres::sql::connect_at;

/// `source` with one address only, so that all connections of a run lead to the same server: after
/// a failover a slot read here and a stream followed there would be two histories.
pub async fn choose(source: &Source) -> Result<Source> {
    if is_plain(source) {
        return Ok(source.clone());
    }
    find(source, "hosts").await.map(|(source, _)| source)
}

/// A SQL connection to the host of [`choose`].
pub(super) async fn connect(source: &Source, purpose: &str) -> Result<Client> {
    if is_plain(source) {
        return connect_at(source, purpose).await;
    }
    find(source, purpose).await.map(|(_, client)| client)
}

fn is_plain(source: &Source) -> bool {
    source.addresses.len() == 1 && source.target == TargetSession::Any
}

async fn find(source: &Source, purpose: &str) -> Result<(Source, Client)> {
    let (first, second) = match source.target {
        TargetSession::PreferStandby => (TargetSession::Standby, Some(TargetSession::Any)),
        target => (target, None),
    };
    let mut last = nobody(source);
    for target in [Some(first), second].into_iter().flatten() {
        for address in &source.addresses {
            let one = source.at(address.clone());
            match connect_at(&one, purpose).await {
                Ok(client) if suits(&client, target).await? => return Ok((one, client)),
                Ok(_) => last = nobody(source),
                Err(error) if error.kind() == Kind::Transient => last = error,
                Err(error) => return Err(error),
            }
        }
    }
    Err(last)
}

fn nobody(source: &Source) -> Error {
    let message = format!("no server at {source} is {}", source.target.name());
    Error::transient("NO_SUCH_HOST", message).with_cure(
        "is a standby being promoted? else mend the hosts or target_session_attrs of the DSN",
    )
}

async fn suits(client: &Client, target: TargetSession) -> Result<bool> {
    if target == TargetSession::Any {
        return Ok(true);
    }
    let sql = "SELECT pg_catalog.pg_is_in_recovery()::text, \
                      pg_catalog.current_setting('transaction_read_only')";
    let rows = client.simple_query(sql).await.map_err(from_sql)?;
    let row = rows.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((row.get(0) == Some("true"), row.get(1) == Some("on")))
        }
        _ => None,
    });
    let (standby, read_only) = row.unwrap_or_default();
    Ok(match target {
        TargetSession::Any | TargetSession::PreferStandby => true,
        TargetSession::ReadWrite => !standby && !read_only,
        TargetSession::ReadOnly => standby || read_only,
        TargetSession::Primary => !standby,
        TargetSession::Standby => standby,
    })
}
