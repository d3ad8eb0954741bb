//! The plan for people: a verdict, then node by node, then what to change.

use std::fmt::Write;

use super::findings::{count, seconds as secs, some};
use super::outcome::{AskedBy, End, Finding, NodePlan, Plan, PodPlan, Replacement, Request};
use crate::domain::quantity::in_dollars;

/// How many pods of a node are listed that have nothing to be said of.
const QUIET_LISTED_MAX: usize = 3;

/// How many nodes are listed; those first that something is wrong with.
const NODES_LISTED_MAX: usize = 12;

/// How many gaps are listed: where a whole list is missing there is one for each pod.
pub const GAPS_SHOWN_MAX: usize = 20;

const WIDTH: usize = 110;

/// All of it.
pub fn text(plan: &Plan) -> String {
    let mut text = verdict(plan);
    if !plan.gaps.is_empty() {
        text.push_str("\n\nNot known, and left out (the rest may be wrong)\n");
        plan.gaps.iter().take(GAPS_SHOWN_MAX).for_each(|gap| wrapped(&mut text, "  - ", "    ", gap));
        if plan.gaps.len() > GAPS_SHOWN_MAX {
            let _ = writeln!(text, "  and {} more: --output json has all", plan.gaps.len() - GAPS_SHOWN_MAX);
        }
    }
    text.push_str("\n\nNode by node, counted from the notice; a pod is taken to need all of its grace\n");
    nodes_text(&mut text, plan);
    if !plan.notes.is_empty() {
        text.push_str("\nGood to know\n");
        for note in &plan.notes {
            wrapped(&mut text, "  - ", "    ", &format!("{}: {}", note.object, note.what));
            if !note.change.is_empty() {
                wrapped(&mut text, "      ", "      ", &note.change);
            }
        }
    }
    if !plan.findings.is_empty() {
        text.push_str("\nWhat to change\n");
        for (at, finding) in plan.findings.iter().enumerate() {
            finding_text(&mut text, at + 1, finding);
        }
    }
    text
}

fn verdict(plan: &Plan) -> String {
    let ends = |end: End| plan.pods.iter().filter(|pod| pod.end == end).count();
    let (in_time, short, killed) = (ends(End::InTime), ends(End::CutShort), ends(End::Killed));
    let first = match plan.findings.len() {
        0 => "Nothing to change.".to_owned(),
        many => format!("{} to change.", count(many, "thing")),
    };
    let mut text = format!(
        "{first} If AWS took {} now ({} of {} nodes), with {} of notice:\n",
        plan.outage,
        plan.nodes.len(),
        plan.nodes_in_cluster,
        secs(plan.notice_ms)
    );
    let mut pods = format!(
        "{} on {}: {in_time} would have all of {} grace",
        count(plan.pods.len(), "pod"),
        if plan.nodes.len() == 1 { "it" } else { "them" },
        their(in_time)
    );
    if short > 0 {
        let _ = write!(pods, ", {short} would be cut short");
    }
    if killed > 0 {
        let _ = write!(pods, ", {killed} would be killed with the instance");
    }
    let against = plan.pods.iter().filter(|pod| pod.asked_by == AskedBy::Deleted).count();
    if against > 0 {
        let _ = write!(pods, "; {against} would be deleted against a budget");
    }
    wrapped(&mut text, "  - ", "    ", &pods);
    wrapped(&mut text, "  - ", "    ", &capacity(plan));
    text.trim_end().to_owned()
}

fn their(number: usize) -> &'static str {
    if number == 1 { "its" } else { "their" }
}

fn capacity(plan: &Plan) -> String {
    let of = &plan.capacity;
    if of.wanted == 0 {
        return "nothing would be asked of EC2 in the place of what goes".to_owned();
    }
    let types: Vec<String> = of.by_capacity_type.iter().map(|(of, count)| format!("{count} {of}")).collect();
    let mut text =
        format!("{} of {} asked for in the place of what goes would be Ready", of.ready, count(of.wanted, "node"));
    if !types.is_empty() {
        let _ = write!(text, " ({})", types.join(", "));
    }
    if let Some((first, last)) = of.first_ready_ms.zip(of.last_ready_ms) {
        let _ = match first == last {
            true => write!(text, ", after {}", secs(first)),
            false => write!(text, ", after {} to {}", secs(first), secs(last)),
        };
    }
    if let Some(price) = of.at_most_on_demand {
        let _ = write!(text, "; ${} an hour at most, all on demand", in_dollars(price));
    }
    text
}

fn nodes_text(text: &mut String, plan: &Plan) {
    let pod =
        |pod: &PodPlan| pod.end != End::InTime || pod.asked_by == AskedBy::Deleted || pod.ready_again_ms.is_none();
    let replaced = |node: &NodePlan| node.replacement.as_ref().is_some_and(|of| of.ready_ms.is_some());
    let (troubled, quiet): (Vec<&NodePlan>, Vec<&NodePlan>) =
        plan.nodes.iter().partition(|node| !replaced(node) || plan.pods_of(&node.name).any(pod));
    let listed = if plan.nodes.len() > NODES_LISTED_MAX {
        troubled.iter().chain(&quiet).take(NODES_LISTED_MAX).copied().collect::<Vec<_>>()
    } else {
        plan.nodes.iter().collect()
    };
    listed.iter().for_each(|node| node_text(text, plan, node));
    if listed.len() < plan.nodes.len() {
        let wrong = troubled.len().saturating_sub(listed.len());
        let of = if wrong > 0 { format!(", {wrong} of them with something to change") } else { String::new() };
        let _ = writeln!(text, "\n  {} more nodes{of}: --output json has all", plan.nodes.len() - listed.len());
    }
}

fn node_text(text: &mut String, plan: &Plan, node: &NodePlan) {
    let paid = node.capacity_type.map_or(String::new(), |of| format!(" {of}"));
    let zone = node.zone.as_ref().map_or(String::new(), |zone| format!(" in {zone}"));
    let pool = node.node_pool.as_ref().map_or(String::new(), |pool| format!(", NodePool {pool}"));
    let _ = writeln!(text, "\n  {}  {}{paid}{zone}{pool}", node.name, node.instance_type);
    let at = |label: &str, moment: Option<u64>| moment.map(|at| format!("{label} after {}", secs(at)));
    let drained = at("empty", node.drained_ms).or(Some("not empty when the instance ends".to_owned()));
    let drain: Vec<String> = [at("cordoned", node.cordoned_ms), drained].into_iter().flatten().collect();
    wrapped(text, "    drain     ", "              ", &drain.join(", "));
    wrapped(text, "    capacity  ", "              ", &replaced(node));
    let pods: Vec<&PodPlan> = plan.pods_of(&node.name).collect();
    let own = match node.own_pods {
        0 => String::new(),
        own => format!(", and {own} of its own (DaemonSets, static pods) that end with it"),
    };
    wrapped(text, "    pods      ", "              ", &format!("{}{own}", count(pods.len(), "pod")));
    let (loud, quiet): (Vec<&PodPlan>, Vec<&PodPlan>) = pods.into_iter().partition(|pod| is_loud(pod));
    for pod in loud.iter().chain(quiet.iter().take(QUIET_LISTED_MAX)) {
        wrapped(text, "      ", "        ", &format!("{}  {}", pod.name, pod_text(pod)));
    }
    if quiet.len() > QUIET_LISTED_MAX {
        let _ = writeln!(text, "      {} more that go at once and in time", quiet.len() - QUIET_LISTED_MAX);
    }
}

fn is_loud(pod: &PodPlan) -> bool {
    pod.end != End::InTime || pod.refusals > 0 || pod.policy != "evict" || pod.ready_again_ms.is_none()
}

fn pod_text(pod: &PodPlan) -> String {
    let mut parts = Vec::new();
    let asked = pod.asked_ms.map(secs);
    match (pod.asked_by, &asked) {
        (AskedBy::None, None) => parts.push("never asked".to_owned()),
        (AskedBy::None, Some(at)) => parts.push(format!("asked from {at} on, never let go")),
        (AskedBy::Evicted, Some(at)) if pod.refusals == 0 => match pod.asked_ms {
            Some(..500) => parts.push("evicted at once".to_owned()),
            _ => parts.push(format!("evicted after {at}")),
        },
        (how, Some(_)) => {
            let last = secs(pod.refused_until_ms.unwrap_or(0));
            let how = if how == AskedBy::Deleted { "deleted" } else { "evicted" };
            parts.push(format!("refused by {} until {last}, then {how}", pod.refused_by.join(" and ")));
        }
        (_, None) => {}
    }
    match pod.end {
        End::InTime => parts.push(format!("its grace of {} s fits", pod.grace_secs)),
        End::CutShort => parts.push(format!(
            "its grace is {} s, it gets {} s: {} s too few",
            pod.grace_secs,
            pod.granted_secs.unwrap_or(0),
            pod.short_by_secs
        )),
        End::Killed => parts.push("killed with the instance".to_owned()),
    }
    match (pod.ready_again_ms, &pod.ready_again_on) {
        (Some(at), _) => parts.push(format!("its successor Ready after {}", secs(at))),
        (None, _) => parts.push("no successor Ready".to_owned()),
    }
    parts.join("; ")
}

fn replaced(node: &NodePlan) -> String {
    let Some(of) = &node.replacement else {
        return node.because.clone().unwrap_or("nothing is asked for".to_owned());
    };
    let mut parts: Vec<String> = of.requests.iter().take(3).map(|request| asked(request, of)).collect();
    if of.requests.len() > 3 {
        parts.push(format!("{} more calls", of.requests.len() - 3));
    }
    match (of.ready_ms, &node.because) {
        (Some(at), _) => parts.push(format!("Ready after {}", secs(at))),
        (None, Some(because)) => parts.push(format!("none is Ready: {because}")),
        (None, None) => parts.push("none is Ready".to_owned()),
    }
    parts.join("; ")
}

fn asked(request: &Request, of: &Replacement) -> String {
    let price = |one: &super::outcome::TypePrice| match one.on_demand {
        Some(price) => format!("{} (${})", one.name, in_dollars(price)),
        None => one.name.clone(),
    };
    let types: Vec<String> = request.instance_types.iter().map(price).collect();
    let shared = match request.count {
        0 | 1 => String::new(),
        many => format!(" {many} together,"),
    };
    let nothing = of.capacity_type.is_some_and(|got| got != request.capacity_type);
    format!(
        "{} after {}:{shared} {} in {}{}",
        request.capacity_type,
        secs(request.at_ms),
        some(&types, 4),
        some(&request.zones, 4),
        if nothing { " (gives nothing)" } else { "" }
    )
}

fn finding_text(text: &mut String, number: usize, finding: &Finding) {
    let head = format!("  {number}. ");
    let indent = " ".repeat(head.len());
    wrapped(text, &head, &indent, &format!("{}: {}", finding.object, finding.what));
    wrapped(text, &format!("{indent}→ "), &format!("{indent}  "), &finding.change);
    if finding.pods.len() > 1 {
        wrapped(text, &indent, &indent, &format!("({})", some(&finding.pods, 4)));
    }
}

/// Puts words into lines; the first begins with `first`, the others with `rest`. A number stays with its unit.
fn wrapped(text: &mut String, first: &str, rest: &str, words: &str) {
    let mut line = first.to_owned();
    let mut empty = true;
    let mut words = words.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let unit = |next: &&str| {
            word.ends_with(|c: char| c.is_ascii_digit()) && next.trim_end_matches([',', ';', ':', ')']) == "s"
        };
        let word = match words.next_if(unit) {
            Some(unit) => format!("{word} {unit}"),
            None => word.to_owned(),
        };
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line = rest.to_owned();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(&word);
        empty = false;
    }
    text.push_str(line.trim_end());
    text.push('\n');
}
