//! Inputs that nobody would write: whatever is in them, it is answered or refused, and nothing panics.

use serde_json::{Value, json};
use spotkeeper::interruption::Policy;
use spotkeeper::plan::plan;
use spotkeeper::plan::question::{Outage, Question};
use spotkeeper::plan::reading::Objects;
use spotkeeper::plan::snapshot::Snapshot;
use spotkeeper::plan::text::text;
use spotkeeper::provision::Settings;

use super::cluster;

fn question(outage: Outage, seed: u64) -> Question {
    Question {
        outage,
        policy: Policy::default(),
        settings: Settings::default(),
        without_spot: seed.is_multiple_of(2),
        starts_in_ms: 10_000,
        boots_in_ms: 45_000,
        prices: [("m7g.xlarge".to_owned(), 163_200)].into(),
        types: None,
        seed,
    }
}

/// All values of a tree, by their place in it.
fn places(value: &Value, at: &mut Vec<String>, all: &mut Vec<String>) {
    let mut each = |key: String, value: &Value| {
        at.push(key.replace('~', "~0").replace('/', "~1"));
        all.push(format!("/{}", at.join("/")));
        places(value, at, all);
        at.pop();
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| each(key.clone(), value)),
        Value::Array(items) => items.iter().enumerate().for_each(|(key, value)| each(key.to_string(), value)),
        _ => {}
    }
}

fn mutated(value: &mut Value, places: &[String], rng: &mut fastrand::Rng) {
    for _ in 0..rng.usize(1..12) {
        let place = &places[rng.usize(..places.len())];
        let Some(target) = value.pointer_mut(place) else { continue };
        *target = match rng.u8(0..14) {
            0 => Value::Null,
            1 => json!(-1),
            2 => json!(u64::MAX),
            3 => json!(i64::MIN),
            4 => json!(""),
            5 => json!("99999999999999999999Ei"),
            6 => json!({}),
            7 => json!([]),
            8 => json!([{}, null, 7]),
            9 => json!("NaN"),
            10 => json!(1e300),
            11 => json!("200%"),
            12 => json!("\u{0}\u{feff}ä/../~"),
            _ => json!(true),
        };
    }
}

#[test]
fn whatever_is_in_a_cluster_nothing_panics() {
    let seeds: u64 = std::env::var("SPOTKEEPER_PLAN_SEEDS").ok().and_then(|it| it.parse().ok()).unwrap_or(400);
    let shop = cluster("shop.json");
    let mut all = Vec::new();
    places(&shop, &mut Vec::new(), &mut all);
    let (mut planned, mut whole) = (0, 0);
    for seed in 0..seeds {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut changed = shop.clone();
        mutated(&mut changed, &all, &mut rng);
        let mut objects = Objects::default();
        if objects.read("mutated", changed.to_string().as_bytes()).is_err() {
            continue;
        }
        let snapshot = Snapshot::of(objects);
        whole += u64::from(snapshot.gaps.is_empty());
        let outage = match seed % 3 {
            0 => Outage::AllSpot,
            1 => Outage::Zone("eu-west-1a".into()),
            _ => Outage::Nodes(snapshot.nodes.iter().map(|node| node.name.clone()).collect()),
        };
        if let Ok(plan) = plan(&snapshot, &question(outage, seed)) {
            planned += 1;
            assert!(plan.findings.iter().all(|one| format!("{:?}", one.code) != "Invariant"), "seed {seed}: {plan:#?}");
            assert!(text(&plan).lines().count() > 5 && serde_json::to_string(&plan).is_ok(), "seed {seed}");
        }
    }
    assert!(planned > seeds * 3 / 4 && whole > seeds / 20, "{planned} planned, {whole} without a gap, of {seeds}");
}

#[test]
fn whatever_the_bytes_they_are_read_or_refused() {
    let whole = cluster("quiet.json").to_string().into_bytes();
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = whole[..rng.usize(..whole.len())].to_vec();
        for _ in 0..rng.usize(0..20) {
            if !bytes.is_empty() {
                let at = rng.usize(..bytes.len());
                bytes[at] = rng.u8(..);
            }
        }
        let mut objects = Objects::default();
        assert!(objects.read("bytes", &bytes).is_err(), "a part of it is no cluster: seed {seed}");
    }
    let deep = format!("{}{}", "{\"kind\":".repeat(200), "}".repeat(200));
    assert!(Objects::default().read("deep", deep.as_bytes()).is_err());
}
