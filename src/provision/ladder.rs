//! What a rung asks for: every offering of one capacity type that meets the needs and is not known to be short.

use std::collections::{BTreeMap, BTreeSet};

use super::shortage::{Shortages, Standing};
use crate::api::launch::Override;
use crate::api::node_claim::Recipe;
use crate::domain::offering::{CapacityType, Catalog, MicroDollars, Offering};
use crate::domain::requirements::{Requirement, met};
use crate::domain::time::Instant;

/// What one rung has for a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rung {
    /// These may be asked for now.
    Ask(Vec<Override>),
    /// Everything that would do is short; the first of it until then, or until a probe on its way is answered.
    Short(Option<Instant>),
    /// Nothing that EC2 offers meets the needs.
    Nothing,
}

/// How near the end of a belief is near enough: probes that would come one by one go together.
pub const NEARLY: std::time::Duration = std::time::Duration::from_secs(20);

/// Whether an offering that would do is to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Take,
    /// Only where nothing else of the rung is left.
    IfNothingElse,
    /// Not before then; `None` where that is not known.
    Leave(Option<Instant>),
}

/// What is wanted: an instance that meets these, launched by this recipe.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub requirements: &'a [Requirement],
    pub recipe: &'a Recipe,
}

/// What may be asked for on the rung of `capacity`, at most `max` overrides.
pub fn rung(
    now: Instant,
    wanted: Wanted,
    capacity: CapacityType,
    catalog: &Catalog,
    shortages: &Shortages,
    max: usize,
) -> Rung {
    rung_of(now, wanted, capacity, catalog, shortages, max, &|_| Choice::Take)
}

/// The same, of the offerings that are chosen.
pub fn rung_of(
    now: Instant,
    wanted: Wanted,
    capacity: CapacityType,
    catalog: &Catalog,
    shortages: &Shortages,
    max: usize,
    choose: &dyn Fn(&Offering) -> Choice,
) -> Rung {
    let mut open: Vec<(Option<MicroDollars>, Override)> = Vec::new();
    let mut spare: Vec<(Option<MicroDollars>, Override)> = Vec::new();
    let mut until: Option<Option<Instant>> = None;
    let mut any = false;
    for (of, offering) in catalog.offerings(capacity) {
        let boots = wanted.recipe.architecture.as_ref().is_none_or(|arch| *arch == of.arch);
        if !boots || !met(wanted.requirements, of, &offering) {
            continue;
        }
        for subnet in wanted.recipe.subnets.iter().filter(|subnet| subnet.zone == offering.zone) {
            any = true;
            let one =
                Override { instance_type: of.name.clone(), subnet_id: subnet.id.clone(), zone: offering.zone.clone() };
            let wait = match (shortages.standing(now, &one, of.quota_class(), capacity), choose(&offering)) {
                (Standing::Short(to), Choice::Leave(other)) => to.max(other),
                (Standing::Short(to), _) | (_, Choice::Leave(to)) => to,
                (_, Choice::Take) => {
                    open.push((catalog.price(&offering), one));
                    continue;
                }
                (_, Choice::IfNothingElse) => {
                    spare.push((catalog.price(&offering), one));
                    continue;
                }
            };
            until = Some(match (until, wait) {
                (Some(Some(a)), Some(b)) => Some(a.min(b)),
                (Some(Some(a)), None) | (_, Some(a)) => Some(a),
                (_, None) => None,
            });
        }
    }
    if open.is_empty() {
        open = spare;
    }
    if open.is_empty() {
        return if any { Rung::Short(until.flatten()) } else { Rung::Nothing };
    }
    Rung::Ask(spread(one_subnet_of_each(open), max))
}

/// When all of it is short: the moment to ask again, so that what would follow within [`NEARLY`] goes together.
pub fn ask_again(first: Instant) -> Instant {
    first + NEARLY
}

/// EC2 takes an instance type once for each zone: of several subnets of a zone the first one that is not short.
fn one_subnet_of_each(open: Vec<(Option<MicroDollars>, Override)>) -> Vec<(Option<MicroDollars>, Override)> {
    let mut seen = BTreeSet::new();
    open.into_iter().filter(|(_, one)| seen.insert((one.instance_type.clone(), one.zone.clone()))).collect()
}

/// The best `max`, cheapest first, taken in turn from every zone: a call that could only ask one zone would fall with it.
fn spread(mut open: Vec<(Option<MicroDollars>, Override)>, max: usize) -> Vec<Override> {
    open.sort_by(|(a, x), (b, y)| (a.is_none(), a, x).cmp(&(b.is_none(), b, y)));
    if open.len() <= max {
        return open.into_iter().map(|(_, one)| one).collect();
    }
    let mut zones: BTreeMap<String, std::collections::VecDeque<Override>> = BTreeMap::new();
    for (_, one) in open {
        zones.entry(one.zone.clone()).or_default().push_back(one);
    }
    let mut chosen = Vec::with_capacity(max);
    while chosen.len() < max {
        for queue in zones.values_mut() {
            if let Some(one) = queue.pop_front()
                && chosen.len() < max
            {
                chosen.push(one);
            }
        }
    }
    chosen
}

/// The offering of an override.
pub fn offering(of: &Override, capacity: CapacityType) -> Offering {
    Offering { instance_type: of.instance_type.clone(), zone: of.zone.clone(), capacity_type: capacity }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::node_claim::Subnet;
    use crate::domain::offering::InstanceType;
    use crate::domain::requirements::{CPU, Operator};
    use crate::provision::shortage::Scarce;

    fn catalog(types: usize, zones: &[&str]) -> Catalog {
        let mut catalog = Catalog::default();
        for n in 0..types {
            let name = format!("m{n}.large");
            let of = InstanceType { name: name.clone(), vcpus: n as u32, ..InstanceType::default() };
            for zone in zones {
                let offering =
                    Offering { instance_type: name.clone(), zone: (*zone).into(), capacity_type: CapacityType::Spot };
                catalog.prices.insert(offering, 1_000 - n as u64);
                catalog.zones.entry((*zone).into()).or_default().insert(name.clone());
            }
            catalog.types.insert(name, of);
        }
        catalog
    }

    fn recipe(zones: &[&str]) -> Recipe {
        let subnets = zones.iter().map(|zone| Subnet { id: format!("subnet-{zone}"), zone: (*zone).into() }).collect();
        Recipe { launch_template: "lt-1".into(), launch_template_version: "1".into(), subnets, ..Recipe::default() }
    }

    fn spot(
        catalog: &Catalog,
        recipe: &Recipe,
        requirements: &[Requirement],
        shortages: &Shortages,
        max: usize,
    ) -> Rung {
        rung(Instant::default(), Wanted { requirements, recipe }, CapacityType::Spot, catalog, shortages, max)
    }

    #[test]
    fn one_call_asks_for_all_that_will_do_cheapest_first_and_from_every_zone() {
        let catalog = catalog(400, &["a", "b", "c"]);
        let over_99 = [Requirement::new(CPU, Operator::Gt, ["99"])];
        let Rung::Ask(asked) = spot(&catalog, &recipe(&["a", "b"]), &over_99, &Shortages::default(), 300) else {
            panic!("there is enough");
        };
        assert_eq!(asked.len(), 300);
        let in_a = asked.iter().filter(|one| one.zone == "a").count();
        assert_eq!((in_a, asked.iter().filter(|one| one.zone == "c").count()), (150, 0));
        assert!(asked.iter().any(|one| one.instance_type == "m399.large"), "the cheapest is among them");
        assert!(asked.iter().all(|one| catalog.types[&one.instance_type].vcpus > 99));
    }

    #[test]
    fn what_is_short_is_left_out_and_when_all_is_short_the_first_end_is_named() {
        let catalog = catalog(2, &["a"]);
        let mut shortages = Shortages::default();
        let now = Instant::default();
        let ask = |shortages: &Shortages| spot(&catalog, &recipe(&["a"]), &[], shortages, 300);
        let Rung::Ask(all) = ask(&shortages) else { panic!() };
        let first = shortages.failed(now, &Scarce::Offering(offering(&all[0], CapacityType::Spot)), "l").unwrap();
        assert_eq!(ask(&shortages), Rung::Ask(all[1..].to_vec()));
        let second = shortages.failed(now, &Scarce::Offering(offering(&all[1], CapacityType::Spot)), "l").unwrap();
        assert_eq!(ask(&shortages), Rung::Short(Some(first.min(second))));
        let none = [Requirement::new(CPU, Operator::Gt, ["1000"])];
        assert_eq!(spot(&catalog, &recipe(&["a"]), &none, &shortages, 300), Rung::Nothing);
    }

    #[test]
    fn what_the_image_does_not_run_on_is_not_asked_for() {
        let (mut catalog, mut recipe) = (catalog(2, &["a"]), recipe(&["a"]));
        catalog.types.values_mut().for_each(|of| of.arch = "amd64".into());
        catalog.types.get_mut("m0.large").unwrap().arch = "arm64".into();
        let ask = |recipe: &Recipe| match spot(&catalog, recipe, &[], &Shortages::default(), 300) {
            Rung::Ask(asked) => asked.into_iter().map(|one| one.instance_type).collect(),
            other => vec![format!("{other:?}")],
        };
        assert_eq!(ask(&recipe).len(), 2, "nothing is known of the image");
        recipe.architecture = Some("arm64".into());
        assert_eq!(ask(&recipe), ["m0.large"]);
        recipe.architecture = Some("mips".into());
        assert_eq!(ask(&recipe), ["Nothing"]);
    }

    #[test]
    fn what_is_risky_is_asked_only_where_nothing_else_is_left_of_the_rung() {
        let (catalog, recipe) = (catalog(1, &["a", "b"]), recipe(&["a", "b"]));
        let mut shortages = Shortages::default();
        let now = Instant::default();
        let ask = |shortages: &Shortages, choose: &dyn Fn(&Offering) -> Choice| match rung_of(
            now,
            Wanted { requirements: &[], recipe: &recipe },
            CapacityType::Spot,
            &catalog,
            shortages,
            300,
            choose,
        ) {
            Rung::Ask(asked) => asked.into_iter().map(|one| one.zone).collect::<Vec<_>>(),
            other => vec![format!("{other:?}")],
        };
        let risky = |of: &Offering| if of.zone == "a" { Choice::IfNothingElse } else { Choice::Take };
        assert_eq!(ask(&shortages, &risky), ["b"]);
        let of = |zone: &str| Offering {
            instance_type: catalog.types.keys().next().unwrap().clone(),
            zone: zone.into(),
            capacity_type: CapacityType::Spot,
        };
        shortages.failed(now, &Scarce::Offering(of("b")), "l");
        assert_eq!(ask(&shortages, &risky), ["a"], "it blocks nobody who has nothing else");
        let until = Some(Instant::from_millis(9));
        let leave = |of: &Offering| if of.zone == "a" { Choice::Leave(until) } else { Choice::Take };
        assert_eq!(ask(&shortages, &leave), [format!("{:?}", Rung::Short(until))]);
    }

    #[test]
    fn of_two_subnets_in_a_zone_one_is_asked_and_the_other_when_it_is_full() {
        let catalog = catalog(1, &["a"]);
        let mut recipe = recipe(&["a"]);
        recipe.subnets.push(Subnet { id: "subnet-a2".into(), zone: "a".into() });
        let mut shortages = Shortages::default();
        let ask = |shortages: &Shortages| match spot(&catalog, &recipe, &[], shortages, 300) {
            Rung::Ask(asked) => asked.into_iter().map(|one| one.subnet_id).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(ask(&shortages), ["subnet-a"]);
        shortages.failed(Instant::default(), &Scarce::Subnet("subnet-a".into()), "l");
        assert_eq!(ask(&shortages), ["subnet-a2"]);
    }
}
