//! How the stand-in launches runs: podbeat-server's launcher, in this process.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use podbeat_launch::cluster::{Kubernetes, Place};
use podbeat_launch::launcher::{Launcher, Observer};
use podbeat_launch::settings::Settings;
use podbeat_runs::Rules;
use podbeat_server::keys;
use podbeat_server::service::{Service, listener};

use crate::Error;

/// How the stand-in launches runs.
#[derive(Clone)]
pub struct Launch {
    /// The launch file. Without a `serviceUrl`, the stand-in sets its own.
    pub settings: Settings,
    /// The kubeconfig of the Kubernetes API. [`World`](crate::world::World) sets it.
    pub kubeconfig: PathBuf,
    /// Learns what the launcher does.
    pub observer: Arc<dyn Observer>,
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Launch {
    pub(super) fn settings_at(&self, url: &str) -> Settings {
        let mut settings = self.settings.clone();
        settings.service_url.get_or_insert_with(|| url.to_owned());
        settings
    }

    /// A launcher for the runs of this service.
    pub(super) async fn launcher(
        &self,
        service: &Arc<Service>,
        url: &str,
        rules: Rules,
    ) -> Result<Arc<Launcher>, Error> {
        let settings = self.settings_at(url);
        let place = Place::Kubeconfig(Some(self.kubeconfig.clone()));
        let cluster = Kubernetes::new(&place, settings.clone()).await?;
        let launcher = Arc::new(Launcher::new(
            Arc::new(cluster),
            Arc::clone(service) as _,
            Arc::clone(&self.observer),
            (settings, rules),
            u64::from_le_bytes(keys::random::<8>()?),
        ));
        service.tell(listener(&launcher));
        Ok(launcher)
    }
}
