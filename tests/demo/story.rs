//! The timeline on the terminal, from the agents' own decision logs, and the summary from their Interruptions.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

use crate::support::process::Process;

/// The provisioner's name in the story.
pub const EC2: &str = "ec2";

pub struct Story {
    began: Cell<Instant>,
    colours: bool,
    /// How many lines of each agent's log have been told.
    told: RefCell<HashMap<&'static str, usize>>,
    asked_before: RefCell<HashSet<String>>,
}

impl Story {
    pub fn begin() -> Story {
        let colours = std::io::stdout().is_terminal();
        Story { began: Cell::new(Instant::now()), colours, told: RefCell::default(), asked_before: RefCell::default() }
    }

    /// Time zero is now: the notices are about to be sent.
    pub fn restart(&self) {
        self.began.set(Instant::now());
    }

    pub fn elapsed(&self) -> Duration {
        self.began.get().elapsed()
    }

    /// A line of the narrator's.
    pub fn says(&self, what: &str) {
        println!("{:>8.2} s          {what}", self.elapsed().as_secs_f64());
    }

    /// A line about one node.
    pub fn of(&self, node: &str, what: &str) {
        let (on, off) = match (self.colours, node) {
            (false, _) => ("", ""),
            (true, "a") => ("\x1b[36m", "\x1b[0m"),
            (true, "b") => ("\x1b[33m", "\x1b[0m"),
            (true, EC2) => ("\x1b[32m", "\x1b[0m"),
            (true, _) => ("\x1b[35m", "\x1b[0m"),
        };
        let who = if node.len() == 1 { format!("node {node}") } else { node.to_owned() };
        println!("{:>8.2} s  {on}{who:<6}{off}  {what}", self.elapsed().as_secs_f64());
    }

    /// Tells what is new in a program's log: an agent's, or the provisioner's.
    pub fn follow(&self, node: &'static str, process: &Process, namespace: &str) {
        let log = process.log();
        let mut told = self.told.borrow_mut();
        let seen = told.entry(node).or_default();
        // A line that is being written has no end yet.
        let complete = log.rfind('\n').map_or("", |end| &log[..end]);
        let lines: Vec<Value> =
            complete.lines().skip(*seen).filter_map(|line| serde_json::from_str(line).ok()).collect();
        *seen = complete.lines().count();
        let mut asked = Vec::new();
        let mut scarce = Vec::new();
        for line in lines {
            match line["reason"].as_str() {
                // Whoever is blocked is asked every two seconds: that is told once.
                Some("Planned") => {
                    let pod = short(&line["pod"], namespace);
                    if self.asked_before.borrow_mut().insert(pod.clone()) {
                        asked.push(pod);
                    }
                }
                // One for each offering: all of them are told as one.
                Some("Short") => scarce.push(line["message"].as_str().unwrap_or_default().to_owned()),
                Some("SaidAgain" | "RecordedOnly" | "Leads") | None => {}
                Some("LatestStart") if line["verb"].is_string() => {}
                Some(reason) => {
                    self.asked(node, &mut asked);
                    self.scarce(node, &mut scarce);
                    let text = line["message"].as_str().unwrap_or_default().replace(&format!("{namespace}/"), "");
                    self.of(node, &format!("{reason:<12} {text}"));
                }
            }
        }
        self.asked(node, &mut asked);
        self.scarce(node, &mut scarce);
    }

    fn scarce(&self, node: &str, offerings: &mut Vec<String>) {
        if let Some(first) = offerings.first() {
            let others = offerings.len() - 1;
            self.of(node, &format!("{:<12} {first} (and {others} others)", "Short"));
            offerings.clear();
        }
    }

    fn asked(&self, node: &str, pods: &mut Vec<String>) {
        if !pods.is_empty() {
            self.of(node, &format!("{:<12} {} asked to go: {}", "Evicting", pods.len(), pods.join(" ")));
            pods.clear();
        }
    }

    /// How the replacements went. Returns whether there is one for each doomed node.
    pub fn replacements(&self, claims: &[(&str, Value, usize)]) -> bool {
        println!("\n           replaced by           asked for after   Ready after   pods on it");
        let mut well = claims.len() == 2;
        for (name, claim, pods) in claims {
            let status = &claim["status"];
            let wanted = time(&claim["metadata"]["creationTimestamp"]);
            let after = |what: &str| match (time(&status[what]), wanted) {
                (Some(at), Some(wanted)) => format!("{:.1} s", at.duration_since(wanted).as_secs_f64().max(0.0)),
                _ => "-".to_owned(),
            };
            let offering = &status["offering"];
            let what =
                [&offering["capacityType"], &offering["instanceType"]].map(|v| v.as_str().unwrap_or("-").to_owned());
            println!(
                "  node {name}   {:<20}  {:>15}  {:>12}  {pods:>11}",
                what.join(" "),
                after("requestedAt"),
                after("readyAt")
            );
            well &= status["phase"] == "Ready";
        }
        well
    }

    /// The end of it. Returns whether all went well.
    pub fn summary(&self, ends: &[(&str, Value)], failed_jobs: i64, replaced: bool) -> bool {
        println!(
            "\n           phase     pods  evicted  deleted   told    cordoned  first asked   empty     before the deadline"
        );
        let mut well = true;
        for name in ["a", "b", "c"] {
            let Some((_, end)) = ends.iter().find(|(ended, _)| *ended == name) else {
                println!("  node {name}   was not empty in time");
                well = false;
                continue;
            };
            let (status, spec) = (&end["status"], &end["spec"]);
            let phase = status["phase"].as_str().unwrap_or("?");
            if name == "c" {
                println!("  node {name}   {phase:<9} nothing was done to it");
                well &= phase == "Refuted";
                continue;
            }
            let timeline = &status["timeline"];
            let noticed = time(&timeline["noticedAt"]);
            let after = |what: &str| match (time(&timeline[what]), noticed) {
                (Some(at), Some(noticed)) => {
                    format!("{:.3} s", at.duration_since(noticed).as_secs_f64())
                }
                _ => "-".to_owned(),
            };
            let drained = time(&timeline["drainedAt"]);
            let deadline = time(&spec["notices"][0]["deadline"]);
            let spare = drained.zip(deadline).map(|(at, deadline)| deadline.duration_since(at).as_secs_f64());
            let pods = &status["pods"];
            println!(
                "  node {name}   {phase:<9} {:>4}  {:>7}  {:>7}  {:>8}  {:>8}  {:>11}  {:>8}  {:>8}",
                pods["total"],
                pods["evicted"],
                pods["deleted"],
                after("workloadsToldAt"),
                after("cordonedAt"),
                after("firstEvictionAt"),
                after("drainedAt"),
                spare.map_or("-".to_owned(), |s| format!("{s:.1} s")),
            );
            well &= phase == "Drained" && spare.is_some_and(|spare| spare > 0.0);
        }
        well &= failed_jobs == 0 && replaced;
        println!("  the Job was evicted, not failed: {} failures counted against it", failed_jobs);
        well
    }
}

fn short(pod: &Value, namespace: &str) -> String {
    pod.as_str().unwrap_or_default().trim_start_matches(namespace).trim_start_matches('/').to_owned()
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}
