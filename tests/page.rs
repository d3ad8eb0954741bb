//! The page of a rehearsal in a real browser (Debian's `chromium`): drawn, without a network, for keyboards and screen
//! readers.

use std::process::Command;

use spotkeeper::domain::offering::CapacityType::Spot;
use spotkeeper::sim::page::{Comparison, Measure, page};
use spotkeeper::sim::system::scenario::{Pools, a_cluster, a_deployment, a_training_job};
use spotkeeper::sim::system::{Outcome, Report};

const MINUTE: u64 = 60_000;

fn a_zone_storm() -> Report {
    let shop = a_cluster(6).named("zone <storm>").workload(a_deployment("shop/web", 12).budget(3));
    let gone = [(10_000, Some(0))];
    shop.workload(a_training_job("ml/train", 3))
        .trace(&Pools::of(Spot).in_zone("eu-west-1a"), 100, &gone)
        .until(40 * MINUTE)
        .run()
}

fn compared() -> Comparison {
    let measure = "Time to capacity".into();
    let row = Measure { measure, values: vec!["48.0 s".into(), "960 s".into()], best: Some(0) };
    Comparison {
        policies: vec!["spotkeeper".into(), "cluster-autoscaler (model)".into()],
        rows: vec![row],
        notes: vec!["a model".into()],
    }
}

/// Loads a page in Chromium, lets `script` act on it, and returns the document as it is then.
fn browse(html: &str, script: &str) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("page.html");
    let acted = html.replace("</body>", &format!("<script>{{ {script} }}</script></body>"));
    std::fs::write(&file, acted).expect("the page can be written");
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"])
        .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
        .arg(format!("file://{}", file.display()))
        .env("HOME", dir.path())
        .output()
        .expect("Chromium is needed: apt-get install chromium");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("</html>"), "{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// What the script has left in the attribute `data-said` of the body.
fn said(dom: &str) -> &str {
    let (_, rest) = dom.split_once("data-said=\"").expect("the script ran to its end");
    rest.split_once('"').expect("it is quoted").0
}

#[test]
fn every_node_workload_and_decision_is_drawn_and_said_in_words() {
    let report = a_zone_storm();
    let Outcome { timelines, workloads, decisions, .. } = &report.outcome;
    assert!(report.outcome.findings.is_empty(), "{}", report.told());
    let html = page(&report.outcome, Some(&compared())).expect("the outcome is JSON");
    let dom = browse(
        &html,
        "const n = (s) => document.querySelectorAll(s).length;
         const silent = [...document.querySelectorAll('[role=listitem]')].filter((row) => !row.ariaLabel).length;
         document.body.dataset.said = [n('#nodes [role=listitem]'), n('#workloads [role=listitem]'),
           n('#decisions tr') - 1, n('#claims tr') - 1, n('#compared td.best'), n('#nodes rect') > 6, silent].join(' ');",
    );
    let drawn = format!(
        "{} {} {} {} 1 true 0",
        timelines.nodes.len(),
        workloads.len(),
        decisions.len().min(400),
        report.outcome.claims.len()
    );
    assert_eq!(said(&dom), drawn);
    assert!(dom.contains("Every invariant held"));
    // A name that looks like a tag is text.
    assert!(dom.contains("<h1 id=\"title\">zone &lt;storm&gt;</h1>"), "{}", &dom[..2_000.min(dom.len())]);
}

#[test]
fn a_keyboard_reaches_every_row_and_a_click_shows_its_reasons() {
    let report = a_zone_storm();
    let html = page(&report.outcome, None).expect("the outcome is JSON");
    let dom = browse(
        &html,
        "const rows = [...document.querySelectorAll('#nodes [role=listitem]')];
         const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
         rows[0].focus(); press('ArrowDown'); const second = document.activeElement === rows[1];
         press('End'); const last = document.activeElement === rows.at(-1);
         press('Home'); press('Enter');
         rows[0].dispatchEvent(new MouseEvent('mousemove', { clientX: 50, clientY: 50 }));
         const tip = document.getElementById('tip');
         document.body.dataset.said = [second, last, !tip.hidden && tip.textContent.includes('In its place'), document.getElementById('find').value,
           document.querySelectorAll('#nodes [tabindex=\"0\"]').length].join(' ');",
    );
    let first =
        &report.outcome.timelines.nodes.iter().find(|node| node.states.len() > 2).expect("one was doomed").instance;
    assert_eq!(said(&dom), format!("true true true {first} 1"));
}

#[test]
fn it_needs_no_network() {
    let html = page(&a_zone_storm().outcome, None).expect("the outcome is JSON");
    assert!(!html.replace("http://www.w3.org/2000/svg", "").contains("http"), "a namespace is no address");
    for word in ["src=", "@import", "url(", "fetch(", "XMLHttpRequest"] {
        assert!(!html.contains(word), "{word}");
    }
}
