//! Watches that feed the core. Each runs until it is dropped, whatever the API server does.

use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::mpsc;

use super::one_line;
use super::wire::{self, NodeObject, PodObject};
use crate::adapters::wall_clock::WallClock;
use crate::api::interruption::Interruption;
use crate::domain::pod::PodUid;
use crate::driver::Clock;
use crate::interruption::Input;

const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How many failures in a row are more than the API server's moving on: some ten seconds of them.
const BROKEN_AFTER: u32 = 6;

/// Follows a watch for ever: `each` takes every event; errors are said once a streak and waited out.
pub async fn follow<K>(what: &'static str, api: Api<K>, config: watcher::Config, each: impl AsyncFnMut(Event<K>))
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    follow_closely(what, api, config, After::GoesOn, each, |_| {}).await;
}

/// What a watch does after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It goes on where it was. That it does is seen by the next thing that happens.
    GoesOn,
    /// It lists everything anew: `Event::Init` comes with the error, and until `Event::InitDone` what is known may be old.
    ListsAnew,
}

/// The same; `broken` is told why nothing has been seen for a while, and `None` when it is seen again.
pub async fn follow_closely<K>(
    what: &'static str,
    api: Api<K>,
    config: watcher::Config,
    after: After,
    mut each: impl AsyncFnMut(Event<K>),
    broken: impl Fn(Option<String>),
) where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let mut stream = std::pin::pin!(watcher(api.clone(), config.clone()));
    let mut failures = 0u32;
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                // `Init` only says that a list is about to be asked for.
                if failures > 0 && !matches!(event, Event::Init) {
                    tracing::info!(what, failures, "the watch is back");
                    failures = 0;
                    broken(None);
                }
                each(event).await;
            }
            Err(error) => {
                if failures == 0 {
                    tracing::warn!(what, error = one_line(&error), "the watch broke, trying again");
                }
                let wait = RETRY_FIRST.saturating_mul(1 << failures.min(6)).min(RETRY_MAX);
                failures = failures.saturating_add(1);
                if failures >= BROKEN_AFTER {
                    broken(Some(one_line(&error)));
                }
                if after == After::ListsAnew {
                    stream.set(watcher(api.clone(), config.clone()));
                    each(Event::Init).await;
                }
                // A fleet of agents must not come back in step.
                tokio::time::sleep(wait.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
            }
        }
    }
}

/// The agent's own Node.
pub async fn own_node(api: Api<NodeObject>, name: &str, mut seen: impl AsyncFnMut(NodeObject)) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}")).any_semantic();
    follow("node", api, config, async |event| match event {
        Event::Apply(node) | Event::InitApply(node) => seen(node).await,
        Event::Delete(_) | Event::Init | Event::InitDone => {}
    })
    .await;
}

/// The Interruption of this instance.
pub async fn record(api: Api<Interruption>, name: &str, clock: Clock, wall: WallClock, inputs: mpsc::Sender<Input>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}")).any_semantic();
    let mut listed = false;
    follow("interruption", api, config, async |event| {
        let now = clock.now();
        let seen = match event {
            Event::Init => {
                listed = false;
                return;
            }
            Event::InitApply(object) => {
                listed = true;
                Some(wire::record(object, wall.reads(), Timestamp::now(), now))
            }
            Event::Apply(object) => Some(wire::record(object, wall.reads(), Timestamp::now(), now)),
            Event::InitDone if listed => return,
            Event::InitDone | Event::Delete(_) => None,
        };
        let _ = inputs.send(Input::RecordSeen(seen)).await;
    })
    .await;
}

/// The pods of this node.
pub async fn pods(api: Api<PodObject>, node: &str, clock: Clock, wall: WallClock, inputs: mpsc::Sender<Input>) {
    // The list is a consistent one: from a stale cache a pod that was asked already would look as if it were not.
    let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let mut list = Vec::new();
    follow("pods", api, config, async |event| {
        let place = |object| wire::pod(object, wall.reads(), clock.now());
        let input = match event {
            Event::Init => {
                list.clear();
                return;
            }
            Event::InitApply(object) => {
                list.push(place(object));
                return;
            }
            Event::InitDone => Input::PodsListed(std::mem::take(&mut list)),
            Event::Apply(object) => Input::PodSeen(place(object)),
            Event::Delete(object) => Input::PodGone(PodUid(object.metadata.uid.unwrap_or_default())),
        };
        let _ = inputs.send(input).await;
    })
    .await;
}
