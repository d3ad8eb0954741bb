//! What befalls stand-ins and the records of the provisioner.

use super::cloud::InstanceSim;
use super::world::World;
use crate::api::node_claim::ClaimPhase;
use crate::domain::offering::CapacityType;
use crate::provision::Input;

impl World {
    fn first_stand_in(&self, of: impl Fn(&InstanceSim) -> bool) -> Option<usize> {
        let mut all = self.cloud.instances.iter();
        all.position(|one| one.token.is_some() && one.died_ms.is_none() && of(one))
    }

    /// A pod that is never asked to go runs on the first stand-in.
    pub fn pod_stays(&mut self) {
        if let Some(index) = self.first_stand_in(|_| true) {
            self.node_is(index, |node| (node.stays, node.workloads) = (true, true));
        }
    }

    /// What keeps a node from being empty.
    pub fn held_by(&self, index: usize) -> Option<&'static str> {
        let node = self.nodes.get(&self.cloud.instances[index].node());
        match node.is_some_and(|node| node.stays) {
            true => Some("shop/web-0 stays"),
            false => self.blocked.then_some("shop/web-0 by shop/web"),
        }
    }

    pub fn spot_stand_in_is(&mut self, ready: bool) {
        if let Some(index) = self.first_stand_in(|one| one.offering.capacity_type == CapacityType::Spot) {
            self.node_is(index, |node| node.ready = ready);
        }
    }

    pub fn delete_failed(&mut self) {
        let failed = self.claims.values_mut().filter(|claim| claim.status.phase == Some(ClaimPhase::Failed));
        let deleted = failed.map(|claim| {
            claim.deleting = true;
            Input::ClaimSeen(claim.clone())
        });
        let deleted: Vec<Input> = deleted.collect();
        deleted.iter().for_each(|input| self.broadcast(input));
    }

    /// An instance turns up of the first call that there was.
    pub fn turns_up(&mut self) {
        let first = self.written_ms.iter().min_by_key(|(_, at)| **at).map(|(token, _)| token.clone());
        let spec = first.as_ref().and_then(|token| self.written.get(token));
        let offering = spec.and_then(|spec| Some((spec.overrides.first()?.clone(), spec.capacity_type)));
        if let Some((one, capacity)) = offering {
            self.start(crate::provision::ladder::offering(&one, capacity), first, None);
        }
    }

    pub fn lose_records(&mut self) {
        self.launches.clear();
        for name in std::mem::take(&mut self.claims).into_keys() {
            self.broadcast(&Input::ClaimGone { name });
        }
    }
}
