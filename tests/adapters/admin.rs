use std::time::{Duration, Instant};

use spotkeeper::adapters::admin::{Admin, Condition, Heartbeat, Readiness};
use spotkeeper::adapters::metrics::agent::Metrics;
use spotkeeper::adapters::serve::{self, Limits};
use spotkeeper::domain::notice::{Kind, Source};

use crate::client::{get, served};

fn admin(stuck_after: Duration) -> Admin<Metrics> {
    Admin {
        readiness: Readiness::of(&[Condition::Imds, Condition::Permissions]),
        heartbeat: Heartbeat::new(stuck_after),
        metrics: Metrics::new(),
    }
}

#[tokio::test]
async fn readiness_names_every_condition_that_does_not_hold() {
    let admin = admin(Duration::MAX);
    let readiness = admin.readiness.clone();
    let base = format!("http://{}", served(admin.router(), Limits::default()).await);
    let text = "imds: not checked yet\npermissions: not checked yet\n".to_owned();
    assert_eq!(get(format!("{base}/readyz")).await, (503, text));
    assert!(readiness.met(Condition::Imds));
    assert!(!readiness.met(Condition::Imds), "no news");
    assert!(readiness.unmet(Condition::Permissions, "allow patch on nodes"));
    let text = "permissions: allow patch on nodes\n".to_owned();
    assert_eq!(get(format!("{base}/readyz")).await, (503, text));
    readiness.met(Condition::Permissions);
    assert_eq!(get(format!("{base}/readyz")).await, (200, "ok\n".to_owned()));
    readiness.unmet(Condition::Queue, "denied");
    assert_eq!(get(format!("{base}/readyz")).await.0, 503);
}

#[tokio::test]
async fn only_a_loop_that_is_stuck_is_not_alive() {
    let lively = admin(Duration::from_secs(3_600));
    let base = format!("http://{}", served(lively.router(), Limits::default()).await);
    assert_eq!(get(format!("{base}/livez")).await.0, 200);

    let stuck = admin(Duration::ZERO);
    let heartbeat = stuck.heartbeat.clone();
    let base = format!("http://{}", served(stuck.router(), Limits::default()).await);
    let began = Instant::now();
    while heartbeat.stuck_for().is_none() {
        assert!(began.elapsed() < Duration::from_secs(10));
        tokio::task::yield_now().await;
    }
    assert_eq!(get(format!("{base}/livez")).await.0, 503);
}

#[tokio::test]
async fn metrics_are_in_the_form_that_prometheus_reads() {
    let admin = admin(Duration::MAX);
    admin.metrics.set_imds_healthy(true);
    admin.metrics.noticed(Source::Imds, Kind::SpotInterruption);
    let base = format!("http://{}", served(admin.router(), Limits::default()).await);
    let (status, text) = get(format!("{base}/metrics")).await;
    assert_eq!(status, 200);
    assert!(text.contains("spotkeeper_imds_healthy 1\n"), "{text}");
    assert!(text.contains("# TYPE spotkeeper_notices counter"), "{text}");
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let address = served(axum::Router::new(), Limits::default()).await;
    let error = serve::bind(address).await.unwrap_err().to_string();
    assert!(error.contains(&address.to_string()), "{error}");
}
