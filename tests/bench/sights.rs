//! What the API server shows, and when: watches of this process, so that no figure depends on how often somebody asks.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use kube::Client;
use kube::core::WatchEvent;
use serde::Deserialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

/// One event of a watch.
#[derive(Debug)]
pub struct Sight {
    pub at: Instant,
    pub name: String,
    /// A Node that takes no new pods.
    pub unschedulable: bool,
    /// A pod that was asked to go, or is gone.
    pub leaving: bool,
}

/// An open watch, from the objects that are there on. It ends when dropped.
pub struct Watch {
    sights: UnboundedReceiver<Sight>,
    task: AbortHandle,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    resource_version: String,
    deletion_timestamp: Option<String>,
}

#[derive(Clone, Default, Deserialize)]
struct Spec {
    #[serde(default)]
    unschedulable: bool,
}

/// As much of a Node or a pod as is looked at.
#[derive(Clone, Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

impl Watch {
    /// Opens it; `path` is a list with its selectors.
    pub fn open(client: Client, path: &str) -> Watch {
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}watch=true");
        let (sender, sights) = unbounded_channel();
        let task = tokio::spawn(async move {
            // A busy API server ends watches that it cannot feed in time: it is gone on from where it ended.
            let mut from = String::new();
            while !sender.is_closed() {
                from = follow(&client, &format!("{path}{from}"), &sender)
                    .await
                    .map_or(from, |version| format!("&resourceVersion={version}"));
            }
        });
        Watch { sights, task: task.abort_handle() }
    }

    /// When each of the first `count` different objects was first seen to be so: in that order, and fewer where
    /// `patience` is over before.
    pub async fn first(&mut self, count: usize, patience: Duration, so: impl Fn(&Sight) -> bool) -> Vec<Instant> {
        let deadline = tokio::time::Instant::now() + patience;
        let (mut names, mut times) = (HashSet::new(), Vec::with_capacity(count));
        while times.len() < count {
            match tokio::time::timeout_at(deadline, self.sights.recv()).await {
                Ok(Some(sight)) if so(&sight) => {
                    if names.insert(sight.name) {
                        times.push(sight.at);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return times,
            }
        }
        times
    }

    /// Waits until it has shown `count` objects that are there already.
    pub async fn shown(&mut self, count: usize) {
        let seen = self.first(count, Duration::from_secs(30), |sight| !sight.leaving).await.len();
        assert!(seen == count, "a watch shows {seen} of {count} objects");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Shows what one request of a watch shows, until it ends; returns the version that it came to.
async fn follow(client: &Client, path: &str, sender: &UnboundedSender<Sight>) -> Option<String> {
    let request = http::Request::get(path).body(Vec::new()).expect("a request");
    let events = client.request_events::<Object>(request).await.expect("the API server takes the watch");
    let mut events = std::pin::pin!(events);
    let mut version = None;
    while let Some(event) = events.try_next().await.expect("the watch goes on") {
        let at = Instant::now();
        let (object, gone) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
            WatchEvent::Deleted(object) => (object, true),
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(status) => panic!("{path}: {status:?}"),
        };
        version = Some(object.metadata.resource_version);
        let leaving = gone || object.metadata.deletion_timestamp.is_some();
        let sight = Sight { at, name: object.metadata.name, unschedulable: object.spec.unschedulable, leaving };
        if sender.send(sight).is_err() {
            break;
        }
    }
    version
}
