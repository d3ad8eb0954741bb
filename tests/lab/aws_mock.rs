//! AWS's own mock as the witness: our service says what it says, and an agent that hears it empties its node.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::civil::DateTime;
use serde_json::Value;

use crate::support::agent::Agent;
use crate::support::aws_mock::AwsMock;
use crate::support::cluster::Cluster;
use crate::support::control_plane::ControlPlane;
use crate::support::facts::eventually;
use crate::support::imds::{Imds, REBALANCE, SCHEDULED, SPOT, TOKEN, TOKEN_HEADER, TTL_HEADER};
use crate::support::objects::a_pod;

const SOON: Duration = Duration::from_secs(20);
const AT_ONCE: Duration = Duration::ZERO;

/// The item, asked for until it is there: the mock's events come some time after its start.
async fn item(endpoint: &str, path: &str) -> Value {
    let http = reqwest::Client::new();
    let token = http.put(format!("{endpoint}{TOKEN}")).header(TTL_HEADER, "60").send().await.unwrap();
    let token = token.text().await.unwrap();
    eventually(path, SOON, async || {
        let answer = http.get(format!("{endpoint}{path}")).header(TOKEN_HEADER, &token).send().await;
        let answer = answer.map_err(|e| e.to_string())?;
        let (status, body) = (answer.status(), answer.text().await.map_err(|e| e.to_string())?);
        if status.is_success() {
            serde_json::from_str(&body).map_err(|e| e.to_string())
        } else {
            Err(status.to_string())
        }
    })
    .await
}

/// Each field with its text, every digit of it a 9: what has to be the same in both, whatever the time.
fn shape(item: &Value) -> BTreeMap<String, String> {
    let fields = item.as_object().unwrap_or_else(|| panic!("{item} is no object")).iter();
    let nines = |text: &str| text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect::<String>();
    fields.map(|(name, value)| (name.clone(), nines(value.as_str().unwrap_or_default()))).collect()
}

/// Neither has RFC 3339 here.
fn not_before(event: &Value) -> DateTime {
    let text = event["NotBefore"].as_str().expect("a time");
    DateTime::strptime("%-d %b %Y %H:%M:%S GMT", text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[tokio::test]
async fn our_metadata_service_says_notices_as_the_mock_of_aws_does() {
    let plane = tokio::task::spawn_blocking(ControlPlane::shared).await.expect("the lab starts");
    let ours = Imds::start("i-0").await;
    let at = ours.spot("terminate", Duration::from_secs(90));
    ours.rebalance();
    let theirs = AwsMock::spot(&plane.dir, "i-0", AT_ONCE, Some(at)).await;
    assert_eq!(item(&ours.endpoint(), SPOT).await, item(theirs.endpoint(), SPOT).await);
    let theirs = AwsMock::rebalance(&plane.dir, "i-0", AT_ONCE).await;
    assert_eq!(shape(&item(&ours.endpoint(), REBALANCE).await), shape(&item(theirs.endpoint(), REBALANCE).await));
}

#[tokio::test]
async fn our_metadata_service_says_scheduled_events_as_the_mock_of_aws_does() {
    let plane = tokio::task::spawn_blocking(ControlPlane::shared).await.expect("the lab starts");
    let (ours, left) = (Imds::start("i-0").await, Duration::from_secs(3600));
    let theirs = AwsMock::maintenance(&plane.dir, "i-0", "instance-retirement", "active", left).await;
    let theirs = item(theirs.endpoint(), SCHEDULED).await;
    ours.scheduled("e-1", "instance-retirement", "active", left);
    let ours = item(&ours.endpoint(), SCHEDULED).await;
    let (theirs, ours) = (&theirs[0], &ours[0]);
    for field in ["Code", "State"] {
        assert_eq!(ours[field], theirs[field], "{field}");
    }
    assert!(not_before(ours).duration_since(not_before(theirs)).abs() < SignedDuration::from_secs(60));
    let optional = ["NotAfter", "NotBeforeDeadline"];
    let names = |event| shape(event).into_keys().filter(|name| !optional.contains(&name.as_str())).collect::<Vec<_>>();
    assert_eq!(names(ours), names(theirs));
}

#[tokio::test]
async fn an_agent_that_hears_it_from_the_mock_of_aws_empties_its_node() {
    let cluster = Cluster::new("by-mock").await;
    let node = cluster.node("a").await;
    cluster.create(&a_pod("web").on(&node.name).ends_after(1)).await;
    cluster.running(&node, 1).await;
    // Its time slides with every poll: the deadline that was seen first holds.
    let mock = AwsMock::spot(&cluster.plane.dir, &node.instance, AT_ONCE, None).await;
    let _agent = Agent::on(&cluster, &node, mock.endpoint()).await.start().await;
    let seen = cluster.phase(&node, "Drained", SOON).await;
    assert_eq!(seen["spec"]["notices"][0]["source"], "imds", "{seen}");
    assert_eq!(cluster.node_json(&node).await["spec"]["unschedulable"], true);
}
