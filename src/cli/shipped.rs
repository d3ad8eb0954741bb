//! The scenarios that come with the program.

/// The traces that they name.
pub const TRACES: &[(&str, &str)] = &[("a-day-of-spot.csv", include_str!("scenarios/a-day-of-spot.csv"))];

/// Each with its name and its YAML.
pub const ALL: &[(&str, &str)] = &[
    ("single-notice", include_str!("scenarios/single-notice.yaml")),
    ("zone-storm", include_str!("scenarios/zone-storm.yaml")),
    ("spot-outage", include_str!("scenarios/spot-outage.yaml")),
    ("flapping-pool", include_str!("scenarios/flapping-pool.yaml")),
    ("quota-hit", include_str!("scenarios/quota-hit.yaml")),
    ("tier-starvation", include_str!("scenarios/tier-starvation.yaml")),
    ("phantom-capacity", include_str!("scenarios/phantom-capacity.yaml")),
    ("two-writers", include_str!("scenarios/two-writers.yaml")),
    ("return-churn", include_str!("scenarios/return-churn.yaml")),
    ("create-loop", include_str!("scenarios/create-loop.yaml")),
    ("blocked-claim", include_str!("scenarios/blocked-claim.yaml")),
    ("rebalance-loop", include_str!("scenarios/rebalance-loop.yaml")),
    ("throttled-batch", include_str!("scenarios/throttled-batch.yaml")),
    ("two-pools", include_str!("scenarios/two-pools.yaml")),
    ("gpu-training", include_str!("scenarios/gpu-training.yaml")),
    ("spark-and-dask", include_str!("scenarios/spark-and-dask.yaml")),
    ("thousand-nodes", include_str!("scenarios/thousand-nodes.yaml")),
    ("a-day-of-spot", include_str!("scenarios/a-day-of-spot.yaml")),
];
