//! What an EC2NodeClass comes to: from its spec and what EC2 has, what is launched, or which field stands in the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;

use self::template::Template;
use crate::api::condition::{Condition, ConditionStatus};
use crate::api::node_claim::{Recipe, Subnet};
use crate::api::node_class::{EC2NodeClassSpec, EC2NodeClassStatus, ResolvedAmi, ResolvedGroup, ResolvedTemplate};

pub mod template;

/// How many subnets a recipe may have.
pub const SUBNETS_MAX: usize = 64;

/// The condition that says whether something can be launched with a class.
pub const READY: &str = "Ready";

/// A subnet as EC2 has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubnetSeen {
    pub id: String,
    pub zone: String,
    pub vpc: String,
    pub tags: BTreeMap<String, String>,
}

/// A security group as EC2 has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupSeen {
    pub id: String,
    pub name: String,
    pub vpc: String,
}

/// An image as EC2 has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageSeen {
    pub id: String,
    pub name: String,
    /// `amd64` or `arm64`; none for anything else.
    pub architecture: Option<String>,
    /// When it was made (RFC 3339, UTC): the latest is the greatest text.
    pub created: String,
    /// The devices that it has.
    pub devices: BTreeSet<String>,
}

/// A version of a launch template as EC2 has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateSeen {
    pub id: String,
    pub name: String,
    pub version: String,
    pub image: Option<String>,
    /// It says by requirements rather than by name which instance types it is for.
    pub requirements: bool,
}

/// What was found in EC2 for one class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Every subnet that may be seen.
    pub subnets: Vec<SubnetSeen>,
    /// The ids of those in which nodes of this cluster run.
    pub used: BTreeSet<String>,
    /// For each term what it names.
    pub groups: Vec<Vec<GroupSeen>>,
    /// For each term what it names; for a launch template's image one list.
    pub images: Vec<Vec<ImageSeen>>,
    /// The launch template's version; else what EC2 says of its absence.
    pub template: Option<Result<TemplateSeen, String>>,
}

/// What stands in the way, and which field it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Such as `spec.subnetSelectorTerms[1].id`.
    pub field: String,
    /// In one CamelCase word.
    pub reason: &'static str,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

fn problem<T>(field: impl Into<String>, reason: &'static str, message: impl Into<String>) -> Result<T, Problem> {
    Err(Problem { field: field.into(), reason, message: message.into() })
}

/// What a class comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub subnets: Vec<Subnet>,
    pub groups: Vec<ResolvedGroup>,
    pub ami: Option<ResolvedAmi>,
    pub launches_with: LaunchesWith,
}

/// The launch template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaunchesWith {
    /// One that is there.
    Theirs(ResolvedTemplate),
    /// One of ours, which is to be there.
    Ours(Box<Template>),
}

/// What a class comes to, or the first field that stands in the way.
pub fn resolve(spec: &EC2NodeClassSpec, found: &Found) -> Result<Resolved, Problem> {
    let (subnets, vpc) = subnets(spec, found)?;
    if spec.launch_template.is_some() {
        let (template, ami) = existing(found)?;
        return Ok(Resolved { subnets, groups: Vec::new(), ami, launches_with: LaunchesWith::Theirs(template) });
    }
    let groups = groups(spec, found, &vpc)?;
    let ami = image(spec, found)?;
    let mut devices: Vec<_> = spec.block_device_mappings.iter().map(template::device).collect();
    devices.sort();
    let template = Template {
        image: ami.id.clone(),
        groups: groups.iter().map(|group| group.id.clone()).collect(),
        profile: spec.instance_profile.clone(),
        user_data: spec.user_data.as_deref().map(template::encoded),
        devices,
        metadata: Some(spec.metadata_options.clone().unwrap_or_default()),
        key: None,
        ebs_optimized: false,
        volume_tags: spec.tags.clone(),
    };
    Ok(Resolved { subnets, groups, ami: Some(ami), launches_with: LaunchesWith::Ours(Box::new(template)) })
}

/// The subnets and their VPC.
fn subnets(spec: &EC2NodeClassSpec, found: &Found) -> Result<(Vec<Subnet>, String), Problem> {
    const FIELD: &str = "spec.subnetSelectorTerms";
    const REASON: &str = "SubnetsNotFound";
    let mut chosen: BTreeMap<&str, &SubnetSeen> = BTreeMap::new();
    for (index, term) in spec.subnet_selector_terms.iter().enumerate() {
        let named = |subnet: &&SubnetSeen| match &term.id {
            Some(id) => subnet.id == *id,
            None => has_tags(&subnet.tags, &term.tags),
        };
        let matching: Vec<_> = found.subnets.iter().filter(named).collect();
        if let (Some(id), true) = (&term.id, matching.is_empty()) {
            return problem(
                format!("{FIELD}[{index}].id"),
                REASON,
                format!("{id} does not exist, or not in this region"),
            );
        }
        chosen.extend(matching.into_iter().map(|subnet| (subnet.id.as_str(), subnet)));
    }
    if spec.subnet_selector_terms.is_empty() {
        chosen.extend(found.subnets.iter().filter(|s| found.used.contains(&s.id)).map(|s| (s.id.as_str(), s)));
        if chosen.is_empty() {
            return problem(
                FIELD,
                REASON,
                "none is given, and no node of this cluster is known whose subnet could be used",
            );
        }
    }
    let Some(vpc) = chosen.values().next().map(|subnet| subnet.vpc.clone()) else {
        return problem(FIELD, REASON, "no subnet has the tags of any term");
    };
    if let Some(other) = chosen.values().find(|subnet| subnet.vpc != vpc) {
        let message = format!("the subnets are in two VPCs, {vpc} and {}: name those of one", other.vpc);
        return problem(FIELD, "SubnetsOfTwoVPCs", message);
    }
    let subnets = chosen.into_values().map(|subnet| Subnet { id: subnet.id.clone(), zone: subnet.zone.clone() });
    Ok((subnets.take(SUBNETS_MAX).collect(), vpc))
}

/// Whether all that are wanted are there.
fn has_tags(tags: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| tags.get(key).is_some_and(|has| value == "*" || has == value))
}

fn groups(spec: &EC2NodeClassSpec, found: &Found, vpc: &str) -> Result<Vec<ResolvedGroup>, Problem> {
    const FIELD: &str = "spec.securityGroupSelectorTerms";
    const REASON: &str = "SecurityGroupsNotFound";
    let mut chosen = BTreeSet::new();
    for (index, term) in spec.security_group_selector_terms.iter().enumerate() {
        let all = found.groups.get(index).map_or(&[][..], Vec::as_slice);
        // A name is used once in each VPC: the one that is meant is in that of the subnets.
        let here: Vec<_> = all.iter().filter(|group| group.vpc == vpc).collect();
        if let (Some(id), Some(group)) = (&term.id, all.first().filter(|_| here.is_empty())) {
            let message = format!("{id} is in {}, and the subnets are in {vpc}", group.vpc);
            return problem(format!("{FIELD}[{index}].id"), REASON, message);
        }
        if let (Some(id), true) = (&term.id, here.is_empty()) {
            return problem(
                format!("{FIELD}[{index}].id"),
                REASON,
                format!("{id} does not exist, or not in this region"),
            );
        }
        if let (Some(name), true) = (&term.name, here.is_empty()) {
            let message = format!("no security group of {vpc} is named {name}");
            return problem(format!("{FIELD}[{index}].name"), REASON, message);
        }
        chosen.extend(here.into_iter().map(|g| ResolvedGroup { id: g.id.clone(), name: g.name.clone() }));
    }
    if chosen.is_empty() {
        return problem(FIELD, REASON, format!("no security group of {vpc} has the tags of any term"));
    }
    Ok(chosen.into_iter().collect())
}

/// The newest image of those that the terms name.
fn image(spec: &EC2NodeClassSpec, found: &Found) -> Result<ResolvedAmi, Problem> {
    const FIELD: &str = "spec.amiSelectorTerms";
    for (index, term) in spec.ami_selector_terms.iter().enumerate() {
        if let (Some(id), true) = (&term.id, found.images.get(index).is_none_or(Vec::is_empty)) {
            let message = format!("{id} does not exist, may not be used, or is not available");
            return problem(format!("{FIELD}[{index}].id"), "AMINotFound", message);
        }
    }
    let all: Vec<&ImageSeen> = found.images.iter().flatten().collect();
    let architectures: BTreeSet<&str> = all.iter().filter_map(|image| image.architecture.as_deref()).collect();
    if architectures.len() > 1 {
        let message = "the terms name images of amd64 and of arm64: make a class for each";
        return problem(FIELD, "AMIsOfTwoArchitectures", message);
    }
    match all.into_iter().max_by_key(|image| (&image.created, &image.id)) {
        Some(image) => Ok(ami(image)),
        None => problem(FIELD, "AMINotFound", "no image is named by any term"),
    }
}

fn ami(image: &ImageSeen) -> ResolvedAmi {
    ResolvedAmi { id: image.id.clone(), name: image.name.clone(), architecture: image.architecture.clone() }
}

/// A launch template that is there, as far as it can be launched with, and its image.
fn existing(found: &Found) -> Result<(ResolvedTemplate, Option<ResolvedAmi>), Problem> {
    const FIELD: &str = "spec.launchTemplate";
    const UNUSABLE: &str = "LaunchTemplateUnusable";
    let seen = match &found.template {
        Some(Ok(seen)) => seen,
        Some(Err(why)) => return problem(FIELD, "LaunchTemplateNotFound", why.clone()),
        None => return problem(FIELD, "LaunchTemplateNotFound", "EC2 has no such version"),
    };
    let version = &seen.version;
    if seen.requirements {
        let message = format!(
            "version {version} of {} has instance requirements, and EC2 lets those not be overridden by instance types: \
             take them out of the template, and put them into the NodePool",
            seen.name
        );
        return problem(FIELD, UNUSABLE, message);
    }
    let Some(image) = &seen.image else {
        let message = format!("version {version} of {} names no image, so nothing can be launched with it", seen.name);
        return problem(FIELD, UNUSABLE, message);
    };
    let template = ResolvedTemplate { id: seen.id.clone(), name: seen.name.clone(), version: seen.version.clone() };
    // A name of a parameter: which image it is turns out at the launch.
    if !image.starts_with("ami-") {
        return Ok((template, None));
    }
    match found.images.iter().flatten().find(|one| one.id == *image) {
        Some(image) => Ok((template, Some(ami(image)))),
        None => {
            let message = format!("the image {image} of version {version} of {} does not exist any more", seen.name);
            problem(FIELD, UNUSABLE, message)
        }
    }
}

impl Resolved {
    /// What claims are launched with, once the template is there.
    pub fn recipe(&self, spec: &EC2NodeClassSpec, template: &ResolvedTemplate) -> Recipe {
        let status = EC2NodeClassStatus {
            launch_template: Some(template.clone()),
            subnets: self.subnets.clone(),
            ami: self.ami.clone(),
            ..EC2NodeClassStatus::default()
        };
        recipe(spec, &status).unwrap_or_default()
    }
}

fn recipe(spec: &EC2NodeClassSpec, status: &EC2NodeClassStatus) -> Option<Recipe> {
    let template = status.launch_template.as_ref()?;
    // One of ours is named by its name: deleted and made again it has another id.
    let name = if spec.launch_template.is_some() { &template.id } else { &template.name };
    Some(Recipe {
        launch_template: name.clone(),
        launch_template_version: template.version.clone(),
        subnets: status.subnets.clone(),
        architecture: status.ami.as_ref().and_then(|ami| ami.architecture.clone()),
        tags: spec.tags.clone(),
    })
}

/// What an earlier look has come to, where it was about this spec and is written down.
pub fn remembered(spec: &EC2NodeClassSpec, generation: i64, status: &EC2NodeClassStatus) -> Option<Recipe> {
    let ready = status.conditions.iter().any(|of| of.r#type == READY && of.status == ConditionStatus::True);
    let usable = ready && status.observed_generation == generation && !status.subnets.is_empty();
    recipe(spec, status).filter(|_| usable)
}

/// The status that says what it comes to.
pub fn status(
    before: &EC2NodeClassStatus,
    generation: i64,
    now: Timestamp,
    resolved: Result<(&Resolved, &ResolvedTemplate), &Problem>,
) -> EC2NodeClassStatus {
    let (holds, reason, message) = match resolved {
        Ok(_) => (ConditionStatus::True, "Resolved", "it can be launched with".to_owned()),
        Err(problem) => (ConditionStatus::False, problem.reason, problem.to_string()),
    };
    let last = before.conditions.iter().find(|of| of.r#type == READY && of.status == holds);
    let ready = Condition {
        r#type: READY.to_owned(),
        status: holds,
        reason: reason.to_owned(),
        message: message.chars().take(1024).collect(),
        observed_generation: generation,
        last_transition_time: last.map_or(now, |of| of.last_transition_time),
    };
    let mut status = EC2NodeClassStatus {
        observed_generation: generation,
        conditions: vec![ready],
        ..EC2NodeClassStatus::default()
    };
    if let Ok((of, template)) = resolved {
        status.launch_template = Some(template.clone());
        status.subnets = of.subnets.clone();
        status.security_groups = of.groups.clone();
        status.ami = of.ami.clone();
    }
    status
}

#[cfg(test)]
mod tests;
