//! All Jobs that there ever were, as an administrator sees them.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, WatchEvent, WatchParams};
use tokio::time::Instant;

/// The pause before a watch that failed begins again.
const PAUSE: Duration = Duration::from_millis(100);

/// What is known of the Jobs.
#[derive(Debug, Default)]
pub struct Known {
    /// The UIDs of all Jobs that there ever were, by name.
    pub uids: BTreeMap<String, BTreeSet<String>>,
    /// The Jobs that exist, with their runs.
    pub live: BTreeMap<String, String>,
    /// When the first Job came.
    pub first: Option<Instant>,
    /// When the last Job came.
    pub last: Option<Instant>,
}

/// Notes every Job of all namespaces, until it is aborted.
pub async fn watch(client: kube::Client, known: Arc<Mutex<Known>>) {
    let api = Api::<Job>::all(client);
    loop {
        let Ok(stream) = api.watch(&WatchParams::default(), "0").await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let mut stream = pin!(stream);
        while let Some(Ok(event)) = stream.next().await {
            let (job, is_gone) = match event {
                WatchEvent::Added(job) | WatchEvent::Modified(job) => (job, false),
                WatchEvent::Deleted(job) => (job, true),
                WatchEvent::Bookmark(_) | WatchEvent::Error(_) => continue,
            };
            let (Some(name), Some(uid)) = (job.metadata.name, job.metadata.uid) else {
                continue;
            };
            let labels = job.metadata.labels.unwrap_or_default();
            let run = labels.get("podbeat.dev/run").cloned().unwrap_or_default();
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.uids.entry(name.clone()).or_default().insert(uid) {
                let now = Instant::now();
                known.first.get_or_insert(now);
                known.last = Some(now);
            }
            match is_gone {
                true => known.live.remove(&name),
                false => known.live.insert(name, run),
            };
        }
    }
}
