//! Replacement capacity in virtual time: drawn worlds judged by the invariants, and what must be survived, by name.
//!
//! `SPOTKEEPER_SUPPLY_SEEDS` sets how many worlds are drawn; `SPOTKEEPER_SUPPLY_SEED` runs one and tells its story.

mod bridges;
mod copies;
mod departures;
#[path = "../support/seeds.rs"]
mod drawn;
mod endings;
mod faults;
mod late;
mod leader;
mod leaks;
mod loops;
mod memory;
mod pools;
mod reference;
mod refusals;
mod relisting;
mod reserved;
mod retire;
mod returns;
mod seeds;
mod successors;
mod wakeups;
mod witness;
mod worlds;
