//! The files and the environment of podbeat's container, from the pod's spec.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use tempfile::TempDir;

use super::{Shared, text};
use crate::kube_api::Kind;

/// The volumes of a pod, one directory for each. They are removed when dropped.
pub(super) struct Volumes {
    dir: TempDir,
}

fn list<'value>(value: &'value Value, path: &str) -> impl Iterator<Item = &'value Value> {
    let list = value.pointer(path).and_then(Value::as_array);
    list.into_iter().flatten()
}

impl Volumes {
    /// Writes the volumes of a pod. `None` if a Secret does not exist yet.
    pub(super) fn of(pod: &Value, shared: &Shared) -> Result<Option<Self>, String> {
        let failed = |error: std::io::Error| format!("writing the volumes of a pod: {error}");
        let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
        let mut directories = Vec::new();
        for volume in list(pod, "/spec/volumes") {
            let below = Path::new(text(volume, "/name"));
            directories.push(below.to_owned());
            for source in list(volume, "/projected/sources") {
                if source.get("serviceAccountToken").is_some() {
                    let path = below.join(text(source, "/serviceAccountToken/path"));
                    files.push((path, shared.options.token.clone().into_bytes()));
                }
                let map = shared
                    .options
                    .config_maps
                    .get(text(source, "/configMap/name"));
                for item in list(source, "/configMap/items") {
                    let value = map.and_then(|map| map.get(text(item, "/key")));
                    files.extend(value.map(|value| {
                        (below.join(text(item, "/path")), value.clone().into_bytes())
                    }));
                }
                if source.get("secret").is_none() {
                    continue;
                }
                let namespace = text(pod, "/metadata/namespace");
                let name = text(source, "/secret/name");
                let Some(secret) = shared.kube.get(Kind::Secret, namespace, name) else {
                    return Ok(None);
                };
                for item in list(source, "/secret/items") {
                    let key = text(item, "/key");
                    let data = secret.get("data").and_then(|data| data.get(key)?.as_str());
                    let data = data.and_then(|data| BASE64_STANDARD.decode(data).ok());
                    let data = data.ok_or_else(|| format!("Secret {name} has no key {key}"))?;
                    files.push((below.join(text(item, "/path")), data));
                }
            }
        }
        let dir = TempDir::new_in(shared.dir.path()).map_err(failed)?;
        for directory in directories {
            std::fs::create_dir_all(dir.path().join(directory)).map_err(failed)?;
        }
        for (path, data) in files {
            let path = dir.path().join(path);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(failed)?;
            }
            std::fs::write(path, data).map_err(failed)?;
        }
        Ok(Some(Self { dir }))
    }

    /// The environment of podbeat's container. Paths in mounted volumes become paths in the
    /// directories of this machine.
    pub(super) fn environment(&self, pod: &Value, shared: &Shared) -> BTreeMap<String, String> {
        let mut environment = BTreeMap::from([
            ("KUBERNETES_SERVICE_HOST".to_owned(), "127.0.0.1".to_owned()),
            (
                "KUBERNETES_SERVICE_PORT".to_owned(),
                shared.kube.port().to_string(),
            ),
        ]);
        let mut containers = list(pod, "/spec/initContainers");
        let Some(container) = containers.find(|it| text(it, "/name") == "podbeat") else {
            return environment;
        };
        for source in list(container, "/envFrom") {
            let map = shared
                .options
                .config_maps
                .get(text(source, "/configMapRef/name"));
            environment.extend(map.cloned().unwrap_or_default());
        }
        for variable in list(container, "/env") {
            let value = match variable.pointer("/valueFrom/fieldRef/fieldPath") {
                Some(path) => field(pod, path.as_str().unwrap_or_default()),
                None => text(variable, "/value"),
            };
            environment.insert(text(variable, "/name").to_owned(), value.to_owned());
        }
        // Each pod has a network of its own, and here all share one.
        environment.remove("PODBEAT_LISTEN");
        for value in environment.values_mut() {
            for mount in list(container, "/volumeMounts") {
                let path = text(mount, "/mountPath");
                let below = value.strip_prefix(path);
                if let Some(below) = below.filter(|it| it.is_empty() || it.starts_with('/')) {
                    let volume = self.dir.path().join(text(mount, "/name"));
                    *value = format!("{}{below}", volume.display());
                    break;
                }
            }
        }
        environment
    }
}

/// A field of the downward API. An annotation that does not exist is empty, as in Kubernetes.
fn field<'pod>(pod: &'pod Value, path: &str) -> &'pod str {
    let annotation = path
        .strip_prefix("metadata.annotations['")
        .and_then(|rest| rest.strip_suffix("']"));
    match annotation {
        Some(name) => {
            let annotations = pod.pointer("/metadata/annotations");
            let value = annotations.and_then(|all| all.get(name)?.as_str());
            value.unwrap_or_default()
        }
        None => text(pod, &format!("/{}", path.replace('.', "/"))),
    }
}
