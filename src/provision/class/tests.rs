use super::*;
use crate::api::node_class::{
    AmiSelectorTerm, BlockDevice, BlockDeviceMapping, LaunchTemplateRef, SecurityGroupSelectorTerm, SubnetSelectorTerm,
};

fn tags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A class that says everything itself.
fn inline() -> EC2NodeClassSpec {
    EC2NodeClassSpec {
        subnet_selector_terms: vec![SubnetSelectorTerm { tags: tags(&[("cluster", "prod")]), ..Default::default() }],
        security_group_selector_terms: vec![SecurityGroupSelectorTerm {
            name: Some("nodes".into()),
            ..Default::default()
        }],
        ami_selector_terms: vec![AmiSelectorTerm { name: Some("al2023-*".into()), ..Default::default() }],
        instance_profile: Some("nodes".into()),
        user_data: Some("join".into()),
        ..EC2NodeClassSpec::default()
    }
}

fn by_template() -> EC2NodeClassSpec {
    let of = LaunchTemplateRef { name: Some("workers".into()), version: "$Latest".into(), ..Default::default() };
    EC2NodeClassSpec { launch_template: Some(of), ..EC2NodeClassSpec::default() }
}

fn subnet(id: &str, zone: &str, vpc: &str, of: &[(&str, &str)]) -> SubnetSeen {
    SubnetSeen { id: id.into(), zone: zone.into(), vpc: vpc.into(), tags: tags(of) }
}

fn group(id: &str, vpc: &str) -> GroupSeen {
    GroupSeen { id: id.into(), name: "nodes".into(), vpc: vpc.into() }
}

fn an_image(id: &str, created: &str, architecture: &str) -> ImageSeen {
    ImageSeen {
        id: id.into(),
        created: created.into(),
        architecture: Some(architecture.into()),
        ..ImageSeen::default()
    }
}

/// What EC2 has, enough for both.
fn ec2() -> Found {
    let version = TemplateSeen {
        id: "lt-1".into(),
        name: "workers".into(),
        version: "7".into(),
        image: Some("ami-old".into()),
        requirements: false,
    };
    Found {
        subnets: vec![
            subnet("subnet-a", "a", "vpc-1", &[("cluster", "prod")]),
            subnet("subnet-b", "b", "vpc-1", &[("cluster", "prod")]),
            subnet("subnet-c", "c", "vpc-1", &[("cluster", "test")]),
            subnet("subnet-x", "a", "vpc-2", &[]),
        ],
        used: BTreeSet::from(["subnet-c".to_owned()]),
        groups: vec![vec![group("sg-2", "vpc-2"), group("sg-1", "vpc-1")]],
        images: vec![vec![an_image("ami-old", "2026-01-01", "arm64"), an_image("ami-new", "2026-02-01", "arm64")]],
        template: Some(Ok(version)),
    }
}

fn ids(resolved: &Resolved) -> Vec<&str> {
    resolved.subnets.iter().map(|subnet| subnet.id.as_str()).collect()
}

#[test]
fn a_class_that_says_everything_itself_becomes_a_template_of_ours() {
    let resolved = resolve(&inline(), &ec2()).unwrap();
    assert_eq!(ids(&resolved), ["subnet-a", "subnet-b"]);
    assert_eq!(resolved.groups[0].id, "sg-1", "of two groups of the name the one in the VPC of the subnets");
    let LaunchesWith::Ours(template) = &resolved.launches_with else { panic!("{resolved:?}") };
    assert_eq!((template.image.as_str(), template.profile.as_deref()), ("ami-new", Some("nodes")));
    assert_eq!(template.user_data.as_deref(), Some("am9pbg=="));
    assert_eq!(template.metadata.as_ref().map(|of| of.http_tokens.as_str()), Some("required"));
    let name = template.name("cluster");
    let made = ResolvedTemplate { id: "lt-9".into(), name: name.clone(), version: "1".into() };
    let recipe = resolved.recipe(&inline(), &made);
    assert_eq!((recipe.launch_template, recipe.architecture.as_deref()), (name, Some("arm64")));
}

#[test]
fn a_template_that_exists_is_named_by_its_id_and_by_the_number_that_its_version_is_now() {
    let resolved = resolve(&by_template(), &ec2()).unwrap();
    assert_eq!(ids(&resolved), ["subnet-c"], "where none is named, those in which the nodes run");
    let LaunchesWith::Theirs(template) = &resolved.launches_with else { panic!("{resolved:?}") };
    let recipe = resolved.recipe(&by_template(), template);
    assert_eq!((recipe.launch_template.as_str(), recipe.launch_template_version.as_str()), ("lt-1", "7"));
}

#[test]
fn what_stands_in_the_way_is_named_with_its_field() {
    let refused =
        |spec: &EC2NodeClassSpec, found: &Found| resolve(spec, found).expect_err("it cannot work").to_string();
    let mut spec = inline();
    spec.subnet_selector_terms.push(SubnetSelectorTerm { id: Some("subnet-no".into()), ..Default::default() });
    assert_eq!(
        refused(&spec, &ec2()),
        "spec.subnetSelectorTerms[1].id: subnet-no does not exist, or not in this region"
    );
    spec.subnet_selector_terms = vec![SubnetSelectorTerm { tags: tags(&[("cluster", "none")]), ..Default::default() }];
    assert_eq!(refused(&spec, &ec2()), "spec.subnetSelectorTerms: no subnet has the tags of any term");
    spec = inline();
    spec.subnet_selector_terms.push(SubnetSelectorTerm { id: Some("subnet-x".into()), ..Default::default() });
    assert!(refused(&spec, &ec2()).contains("two VPCs, vpc-1 and vpc-2"));
    let mut found = Found { groups: vec![vec![group("sg-2", "vpc-2")]], ..ec2() };
    assert_eq!(
        refused(&inline(), &found),
        "spec.securityGroupSelectorTerms[0].name: no security group of vpc-1 is named nodes"
    );
    found = ec2();
    found.images[0].push(an_image("ami-x", "2025-01-01", "amd64"));
    assert!(
        refused(&inline(), &found).starts_with("spec.amiSelectorTerms: the terms name images of amd64 and of arm64")
    );
    found.images = vec![vec![]];
    assert_eq!(refused(&inline(), &found), "spec.amiSelectorTerms: no image is named by any term");
    let mut by_id = inline();
    by_id.ami_selector_terms = vec![AmiSelectorTerm { id: Some("ami-gone".into()), ..Default::default() }];
    assert!(refused(&by_id, &found).starts_with("spec.amiSelectorTerms[0].id: ami-gone does not exist"));
}

#[test]
fn a_template_that_cannot_be_launched_with_says_why() {
    let refused = |change: fn(&mut TemplateSeen)| {
        let mut found = ec2();
        found.template.iter_mut().flatten().for_each(change);
        resolve(&by_template(), &found).expect_err("it cannot work")
    };
    let requirements = refused(|of| of.requirements = true);
    assert!(requirements.to_string().contains("version 7 of workers has instance requirements"), "{requirements}");
    assert!(refused(|of| of.image = None).message.contains("names no image"));
    assert!(refused(|of| of.image = Some("ami-gone".into())).message.contains("ami-gone"));
    let mut found = Found { template: Some(Err("no template is named workers".into())), ..ec2() };
    let gone = resolve(&by_template(), &found).expect_err("it is gone");
    assert_eq!((gone.field.as_str(), gone.reason), ("spec.launchTemplate", "LaunchTemplateNotFound"));
    found = ec2();
    found.template.iter_mut().flatten().for_each(|of| of.image = Some("resolve:ssm:/images/nodes".into()));
    assert_eq!(resolve(&by_template(), &found).unwrap().ami, None, "which image it is turns out at the launch");
    found.used.clear();
    assert!(resolve(&by_template(), &found).unwrap_err().message.contains("no node of this cluster"));
}

#[test]
fn any_value_of_a_tag_is_a_star_and_all_tags_of_a_term_hold_together() {
    let mut spec = inline();
    spec.subnet_selector_terms = vec![SubnetSelectorTerm { tags: tags(&[("cluster", "*")]), ..Default::default() }];
    assert_eq!(ids(&resolve(&spec, &ec2()).unwrap()), ["subnet-a", "subnet-b", "subnet-c"]);
    spec.subnet_selector_terms[0].tags.insert("team".into(), "*".into());
    assert!(resolve(&spec, &ec2()).is_err());
}

#[test]
fn volumes_are_the_same_in_whatever_order_they_are_named() {
    let mapping = |name: &str| BlockDeviceMapping {
        device_name: name.into(),
        ebs: BlockDevice { volume_size: Some("20Gi".into()), ..BlockDevice::default() },
    };
    let name = |devices: &[&str]| {
        let spec =
            EC2NodeClassSpec { block_device_mappings: devices.iter().map(|one| mapping(one)).collect(), ..inline() };
        match resolve(&spec, &ec2()).unwrap().launches_with {
            LaunchesWith::Ours(template) => template.name("cluster"),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(name(&["/dev/xvda", "/dev/sdb"]), name(&["/dev/sdb", "/dev/xvda"]));
}

#[test]
fn a_status_is_believed_for_the_spec_that_it_is_about() {
    let (spec, now) = (by_template(), Timestamp::UNIX_EPOCH);
    let resolved = resolve(&spec, &ec2()).unwrap();
    let LaunchesWith::Theirs(template) = resolved.launches_with.clone() else { panic!("{resolved:?}") };
    let ready = status(&EC2NodeClassStatus::default(), 3, now, Ok((&resolved, &template)));
    assert_eq!(remembered(&spec, 3, &ready), Some(resolved.recipe(&spec, &template)));
    assert_eq!(remembered(&spec, 4, &ready), None, "the spec has changed since");
    let later = Timestamp::from_second(60).unwrap();
    let again = status(&ready, 3, later, Ok((&resolved, &template)));
    assert_eq!(again, ready, "the same again changes nothing, not even a time");
    let gone =
        Problem { field: "spec.launchTemplate".into(), reason: "LaunchTemplateNotFound", message: "gone".into() };
    let broken = status(&ready, 3, later, Err(&gone));
    assert_eq!(remembered(&spec, 3, &broken), None);
    let condition = &broken.conditions[0];
    assert_eq!((condition.message.as_str(), condition.last_transition_time), ("spec.launchTemplate: gone", later));
}
