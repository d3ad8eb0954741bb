//! EC2, as far as a launch depends on it: pools, tokens, buckets, and instances that show late, boot, and end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::scenario::{DEVICE, STARTING, State};
use super::world::{Event, Told, World};
use crate::api::launch::{LaunchSpec, Launched, Override};
use crate::api::node_claim::Subnet;
use crate::domain::node::Taint;
use crate::domain::notice::{Action, InstanceId, InstanceState};
use crate::domain::offering::{CapacityType, Catalog, InstanceType, Offering};
use crate::provision::bucket::Bucket;
use crate::provision::{Answer, FleetError, Input, Instance, NodeView, Sight};

/// The launch template of a node group.
pub(super) const THEIRS: &str = "lt-0123";

/// How often the provisioners read the reservations.
const RESERVATIONS_MS: u64 = 30_000;

/// EC2's truth.
pub(in crate::sim) struct Cloud {
    pub state: State,
    pub pools: BTreeMap<Offering, Option<u32>>,
    pub instances: Vec<InstanceSim>,
    /// The launch templates that have a name of ours, by name.
    pub templates: BTreeMap<String, TemplateSim>,
    /// One for each zone.
    pub(super) subnets: Arc<[Subnet]>,
    places: BTreeMap<InstanceId, usize>,
    /// What was answered under a token, and to which request.
    tokens: BTreeMap<String, (LaunchSpec, Answer)>,
    pub refuses: BTreeMap<CapacityType, &'static str>,
    pub joins: bool,
    bucket: Bucket,
}

pub(in crate::sim) struct InstanceSim {
    pub id: InstanceId,
    /// Of its Node.
    pub name: String,
    pub offering: Offering,
    pub token: Option<String>,
    /// The NodePool that its node was labelled for from the beginning.
    pub pool: Option<String>,
    /// The launch template that it was made with, by id; `None`: with none.
    pub template: Option<String>,
    /// The Auto Scaling group that it is in.
    pub group: Option<String>,
    /// When DescribeInstances begins to show it.
    pub shown_ms: u64,
    pub born_ms: u64,
    pub died_ms: Option<u64>,
    pub joins: bool,
    pub end: End,
}

/// What EC2 says of an instance's end.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::sim) struct End {
    /// Its spot request is marked for termination.
    pub marked: bool,
    /// It is EC2 that ends it, and not somebody.
    pub by_ec2: bool,
    /// It is shutting down.
    pub begun: bool,
}

impl InstanceSim {
    pub fn state(&self) -> InstanceState {
        match (self.died_ms, self.end.begun) {
            (Some(_), _) => InstanceState::Terminated,
            (None, true) => InstanceState::ShuttingDown,
            (None, false) => InstanceState::Running,
        }
    }
}

/// A launch template.
pub(in crate::sim) struct TemplateSim {
    pub id: String,
    /// It has this cluster's tag.
    pub ours: bool,
}

impl InstanceSim {
    pub fn node(&self) -> String {
        self.name.clone()
    }
}

pub(in crate::sim) fn zone(index: usize) -> String {
    format!("zone-{}", char::from(b'a' + (index % 26) as u8))
}

/// One of each zone.
/// A subnet for each zone.
fn subnets(catalog: &Catalog) -> Arc<[Subnet]> {
    catalog.zones.keys().map(|zone| Subnet { id: format!("subnet-{zone}"), zone: zone.clone() }).collect()
}

pub(in crate::sim) fn catalog(types: usize, zones: usize) -> Catalog {
    let mut catalog = Catalog::default();
    for n in 0..types {
        let of = InstanceType {
            name: format!("m{}{}.2xlarge", n % 8 + 1, char::from(b'a' + (n / 8 % 26) as u8)),
            arch: "arm64".into(),
            vcpus: 8,
            memory_mib: 32_768,
            ..InstanceType::default()
        };
        for z in 0..zones {
            for (capacity_type, price) in [(CapacityType::Spot, 100_000), (CapacityType::OnDemand, 300_000)] {
                let offering = Offering { instance_type: of.name.clone(), zone: zone(z), capacity_type };
                catalog.prices.insert(offering, price + n as u64 * 1_000);
            }
            catalog.zones.entry(zone(z)).or_default().insert(of.name.clone());
        }
        catalog.types.insert(of.name.clone(), of);
    }
    catalog
}

impl Cloud {
    pub fn new(catalog: &Catalog, spot: Option<u32>, on_demand: Option<u32>, bucket: (u32, f64)) -> Self {
        let mut pools = BTreeMap::new();
        for (capacity, left) in [(CapacityType::Spot, spot), (CapacityType::OnDemand, on_demand)] {
            pools.extend(catalog.offerings(capacity).map(|(_, offering)| (offering, left)));
        }
        pools.extend(catalog.offerings(CapacityType::Reserved).map(|(_, offering)| {
            let left = catalog.reserved.get(&(offering.instance_type.clone(), offering.zone.clone())).copied();
            (offering, left.or(Some(0)))
        }));
        Self {
            state: State::Well,
            pools,
            instances: Vec::new(),
            templates: BTreeMap::new(),
            subnets: subnets(catalog),
            places: BTreeMap::new(),
            tokens: BTreeMap::new(),
            refuses: BTreeMap::new(),
            joins: true,
            bucket: Bucket::new(bucket.0, bucket.1),
        }
    }

    pub fn push(&mut self, one: InstanceSim) {
        self.places.insert(one.id.clone(), self.instances.len());
        self.instances.push(one);
    }
}

impl World {
    pub fn instance_id(&self) -> InstanceId {
        format!("i-{:017x}", self.cloud.instances.len() + 1).parse().expect("17 hexadecimal digits")
    }

    /// `CreateFleet(instant)`, of a caller who sent it then.
    pub fn create_fleet(&mut self, token: &str, spec: &LaunchSpec, sent: u64) -> Answer {
        let now = super::world::moment(self.now);
        if self.cloud.state == State::Throttles || !self.cloud.bucket.take(now) {
            self.figures.throttled += 1;
            return Answer::Refused { code: "RequestLimitExceeded".into(), message: "Request limit exceeded.".into() };
        }
        self.figures.calls += 1;
        let of = match spec.capacity_type {
            CapacityType::Spot => 0,
            CapacityType::OnDemand => 1,
            CapacityType::Reserved => 2,
        };
        self.figures.calls_of[of] += 1;
        self.note_asked(spec);
        if let Some((first, answer)) = self.cloud.tokens.get(token) {
            if first == spec {
                return answer.clone();
            }
            let message = "the token was used with another request".to_owned();
            return Answer::Refused { code: "IdempotentParameterMismatch".into(), message };
        }
        let answer = self.fill(token, spec);
        self.check_limits(token, spec, sent);
        self.cloud.tokens.insert(token.to_owned(), (spec.clone(), answer.clone()));
        answer
    }

    fn fill(&mut self, token: &str, spec: &LaunchSpec) -> Answer {
        let Some(template) = self.template_of(&spec.recipe) else {
            let message = "there is no such launch template".to_owned();
            return Answer::Refused { code: "InvalidLaunchTemplateName.NotFoundException".into(), message };
        };
        if let Some(code) = self.cloud.refuses.get(&spec.capacity_type).copied() {
            let whole = code.starts_with("Invalid") || crate::provision::failure::forbids(code);
            if whole {
                return Answer::Refused { code: code.into(), message: "as the scenario has it".into() };
            }
            let errors = vec![FleetError {
                code: code.into(),
                message: "as the scenario has it".into(),
                instance_type: spec.overrides.first().map(|one| one.instance_type.clone()),
                zone: spec.overrides.first().map(|one| one.zone.clone()),
                subnet_id: spec.overrides.first().map(|one| one.subnet_id.clone()),
            }];
            return Answer::Fleet { instances: Vec::new(), errors };
        }
        let mut instances = Vec::new();
        let mut dry = Vec::new();
        if spec.capacity_type == CapacityType::Reserved {
            self.fill_from_reservations(token, spec, &template, &mut instances);
        }
        let start = self.rng.usize(..spec.overrides.len().max(1));
        for step in 0..spec.overrides.len() {
            let one = &spec.overrides[(start + step) % spec.overrides.len()];
            while (instances.len() as i64) < spec.count {
                let Some(offering) = self.take(one, spec.capacity_type) else {
                    dry.push(one.clone());
                    break;
                };
                let got = self.start(offering, Some(token.to_owned()), Some(template.clone()));
                // Whether it runs in a reservation only its description tells.
                let offering = crate::provision::ladder::offering(one, spec.capacity_type);
                instances.push(Launched { offering, ..got });
            }
        }
        let short = (instances.len() as i64) < spec.count;
        let named = if short && self.chance(self.supply.faults.names_one_one_in) { 1 } else { dry.len() };
        let errors = dry.into_iter().take(named).map(|one| FleetError {
            code: "InsufficientInstanceCapacity".into(),
            message: "there is no capacity".into(),
            instance_type: Some(one.instance_type),
            zone: Some(one.zone),
            subnet_id: Some(one.subnet_id),
        });
        instances.sort();
        Answer::Fleet { instances, errors: errors.collect() }
    }

    /// Takes one out of a pool. What is not spot runs in an open reservation where one is free, and that is asked for
    /// first where it is asked for; where none is, it is plain on-demand.
    fn take(&mut self, one: &Override, capacity: CapacityType) -> Option<Offering> {
        let pools: &[CapacityType] = match capacity {
            CapacityType::Spot => &[CapacityType::Spot],
            CapacityType::OnDemand | CapacityType::Reserved => &[CapacityType::Reserved, CapacityType::OnDemand],
        };
        pools.iter().map(|of| crate::provision::ladder::offering(one, *of)).find(|offering| {
            match self.cloud.pools.get_mut(offering) {
                Some(Some(left)) if *left > 0 => {
                    *left -= 1;
                    true
                }
                Some(None) => true,
                _ => false,
            }
        })
    }

    /// `use-capacity-reservations-first`: what is free of them, and the rest is launched on demand as ever.
    fn fill_from_reservations(&mut self, token: &str, spec: &LaunchSpec, template: &str, got: &mut Vec<Launched>) {
        for one in &spec.overrides {
            let offering = crate::provision::ladder::offering(one, CapacityType::Reserved);
            while (got.len() as i64) < spec.count
                && let Some(Some(left)) = self.cloud.pools.get_mut(&offering)
                && *left > 0
            {
                *left -= 1;
                got.push(self.start(offering.clone(), Some(token.to_owned()), Some(template.to_owned())));
            }
        }
    }

    pub fn in_group(&mut self, node: usize, group: usize) {
        if let Some(one) = self.cloud.instances.get_mut(node) {
            one.group = Some(format!("group-{group}"));
        }
    }

    /// A group launches a node of its own, on-demand, whatever we do.
    pub fn group_launches(&mut self, group: usize) {
        let Some(offering) = self.cloud.pools.keys().find(|of| of.capacity_type == CapacityType::OnDemand).cloned()
        else {
            return;
        };
        self.start(offering, None, Some(THEIRS.to_owned()));
        let index = self.cloud.instances.len() - 1;
        self.in_group(index, group);
    }

    /// An instance starts.
    pub fn start(&mut self, offering: Offering, token: Option<String>, template: Option<String>) -> Launched {
        let id = self.instance_id();
        let joins = self.cloud.joins && !self.chance(self.supply.faults.never_joins_one_in);
        let shown_ms = self.now + self.below(self.supply.faults.shown_after_ms);
        self.cloud.push(InstanceSim {
            id: id.clone(),
            name: format!("node-{id}"),
            offering: offering.clone(),
            token,
            pool: None,
            template,
            group: None,
            shown_ms,
            born_ms: self.now,
            died_ms: None,
            joins,
            end: End::default(),
        });
        self.figures.launched += 1;
        let index = self.cloud.instances.len() - 1;
        self.outward(Told::Launched { instance: index });
        self.outward(Told::Taken { offering: offering.clone() });
        let boot = self.supply.boot_ms + self.below(self.supply.boot_spread_ms);
        self.schedule(self.now + boot, Event::Boots { instance: index });
        Launched { instance_id: id, offering }
    }

    /// The node of an instance joins, and is Ready a little later.
    pub fn boots(&mut self, index: usize) {
        let one = &self.cloud.instances[index];
        if one.died_ms.is_some() || !one.joins {
            return;
        }
        let starting = Taint { key: STARTING.into(), value: None, effect: "NoSchedule".into(), time_added: None };
        let node = NodeView {
            name: one.node(),
            instance: Some(one.id.clone()),
            provider_id: Some(format!("aws:///zone/{}", one.id)),
            labels: self.supply.joins_with.clone(),
            taints: self.supply.settles_ms.map(|_| starting).into_iter().collect(),
            ..NodeView::default()
        };
        self.node_changed(node);
        self.outward(Told::Joined { instance: index });
        let later = self.now + 3_000 + self.below(5_000);
        self.schedule(later, Event::NodeReady { instance: index });
    }

    pub fn node_ready(&mut self, index: usize) {
        let one = &self.cloud.instances[index];
        if one.died_ms.is_some() {
            return;
        }
        let Some(node) = self.nodes.get(&one.node()) else { return };
        let node = NodeView { ready: true, ..node.clone() };
        self.tell(|| format!("-- {} is Ready", node.name));
        self.node_changed(node);
        if let Some(later) = self.supply.settles_ms {
            self.schedule(self.now + later, Event::Settles { instance: index });
        }
        self.outward(Told::Ready { instance: index });
        if self.told.is_none() {
            let later = self.now + 1_000 + self.below(20_000);
            self.schedule(later, Event::PodsCome { instance: index });
        }
    }

    /// What a new node waited for has come: its startup taint goes, its device plugin has registered.
    pub fn settles(&mut self, index: usize) {
        let one = &self.cloud.instances[index];
        let Some(mut node) = self.nodes.get(&one.node()).cloned() else { return };
        node.taints.retain(|taint| taint.key != STARTING);
        node.resources.insert(DEVICE.to_owned());
        self.tell(|| format!("-- {} has settled", node.name));
        self.node_changed(node);
    }

    /// The instance ends, whoever ends it.
    pub fn dies(&mut self, index: usize) {
        let now = self.now;
        let one = &mut self.cloud.instances[index];
        if one.died_ms.is_some() {
            return;
        }
        one.died_ms = Some(now);
        let (node, id, offering) = (one.node(), one.id.clone(), one.offering.clone());
        self.tell(|| format!("-- {id} has ended"));
        self.give_back(&offering);
        if self.supply.nodes_stay {
            self.node_is(index, |node| node.ready = false);
        } else {
            self.node_gone(&node);
        }
        self.outward(Told::Died { instance: index });
    }

    /// What was reserved is free again.
    fn give_back(&mut self, offering: &Offering) {
        if offering.capacity_type == CapacityType::Reserved
            && let Some(Some(left)) = self.cloud.pools.get_mut(offering)
        {
            *left += 1;
            self.outward(Told::Taken { offering: offering.clone() });
        }
    }

    /// The provisioners read what is left of the reservations, as often as the real ones do.
    pub fn read_reservations(&mut self) {
        let reserved = |(offering, left): (&Offering, &Option<u32>)| {
            let key = (offering.instance_type.clone(), offering.zone.clone());
            (offering.capacity_type == CapacityType::Reserved).then(|| (key, left.unwrap_or(u32::MAX)))
        };
        let reserved = self.cloud.pools.iter().filter_map(reserved).collect();
        let catalog = Arc::make_mut(&mut self.catalog);
        (catalog.reserved, catalog.reserved_readings) = (reserved, catalog.reserved_readings + 1);
        let read = Input::CatalogRead(self.catalog.clone());
        self.broadcast(&read);
        self.schedule(self.now + RESERVATIONS_MS, Event::Reservations);
    }

    pub fn find(&self, id: &InstanceId) -> Option<usize> {
        self.cloud.places.get(id).copied()
    }

    /// DescribeInstances: those of ours, and these.
    pub fn describe(&self, of: &[InstanceId]) -> Vec<Instance> {
        let of: BTreeSet<&InstanceId> = of.iter().collect();
        let shown = self.cloud.instances.iter().filter(|one| one.shown_ms <= self.now);
        shown.filter(|one| one.token.is_some() || of.contains(&one.id)).map(|one| self.described(one)).collect()
    }

    fn described(&self, one: &InstanceSim) -> Instance {
        Instance {
            id: one.id.clone(),
            alive: one.state() == InstanceState::Running,
            offering: one.offering.clone(),
            subnets: self.cloud.subnets.clone(),
            template: one.template.clone().map(|id| (id, "7".to_owned())),
            tags: BTreeMap::new(),
            pool: one.token.as_ref().and_then(|_| self.pool_of(one)).map(str::to_owned),
            group: one.group.clone(),
            addresses: [one.node()].into(),
            block: None,
            launched_at: Some(super::world::epoch().wall(super::world::moment(one.born_ms))),
            terminated: one.died_ms.is_some(),
            taken: Some(one.state()).filter(|state| one.end.by_ec2 && *state != InstanceState::Running),
            launch: one.token.clone(),
        }
    }

    /// DescribeInstances and DescribeSpotInstanceRequests of these.
    pub fn look(&self, of: &[InstanceId]) -> Vec<Sight> {
        let known = of.iter().filter_map(|id| Some(&self.cloud.instances[self.find(id)?]));
        let sight = |one: &InstanceSim| Sight {
            instance: one.id.clone(),
            state: one.state(),
            by_ec2: one.end.by_ec2 && one.state() != InstanceState::Running,
            marked: one.end.marked.then_some(Action::Terminate),
            reserved_until: None,
        };
        known.filter(|one| one.shown_ms <= self.now).map(sight).collect()
    }

    /// The instances with the tag of a launch.
    pub fn tagged(&self, token: &str) -> Vec<Launched> {
        let shown = self.cloud.instances.iter().filter(|one| one.shown_ms <= self.now);
        shown
            .filter(|one| one.token.as_deref() == Some(token))
            .map(|one| Launched { instance_id: one.id.clone(), offering: one.offering.clone() })
            .collect()
    }
}
