//! Checks the connection to the API server, the permissions there, and the pod.

use std::time::Duration;

use jiff::Timestamp;
use podbeat_files::{regular_file, trimmed};
use podbeat_http_client::rejected::Rejected;
use podbeat_interface::setting::{CONTAINER_NAME, POD_NAME, POD_NAMESPACE};
use podbeat_kubernetes::access::Access;
use podbeat_kubernetes::ask::{Questions, Version};
use podbeat_kubernetes::error::{Error, Refusal};
use podbeat_kubernetes::resource::Pod;
use podbeat_kubernetes::role::{self, Account};
use podbeat_kubernetes::status;

use super::clock::{self, Dated};
use super::deployed::{self, Expected};
use super::{blocking, in_words, told};
use crate::config::{Config, Partial};
use podbeat_interface::finding::Finding;

const ACCESS: &str = "kubernetes.access";
const API: &str = "kubernetes.api";
const POD: &str = "kubernetes.pod";
const CLOCK: &str = "clock.kubernetes";

/// The verbs that podbeat needs for its pod, and the check for each.
const VERBS: [(&str, &str); 3] = [
    ("get", "kubernetes.get"),
    ("list", "kubernetes.list"),
    ("watch", "kubernetes.watch"),
];

/// Makes all checks with the API server, in the order of the steps.
pub(super) async fn check(partial: &Partial, limit: Duration) -> Vec<Finding> {
    let (finding, questions) = reach(&partial.config, limit).await;
    let mut found = vec![finding];
    let Some(questions) = questions else {
        found.push(Finding::because(API, ACCESS));
        found.push(Finding::because(CLOCK, ACCESS));
        found.extend(beyond(ACCESS));
        return found;
    };
    let names_a_pod = [&POD_NAME.row, &POD_NAMESPACE.row]
        .into_iter()
        .find(|setting| partial.is_wrong(setting));
    let name = partial.config.pod_name.as_str();
    let asked = Timestamp::now();
    let version = async {
        let version = questions.version().await;
        (version, Timestamp::now())
    };
    // All requests in parallel. Without a pod's name, podbeat does not send those about the pod.
    let rest = async {
        match names_a_pod {
            Some(_) => None,
            None => {
                let [get, list, watch] = VERBS.map(|(verb, _)| questions.may(verb, name));
                let all = tokio::join!(get, list, watch, questions.pod(name), questions.account());
                Some(all)
            }
        }
    };
    let ((version, answered), rest) = tokio::join!(version, rest);
    let (api, is_there) = api(&version, &questions);
    found.push(api);
    found.push(match &version {
        Ok(version) => {
            let answer = Dated {
                date: version.date.clone(),
                asked,
                answered,
            };
            clock::compare(CLOCK, "the API server", &answer)
        }
        Err(_) => Finding::because(CLOCK, API),
    });
    if !is_there {
        found.extend(beyond(API));
        return found;
    }
    let Some((get, list, watch, pod, account)) = rest else {
        let variable = names_a_pod.map_or("", |setting| setting.variable);
        let setting = format!("settings.{variable}");
        found.extend(beyond(&setting));
        return found;
    };
    for ((verb, id), allowed) in VERBS.into_iter().zip([get, list, watch]) {
        found.push(right(id, verb, allowed, &account, &questions, name));
    }
    let may_get = found
        .iter()
        .any(|finding| finding.id == VERBS[0].1 && finding.holds());
    let native_sidecars = version.as_ref().ok().and_then(knows_native_sidecars);
    let retries = match &pod {
        Ok(Some(pod)) => Some(retries(pod, partial, &questions).await),
        Ok(None) | Err(_) => None,
    };
    found.extend(of_pod(pod, may_get, partial, &questions, native_sidecars));
    found.extend(retries);
    found
}

/// The checks to skip if podbeat cannot ask the API server about the pod.
fn beyond(other: &str) -> Vec<Finding> {
    let ids = VERBS.iter().map(|(_, id)| *id).chain([POD]);
    let mut found: Vec<Finding> = ids.map(|id| Finding::because(id, other)).collect();
    found.extend(deployed::because(other));
    found
}

/// Creates the client.
async fn reach(config: &Config, limit: Duration) -> (Finding, Option<Questions>) {
    let namespace = config.pod_namespace.clone();
    let access = config.kubernetes.clone();
    let runtime = tokio::runtime::Handle::current();
    // On its own thread, because it reads files, and a kubeconfig may run a program for
    // credentials.
    let questions = blocking(limit, move || {
        files(&access).and_then(|()| {
            runtime
                .block_on(Questions::new(&access, namespace.as_deref(), limit))
                .map_err(|error| told(&error))
        })
    });
    let remedy = match &config.kubernetes {
        Access::InCluster { .. } => {
            "podbeat needs a service account's token and the cluster's CA in PODBEAT_SERVICE_ACCOUNT_DIR, readable for its user. Mount \
             the volume podbeat of deploy/manifests/job-native-sidecar.yaml, or set automountServiceAccountToken: true. Until then, \
             heartbeats have no container states."
        }
        Access::Kubeconfig { .. } => {
            "Choose a kubeconfig with KUBECONFIG or --kubeconfig, and its context with --context. Test them with `kubectl get pod`. In a \
             pod, KUBERNETES_SERVICE_HOST must be set; the kubelet sets it (enableServiceLinks does not matter)."
        }
    };
    match questions.await {
        Some(Ok(questions)) => {
            let kind = match &config.kubernetes {
                Access::InCluster { .. } => "in-cluster",
                Access::Kubeconfig { .. } => "kubeconfig",
            };
            let route = questions.route();
            let by = match (route.proxy(), route.passed_over()) {
                (Some(proxy), _) => format!(" through the proxy {proxy} ({})", proxy.named_by()),
                (None, Some(why)) => format!(" ({why})"),
                (None, None) => String::new(),
            };
            let seen = format!(
                "{kind}: {}{by}, namespace {}",
                questions.server(),
                questions.namespace()
            );
            (Finding::ok(ACCESS, seen), Some(questions))
        }
        Some(Err(problem)) => (Finding::failed(ACCESS, problem, remedy), None),
        None => {
            let seen = format!(
                "no result within {}: a file does not respond, or the kubeconfig's credential program hangs",
                in_words(limit)
            );
            (Finding::failed(ACCESS, seen, remedy), None)
        }
    }
}

/// In a pod, checks the two files by name. The client's later error would be less clear.
fn files(access: &Access) -> Result<(), String> {
    let Access::InCluster {
        service_account_dir,
        ..
    } = access
    else {
        return Ok(());
    };
    for (name, most) in [("token", regular_file::LINE), ("ca.crt", regular_file::PEM)] {
        let path = service_account_dir.join(name);
        match regular_file::read(&path, most) {
            Ok(bytes) if trimmed::bytes(&bytes).is_empty() => {
                return Err(format!("{} is empty", path.display()));
            }
            Ok(_) => {}
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        }
    }
    Ok(())
}

fn api(version: &Result<Version, Error>, questions: &Questions) -> (Finding, bool) {
    match version {
        Ok(version) => {
            let seen = format!("Kubernetes {}", version.git_version);
            (Finding::ok(API, seen), true)
        }
        // The API server responds and accepts the token. Its rules decide who may see the version.
        Err(Error::Refused {
            refusal:
                Refusal {
                    status: status @ (403 | 404),
                    ..
                },
            ..
        }) => (
            Finding::ok(API, format!("reachable; version not available ({status})")),
            true,
        ),
        Err(error) => {
            let finding = Finding::failed(API, told(error), advice(error, &questions.server()));
            (finding, false)
        }
    }
}

fn advice(error: &Error, server: &str) -> String {
    match error {
        Error::Refused { refusal, .. } if refusal.status == 401 => {
            "The API server does not accept the token. In a pod, check that the token belongs to this cluster and has not expired (the \
             kubelet replaces projected tokens, but not copies of them). With a kubeconfig, sign in again."
                .to_owned()
        }
        Error::Refused { refusal, .. } if refusal.status == 403 => {
            "The cluster's default ClusterRoles (system:basic-user, system:public-info-viewer) allow this request for every \
             authenticated user. Check whether they were removed."
                .to_owned()
        }
        Error::Refused { .. } => format!("{server} has a problem, or is not a Kubernetes API. Try again, or check the control plane."),
        Error::Unreadable { .. } | Error::TooLarge { .. } => format!("Check that {server} is a Kubernetes API."),
        Error::Unreachable { source, .. } => match super::tls::cause(source.as_ref()) {
            Some(rustls::Error::InvalidCertificate(
                rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature)) => {
                "The API server's certificate is not from the configured CA. Use the CA of this cluster: ca.crt in \
                 PODBEAT_SERVICE_ACCOUNT_DIR (the ConfigMap kube-root-ca.crt), or certificate-authority in the kubeconfig."
                    .to_owned()
            }
            Some(error) if let Some(rejected) = Rejected::new(error) => {
                format!("The operator of the cluster must {}.", rejected.remedy)
            }
            Some(_) => format!("Check that {server} matches the certificate, and that nothing on the path breaks TLS."),
            None => format!(
                "Check {server}, and the network path to it. In a pod, a NetworkPolicy must allow connections to the API server. \
                 podbeat uses HTTPS_PROXY unless NO_PROXY has the host."
            ),
        },
        Error::Timeout { .. } => format!(
            "A NetworkPolicy or a firewall drops packets to {server}, or the API server is overloaded. podbeat uses HTTPS_PROXY unless \
             NO_PROXY has the host."
        ),
        Error::Access(_) | Error::Request { .. } | Error::Endless { .. } => {
            "See kubernetes.access.".to_owned()
        }
    }
}

fn right(
    id: &str,
    verb: &str,
    allowed: Result<bool, Error>,
    account: &Result<Account, Error>,
    questions: &Questions,
    pod: &str,
) -> Finding {
    let who = account
        .as_ref()
        .map_or_else(|_| "this account".to_owned(), Account::to_string);
    let namespace = questions.namespace();
    match allowed {
        Ok(true) => Finding::ok(id, format!("{who} may {verb} pod {namespace}/{pod}")),
        Ok(false) => {
            let (subject, note) = match account {
                Ok(account) => (account.clone(), ""),
                Err(_) => (
                    Account::ServiceAccount {
                        namespace: namespace.to_owned(),
                        name: "default".to_owned(),
                    },
                    " (the API server did not identify the account; replace default with its name)",
                ),
            };
            Finding::failed(
                id,
                format!("{who} may not {verb} pod {namespace}/{pod}"),
                format!(
                    "Apply this Role and RoleBinding with kubectl apply --filename -{note}:\n{}",
                    role::missing(namespace, &subject)
                ),
            )
        }
        Err(error) => Finding::failed(id, told(&error), advice(&error, &questions.server())),
    }
}

/// Counts the Job's pods if the agent would.
async fn retries(pod: &Pod, partial: &Partial, questions: &Questions) -> Finding {
    let setting = partial.config.reporting.job_retry_count;
    let seen = status::observe(pod, "");
    let counted = match (setting.or(seen.job_retry_count), &seen.job) {
        (None, Some(job)) => Some(questions.retries(job).await.map_err(|error| told(&error))),
        (Some(_), _) | (None, None) => None,
    };
    deployed::retries(setting, seen.job_retry_count, counted)
}

fn of_pod(
    pod: Result<Option<Pod>, Error>,
    may_get: bool,
    partial: &Partial,
    questions: &Questions,
    native_sidecars: Option<bool>,
) -> Vec<Finding> {
    let config = &partial.config;
    let name = format!("{}/{}", questions.namespace(), config.pod_name);
    let because = |finding: Finding| {
        let mut found = vec![finding];
        found.extend(deployed::because(POD));
        found
    };
    match pod {
        Ok(Some(pod)) => {
            let expected = Expected::of(config, !partial.is_wrong(&CONTAINER_NAME.row));
            let mut found = vec![there(&name, &pod)];
            found.extend(deployed::judge(&pod, &expected, native_sidecars));
            found
        }
        Ok(None) => because(Finding::failed(
            POD,
            format!("pod {name} not found"),
            "Check POD_NAME and POD_NAMESPACE (--pod-name, --pod-namespace), and the cluster (--context). In a pod, they come from the \
             downward API. podbeat cannot check a deleted pod. `kubectl get pods --namespace NAMESPACE` lists the existing pods.",
        )),
        Err(error) if !may_get && error.status() == Some(403) => {
            because(Finding::because(POD, VERBS[0].1))
        }
        Err(error) => because(Finding::failed(
            POD,
            told(&error),
            advice(&error, &questions.server()),
        )),
    }
}

fn there(name: &str, pod: &Pod) -> Finding {
    let phase = pod.status.phase.as_deref().unwrap_or("without a phase");
    let node = pod.spec.node_name.as_deref();
    let node = node.map(|node| format!(" on {node}")).unwrap_or_default();
    let seen = format!("{name} is {phase}{node}");
    if pod.metadata.deletion_timestamp.is_some() {
        return Finding::warning(
            POD,
            format!("{seen}, and is being deleted"),
            "Nothing starts in this pod any more. Check another pod.",
        );
    }
    if matches!(phase, "Succeeded" | "Failed") {
        return Finding::warning(
            POD,
            format!("{seen}: it has ended"),
            "Nothing starts in this pod any more. Check another pod. `podbeat reap` sends a missing last heartbeat.",
        );
    }
    Finding::ok(POD, seen)
}

/// Native sidecars exist from 1.29 on, where the feature gate is on by default.
fn knows_native_sidecars(version: &Version) -> Option<bool> {
    let mut parts = version.git_version.trim_start_matches('v').split('.');
    let (major, minor) = (
        parts.next()?.parse::<u32>().ok()?,
        parts.next()?.parse::<u32>().ok()?,
    );
    Some((major, minor) >= (1, 29))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_sidecars_by_version() {
        let knows = |version: &str| {
            knows_native_sidecars(&Version {
                git_version: version.to_owned(),
                date: None,
            })
        };
        for (version, expected) in [
            ("v1.37.0", Some(true)),
            ("v1.29.3-eks-a5df82a", Some(true)),
            ("v1.28.15", Some(false)),
            ("v2.0.0", Some(true)),
            ("", None),
            ("v1", None),
            ("v1.x.1", None),
        ] {
            assert_eq!(knows(version), expected, "{version}");
        }
    }
}
