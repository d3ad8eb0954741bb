//! What one agent takes of its node.

use std::time::{Duration, Instant};

use crate::fleet;
use crate::report::Report;
use crate::support::agent;
use crate::support::cluster::Cluster;

const PODS: usize = 110;
const IDLE: Duration = Duration::from_secs(60);
const MIB: f64 = 1024.0 * 1024.0;

pub async fn measure(report: &mut Report) {
    let cluster = Cluster::new("footprint").await;
    let mut members = fleet::nodes(&cluster, "n", 1).await;
    fleet::bare_pods(&cluster, &members, PODS).await;
    fleet::agents(&cluster, &mut members, &[]).await;
    let member = &members[0];
    let pid = member.agent().process.id();
    let (began, used) = (Instant::now(), cpu_secs(pid));
    tokio::time::sleep(IDLE).await;
    let cpu = (cpu_secs(pid) - used) / began.elapsed().as_secs_f64() * 60.0;
    let (idle, startup) = (status_mib(pid, "VmRSS"), status_mib(pid, "VmHWM"));
    member.imds.spot("terminate", Duration::from_secs(120));
    cluster.phase(&member.node, "Drained", Duration::from_secs(120)).await;
    let peak = status_mib(pid, "VmHWM");
    report.heading(&format!("One agent, asking IMDS every second, {PODS} pods on the node"));
    report.figure("footprint.idle", "resident when idle", Some(idle), "MiB", Some(10.0));
    report.figure("footprint.startup", "peak of the start and a minute of idling", Some(startup), "MiB", None);
    report.figure("footprint.peak", "peak after draining all pods", Some(peak), "MiB", Some(16.0));
    report.figure("footprint.cpu", "CPU when idle", Some(cpu), "s a minute", Some(0.05));
    report.figure("footprint.binary", "binary", size_mib(&agent::binary()), "MiB", Some(12.0));
    if let Some(image) = std::env::var_os("SPOTKEEPER_IMAGE_TAR") {
        report.figure("footprint.image", "image", size_mib(image.as_ref()), "MiB", None);
    }
    fleet::clear(&cluster, members).await;
}

/// A field of /proc/PID/status that counts kB.
pub fn status_mib(pid: u32, field: &str) -> f64 {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("the agent runs: {path}: {e}"));
    let line = status.lines().find(|line| line.starts_with(field)).expect("the kernel says it");
    let kib: f64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number of kB");
    kib / 1024.0
}

/// User and system time so far, from the nanoseconds of the scheduler: the clock of /proc/PID/stat ticks too coarsely.
pub fn cpu_secs(pid: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the agent runs");
    let nanos = |task: std::io::Result<std::fs::DirEntry>| {
        // A thread may end meanwhile.
        let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<f64>().ok()
    };
    tasks.filter_map(nanos).sum::<f64>() / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "sizes of files are far below 2^52")]
fn size_mib(path: &std::path::Path) -> Option<f64> {
    std::fs::metadata(path).ok().map(|file| file.len() as f64 / MIB)
}
