//! What EC2 says of an instance and its subnets, in the words of the core.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::{CLUSTER_TAG, LAUNCH_TAG, POOL_TAG};
use crate::api::node_claim::Subnet;
use crate::domain::notice::{InstanceId, InstanceState};
use crate::domain::offering::Offering;
use crate::provision::class::template::carried;
use crate::provision::{Block, Instance};

/// EC2 puts these on what is launched with a launch template.
const TEMPLATE_ID: &str = "aws:ec2launchtemplate:id";
const TEMPLATE_VERSION: &str = "aws:ec2launchtemplate:version";

/// Auto Scaling puts this on what a group launches: the group's name.
const GROUP: &str = "aws:autoscaling:groupName";

/// By which clusters mark their subnets; what follows is the cluster's name.
const CLUSTER_SUBNET: &str = "kubernetes.io/cluster/";

/// How many subnets a recipe may have.
const SUBNETS_MAX: usize = 64;

/// An instance as it is described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub id: InstanceId,
    pub state: InstanceState,
    /// EC2 itself has brought it to that state (`StateReason`).
    pub by_ec2: bool,
    /// The capacity reservation that it runs in.
    pub reservation: Option<String>,
    /// That is a capacity block.
    pub in_block: bool,
    pub launched_at: Option<Timestamp>,
    pub offering: Offering,
    pub subnet: Option<String>,
    /// Its private DNS name and addresses.
    pub addresses: BTreeSet<String>,
    pub tags: BTreeMap<String, String>,
}

impl Described {
    /// `pending` or `running`; all else is going or gone.
    fn is_alive(&self) -> bool {
        matches!(self.state, InstanceState::Pending | InstanceState::Running)
    }
}

/// A subnet as it is described.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubnetView {
    pub zone: String,
    pub vpc: String,
    /// Instances get a public address.
    pub public: bool,
    pub tags: BTreeMap<String, String>,
}

/// Every subnet that may be seen, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subnets(pub BTreeMap<String, SubnetView>);

impl Subnets {
    /// Where an instance that stands in for one in `own` may run: its own subnet first; those that nodes are `used` in;
    /// those that are marked for the same cluster. All in its VPC, and public or private as it is.
    fn like(&self, own: &str, used: &BTreeSet<&str>) -> Arc<[Subnet]> {
        let Some(of) = self.0.get(own) else { return Arc::default() };
        let marks: Vec<&String> = of.tags.keys().filter(|key| key.starts_with(CLUSTER_SUBNET)).collect();
        let alike = |id: &str, subnet: &SubnetView| {
            let same = subnet.vpc == of.vpc && subnet.public == of.public;
            same && (used.contains(id) || marks.iter().any(|mark| subnet.tags.contains_key(*mark)))
        };
        let others = self.0.iter().filter(|(id, subnet)| *id != own && alike(id, subnet));
        let all = std::iter::once((own, of)).chain(others.map(|(id, subnet)| (id.as_str(), subnet)));
        all.map(|(id, subnet)| Subnet { id: id.to_owned(), zone: subnet.zone.clone() }).take(SUBNETS_MAX).collect()
    }
}

/// The instances in the words of the core. A launch's tag counts only beside this cluster's.
pub fn instances(described: Vec<Described>, cluster: &str, subnets: &Subnets) -> Vec<Instance> {
    let used = described.iter().filter(|of| of.is_alive()).filter_map(|of| of.subnet.clone()).collect::<BTreeSet<_>>();
    let used: BTreeSet<&str> = used.iter().map(String::as_str).collect();
    let mut alike: BTreeMap<String, Arc<[Subnet]>> = BTreeMap::new();
    let view = |mut of: Described| {
        let ours = of.tags.get(CLUSTER_TAG).is_some_and(|uid| uid == cluster);
        let template = of.tags.remove(TEMPLATE_ID).zip(of.tags.remove(TEMPLATE_VERSION));
        let alive = of.is_alive();
        let like = of.subnet.map(|own| {
            let like = alike.entry(own).or_insert_with_key(|own| subnets.like(own, &used));
            like.clone()
        });
        Instance {
            tags: carried(of.tags.clone()),
            subnets: like.unwrap_or_default(),
            template,
            pool: of.tags.remove(POOL_TAG).filter(|_| ours),
            launch: of.tags.remove(LAUNCH_TAG).filter(|_| ours),
            group: of.tags.remove(GROUP),
            addresses: of.addresses,
            block: of.reservation.filter(|_| of.in_block).map(|reservation| Block { reservation, ends: None }),
            id: of.id,
            alive,
            terminated: of.state == InstanceState::Terminated,
            taken: Some(of.state).filter(|_| of.by_ec2 && !alive),
            launched_at: of.launched_at,
            offering: of.offering,
        }
    };
    described.into_iter().map(view).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::offering::CapacityType;

    fn subnet(zone: &str, vpc: &str, public: bool, marked: bool) -> SubnetView {
        let tags = marked.then(|| (format!("{CLUSTER_SUBNET}prod"), "shared".to_owned())).into_iter().collect();
        SubnetView { zone: zone.into(), vpc: vpc.into(), public, tags }
    }

    fn described(id: &str, subnet: &str, tags: &[(&str, &str)]) -> Described {
        Described {
            id: id.parse().unwrap(),
            state: InstanceState::Running,
            by_ec2: false,
            reservation: None,
            in_block: false,
            addresses: BTreeSet::new(),
            launched_at: None,
            offering: Offering {
                instance_type: "m7g.large".into(),
                zone: "a".into(),
                capacity_type: CapacityType::Spot,
            },
            subnet: Some(subnet.into()),
            tags: tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn a_stand_in_may_run_where_the_cluster_runs_and_nowhere_else() {
        let all = Subnets(
            [
                ("s-own", subnet("a", "v", false, true)),
                ("s-marked", subnet("b", "v", false, true)),
                ("s-used", subnet("c", "v", false, false)),
                ("s-public", subnet("b", "v", true, true)),
                ("s-other-vpc", subnet("b", "w", false, true)),
                ("s-unmarked", subnet("b", "v", false, false)),
            ]
            .map(|(id, subnet)| (id.to_owned(), subnet))
            .into(),
        );
        let found =
            instances(vec![described("i-00000001", "s-own", &[]), described("i-00000002", "s-used", &[])], "me", &all);
        let ids: Vec<_> = found[0].subnets.iter().map(|subnet| subnet.id.as_str()).collect();
        assert_eq!(ids, ["s-own", "s-marked", "s-used"]);
        let unknown = instances(vec![described("i-00000001", "s-gone", &[])], "me", &all);
        assert!(unknown[0].subnets.is_empty(), "of a subnet that cannot be seen nothing is known");
    }

    #[test]
    fn an_instance_is_taken_where_ec2_itself_has_brought_it_to_its_end() {
        let of = |state, by_ec2| {
            let one = Described { state, by_ec2, ..described("i-00000001", "s", &[]) };
            let seen = instances(vec![one], "me", &Subnets::default()).remove(0);
            (seen.alive, seen.terminated, seen.taken)
        };
        assert_eq!(of(InstanceState::Running, false), (true, false, None));
        assert_eq!(of(InstanceState::Terminated, false), (false, true, None));
        assert_eq!(of(InstanceState::Terminated, true), (false, true, Some(InstanceState::Terminated)));
        assert_eq!(of(InstanceState::ShuttingDown, true), (false, false, Some(InstanceState::ShuttingDown)));
        // What was its last end says nothing of an instance that runs again.
        assert_eq!(of(InstanceState::Running, true).2, None);
    }

    #[test]
    fn a_launch_is_ours_only_beside_the_tag_of_this_cluster() {
        let template = [(TEMPLATE_ID, "lt-1"), (TEMPLATE_VERSION, "3")];
        let with = |cluster: &str| {
            let tags = [&template[..], &[(LAUNCH_TAG, "token"), (CLUSTER_TAG, cluster)]].concat();
            instances(vec![described("i-00000001", "s", &tags)], "me", &Subnets::default()).remove(0)
        };
        assert_eq!(with("me").launch.as_deref(), Some("token"));
        assert_eq!(with("another").launch, None);
        let grouped = instances(vec![described("i-00000001", "s", &[(GROUP, "workers")])], "me", &Subnets::default());
        assert_eq!(grouped[0].group.as_deref(), Some("workers"));
        assert_eq!(with("me").template, Some(("lt-1".into(), "3".into())));
    }
}
