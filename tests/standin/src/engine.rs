//! One running instance: its folder, its databases, its password, and the phase it is in.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::tz::TimeZone;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::errorlog;
use crate::password::{self, Hash};
use crate::settings::Settings;
use crate::storage::Fault;
use crate::storage::claim::{Claim, ClaimError};
use crate::storage::database::{self, Database};
use crate::storage::master;
use crate::tds::prelogin::TlsMode;
use crate::tds::tls;

/// The version that `SERVERPROPERTY('ProductVersion')` shows: that of SQL Edge 2.0.0.
pub const PRODUCT_VERSION: &str = "16.0.5100.7245";
/// The same for the wire.
pub const WIRE_VERSION: [u8; 4] = [16, 0, 0x13, 0xEC];

/// What the instance is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// TCP answers, logins fail.
    Recovering,
    /// In use.
    Ready,
    /// Going down.
    Stopping {
        /// Whether logs are written into their files first.
        checkpoint: bool,
    },
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `ACCEPT_EULA` is not set.
    #[error(
        "The SQL Server End-User License Agreement (EULA) must be accepted before SQL Server can start: set the \
         ACCEPT_EULA environment variable. (This stand-in has no such license, but refuses like the real engine.)"
    )]
    Eula,
    /// The password for a new folder breaks the rule.
    #[error("ERROR: Unable to set system administrator password: Password validation failed. {0}")]
    Password(&'static str),
    /// The folder cannot be used.
    #[error("{0}")]
    Claim(#[from] ClaimError),
    /// The master database cannot be opened.
    #[error("Cannot recover the master database: {0}. SQL Server is unable to run; check the volume and start again.")]
    Master(Fault),
    /// No certificate could be made.
    #[error("Unable to make a self-signed certificate: {0}. Set STANDIN_TLS=off to start without.")]
    Certificate(String),
}

/// One running instance.
pub struct Engine {
    /// The settings it was started with.
    pub settings: Settings,
    /// `@@SERVERNAME`.
    pub host: String,
    /// When it started, as style 126 writes it.
    pub started: String,
    /// The collation of the first start.
    pub collation: String,
    /// Makes TLS sessions, unless TLS is off.
    pub tls: Option<TlsAcceptor>,
    claim: Claim,
    password: RwLock<Hash>,
    databases: RwLock<BTreeMap<String, Arc<Database>>>,
    phase: watch::Sender<Phase>,
}

impl Engine {
    /// Claims the folder, sets a new one up and opens master. Blocking. The other databases stay closed until
    /// [`Engine::recover`], so that clients can already connect meanwhile.
    pub fn start(settings: Settings) -> Result<Self, StartError> {
        if !settings.eula {
            return Err(StartError::Eula);
        }
        let claim = Claim::take(&settings.root)?;
        if let Some(limit) = &settings.memory_limit {
            errorlog::line("Server", &format!("Memory limit: {limit} MB."));
        }
        let path = claim.data().join("master.mdf");
        let mut connection = database::open(&path).map_err(StartError::Master)?;
        if master::is_set_up(&connection).map_err(StartError::Master)? {
            master::make_file(&claim.data().join("tempdb.mdf")).map_err(StartError::Master)?;
        } else {
            let password = settings.sa_password.as_deref().unwrap_or_default();
            if let Some(weakness) = password::weakness(password) {
                return Err(StartError::Password(weakness));
            }
            errorlog::line(
                "Server",
                "Setup step is copying system data files into the data folder.",
            );
            master::set_up(&mut connection, claim.data(), &Hash::of(password), &settings.collation)
                .map_err(StartError::Master)?;
        }
        let contents = master::read(&connection, claim.data()).map_err(StartError::Master)?;
        let mut open_master = Some(connection);
        let mut databases = BTreeMap::new();
        for listed in contents.databases {
            let key = listed.name.to_lowercase();
            let database = match open_master.take_if(|_| key == "master") {
                Some(open) => Database::online(listed.name, listed.id, true, listed.path, open),
                None => Database::recovering(listed.name, listed.id, listed.system, listed.path),
            };
            databases.insert(key, Arc::new(database));
        }
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let tls = match settings.tls {
            TlsMode::Off => None,
            TlsMode::Optional | TlsMode::Forced => {
                Some(tls::self_signed(&host).map_err(|error| StartError::Certificate(error.to_string()))?)
            }
        };
        let now = jiff::Timestamp::now().to_zoned(TimeZone::UTC);
        Ok(Self {
            host,
            started: now.strftime("%Y-%m-%dT%H:%M:%S%.3f").to_string(),
            collation: contents.collation,
            tls,
            claim,
            password: RwLock::new(contents.password),
            databases: RwLock::new(databases),
            phase: watch::Sender::new(Phase::Recovering),
            settings,
        })
    }

    /// Opens every other database, which replays their logs. Blocking.
    pub fn recover(&self) {
        for database in self.databases() {
            if database.state() == database::State::Recovering {
                database.recover();
            }
        }
    }

    /// True when the last stop was not clean.
    pub fn was_unclean(&self) -> bool {
        self.claim.was_unclean()
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Follows the phase.
    pub fn watch_phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Goes into another phase; a stop is final.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let open = !matches!(current, Phase::Stopping { .. });
            if open {
                *current = phase;
            }
            open
        });
    }

    /// Whether this is the password of `user`.
    pub fn is_password(&self, user: &str, password: &str) -> bool {
        let stored = self.password.read().unwrap_or_else(PoisonError::into_inner).clone();
        user.eq_ignore_ascii_case("sa") && stored.matches(password)
    }

    /// Stores a new password of sa, and takes it from then on.
    pub async fn set_password(&self, password: &str) -> Result<(), Fault> {
        let hash = Hash::of(password);
        let stored = hash.clone();
        let (_, result) = self
            .master()
            .lease()
            .await?
            .run(move |c| master::set_password(c, &hash))
            .await;
        result?;
        *self.password.write().unwrap_or_else(PoisonError::into_inner) = stored;
        Ok(())
    }

    /// All databases, by number.
    pub fn databases(&self) -> Vec<Arc<Database>> {
        let databases = self.databases.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = databases.values().cloned().collect();
        all.sort_by_key(|database| database.id);
        all
    }

    /// The database of this name, whose case does not matter.
    pub fn database(&self, name: &str) -> Option<Arc<Database>> {
        self.databases
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&name.to_lowercase())
            .cloned()
    }

    fn master(&self) -> Arc<Database> {
        self.database("master").expect("every instance has master")
    }

    /// Makes a database. The lease on master keeps two creations apart.
    pub async fn create_database(&self, name: &str) -> Result<(), CatalogError> {
        let lease = self.master().lease().await?;
        // the file of msdb has another name than its database
        if self.database(name).is_some() || name.eq_ignore_ascii_case("msdbdata") {
            return Err(CatalogError::Exists);
        }
        let (data, wanted) = (self.data().to_owned(), name.to_owned());
        let (_lease, created) = lease.run(move |c| master::create_database(c, &data, &wanted)).await;
        let (listed, connection) = created?;
        let database = Database::online(listed.name, listed.id, listed.system, listed.path, connection);
        let mut databases = self.databases.write().unwrap_or_else(PoisonError::into_inner);
        databases.insert(name.to_lowercase(), Arc::new(database));
        Ok(())
    }

    /// Removes a database, once the session that uses it is done.
    pub async fn drop_database(&self, name: &str) -> Result<(), CatalogError> {
        let lease = self.master().lease().await?;
        let database = self.database(name).ok_or(CatalogError::Missing)?;
        if database.system {
            return Err(CatalogError::System);
        }
        self.databases
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&name.to_lowercase());
        // a suspect database cannot be closed well, and need not
        let _ = database.close(true).await;
        let (data, name) = (self.data().to_owned(), database.name.clone());
        let (_lease, dropped) = lease.run(move |c| master::drop_database(c, &data, &name)).await;
        Ok(dropped?)
    }

    /// Closes every database; the faults say which could not be checkpointed.
    pub async fn close(&self, checkpoint: bool) -> Vec<(String, Fault)> {
        let mut faults = Vec::new();
        for database in self.databases() {
            if let Err(fault) = database.close(checkpoint).await {
                faults.push((database.name.clone(), fault));
            }
        }
        faults
    }

    /// The folder of the database files.
    pub fn data(&self) -> &Path {
        self.claim.data()
    }
}

/// Why a database was not made or removed.
#[derive(Debug)]
pub enum CatalogError {
    /// The name is taken.
    Exists,
    /// There is none of that name.
    Missing,
    /// It is one of the four.
    System,
    /// Storage failed.
    Fault(Fault),
}

impl From<Fault> for CatalogError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
