//! NodePools in a scenario: the fields of `kubectl explain nodepools.spec --api-version=spotkeeper.dev/v1alpha1`, read by the provisioner's own rules.

use serde::{Deserialize, Deserializer};
use serde_saphyr::{Location, Spanned};

use super::mistake::{Mistake, wrong};
use crate::api::node_pool::{Fallback, IntOrString, Limits, NodePoolSpec, OnInterruption, ReturnToSpot};
use crate::domain::offering::CapacityType;
use crate::domain::policy::{DrainStart, Rebalance};
use crate::domain::requirements::{Operator, Requirement};
use crate::provision::pools::{Fault, faults_with};
use crate::sim::supply::scenario::CLASS;
use crate::sim::system::Scenario;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WrittenPool {
    name: Spanned<String>,
    weight: Option<i64>,
    #[serde(default)]
    requirements: Vec<Spanned<WrittenRequirement>>,
    #[serde(default)]
    limits: WrittenLimits,
    #[serde(default)]
    fallback: WrittenFallback,
    #[serde(default)]
    interruption: WrittenInterruption,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenRequirement {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<Text>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WrittenLimits {
    cpu: Option<Spanned<Text>>,
    memory: Option<Spanned<Text>>,
    nodes: Option<Spanned<i64>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WrittenFallback {
    order: Option<Spanned<Vec<CapacityType>>>,
    spot_patience: Option<Spanned<Text>>,
    return_to_spot: Option<WrittenReturn>,
    on_demand_floor: Option<Spanned<Text>>,
    max_hourly_fallback_cost: Option<Spanned<Text>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WrittenReturn {
    after: Option<Spanned<Text>>,
    min_stay: Option<Spanned<Text>>,
    max_per_hour: Option<Spanned<i64>>,
    surge: Option<Spanned<i64>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WrittenInterruption {
    rebalance: Option<Rebalance>,
    drain: Option<DrainStart>,
    margin: Option<Spanned<Text>>,
}

/// A number or a text, as it is written.
#[derive(Clone, Debug)]
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

fn text(of: &Option<Spanned<Text>>) -> Option<String> {
    of.as_ref().map(|text| text.value.0.clone())
}

impl WrittenPool {
    /// Its name and what it means; the rules and what can be offered are judged as the provisioner judges them.
    pub(super) fn read(self, scenario: &Scenario) -> Result<(String, NodePoolSpec), Mistake> {
        let name = self.name.value.clone();
        if name.is_empty() || scenario.pools.contains_key(&name) {
            return Err(wrong(&self.name.defined, format!("`{name}`: every NodePool has a name of its own")));
        }
        let spec = self.spec();
        match faults_with(&spec, &scenario.cloud.catalog()) {
            None => Ok((name, spec)),
            Some(fault) => Err(wrong(&self.place(&fault), self.said(&fault))),
        }
    }

    fn spec(&self) -> NodePoolSpec {
        let number = |of: &Option<Spanned<i64>>| of.as_ref().map(|number| number.value);
        let int_or_string = |of: &Option<Spanned<Text>>| text(of).map(IntOrString::String);
        let WrittenPool { limits, fallback, interruption, .. } = self;
        let mut spec = NodePoolSpec::default();
        spec.template.spec.node_class_ref.name = CLASS.into();
        spec.template.spec.requirements = self.requirements.iter().map(|one| one.value.read()).collect();
        spec.weight = self.weight;
        spec.limits = Some(Limits {
            cpu: int_or_string(&limits.cpu),
            memory: int_or_string(&limits.memory),
            nodes: number(&limits.nodes),
        });
        spec.fallback = Some(Fallback {
            order: fallback.order.as_ref().map(|order| order.value.clone()),
            spot_patience: text(&fallback.spot_patience),
            return_to_spot: fallback.return_to_spot.as_ref().map(|of| ReturnToSpot {
                after: text(&of.after),
                min_stay: text(&of.min_stay),
                max_per_hour: number(&of.max_per_hour),
                surge: number(&of.surge),
            }),
            on_demand_floor: int_or_string(&fallback.on_demand_floor),
            max_hourly_fallback_cost: text(&fallback.max_hourly_fallback_cost),
        });
        spec.interruption = Some(OnInterruption {
            rebalance: interruption.rebalance,
            drain: interruption.drain,
            margin: text(&interruption.margin),
        });
        spec
    }

    /// Where the field of a fault is written; the pool's name where it is not.
    fn place(&self, fault: &Fault) -> Location {
        fn at<T>(of: &Option<Spanned<T>>) -> Option<Location> {
            of.as_ref().map(|one| one.defined)
        }
        let (limits, fallback) = (&self.limits, &self.fallback);
        let returns = fallback.return_to_spot.as_ref();
        let requirement = || {
            let index = fault.field.split_once('[')?.1.split_once(']')?.0.parse::<usize>().ok()?;
            Some(self.requirements.get(index)?.defined)
        };
        let found = match fault.field.as_str() {
            "spec.limits.cpu" => at(&limits.cpu),
            "spec.limits.memory" => at(&limits.memory),
            "spec.limits.nodes" => at(&limits.nodes),
            "spec.fallback.order" => at(&fallback.order),
            "spec.fallback.spotPatience" => at(&fallback.spot_patience),
            "spec.fallback.onDemandFloor" => at(&fallback.on_demand_floor),
            "spec.fallback.maxHourlyFallbackCost" => at(&fallback.max_hourly_fallback_cost),
            "spec.fallback.returnToSpot.after" => returns.and_then(|of| at(&of.after)),
            "spec.fallback.returnToSpot.minStay" => returns.and_then(|of| at(&of.min_stay)),
            "spec.fallback.returnToSpot.maxPerHour" => returns.and_then(|of| at(&of.max_per_hour)),
            "spec.fallback.returnToSpot.surge" => returns.and_then(|of| at(&of.surge)),
            "spec.interruption.margin" => at(&self.interruption.margin),
            _ => requirement(),
        };
        found.unwrap_or(self.name.defined)
    }

    /// The field as it is called here, and why.
    fn said(&self, fault: &Fault) -> String {
        let field = fault.field.strip_prefix("spec.template.spec.").or(fault.field.strip_prefix("spec."));
        format!("NodePool {}: {}: {}", self.name.value, field.unwrap_or(&fault.field), fault.why)
    }
}

impl WrittenRequirement {
    fn read(&self) -> Requirement {
        Requirement::new(&self.key, self.operator, self.values.iter().map(|value| value.0.clone()))
    }
}
