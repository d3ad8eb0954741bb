//! The real cores, in every schedule that a bounded number of mishaps allows (Stateright).
//!
//! The simulator draws long worlds at random; a model goes through all the short ones. A model's state holds the core
//! itself, what the API server and EC2 have, and the messages between them. The well-behaved schedule delivers every
//! message in order and moves time to the next thing that is due; whatever else may happen (a message overtakes another,
//! is lost, comes late or twice, a program dies) is a *deviation*, and a model goes through every schedule with up to so
//! many of them. `SPOTKEEPER_MODEL_DEVIATIONS` sets how many; `make verify` takes more than `make test`.
//!
//! What is judged is what the simulator judges: the witnesses of both cores, the ledger, the rule for twins.

mod claims;
mod drain;
mod explore;
