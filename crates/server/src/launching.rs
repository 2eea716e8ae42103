//! Launching runs in this process: reads the launch file, connects to the cluster, and starts the
//! launcher.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use podbeat_files::regular_file;
use podbeat_launch::cluster::{self, Kubernetes, Place};
use podbeat_launch::launcher::{Launcher, Runs};
use podbeat_launch::settings::{self, Settings};
use podbeat_runs::Rules;

use crate::keys;
use crate::service::{self, Service};
use crate::settings::Config;
use crate::telemetry::readings::Readings;

/// The largest launch file, in bytes: as a ConfigMap.
const LARGEST: u64 = 1 << 20;

/// Why the server can't launch runs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The launch file can't be read.
    #[error("cannot read the launch file {}; check PODBEAT_SERVER_LAUNCH_FILE", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The launch file is wrong.
    #[error("correct the launch file {}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: settings::Error,
    },
    /// There is no client for the cluster.
    #[error(
        "cannot launch runs; check the service account of this pod, or PODBEAT_SERVER_KUBECONFIG"
    )]
    Cluster(#[from] cluster::Error),
    /// The system has no random bytes.
    #[error(transparent)]
    Random(#[from] keys::Error),
}

/// Reads the launch file.
///
/// # Errors
/// It can't be read, or is wrong.
pub fn load(path: &Path) -> Result<Settings, Error> {
    let json = regular_file::read(path, LARGEST).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    Settings::read(&json).map_err(|source| Error::Wrong {
        path: path.to_owned(),
        source,
    })
}

/// The rules of runs, with those of the launch file.
#[must_use]
pub fn rules(rules: Rules, launch: Option<&Settings>) -> Rules {
    match launch {
        Some(launch) => Rules {
            disruptions: launch.retries.disruptions,
            final_exit_codes: launch.final_exit_codes(),
            ..rules
        },
        None => rules,
    }
}

/// Where the API server is.
#[must_use]
pub fn place(config: &Config) -> Place {
    match &config.kubeconfig {
        None if config.in_pod => Place::InCluster,
        path => Place::Kubeconfig(path.clone()),
    }
}

/// A launcher for the runs of this service. It does nothing until it runs.
///
/// # Errors
/// There is no client for the cluster.
pub async fn launcher(
    config: &Config,
    launch: Settings,
    service: &Arc<Service>,
    readings: &Arc<Readings>,
) -> Result<Arc<Launcher>, Error> {
    let cluster = Arc::new(Kubernetes::new(&place(config), launch.clone()).await?);
    service.reads_logs_of(Arc::clone(&cluster) as _);
    let seed = u64::from_le_bytes(keys::random::<8>()?);
    let rules = rules(config.rules, Some(&launch));
    let runs: Arc<dyn Runs> = Arc::clone(service) as _;
    let launcher = Arc::new(Launcher::new(
        cluster,
        runs,
        Arc::clone(readings) as _,
        (launch, rules),
        seed,
    ));
    service.tell(service::listener(&launcher));
    readings.launches(&launcher);
    Ok(launcher)
}
