//! A streaming standby of a server, with all that failover slots need (Postgres manual,
//! "Replication Slot Synchronization").

use std::fs;
use std::process::Command;

use super::{Postgres, PostgresOptions, append, configuration, free_port, output_of};

/// The physical slot that the standby streams from.
pub const STANDBY_SLOT: &str = "standby";

impl Postgres {
    /// A standby made from a copy of this server, which is stopped for a moment. `options` are
    /// added to the standby's. Its slots are not synchronised yet (`sync_replication_slots`).
    pub async fn standby(&mut self, options: PostgresOptions) -> Postgres {
        self.sql(&format!("SELECT pg_create_physical_replication_slot('{STANDBY_SLOT}', true)"))
            .await;
        let mut standby = self.copy(options);
        let settings = [
            ("primary_conninfo", format!("{} application_name=standby", self.conninfo())),
            ("primary_slot_name", STANDBY_SLOT.to_owned()),
            ("hot_standby_feedback", "on".to_owned()),
            ("wal_receiver_status_interval", "1s".to_owned()),
            ("wal_retrieve_retry_interval", "200ms".to_owned()),
        ];
        let lines: Vec<_> = settings.iter().map(|(k, v)| format!("{k} = '{v}'\n")).collect();
        append(&standby.data_dir().join("postgresql.conf"), &lines.concat());
        fs::write(standby.data_dir().join("standby.signal"), "").unwrap();
        for slot in fs::read_dir(standby.data_dir().join("pg_replslot")).unwrap().flatten() {
            fs::remove_dir_all(slot.path()).unwrap();
        }
        self.restart().await;
        standby.restart().await;
        standby
    }

    /// A copy of this server's files on another port, as a backup is; this one is stopped for it,
    /// and neither is started.
    pub fn copy(&mut self, options: PostgresOptions) -> Postgres {
        self.stop();
        let folder = tempfile::Builder::new().prefix("frazil-pg-").tempdir().unwrap();
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        let data = folder.path().join("data");
        output_of(Command::new("cp").arg("-a").arg(self.data_dir()).arg(&data));
        let port = free_port();
        append(&data.join("postgresql.conf"), &configuration(port, &options.settings));
        Postgres { bin_dir: self.bin_dir.clone(), folder, port, server: None }
    }

    /// Adds a line to postgresql.conf and reads it.
    pub async fn set(&self, name: &str, value: &str) {
        append(&self.data_dir().join("postgresql.conf"), &format!("{name} = '{value}'\n"));
        self.sql("SELECT pg_reload_conf()").await;
    }

    /// Ends the recovery of a standby.
    pub async fn promote(&self) {
        assert_eq!(self.value("SELECT pg_promote(true, 60)").await, "t");
    }

    fn conninfo(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port)
    }
}
