//! The example overlay, below a user's own overlay.

use podbeat_published::REGISTRY;

use super::site::{CA_FILE, Site};
use super::statics::copy;
use crate::node::images::{PODBEAT, TASK};
use crate::runner::repository;
use crate::scenarios::play::expect;
use crate::{Error, io};

/// `kubectl apply --kustomize` adds podbeat to Jobs that don't mention it, and they run to their
/// end.
pub(super) async fn overlay(site: &Site) -> Result<(), Error> {
    // kustomize accepts no absolute path. A user with another namespace sets it in the overlay
    // itself.
    let own = site.directory.join("own");
    let copied = site.directory.join("kustomize");
    copy(&repository().join("deploy/kustomize"), &copied)?;
    let overlay = copied.join("example/overlay/kustomization.yaml");
    let text =
        std::fs::read_to_string(&overlay).map_err(io(format!("reading {}", overlay.display())))?;
    let text = text.replace(
        "namespace: tasks",
        &format!("namespace: {}", site.namespace()),
    );
    std::fs::write(&overlay, text).map_err(io(format!("writing {}", overlay.display())))?;
    std::fs::create_dir_all(&own).map_err(io(format!("creating {}", own.display())))?;
    let image = |name: &str, image: &str| {
        let (new_name, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
        format!("- {{name: {name}, newName: {new_name}, newTag: {tag}}}\n")
    };
    let text = format!(
        "apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
- ../kustomize/example/overlay
configMapGenerator:
- name: podbeat
  namespace: {namespace}
  behavior: merge
  literals:
  - PODBEAT_SERVICE_URL={url}
  - PODBEAT_CA_FILE={CA_FILE}
generatorOptions:
  disableNameSuffixHash: true
images:
{podbeat}{task}",
        namespace = site.namespace(),
        url = site.play.service.url(),
        podbeat = image(&format!("{REGISTRY}/podbeat"), PODBEAT),
        task = image("busybox", TASK),
    );
    site.file("own/kustomization.yaml", &text)?;
    let own = own.display().to_string();
    site.kubectl(&["apply", "--kustomize", &own])
        .await?
        .well()?;
    let (report, train) = tokio::try_join!(site.pod_of("report"), site.pod_of("train"))?;
    let (report, train) =
        tokio::try_join!(site.to_the_end(&report, 0), site.to_the_end(&train, 3))?;
    for (heartbeat, run) in [(report, "trn.report"), (train, "trn.train")] {
        expect(heartbeat.run_id == run, || {
            format!("expected {} to be {run}", heartbeat.run_id)
        })?;
    }
    tokio::try_join!(
        site.play.until_job_is("report", "Complete"),
        site.play.until_job_is("train", "Failed"),
        site.play.until_job_is("cleanup", "Complete")
    )?;
    Ok(())
}
