//! Postgres and frazil in containers, for tests that write to Postgres and read the lake.
//!
//! ```no_run
//! # async fn example() -> Result<(), frazil_testcontainers::Error> {
//! let lake = frazil_testcontainers::FrazilLake::start().await?;
//! // Create tables and write rows at lake.postgres_url(), with any client. Then:
//! lake.wait_now().await?;
//! // All that was committed is in the Iceberg lake at lake.lake_folder().
//! # Ok(())
//! # }
//! ```
//!
//! The lake is a folder of this machine that frazil's container sees under the same path, so that
//! the locations in its metadata are right on both sides. frazil runs as the user who owns the
//! test, who can therefore read and delete what it writes.
//!
//! The images are `frazil:latest` (made by `deploy/build-image`) and `postgres:17`; `FRAZIL_IMAGE`
//! and `POSTGRES_IMAGE` name others.

mod engine;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tempfile::TempDir;
use testcontainers::core::{ExecCommand, IntoContainerPort, Mount, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt, TestcontainersError};
use tokio::sync::OnceCell;
use uuid::Uuid;

const POSTGRES_PORT: u16 = 5432;
/// User, password and database of the Postgres that only the test knows.
const NAME: &str = "frazil";
/// The server's own words, which it says on stderr once it takes connections. The one that runs
/// the setup says them on stdout.
const POSTGRES_READY: &str = "database system is ready to accept connections";
/// A test waits for its rows: no longer than it must.
const COMMIT_INTERVAL: &str = "100ms";

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The container engine, or an image.
    #[error("containers: {0}")]
    Containers(#[from] TestcontainersError),
    /// frazil's image.
    #[error("frazil's image {image} (`deploy/build-image` makes frazil:latest): {source}")]
    Image {
        /// Its name and tag.
        image: String,
        /// What the engine said.
        source: TestcontainersError,
    },
    /// The folder of the lake.
    #[error("the lake's folder: {0}")]
    Folder(#[from] io::Error),
    /// frazil refused or gave up; `log` is all that it said.
    #[error("`frazil {verb}` failed: {message}\nlog of `frazil run`:\n{log}")]
    Frazil {
        /// The verb that was called in the container.
        verb: String,
        /// What it said on stderr.
        message: String,
        /// What `frazil run` has logged.
        log: String,
    },
}

/// A Postgres and a frazil that copies it into a lake. All goes when it is dropped.
pub struct FrazilLake {
    // Dropped in this order: nobody writes into the folder when it is deleted.
    frazil: OnceCell<ContainerAsync<GenericImage>>,
    postgres: ContainerAsync<GenericImage>,
    folder: TempDir,
    network: String,
    postgres_name: String,
    postgres_url: String,
}

impl FrazilLake {
    /// Starts Postgres. frazil is started by the first [`Self::wait_now`] or [`Self::follow`]: it
    /// follows the tables that are there by then.
    ///
    /// # Errors
    /// [`Error::Containers`], [`Error::Folder`].
    pub async fn start() -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("frazil-lake-").tempdir()?;
        let network = format!("frazil-{}", Uuid::new_v4().simple());
        let postgres_name = format!("{network}-postgres");
        let (image, tag) = engine::image("POSTGRES_IMAGE", "postgres:17");
        let request = GenericImage::new(image, tag)
            .with_exposed_port(POSTGRES_PORT.tcp())
            .with_wait_for(WaitFor::message_on_stderr(POSTGRES_READY))
            .with_env_var("POSTGRES_USER", NAME)
            .with_env_var("POSTGRES_PASSWORD", NAME)
            .with_cmd(["postgres", "-c", "wal_level=logical", "-c", "fsync=off"])
            .with_network(&network)
            .with_container_name(&postgres_name);
        let host = engine::host();
        let postgres = engine::publish(request, POSTGRES_PORT, &host).start().await?;
        let port = postgres.get_host_port_ipv4(POSTGRES_PORT).await?;
        let postgres_url = url(&host, port);
        let frazil = OnceCell::new();
        Ok(Self { frazil, postgres, folder, network, postgres_name, postgres_url })
    }

    /// Where this machine reaches Postgres: `postgres://user:password@host:port/database`.
    pub fn postgres_url(&self) -> &str {
        &self.postgres_url
    }

    /// The lake: Iceberg tables, and `catalog.db`, an Iceberg SQL catalog named `frazil`.
    pub fn lake_folder(&self) -> &Path {
        self.folder.path()
    }

    /// The Postgres container.
    pub fn postgres(&self) -> &ContainerAsync<GenericImage> {
        &self.postgres
    }

    /// Starts frazil, if it is not started: it copies the tables there are and follows them.
    /// Returns before the copy is done.
    ///
    /// # Errors
    /// [`Error::Image`], [`Error::Folder`].
    pub async fn follow(&self) -> Result<&ContainerAsync<GenericImage>, Error> {
        self.frazil.get_or_try_init(|| self.start_frazil()).await
    }

    async fn start_frazil(&self) -> Result<ContainerAsync<GenericImage>, Error> {
        let folder = self.folder.path().display().to_string();
        let owner = self.folder.path().metadata()?;
        let (image, tag) = engine::image("FRAZIL_IMAGE", "frazil:latest");
        // The test's own server has no certificate, and only its own network.
        let source = format!("{}?sslmode=disable", url(&self.postgres_name, POSTGRES_PORT));
        let frazil = GenericImage::new(&image, &tag)
            .with_cmd(["run"])
            // In the environment, so that `status` and `wait` in the container see it too.
            .with_env_var("FRAZIL_SOURCE__URL", source)
            .with_env_var("FRAZIL_LAKE__INTO", &folder)
            .with_env_var("FRAZIL_COMMIT__INTERVAL", COMMIT_INTERVAL)
            .with_mount(Mount::bind_mount(&folder, &folder))
            .with_user(format!("{}:{}", owner.uid(), owner.gid()))
            .with_network(&self.network)
            .with_container_name(format!("{}-frazil", self.network));
        let image = format!("{image}:{tag}");
        frazil.start().await.map_err(|source| Error::Image { image, source })
    }

    /// Returns once the lake holds all that is committed in Postgres now.
    ///
    /// # Errors
    /// [`Error::Frazil`] where frazil has stopped, or needs longer than a minute.
    pub async fn wait_now(&self) -> Result<(), Error> {
        self.call(&["wait", "--now"]).await.map(drop)
    }

    /// `frazil status` as JSON, with the rows of each table counted as a query sees them.
    ///
    /// # Errors
    /// [`Error::Frazil`] where there is no lake yet.
    pub async fn status(&self) -> Result<String, Error> {
        self.call(&["status", "--exact", "--output", "json"]).await
    }

    /// Calls a verb in frazil's container; gives what it printed.
    async fn call(&self, arguments: &[&str]) -> Result<String, Error> {
        let frazil = self.follow().await?;
        let command = ["/usr/bin/frazil"].iter().chain(arguments).copied();
        let message = match frazil.exec(ExecCommand::new(command)).await {
            Ok(mut called) => {
                let printed = called.stdout_to_vec().await?;
                let said = called.stderr_to_vec().await?;
                if called.exit_code().await? == Some(0) {
                    return Ok(String::from_utf8_lossy(&printed).into_owned());
                }
                String::from_utf8_lossy(&said).into_owned()
            }
            // As when it has ended: then the log says why.
            Err(error) => error.to_string(),
        };
        let log = frazil.stderr_to_vec().await?;
        let log = String::from_utf8_lossy(&log).into_owned();
        Err(Error::Frazil { verb: arguments.join(" "), message, log })
    }
}

fn url(host: &str, port: u16) -> String {
    format!("postgres://{NAME}:{NAME}@{host}:{port}/{NAME}")
}
