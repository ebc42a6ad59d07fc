//! `frazil install-ddl-capture` and `frazil uninstall-ddl-capture`: event triggers on the source.

use std::process::ExitCode;

use clap::Args;
use tokio_postgres::Client;

use crate::error::Result;
use crate::postgres::ddl_capture::{
    DdlCapture, INSTALL_SQL, REMOVE_SQL, ddl_capture, install_ddl_capture, remove_ddl_capture,
};
use crate::postgres::sql::connect_sql;

use super::Place;
use super::report::print;

/// `frazil install-ddl-capture`, `frazil uninstall-ddl-capture`
#[derive(Debug, Args)]
pub(crate) struct CaptureVerb {
    #[command(flatten)]
    place: Place,
    /// Only print the SQL
    #[arg(long)]
    dry_run: bool,
}

impl CaptureVerb {
    pub(crate) async fn install(self) -> Result<ExitCode> {
        if self.dry_run {
            return shown(INSTALL_SQL);
        }
        let client = self.connect().await?;
        let before = ddl_capture(&client).await?;
        install_ddl_capture(&client).await?;
        print(match before {
            DdlCapture::Absent => "DDL capture is installed, in schema frazil of the source",
            DdlCapture::Installed => "DDL capture was installed already, and was made anew",
            DdlCapture::Other(_) => "DDL capture is installed in place of another version",
        })?;
        Ok(ExitCode::SUCCESS)
    }

    pub(crate) async fn uninstall(self) -> Result<ExitCode> {
        if self.dry_run {
            return shown(REMOVE_SQL);
        }
        let client = self.connect().await?;
        let before = ddl_capture(&client).await?;
        remove_ddl_capture(&client).await?;
        print(match before {
            DdlCapture::Absent => "there was no DDL capture; what was left of one is gone",
            _ => "DDL capture is removed; frazil looks at the catalog instead",
        })?;
        Ok(ExitCode::SUCCESS)
    }

    async fn connect(&self) -> Result<Client> {
        let (config, _) = self.place.resolve_source()?;
        connect_sql(&super::source(&config)?, "ddl-capture").await
    }
}

fn shown(sql: &str) -> Result<ExitCode> {
    print(sql.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
