//! How the programs are set in a scenario, and what goes wrong of itself.

use std::time::Duration;

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::mistake::{Mistake, wrong};
use super::values::{Millis, OneIn};
use crate::domain::offering::CapacityType;
use crate::domain::policy::{DrainStart, MARGIN_MAX, Rebalance};
use crate::provision::pools::PATIENCE_MAX;
use crate::sim::system::Scenario;
use crate::sim::system::scenario::{ApiFaults, SupplyFaults};

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct WrittenSettings {
    order: Option<Spanned<Vec<CapacityType>>>,
    spot_patience: Option<Spanned<Millis>>,
    rebalance: Option<Rebalance>,
    drain: Option<DrainStart>,
    margin: Option<Spanned<Millis>>,
    return_after: Option<Millis>,
    return_min_stay: Option<Millis>,
    return_surge: Option<u64>,
    queue: Option<bool>,
}

/// What goes wrong of itself: one in so many.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct WrittenFaults {
    api_answer_lost: Option<OneIn>,
    api_refused: Option<OneIn>,
    eviction_throttled: Option<OneIn>,
    imds_failed: Option<OneIn>,
    ec2_answer_lost: Option<OneIn>,
    ec2_error: Option<OneIn>,
    instance_never_joins: Option<OneIn>,
    instance_shown_after: Option<Millis>,
}

impl WrittenSettings {
    /// The limits are those of the programs' flags.
    pub(super) fn put(self, scenario: &mut Scenario) -> Result<(), Mistake> {
        let time = |it: Millis| Duration::from_millis(it.0);
        if let Some(margin) = self.margin.as_ref().filter(|margin| time(margin.value) > MARGIN_MAX) {
            return Err(wrong(&margin.defined, "margin: more than 60s leaves too little of a spot notice"));
        }
        if let Some(patience) = self.spot_patience.as_ref().filter(|of| time(of.value) > PATIENCE_MAX) {
            return Err(wrong(&patience.defined, "spotPatience: more than 24h"));
        }
        if let Some(order) = &self.order {
            let twice = order.value.iter().enumerate().find(|(at, one)| order.value[..*at].contains(one));
            if let Some((_, twice)) = twice {
                return Err(wrong(&order.defined, format!("order: names {twice} twice")));
            }
            if order.value.is_empty() {
                return Err(wrong(&order.defined, "order: at least one capacity type"));
            }
        }
        let (policy, core) = (&mut scenario.policy, &mut scenario.settings);
        policy.rebalance = self.rebalance.unwrap_or(policy.rebalance);
        policy.drain = self.drain.unwrap_or(policy.drain);
        policy.margin = self.margin.map_or(policy.margin, |it| time(it.value));
        core.order = self.order.map_or_else(|| core.order.clone(), |order| order.value);
        core.spot_patience = self.spot_patience.map_or(core.spot_patience, |it| time(it.value));
        core.returns.after = self.return_after.map_or(core.returns.after, time);
        core.returns.min_stay = self.return_min_stay.map_or(core.returns.min_stay, time);
        core.returns.surge = self.return_surge.unwrap_or(core.returns.surge);
        scenario.queue = self.queue.unwrap_or(scenario.queue);
        Ok(())
    }
}

impl WrittenFaults {
    pub(super) fn read(self) -> (ApiFaults, SupplyFaults) {
        let one_in = |of: Option<OneIn>| of.map(|of| of.0);
        let api = ApiFaults {
            lost_answer_one_in: one_in(self.api_answer_lost),
            refused_one_in: one_in(self.api_refused),
            throttled_one_in: one_in(self.eviction_throttled),
            imds_one_in: one_in(self.imds_failed),
            ..ApiFaults::default()
        };
        let supply = SupplyFaults {
            api_lost_one_in: one_in(self.api_answer_lost),
            api_refused_one_in: one_in(self.api_refused),
            ec2_lost_one_in: one_in(self.ec2_answer_lost),
            ec2_error_one_in: one_in(self.ec2_error),
            never_joins_one_in: one_in(self.instance_never_joins),
            shown_after_ms: self.instance_shown_after.map_or(0, |it| it.0),
            ..SupplyFaults::default()
        };
        (api, supply)
    }
}
