//! Instances that are there when the world begins.

use std::collections::BTreeMap;

use super::cloud::{InstanceSim, THEIRS};
use super::scenario::DEVICE;
use super::world::World;
use crate::domain::notice::InstanceId;
use crate::domain::offering::Offering;
use crate::domain::requirements::NODE_POOL;
use crate::provision::NodeView;

/// An instance that is there when the world begins, and its Node.
pub(in crate::sim) struct Named {
    pub id: InstanceId,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub pool: Option<String>,
    pub group: Option<String>,
    pub ready: bool,
}

impl World {
    /// An instance that is there when the world begins, with its Node, which is labelled for a pool. Returns its place.
    pub fn add_instance(&mut self, offering: Offering, pool: Option<String>) -> usize {
        let id = self.instance_id();
        let labels = pool.iter().map(|pool| (NODE_POOL.to_owned(), pool.clone())).collect();
        let (annotations, name) = (BTreeMap::new(), format!("node-{id}"));
        self.add_named(offering, Named { id, name, labels, annotations, pool, group: None, ready: true })
    }

    /// One whose Node has a name and more. Returns its place.
    pub fn add_named(&mut self, offering: Offering, of: Named) -> usize {
        let Named { id, name, labels, annotations, pool, group, ready } = of;
        let node = NodeView {
            name: name.clone(),
            instance: Some(id.clone()),
            provider_id: Some(format!("aws:///zone/{id}")),
            resources: self.supply.settles_ms.map(|_| DEVICE.to_owned()).into_iter().collect(),
            labels,
            annotations,
            ready,
            workloads: true,
            ..NodeView::default()
        };
        self.cloud.push(InstanceSim {
            id,
            name,
            offering,
            token: None,
            pool,
            template: Some(THEIRS.to_owned()),
            group,
            shown_ms: 0,
            born_ms: 0,
            died_ms: None,
            joins: true,
            end: super::cloud::End::default(),
        });
        self.nodes.insert(node.name.clone(), node);
        self.cloud.instances.len() - 1
    }
}
