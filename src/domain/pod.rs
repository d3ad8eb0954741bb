//! A pod, as far as a drain needs to know it.

use std::fmt;
use std::time::Duration;

use super::time::Instant;

/// What Kubernetes gives a pod that names no `terminationGracePeriodSeconds`.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// The annotation by which a pod's owner says how an interruption is to treat it.
pub const ON_INTERRUPTION: &str = "spotkeeper.dev/on-interruption";

/// Karpenter's annotation that asks not to be moved; people already have it on their pods.
pub const DO_NOT_DISRUPT: &str = "karpenter.sh/do-not-disrupt";

/// The identity of a pod: names are reused by StatefulSets, uids are not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(pub String);

impl fmt::Debug for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A pod on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub uid: PodUid,
    pub namespace: String,
    pub name: String,
    /// Its own `terminationGracePeriodSeconds`.
    pub grace: Duration,
    pub policy: OnInterruption,
    /// Whether it belongs to the node rather than to a workload, and so ends with it.
    pub bound_to_node: Option<BoundToNode>,
    /// A volume of its own keeps it in this zone, as those of EBS do.
    pub kept_in_zone: bool,
    /// It has ended (`Succeeded` or `Failed`); what is left is its object.
    pub finished: bool,
    /// It has been asked to end, by whomever: when its grace runs out.
    pub ends_at: Option<Instant>,
}

impl Pod {
    /// `namespace/name`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether this is its [`path`](Self::path).
    pub fn has_path(&self, path: &str) -> bool {
        let name = path.strip_prefix(self.namespace.as_str()).and_then(|rest| rest.strip_prefix('/'));
        name == Some(self.name.as_str())
    }

    /// Whether a drain is about this pod at all.
    pub fn evictable(&self) -> bool {
        self.bound_to_node.is_none() && !self.finished && self.policy != OnInterruption::Stay
    }
}

/// Why a pod belongs to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundToNode {
    /// Its DaemonSet would start it again at once.
    DaemonSet,
    /// The kubelet's own (static) pod; its API object is only a mirror.
    Mirror,
}

/// A pod's policy, from [`ON_INTERRUPTION`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnInterruption {
    /// Ask it to go at once.
    #[default]
    Evict,
    /// Let it work until the latest moment from which its grace still fits before the deadline.
    Wait,
    /// Never touch it.
    Stay,
}

impl OnInterruption {
    /// Reads the two annotations that speak of it.
    ///
    /// [`DO_NOT_DISRUPT`] (`"true"` or a duration) means `Wait`: it asks not to be moved without need, and an
    /// interruption is one. An unknown value of [`ON_INTERRUPTION`] counts as absent.
    pub fn from_annotations(on_interruption: Option<&str>, do_not_disrupt: Option<&str>) -> Self {
        match on_interruption.map(str::trim) {
            Some("evict") => Self::Evict,
            Some("wait") => Self::Wait,
            Some("stay") => Self::Stay,
            _ => match do_not_disrupt.map(str::trim) {
                None | Some("" | "false") => Self::Evict,
                Some(_) => Self::Wait,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_of_a_pod_is_its_own_annotation_before_karpenters() {
        let read = OnInterruption::from_annotations;
        assert_eq!(read(None, None), OnInterruption::Evict);
        assert_eq!(read(Some("stay"), Some("true")), OnInterruption::Stay);
        assert_eq!(read(Some("evict"), Some("true")), OnInterruption::Evict);
        assert_eq!(read(None, Some("true")), OnInterruption::Wait);
        assert_eq!(read(None, Some("4h")), OnInterruption::Wait);
        assert_eq!(read(None, Some("false")), OnInterruption::Evict);
        assert_eq!(read(Some("sty"), None), OnInterruption::Evict);
    }
}
