//! From one notice to every pod of its node asked to go.
//!
//! Nodes are made a batch at a time, each with its pods and its own idle agent, and interrupted one after another at a
//! random phase of the agent's polling. Every time is taken where the event is seen in this process: the answer to a
//! request that waits at the notice endpoint, the events of watches that were opened before.

use std::time::{Duration, Instant};

use crate::fleet::{self, Member};
use crate::report::{Report, Times};
use crate::sights::Watch;
use crate::support::cluster::Cluster;

/// How long one notice may take; no more than what AWS gives.
const PATIENCE: Duration = Duration::from_secs(120);

/// The interval at which the agents ask IMDS.
const POLL: Duration = Duration::from_secs(1);

/// What was measured at every notice.
#[derive(Default)]
struct Series {
    told: Times,
    cordoned: Times,
    first_asked: Times,
    all_asked: Times,
    told_after_answer: Times,
    cordoned_after_answer: Times,
    all_asked_after_cordon: Times,
}

/// `notices` notices on nodes with `pods` pods, `batch` nodes at a time.
pub async fn measure(report: &mut Report, pods: usize, notices: usize, batch: usize) {
    let cluster = Cluster::new(&format!("reaction-{pods}")).await;
    let mut series = Series::default();
    let mut done = 0;
    while done < notices {
        let count = batch.min(notices - done);
        let mut members = fleet::nodes(&cluster, &format!("{done}-"), count).await;
        fleet::bare_pods(&cluster, &members, pods).await;
        fleet::agents(&cluster, &mut members, &[]).await;
        for member in &members {
            interrupt(&cluster, member, pods, &mut series).await;
        }
        done += count;
        fleet::clear(&cluster, members).await;
    }
    print(report, pods, &series);
}

async fn interrupt(cluster: &Cluster, member: &Member, pods: usize, series: &mut Series) {
    let Member { node, imds, .. } = member;
    let mut seen =
        Watch::open(cluster.client.clone(), &format!("/api/v1/nodes?fieldSelector=metadata.name%3D{}", node.name));
    let pods_path =
        format!("/api/v1/namespaces/{}/pods?fieldSelector=spec.nodeName%3D{}", cluster.namespace, node.name);
    let mut leaving = Watch::open(cluster.client.clone(), &pods_path);
    seen.shown(1).await;
    leaving.shown(pods).await;
    let told = async {
        let (status, body) = member.agent().notice("/v1/notice?wait=60s").await.expect("the notice endpoint answers");
        let at = Instant::now();
        assert!(status == 200, "{status} {body}");
        at
    };
    let rest = async {
        // The phase: the time of a notice has nothing to do with that of a poll.
        tokio::time::sleep(POLL.mul_f64(0.2 + fastrand::f64())).await;
        let noticed = Instant::now();
        imds.spot("terminate", PATIENCE);
        let (cordoned, asked) = tokio::join!(
            seen.first(1, PATIENCE, |node| node.unschedulable),
            leaving.first(pods, PATIENCE, |pod| pod.leaving)
        );
        (noticed, cordoned, asked)
    };
    let (told, (noticed, cordoned, asked)) = tokio::join!(told, rest);
    let answered = imds.first_notice().expect("IMDS was asked");
    let (Some(&cordoned), Some(&first), Some(&all)) = (cordoned.first(), asked.first(), asked.get(pods - 1)) else {
        panic!(
            "{}: {} of {pods} pods asked within {PATIENCE:?}\n{}",
            node.name,
            asked.len(),
            member.agent().process.log_tail()
        );
    };
    series.told.add(told - noticed);
    series.cordoned.add(cordoned - noticed);
    series.first_asked.add(first - noticed);
    series.all_asked.add(all - noticed);
    series.told_after_answer.add(told - answered);
    series.cordoned_after_answer.add(cordoned - answered);
    series.all_asked_after_cordon.add(all - cordoned);
}

fn print(report: &mut Report, pods: usize, series: &Series) {
    report.heading(&format!("One notice by IMDS at a random phase of 1 s polling, {pods} pods on the node"));
    let millis = Duration::from_millis;
    let rows = [
        ("told", "notice → a workload that waits is told", &series.told, None),
        ("cordoned", "notice → node unschedulable", &series.cordoned, Some((0.99, millis(1100)))),
        ("firstAsked", "notice → first pod asked to go", &series.first_asked, None),
        ("allAsked", "notice → all pods asked", &series.all_asked, None),
        ("toldAfterAnswer", "answer of IMDS → told", &series.told_after_answer, Some((0.5, millis(5)))),
        (
            "cordonedAfterAnswer",
            "answer of IMDS → unschedulable",
            &series.cordoned_after_answer,
            Some((0.5, millis(25))),
        ),
        (
            "allAskedAfterCordon",
            "unschedulable → all pods asked",
            &series.all_asked_after_cordon,
            Some((0.5, millis(1000))),
        ),
    ];
    for (key, what, times, target) in rows {
        report.times(&format!("reaction{pods}.{key}"), what, times, target);
    }
}
