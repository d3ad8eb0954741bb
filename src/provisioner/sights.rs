//! What the watches see: Interruptions, Nodes, pods, NodeClaims. Only what has changed is told to the core.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use kube::core::DynamicObject;
use kube::runtime::watcher::{self, Event};
use tokio::sync::{mpsc, watch};

use super::classes::Sight;
use super::observer::Observer;
use super::stand_ins;
use crate::adapters::kubernetes::Kubernetes;
use crate::adapters::kubernetes::supply::{
    FleetPod, claim, doomed, is_bound_to_zone, keeps_busy, node_view, pool, read, stays,
};
use crate::adapters::kubernetes::watches::{self, After};
use crate::api::interruption::{Interruption, Phase};
use crate::domain::notice::InstanceId;
use crate::driver::Clock;
use crate::provision::{Doomed, Input, NodeView};

/// Begins all watches, each in a task of its own. Returns what is seen of the EC2NodeClasses.
pub fn watch(
    kubernetes: &Kubernetes,
    clock: Clock,
    own_node: Option<String>,
    standing: watch::Sender<bool>,
    inputs: &mpsc::Sender<Input>,
    records: mpsc::UnboundedSender<stand_ins::Seen>,
    observer: &Observer,
) -> mpsc::UnboundedReceiver<Sight> {
    let fleet =
        Rc::new(Fleet { inputs: inputs.clone(), seen: RefCell::default(), synced: Synced::new(observer.clone()) });
    tokio::task::spawn_local(nodes(kubernetes.clone(), fleet.clone()));
    tokio::task::spawn_local(pods(kubernetes.fleet_pods(), fleet.clone()));
    tokio::task::spawn_local(interruptions(kubernetes.clone(), own_node, standing, records, fleet.clone()));
    tokio::task::spawn_local(pools(kubernetes.clone(), fleet.clone()));
    let (sights, classes) = mpsc::unbounded_channel();
    tokio::task::spawn_local(node_classes(kubernetes.clone(), sights, fleet.clone()));
    tokio::task::spawn_local(claims(kubernetes.clone(), clock, fleet));
    classes
}

const WATCHES: [&str; 6] = ["nodes", "pods", "interruptions", "nodeclaims", "nodepools", "ec2nodeclasses"];

/// Which watches have told everything there is, and see what happens; readiness waits for all.
struct Synced {
    observer: Observer,
    missing: RefCell<Vec<&'static str>>,
    /// Those that have not been answered for a while, and why.
    broken: RefCell<BTreeMap<&'static str, String>>,
}

impl Synced {
    fn new(observer: Observer) -> Self {
        Self { observer, missing: RefCell::new(WATCHES.to_vec()), broken: RefCell::default() }
    }

    fn done(&self, what: &'static str) {
        self.missing.borrow_mut().retain(|one| *one != what);
        self.tell();
    }

    fn broken(&self, what: &'static str, why: Option<String>) {
        match why {
            Some(why) => drop(self.broken.borrow_mut().insert(what, why)),
            None => drop(self.broken.borrow_mut().remove(what)),
        }
        self.tell();
    }

    fn tell(&self) {
        self.observer.kubernetes(match (self.broken.borrow().first_key_value(), self.missing.borrow().as_slice()) {
            (Some((what, why)), _) => Err(format!("{what} cannot be watched: {why}")),
            (None, []) => Ok(()),
            (None, missing) => Err(format!("not listed yet: {}", missing.join(", "))),
        });
    }
}

struct Fleet {
    inputs: mpsc::Sender<Input>,
    seen: RefCell<Seen>,
    synced: Synced,
}

/// Nodes and how many pods keep each from being empty.
#[derive(Default)]
struct Seen {
    nodes: BTreeMap<String, NodeView>,
    /// The Node of each such pod and how it is bound there, by its uid.
    pods: HashMap<String, (Rc<str>, Bound)>,
    busy: HashMap<Rc<str>, Busy>,
    pods_listed: bool,
}

/// What binds a pod to where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bound {
    /// A volume keeps it in the zone.
    to_zone: bool,
    /// It is never asked to go.
    stays: bool,
}

/// How many pods there are on a Node, how many of these a volume keeps in the zone, and how many are never asked to go.
#[derive(Clone, Copy, Debug, Default)]
struct Busy {
    pods: usize,
    to_zone: usize,
    stay: usize,
}

impl Busy {
    fn comes(&mut self, bound: Bound) {
        self.pods += 1;
        self.to_zone += usize::from(bound.to_zone);
        self.stay += usize::from(bound.stays);
    }

    fn goes(&mut self, bound: Bound) {
        self.pods = self.pods.saturating_sub(1);
        self.to_zone = self.to_zone.saturating_sub(usize::from(bound.to_zone));
        self.stay = self.stay.saturating_sub(usize::from(bound.stays));
    }
}

impl Seen {
    /// All pods are known from now on; or may have changed unseen, until they have been listed again. Returns the nodes that
    /// count as something else by that.
    fn knows_pods(&mut self, all: bool) -> Vec<NodeView> {
        self.pods_listed = all;
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        names.iter().filter_map(|name| self.changed_pods(name)).collect()
    }

    /// Until all pods have been listed every node counts as busy.
    fn is_busy(&self, node: &str) -> bool {
        !self.pods_listed || self.busy.get(node).is_some_and(|busy| busy.pods > 0)
    }

    /// The node as it is now, where the core does not know it so.
    fn changed(&mut self, mut node: NodeView) -> Option<NodeView> {
        node.workloads = self.is_busy(&node.name);
        let busy = self.busy.get(node.name.as_str()).copied().unwrap_or_default();
        (node.bound_to_zone, node.stays) = (busy.to_zone > 0, busy.stay > 0);
        if self.nodes.get(&node.name) == Some(&node) {
            return None;
        }
        self.nodes.insert(node.name.clone(), node.clone());
        Some(node)
    }

    /// The pods of this node have changed.
    fn changed_pods(&mut self, name: &str) -> Option<NodeView> {
        let node = self.nodes.get(name)?.clone();
        self.changed(node)
    }

    /// Puts a pod on its node, or takes it off. Returns the nodes whose pods have changed.
    fn pod(&mut self, uid: &str, on: Option<(&str, Bound)>) -> Vec<Rc<str>> {
        if self.pods.get(uid).map(|(node, bound)| (&**node, *bound)) == on {
            return Vec::new();
        }
        let mut touched = Vec::new();
        if let Some((old, bound)) = self.pods.remove(uid) {
            if let Some(busy) = self.busy.get_mut(&old) {
                busy.goes(bound);
                if busy.pods == 0 {
                    self.busy.remove(&old);
                }
            }
            touched.push(old);
        }
        if let Some((name, bound)) = on {
            // One text for all pods of a node.
            let name: Rc<str> = self.busy.get_key_value(name).map_or_else(|| name.into(), |(key, _)| key.clone());
            self.busy.entry(name.clone()).or_default().comes(bound);
            self.pods.insert(uid.to_owned(), (name.clone(), bound));
            touched.push(name);
        }
        touched
    }
}

impl Fleet {
    async fn tell(&self, inputs: impl IntoIterator<Item = Input>) {
        for input in inputs {
            // The receiver is gone only when the program ends.
            let _ = self.inputs.send(input).await;
        }
    }
}

/// Follows a watch: `apply` for everything that is or changes, `delete` for what goes, also while nobody looked; `listed`
/// with `false` where a list begins, or is to, because what is known may be old, and with `true` where it has come.
async fn follow<K>(
    (what, after): (&'static str, After),
    api: kube::Api<K>,
    fleet: &Fleet,
    mut apply: impl FnMut(K) -> Vec<Input>,
    mut delete: impl FnMut(&str) -> Vec<Input>,
    mut listed: impl FnMut(bool) -> Vec<Input>,
    key: impl Fn(&K) -> String,
) where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let mut known: HashSet<String> = HashSet::new();
    let mut list: HashSet<String> = HashSet::new();
    let each = async |event| match event {
        Event::Init => {
            list.clear();
            fleet.tell(listed(false)).await;
        }
        Event::InitApply(object) => {
            list.insert(key(&object));
            fleet.tell(apply(object)).await;
        }
        Event::InitDone => {
            for gone in known.difference(&list) {
                fleet.tell(delete(gone)).await;
            }
            known = std::mem::take(&mut list);
            fleet.tell(listed(true)).await;
            fleet.synced.done(what);
        }
        Event::Apply(object) => {
            known.insert(key(&object));
            fleet.tell(apply(object)).await;
        }
        Event::Delete(object) => {
            let gone = key(&object);
            known.remove(&gone);
            fleet.tell(delete(&gone)).await;
        }
    };
    let broken = |why| fleet.synced.broken(what, why);
    watches::follow_closely(what, api, watcher::Config::default(), after, each, broken).await;
}

/// Follows one of our own kinds: what is not understood is passed over, and told by its name.
async fn follow_own<K>(
    what: &'static str,
    (kubernetes, fleet): (&Kubernetes, &Fleet),
    mut apply: impl FnMut(K) -> Vec<Input>,
    mut unread: impl FnMut(String) -> Vec<Input>,
    delete: impl FnMut(&str) -> Vec<Input>,
    mut listed: impl FnMut() -> Vec<Input>,
) where
    K: kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned,
{
    let apply = |object: DynamicObject| match read::<K>(object) {
        Ok(object) => apply(object),
        Err(name) => unread(name),
    };
    let listed = |all| if all { listed() } else { Vec::new() };
    let what = (what, After::GoesOn);
    follow(what, kubernetes.as_written::<K>(), fleet, apply, delete, listed, name).await;
}

fn pass_over(_: String) -> Vec<Input> {
    Vec::new()
}

fn name<K: kube::Resource>(object: &K) -> String {
    object.meta().name.clone().unwrap_or_default()
}

async fn nodes(kubernetes: Kubernetes, fleet: Rc<Fleet>) {
    let apply = |object| fleet.seen.borrow_mut().changed(node_view(object)).map(Input::NodeSeen).into_iter().collect();
    let delete = |name: &str| {
        fleet.seen.borrow_mut().nodes.remove(name);
        vec![Input::NodeGone { name: name.to_owned() }]
    };
    let listed = |all| if all { vec![Input::NodesSynced] } else { Vec::new() };
    follow(("nodes", After::GoesOn), kubernetes.fleet_nodes(), &fleet, apply, delete, listed, name).await;
}

async fn pods(all: kube::Api<FleetPod>, fleet: Rc<Fleet>) {
    let tell = |touched: Vec<Rc<str>>| {
        let mut seen = fleet.seen.borrow_mut();
        touched.iter().filter_map(|node| seen.changed_pods(node)).map(Input::NodeSeen).collect()
    };
    let apply = |pod: FleetPod| {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let bound = Bound { to_zone: is_bound_to_zone(&pod), stays: stays(&pod) };
        let on = keeps_busy(&pod).map(|node| (node, bound));
        let touched = fleet.seen.borrow_mut().pod(&uid, on);
        tell(touched)
    };
    let delete = |uid: &str| {
        let touched = fleet.seen.borrow_mut().pod(uid, None);
        tell(touched)
    };
    let listed = |all| fleet.seen.borrow_mut().knows_pods(all).into_iter().map(Input::NodeSeen).collect();
    let uid = |pod: &FleetPod| pod.metadata.uid.clone().unwrap_or_default();
    // What runs on a node decides whether its instance may be ended.
    follow(("pods", After::ListsAnew), all, &fleet, apply, delete, listed, uid).await;
}

/// Also says whether this replica's own node is doomed.
async fn interruptions(
    kubernetes: Kubernetes,
    own_node: Option<String>,
    standing: watch::Sender<bool>,
    records: mpsc::UnboundedSender<stand_ins::Seen>,
    fleet: Rc<Fleet>,
) {
    let apply = |object: Interruption| {
        // Nobody listens where the drains of silent agents are not taken over.
        let _ = records.send((object.spec.instance_id.clone(), Some(Box::new(object.clone()))));
        let doomed = doomed(object);
        if own_node.as_deref() == Some(&doomed.node) {
            let stays = !is_going(&doomed);
            standing.send_if_modified(|stands| std::mem::replace(stands, stays) != stays);
        }
        vec![Input::InterruptionSeen(doomed)]
    };
    let delete = |name: &str| match name.parse() {
        Ok(instance) => {
            let instance: InstanceId = instance;
            let _ = records.send((instance.clone(), None));
            vec![Input::InterruptionGone { instance }]
        }
        Err(_) => Vec::new(),
    };
    follow_own("interruptions", (&kubernetes, &fleet), apply, pass_over, delete, Vec::new).await;
}

fn is_going(doomed: &Doomed) -> bool {
    doomed.phase >= Phase::Confirmed && !doomed.phase.ends_episode()
}

async fn pools(kubernetes: Kubernetes, fleet: Rc<Fleet>) {
    let apply = |object| vec![Input::PoolSeen(pool(object))];
    let delete = |name: &str| vec![Input::PoolGone { name: name.to_owned() }];
    follow_own("nodepools", (&kubernetes, &fleet), apply, pass_over, delete, || vec![Input::PoolsSynced]).await;
}

/// They are looked up in EC2 before the core is told of them.
async fn node_classes(kubernetes: Kubernetes, sights: mpsc::UnboundedSender<Sight>, fleet: Rc<Fleet>) {
    // The receiver is gone only when the program ends.
    let apply = |object| {
        let _ = sights.send(Sight::Seen(Box::new(object)));
        Vec::new()
    };
    let delete = |name: &str| {
        let _ = sights.send(Sight::Gone(name.to_owned()));
        Vec::new()
    };
    let listed = || {
        let _ = sights.send(Sight::Synced);
        Vec::new()
    };
    follow_own("ec2nodeclasses", (&kubernetes, &fleet), apply, pass_over, delete, listed).await;
}

async fn claims(kubernetes: Kubernetes, clock: Clock, fleet: Rc<Fleet>) {
    let apply = |object| vec![Input::ClaimSeen(claim(object, clock))];
    let unread = |name| vec![Input::Unreadable(name)];
    let delete = |name: &str| vec![Input::ClaimGone { name: name.to_owned() }];
    follow_own("nodeclaims", (&kubernetes, &fleet), apply, unread, delete, Vec::new).await;
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use http::{Request, Response};
    use kube::client::Body;
    use kube::core::ApiResource;

    use super::*;

    #[test]
    fn readiness_waits_for_every_watch_and_names_one_that_is_broken() {
        let observer = Observer::new();
        let unmet = || {
            let all = observer.admin().readiness.unmet_conditions().into_iter();
            all.filter(|(of, _)| of.as_str() == "kubernetes").map(|(_, why)| why).next()
        };
        let synced = Synced::new(observer.clone());
        WATCHES[1..].iter().for_each(|what| synced.done(what));
        assert_eq!(unmet().as_deref(), Some("not listed yet: nodes"));
        synced.done(WATCHES[0]);
        assert_eq!(unmet(), None);
        synced.broken("nodepools", Some("nodepools is forbidden".into()));
        assert_eq!(unmet().as_deref(), Some("nodepools cannot be watched: nodepools is forbidden"));
        synced.done("pods");
        assert!(unmet().is_some(), "another one's list says nothing of it");
        synced.broken("nodepools", None);
        assert_eq!(unmet(), None);
    }

    #[test]
    fn a_node_is_busy_while_a_pod_is_on_it_and_until_all_pods_are_known() {
        let mut seen = Seen::default();
        let node = NodeView { name: "n".into(), ready: true, ..NodeView::default() };
        assert!(seen.changed(node.clone()).unwrap().workloads, "nothing is known of pods yet");
        assert_eq!(seen.changed(node.clone()), None, "that is no news");
        assert!(!seen.knows_pods(true)[0].workloads);
        let bound = Bound { to_zone: true, stays: true };
        assert_eq!(seen.pod("u1", Some(("n", bound))).len(), 1);
        let node = seen.changed_pods("n").unwrap();
        assert!(node.workloads && node.bound_to_zone && node.stays);
        assert!(seen.pod("u1", Some(("n", bound))).is_empty(), "that is no news");
        assert_eq!(seen.pod("u1", Some(("m", Bound::default()))).len(), 2, "it left one and came to another");
        let node = seen.changed_pods("n").unwrap();
        assert!(!node.workloads && !node.bound_to_zone && !node.stays);
        seen.pod("u1", None);
        assert!(seen.busy.is_empty() && seen.pods.is_empty());
        assert_eq!(seen.changed_pods("nobody"), None);
    }

    /// An API server without pods, whose first watch breaks.
    fn api_server() -> kube::Client {
        let watches = Arc::new(AtomicUsize::new(0));
        let answer = move |request: Request<Body>| {
            let watches = watches.clone();
            async move {
                let watch = request.uri().query().is_some_and(|query| query.contains("watch="));
                let (code, body) = match watch {
                    true if watches.fetch_add(1, Ordering::Relaxed) > 0 => std::future::pending().await,
                    true => {
                        (500, r#"{"kind": "Status", "status": "Failure", "code": 500, "reason": "", "message": ""}"#)
                    }
                    false => (200, r#"{"kind": "PodList", "metadata": {"resourceVersion": "7"}, "items": []}"#),
                };
                Ok::<_, Infallible>(
                    Response::builder().status(code).body(Body::from(body.as_bytes().to_vec())).unwrap(),
                )
            }
        };
        kube::Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test]
    async fn while_the_pods_watch_is_broken_every_node_is_busy() {
        let (inputs, mut heard) = mpsc::channel(16);
        let synced = Synced::new(Observer::new());
        let fleet = Rc::new(Fleet { inputs, seen: RefCell::default(), synced });
        fleet.seen.borrow_mut().changed(NodeView { name: "n".into(), ..NodeView::default() });
        let kind = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        let watching = pods(kube::Api::all_with(api_server(), &kind), fleet);
        let told = async {
            let mut told = Vec::new();
            while told.len() < 3 {
                match heard.recv().await {
                    Some(Input::NodeSeen(node)) => told.push(node.workloads),
                    other => panic!("{other:?}"),
                }
            }
            told
        };
        let told = tokio::time::timeout(Duration::from_secs(20), told);
        tokio::select! {
            () = watching => panic!("a watch has no end"),
            told = told => assert_eq!(told.expect("it is told"), [false, true, false], "listed, broken, listed anew"),
        }
    }
}
