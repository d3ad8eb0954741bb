//! EC2NodeClasses: each is looked up in EC2, its launch template is made, and what it comes to is told to the core and
//! written into its status. By the leader; others remember what it has written.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::api::ListParams;
use tokio::sync::{mpsc, watch};

use super::observer::Observer;
use super::templates::{Templates, Unavailable};
use crate::adapters::ec2::{Ec2, Ec2Error};
use crate::adapters::kubernetes::supply::node_view;
use crate::adapters::kubernetes::{Kubernetes, one_line};
use crate::api::condition::Condition;
use crate::api::node_claim::Recipe;
use crate::api::node_class::{AmiSelectorTerm, EC2NodeClass, EC2NodeClassSpec, ResolvedTemplate};
use crate::provision::Input;
use crate::provision::class::{self, Found, LaunchesWith, Problem, Resolved};
use crate::provision::failure::{self, forbids};

/// Images, subnets and security groups come and go.
const EVERY: Duration = Duration::from_secs(300);

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What the watch sees.
#[derive(Debug)]
pub enum Sight {
    Seen(Box<EC2NodeClass>),
    Gone(String),
    /// All that there are have been seen once.
    Synced,
}

/// Follows the classes.
pub struct Classes {
    pub ec2: Ec2,
    pub kubernetes: Kubernetes,
    pub observer: Observer,
    pub inputs: mpsc::Sender<Input>,
    /// Whether this replica leads.
    pub leads: watch::Receiver<bool>,
    /// Moves with every launch that is refused for its template.
    pub refusals: watch::Receiver<u64>,
    templates: Templates,
    known: BTreeMap<String, Known>,
}

struct Known {
    object: EC2NodeClass,
    /// What the core was told.
    told: Option<Result<Recipe, String>>,
    due: Instant,
    retry: Duration,
}

/// Why it is not known what a class comes to.
enum Unresolved {
    /// Something stands in the way.
    Problem(Problem),
    /// We may not look, or are not known any more: that says nothing about the class.
    Denied(Problem),
    /// EC2 or the API server has not answered.
    NoAnswer(String),
}

impl From<Ec2Error> for Unresolved {
    fn from(error: Ec2Error) -> Self {
        let text = one_line(&error);
        match error {
            Ec2Error::Refused { code, .. } if !is_passing(&code) => {
                let problem = Problem { field: "spec".to_owned(), reason: "EC2Refused", message: text };
                if forbids(&code) { Self::Denied(problem) } else { Self::Problem(problem) }
            }
            _ => Self::NoAnswer(text),
        }
    }
}

impl From<Unavailable> for Unresolved {
    fn from(error: Unavailable) -> Self {
        match error {
            Unavailable::Ec2(error) => error.into(),
            Unavailable::NotShown { .. } => Self::NoAnswer(one_line(&error)),
            Unavailable::Foreign { .. } | Unavailable::Changed { .. } => Self::Problem(Problem {
                field: "spec".to_owned(),
                reason: "LaunchTemplateNotOurs",
                message: one_line(&error),
            }),
        }
    }
}

impl Unresolved {
    /// What is launched with already goes on being launched with where we may not look; readiness says what is missing.
    fn beside(self, told: Option<&Result<Recipe, String>>) -> Self {
        match self {
            Self::Denied(problem) if matches!(told, Some(Ok(_))) => Self::NoAnswer(problem.message),
            Self::Denied(problem) => Self::Problem(problem),
            other => other,
        }
    }
}

/// Whether a refusal says nothing about what was asked for.
fn is_passing(code: &str) -> bool {
    use crate::provision::failure::Class;
    matches!(failure::class(code), Class::Throttle | Class::Unknown)
}

impl Classes {
    pub fn new(ec2: Ec2, kubernetes: Kubernetes, observer: Observer, inputs: mpsc::Sender<Input>) -> Self {
        let (leads, refusals) = (observer.leads(), observer.refusals());
        let templates = Templates { ec2: ec2.clone(), observer: observer.clone() };
        Self { ec2, kubernetes, observer, inputs, leads, refusals, templates, known: BTreeMap::new() }
    }

    /// Until the watch ends.
    pub async fn follow(mut self, mut sights: mpsc::UnboundedReceiver<Sight>) {
        loop {
            let leads = *self.leads.borrow_and_update();
            let next = self.known.values().map(|known| known.due).min().filter(|_| leads);
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                sight = sights.recv() => match sight {
                    Some(Sight::Seen(object)) => self.seen(*object).await,
                    Some(Sight::Gone(name)) => {
                        self.known.remove(&name);
                        self.tell(Input::ClassGone { name }).await;
                    }
                    Some(Sight::Synced) => self.tell(Input::ClassesSynced).await,
                    None => return,
                },
                // Whoever begins to lead looks at all of them; whoever was refused a template, too.
                Ok(()) = self.leads.changed() => self.all_are_due(),
                Ok(()) = self.refusals.changed() => self.all_are_due(),
                () = due => {}
            }
            if *self.leads.borrow() {
                let now = Instant::now();
                let due = self.known.iter().filter(|(_, known)| known.due <= now).map(|(name, _)| name.clone());
                for name in due.collect::<Vec<_>>() {
                    // What it asks EC2 for in turn makes a large future.
                    Box::pin(self.look_up(&name)).await;
                }
            }
        }
    }

    fn all_are_due(&mut self) {
        let now = Instant::now();
        self.known.values_mut().for_each(|known| known.due = now);
    }

    async fn tell(&self, input: Input) {
        // The receiver is gone only when the program ends.
        let _ = self.inputs.send(input).await;
    }

    /// A class is new or has changed.
    async fn seen(&mut self, object: EC2NodeClass) {
        let name = object.metadata.name.clone().unwrap_or_default();
        let same = |known: &&mut Known| {
            known.object.metadata.uid == object.metadata.uid
                && known.object.metadata.generation == object.metadata.generation
        };
        if let Some(known) = self.known.get_mut(&name).filter(same) {
            known.object.status = object.status;
            return;
        }
        let told = self.known.remove(&name).and_then(|known| known.told);
        let status = object.status.clone().unwrap_or_default();
        let remembered = class::remembered(&object.spec, object.metadata.generation.unwrap_or(0), &status);
        let now = Instant::now();
        self.known.insert(name.clone(), Known { object, told: told.clone(), due: now, retry: RETRY_FIRST });
        match remembered {
            Some(recipe) => self.comes_to(&name, Ok(recipe), false).await,
            None if told.is_none() => self.comes_to(&name, Err("it is being looked up in EC2".into()), false).await,
            None => {}
        }
    }

    /// Tells the core what a class comes to, where that is news; `made`: its template was made again.
    async fn comes_to(&mut self, name: &str, recipe: Result<Recipe, String>, made: bool) {
        let Some(known) = self.known.get_mut(name) else { return };
        if known.told.as_ref() != Some(&recipe) || made {
            known.told = Some(recipe.clone());
            self.tell(Input::ClassSeen { name: name.to_owned(), recipe }).await;
        }
    }

    async fn look_up(&mut self, name: &str) {
        let Some(known) = self.known.get(name) else { return };
        let spec = known.object.spec.clone();
        let found = Box::pin(self.resolve(&spec)).await;
        let Some(known) = self.known.get(name) else { return };
        let resolved = match found.map_err(|why| why.beside(known.told.as_ref())) {
            Ok((of, template, made)) => {
                let recipe = of.recipe(&spec, &template);
                self.comes_to(name, Ok(recipe), made).await;
                Ok((of, template))
            }
            Err(Unresolved::Problem(problem) | Unresolved::Denied(problem)) => {
                self.comes_to(name, Err(problem.to_string()), false).await;
                Err(problem)
            }
            Err(Unresolved::NoAnswer(why)) => {
                let Some(known) = self.known.get_mut(name) else { return };
                if known.retry == RETRY_FIRST {
                    tracing::warn!(class = name, error = why, "an EC2NodeClass cannot be looked up, trying again");
                }
                known.due = Instant::now() + known.retry;
                known.retry = (known.retry * 2).min(RETRY_MAX);
                return;
            }
        };
        let written = self.write(name, resolved.as_ref().map(|(of, template)| (of, template))).await;
        let Some(known) = self.known.get_mut(name) else { return };
        known.due = Instant::now() + if written { EVERY } else { known.retry };
        known.retry = if written { RETRY_FIRST } else { (known.retry * 2).min(RETRY_MAX) };
    }

    /// Writes the status, where it is not there yet; a condition that has changed is an event, too.
    async fn write(&mut self, name: &str, resolved: Result<(&Resolved, &ResolvedTemplate), &Problem>) -> bool {
        let Some(known) = self.known.get(name) else { return true };
        let before = known.object.status.clone().unwrap_or_default();
        let meta = &known.object.metadata;
        let (uid, generation) = (meta.uid.clone().unwrap_or_default(), meta.generation.unwrap_or(0));
        let status = class::status(&before, generation, Timestamp::now(), resolved);
        if status == before {
            return true;
        }
        if let Err(error) = self.kubernetes.write_class(name, &uid, &status).await {
            tracing::warn!(class = name, error = one_line(&error), "the status of an EC2NodeClass cannot be written");
            return false;
        }
        let says = |of: &Condition| (of.reason.clone(), of.message.clone());
        for of in &status.conditions {
            if before.conditions.iter().any(|old| says(old) == says(of)) {
                continue;
            }
            tracing::info!(class = name, reason = of.reason, "{}", of.message);
            if let Err(error) = self.kubernetes.publish_condition(name, &uid, of).await {
                tracing::warn!(class = name, error = one_line(&error), "an event cannot be published");
            }
        }
        if let Some(known) = self.known.get_mut(name) {
            known.object.status = Some(status);
        }
        true
    }

    /// What a class comes to, its launch template, and whether that was made just now.
    async fn resolve(&self, spec: &EC2NodeClassSpec) -> Result<(Resolved, ResolvedTemplate, bool), Unresolved> {
        let found = Box::pin(self.found(spec)).await?;
        let resolved = class::resolve(spec, &found).map_err(Unresolved::Problem)?;
        let (template, made) = match &resolved.launches_with {
            LaunchesWith::Theirs(template) => (template.clone(), false),
            LaunchesWith::Ours(template) => Box::pin(self.templates.there(template)).await?,
        };
        Ok((resolved, template, made))
    }

    /// What EC2 has of it.
    async fn found(&self, spec: &EC2NodeClassSpec) -> Result<Found, Unresolved> {
        let mut found = Found {
            subnets: self.observer.asking("DescribeSubnets", self.ec2.all_subnets()).await?,
            ..Found::default()
        };
        if spec.subnet_selector_terms.is_empty() {
            let nodes = self.kubernetes.fleet_nodes().list(&ListParams::default()).await;
            let nodes = nodes.map_err(|error| Unresolved::NoAnswer(one_line(&error)))?;
            let instances: Vec<_> = nodes.items.into_iter().filter_map(|node| node_view(node).instance).collect();
            found.used = self.observer.asking("DescribeInstances", self.ec2.subnets_of(&instances)).await?;
        }
        for term in &spec.security_group_selector_terms {
            found.groups.push(self.observer.asking("DescribeSecurityGroups", self.ec2.security_groups(term)).await?);
        }
        for term in &spec.ami_selector_terms {
            found.images.push(self.observer.asking("DescribeImages", self.ec2.images(term)).await?);
        }
        if let Some(of) = &spec.launch_template {
            let template = self.observer.asking("DescribeLaunchTemplateVersions", self.ec2.launch_template(of)).await?;
            let image = template.as_ref().ok().and_then(|seen| seen.image.clone());
            if let Some(id) = image.filter(|image| image.starts_with("ami-")) {
                let term = AmiSelectorTerm { id: Some(id), ..AmiSelectorTerm::default() };
                found.images.push(self.observer.asking("DescribeImages", self.ec2.images(&term)).await?);
            }
            found.template = Some(template);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_we_may_not_look_what_is_known_of_a_class_holds() {
        let refused =
            |code: &str| Ec2Error::Refused { action: "ec2:DescribeImages", code: code.into(), message: "no".into() };
        let (known, none) = (Ok(Recipe::default()), Err("no image".to_owned()));
        let kept = |code, told| matches!(Unresolved::from(refused(code)).beside(told), Unresolved::NoAnswer(_));
        assert!(kept("ExpiredToken", Some(&known)) && kept("UnauthorizedOperation", Some(&known)));
        assert!(
            !kept("UnauthorizedOperation", None),
            "nothing is known: it is the class's problem, and its status says so"
        );
        assert!(!kept("UnauthorizedOperation", Some(&none)));
        assert!(!kept("InvalidAMIID.Malformed", Some(&known)), "that is about the class");
        assert!(kept("RequestLimitExceeded", None));
    }
}
