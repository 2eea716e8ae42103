//! Lists the cluster's pods for the verdicts.

use jiff::Timestamp;
use podbeat_kubernetes::listed::{Pods, Where};

use super::error::Error;
use podbeat_reap::{Chosen, Docket, Names, Rules, TooMany};

/// The verdicts on one pod by its name, on the pods of a label selector, or on all pods.
pub(super) async fn docket(
    pods: &Pods,
    rules: Rules,
    place: &Where,
    labels: Option<&str>,
    only: Option<&str>,
) -> Result<Docket, Error> {
    let chosen = match (only, labels) {
        (Some(name), _) => Chosen::Named(name.to_owned()),
        (None, Some(labels)) => {
            let mut names = Names::default();
            let mut added = Ok(());
            pods.list(place, Some(labels), |pod| {
                if added.is_ok() && pod.has_container(&rules.container_name) {
                    added = names.add(pod.name());
                }
            })
            .await?;
            added.map_err(|TooMany| Error::TooMany)?;
            Chosen::These(names)
        }
        (None, None) => Chosen::All,
    };
    let mut docket = Docket::new(rules, Timestamp::now(), chosen);
    let mut taken = Ok(());
    // List all pods, not only the chosen ones, because others may belong to the same runs.
    pods.list(place, None, |pod| {
        if taken.is_ok() {
            taken = docket.take(&pod);
        }
    })
    .await?;
    taken.map_err(|TooMany| Error::TooMany)?;
    Ok(docket)
}
