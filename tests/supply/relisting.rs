//! Listing anew what there is, while something is on its way that the listing would miss.

use jiff::Timestamp;
use spotkeeper::api::node_claim::NodeClaimStatus;
use spotkeeper::domain::offering::{Catalog, InstanceType};
use spotkeeper::domain::requirements::{INSTANCE_TYPE, Operator, Requirement};
use spotkeeper::domain::time::{Epoch, Instant};
use spotkeeper::engine::Core;
use spotkeeper::provision::{Claim, Created, Effect, Input, Launch, Provisioner, Settings};

use super::leader::{TYPES, claim};

/// A leader of two claims that ask for different types, and so each for itself.
struct Leader(Provisioner);

impl Leader {
    fn of_two() -> (Self, Vec<Claim>) {
        let mut leader =
            Self(Provisioner::new(Settings::default(), Epoch(Timestamp::from_second(1_790_000_000).unwrap())));
        let of = |name: &str| InstanceType { name: name.into(), vcpus: 2, ..InstanceType::default() };
        let catalog = Catalog {
            types: TYPES.map(|name| (name.to_owned(), of(name))).into(),
            zones: [("a".to_owned(), TYPES.map(str::to_owned).into())].into(),
            ..Catalog::default()
        };
        leader.hears(Input::CatalogRead(catalog.into()));
        leader.hears(Input::NodesSynced);
        leader.hears(Input::PoolsSynced);
        let claims = ["c", "d"].into_iter().zip(TYPES).map(|(name, of)| {
            let mut claim = claim(name, name, NodeClaimStatus::default());
            claim.spec.requirements = vec![Requirement::new(INSTANCE_TYPE, Operator::In, [of])];
            claim
        });
        (leader, claims.collect())
    }

    fn hears(&mut self, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.0.handle(Instant::from_millis(1_000), input, &mut effects);
        if effects.contains(&Effect::Recall) {
            effects.extend(self.hears(Input::Recalled { found: Ok(None) }));
        }
        effects
    }
}

/// The launches that are to be written.
fn created(effects: &[Effect]) -> Vec<String> {
    let of = |effect: &Effect| match effect {
        Effect::CreateLaunch { name, .. } => Some(name.clone()),
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}

fn lists(effects: &[Effect]) -> bool {
    effects.contains(&Effect::List)
}

#[test]
fn what_there_is_is_not_listed_while_a_launch_is_being_written() {
    let (mut leader, claims) = Leader::of_two();
    let until = Instant::from_millis(u64::MAX / 2);
    assert!(lists(&leader.hears(Input::LeaseHeld { until })));
    let effects = leader.hears(Input::Listed { claims: claims.clone(), launches: Vec::new(), unread: Vec::new() });
    let specs: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::CreateLaunch { spec, .. } => Some((**spec).clone()),
            _ => None,
        })
        .collect();
    assert_eq!(created(&effects), ["d.1", "c.1"]);
    // Another's is there under the first name; the second is still on its way, and would be missing from a listing. Then
    // its claim would ask again under the same name, and the call that is written down would be counted nowhere.
    let effects = leader.hears(Input::LaunchCreated { name: "c.1".into(), outcome: Created::Exists });
    assert!(!lists(&effects), "{effects:?}");
    let effects = leader.hears(Input::LaunchCreated { name: "d.1".into(), outcome: Created::Made { uid: "u".into() } });
    assert!(lists(&effects), "{effects:?}");
    let launches = ["c.1", "d.1"].into_iter().zip(specs).map(|(name, spec)| Launch {
        name: name.into(),
        uid: format!("uid-{name}"),
        spec,
        status: Default::default(),
    });
    let effects = leader.hears(Input::Listed { claims, launches: launches.collect(), unread: Vec::new() });
    assert!(created(&effects).is_empty(), "both are continued: {effects:?}");
    assert_eq!(effects.iter().filter(|effect| matches!(effect, Effect::Call { .. })).count(), 2);
}

#[test]
fn a_term_that_begins_again_waits_for_what_the_former_had_on_its_way() {
    let (mut leader, claims) = Leader::of_two();
    leader.hears(Input::LeaseHeld { until: Instant::from_millis(60_000) });
    let effects = leader.hears(Input::Listed { claims, launches: Vec::new(), unread: Vec::new() });
    assert_eq!(created(&effects), ["d.1", "c.1"]);
    leader.hears(Input::LeaseLost);
    assert!(!lists(&leader.hears(Input::LeaseHeld { until: Instant::from_millis(90_000) })));
    let failed = |name: &str| Input::LaunchCreated { name: name.into(), outcome: Created::Failed("time-out".into()) };
    assert!(!lists(&leader.hears(failed("c.1"))));
    assert!(lists(&leader.hears(failed("d.1"))));
}

#[test]
fn a_claim_that_the_watch_shows_while_the_list_is_on_its_way_is_served() {
    let (mut leader, claims) = Leader::of_two();
    assert!(lists(&leader.hears(Input::LeaseHeld { until: Instant::from_millis(u64::MAX / 2) })));
    // The list was read before they were written. `c` has gone again by the time that it comes.
    claims.iter().for_each(|claim| drop(leader.hears(Input::ClaimSeen(claim.clone()))));
    leader.hears(Input::ClaimGone { name: "c".into() });
    let listed = Input::Listed { claims: claims[..1].to_vec(), launches: Vec::new(), unread: Vec::new() };
    assert_eq!(created(&leader.hears(listed)), ["d.1"], "no watch shows it again");
}

#[test]
fn a_deletion_that_the_watch_shows_while_the_list_is_on_its_way_is_heeded() {
    let (mut leader, claims) = Leader::of_two();
    assert!(lists(&leader.hears(Input::LeaseHeld { until: Instant::from_millis(u64::MAX / 2) })));
    leader.hears(Input::ClaimSeen(Claim { deleting: true, ..claims[0].clone() }));
    let effects = leader.hears(Input::Listed { claims, launches: Vec::new(), unread: Vec::new() });
    assert_eq!(created(&effects), ["d.1"]);
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::DeleteClaim { name, .. } if name == "c")),
        "{effects:?}"
    );
}
