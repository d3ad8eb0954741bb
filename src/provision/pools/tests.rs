use super::*;
use crate::api::node_pool::{IntOrString, ReturnToSpot as ReturnSpec};
use crate::domain::offering::InstanceType;
use crate::domain::requirements::{ARCH, CPU};

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    for (name, arch, vcpus) in [("m7g.large", "arm64", 2), ("m7g.xlarge", "arm64", 4), ("m7i.large", "amd64", 2)] {
        let of = InstanceType { name: name.into(), arch: arch.into(), vcpus, memory_mib: 8_192, ..Default::default() };
        catalog.zones.entry("a".into()).or_default().insert(name.into());
        catalog.types.insert(name.into(), of);
    }
    catalog
}

fn with(change: impl FnOnce(&mut NodePoolSpec)) -> NodePoolSpec {
    let mut spec = NodePoolSpec::default();
    spec.template.spec.node_class_ref.name = "default".into();
    spec.fallback = Some(Fallback::default());
    spec.limits = Some(Limits::default());
    change(&mut spec);
    spec
}

fn requires(requirements: &[(&str, Operator, &[&str])]) -> NodePoolSpec {
    let all =
        requirements.iter().map(|(key, operator, values)| Requirement::new(key, *operator, values.iter().copied()));
    with(|spec| spec.template.spec.requirements = all.collect())
}

/// The fault of a pool, by its fields or by what EC2 offers.
fn fault(spec: &NodePoolSpec) -> Fault {
    match read(spec) {
        Err(fault) => fault,
        Ok(rules) => possible(&rules, &catalog()).expect_err("it cannot work"),
    }
}

#[test]
fn what_is_not_set_has_the_documented_default() {
    let rules = read(&with(|_| {})).unwrap();
    assert_eq!(rules.order, [CapacityType::Reserved, CapacityType::Spot, CapacityType::OnDemand]);
    assert_eq!((rules.spot_patience, rules.floor, rules.weight), (Duration::ZERO, Floor::Nodes(0), 0));
    assert_eq!(rules.return_to_spot, ReturnToSpot::default());
    assert!(!rules.counts());
    let spot = read(&requires(&[(CAPACITY_TYPE, Operator::In, &["spot", "on-demand"])])).unwrap();
    assert_eq!(spot.order, [CapacityType::Spot, CapacityType::OnDemand], "what the requirements allow");
}

#[test]
fn a_pool_that_can_never_work_is_told_which_field_to_change() {
    let fallback = |change: fn(&mut Fallback)| with(|spec| spec.fallback.iter_mut().for_each(change));
    let limit = |change: fn(&mut Limits)| with(|spec| spec.limits.iter_mut().for_each(change));
    let text = |text: &str| Some(IntOrString::String(text.into()));
    let mut forbidden = requires(&[(CAPACITY_TYPE, Operator::In, &["spot"])]);
    forbidden.fallback = Some(Fallback { order: Some(vec![CapacityType::OnDemand]), ..Fallback::default() });
    let mut no_floor = with(|_| {});
    no_floor.fallback = Some(Fallback {
        order: Some(vec![CapacityType::Spot]),
        on_demand_floor: Some(IntOrString::Int(1)),
        ..Fallback::default()
    });
    let mut percent = with(|_| {});
    percent.fallback = Some(Fallback { on_demand_floor: text("101%"), ..Fallback::default() });
    for (spec, reason, field) in [
        (requires(&[(ARCH, Operator::In, &[])]), "InvalidRequirement", "spec.template.spec.requirements[0]"),
        (requires(&[(CPU, Operator::Gt, &["many"])]), "InvalidRequirement", "spec.template.spec.requirements[0]"),
        (
            requires(&[(ARCH, Operator::In, &["arm64"]), (ARCH, Operator::NotIn, &["arm64"])]),
            "ContradictoryRequirements",
            "spec.template.spec.requirements[1]",
        ),
        (
            requires(&[(ARCH, Operator::In, &["arm64"]), (CPU, Operator::Gt, &["4"])]),
            "ContradictoryRequirements",
            "spec.template.spec.requirements[1]",
        ),
        (
            requires(&[(INSTANCE_TYPE, Operator::In, &["m99g.large"])]),
            "UnknownInstanceType",
            "spec.template.spec.requirements[0].values",
        ),
        (forbidden, "InvalidOrder", "spec.fallback.order"),
        (fallback(|of| of.order = Some(vec![CapacityType::Spot; 2])), "InvalidOrder", "spec.fallback.order"),
        (fallback(|of| of.order = Some(vec![])), "InvalidOrder", "spec.fallback.order"),
        (
            requires(&[(CAPACITY_TYPE, Operator::In, &["magic"])]),
            "InvalidRequirement",
            "spec.template.spec.requirements",
        ),
        (no_floor, "InvalidFloor", "spec.fallback.onDemandFloor"),
        (percent, "InvalidFloor", "spec.fallback.onDemandFloor"),
        (fallback(|of| of.spot_patience = Some("soon".into())), "InvalidDuration", "spec.fallback.spotPatience"),
        (fallback(|of| of.spot_patience = Some("48h".into())), "InvalidDuration", "spec.fallback.spotPatience"),
        (
            fallback(|of| of.max_hourly_fallback_cost = Some("much".into())),
            "InvalidCost",
            "spec.fallback.maxHourlyFallbackCost",
        ),
        (
            fallback(|of| of.return_to_spot = Some(ReturnSpec { surge: Some(-1), ..ReturnSpec::default() })),
            "InvalidNumber",
            "spec.fallback.returnToSpot.surge",
        ),
        (limit(|of| of.nodes = Some(-1)), "InvalidLimit", "spec.limits.nodes"),
        (limit(|of| of.memory = Some(IntOrString::String("a lot".into()))), "InvalidLimit", "spec.limits.memory"),
    ] {
        let fault = fault(&spec);
        assert_eq!((fault.reason, fault.field.as_str()), (reason, field), "{fault}");
        assert!(!fault.why.is_empty());
    }
}

#[test]
fn of_several_instance_types_an_unknown_one_is_noted_and_the_others_serve() {
    let spec = requires(&[(INSTANCE_TYPE, Operator::In, &["m7g.large", "m99g.large"])]);
    let note = possible(&read(&spec).unwrap(), &catalog()).unwrap().unwrap();
    assert!(note.contains("m99g.large"), "{note}");
}

#[test]
fn a_floor_in_percent_is_rounded_up() {
    assert_eq!([0, 1, 5, 6, 10].map(|nodes| Floor::Percent(20).of(nodes)), [0, 1, 1, 2, 2]);
    assert_eq!(Floor::Nodes(3).of(1), 3);
}

#[test]
fn a_claim_asks_for_at_least_the_lost_size_and_at_most_twice_where_that_is_offered() {
    let catalog = catalog();
    let rules = read(&requires(&[(ARCH, Operator::In, &["arm64", "amd64"])])).unwrap();
    let offers = |lost: &str| {
        let needs = serving::needs(&rules, catalog.types.get(lost), &catalog);
        let met = |name: &&String| {
            let capacity_type = CapacityType::Spot;
            let offering = Offering { instance_type: (*name).clone(), zone: "a".into(), capacity_type };
            met(&needs, &catalog.types[*name], &offering)
        };
        catalog.types.keys().filter(met).cloned().collect::<Vec<_>>()
    };
    assert_eq!(offers("m7g.large"), ["m7g.large", "m7g.xlarge"], "the same architecture");
    assert_eq!(offers("m7g.xlarge"), ["m7g.xlarge"]);
    assert_eq!(offers("gone.long.ago").len(), 3, "of a type that is not known only the pool speaks");
    let big = read(&requires(&[(CPU, Operator::Gt, &["3"])])).unwrap();
    let mut lost = catalog.types["m7g.large"].clone();
    lost.vcpus = 1;
    let needs = serving::needs(&big, Some(&lost), &catalog);
    assert!(offered(&needs, &big.order, &catalog), "the upper bound is dropped where nothing would be left");
}
