//! `CreateFleet` on the wire: EC2's query protocol in, its XML out.

use std::collections::HashMap;
use std::fmt::Write;

/// What one call asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub token: String,
    /// `spot` or `on-demand`.
    pub market: String,
    pub count: usize,
    /// Id or name, and version.
    pub template: (String, String),
    /// Instance type and subnet.
    pub overrides: Vec<(String, String)>,
    pub tags: Vec<(String, String)>,
    pub strategy: String,
}

/// An instance that is given.
pub struct Given {
    pub id: String,
    pub name: String,
    pub subnet: String,
}

impl Asked {
    pub fn of(form: &HashMap<String, String>) -> Asked {
        let get = |key: &str| form.get(key).cloned().unwrap_or_default();
        let all = |prefix: &str, a: &str, b: &str| {
            let one = |n: usize| {
                Some((form.get(&format!("{prefix}.{n}.{a}"))?.clone(), form.get(&format!("{prefix}.{n}.{b}"))?.clone()))
            };
            (1..).map_while(one).collect::<Vec<_>>()
        };
        let config = "LaunchTemplateConfigs.1";
        let market = get("TargetCapacitySpecification.DefaultTargetCapacityType");
        assert_eq!(get("Type"), "instant", "{form:?}");
        assert_eq!(get("TagSpecification.1.ResourceType"), "instance", "{form:?}");
        Asked {
            token: get("ClientToken"),
            strategy: get(if market == "spot" {
                "SpotOptions.AllocationStrategy"
            } else {
                "OnDemandOptions.AllocationStrategy"
            }),
            market,
            count: get("TargetCapacitySpecification.TotalTargetCapacity").parse().expect("a number"),
            template: (
                [
                    get(&format!("{config}.LaunchTemplateSpecification.LaunchTemplateId")),
                    get(&format!("{config}.LaunchTemplateSpecification.LaunchTemplateName")),
                ]
                .concat(),
                get(&format!("{config}.LaunchTemplateSpecification.Version")),
            ),
            overrides: all(&format!("{config}.Overrides"), "InstanceType", "SubnetId"),
            tags: all("TagSpecification.1.Tag", "Key", "Value"),
        }
    }
}

/// EC2 says this of a whole call, and names no pool.
const UNNAMED: &str = "UnfulfillableCapacity";

/// The answer: what is given, and for each override that had nothing, its error.
pub fn fleet(asked: &Asked, given: &[Given], dry: Option<&str>) -> String {
    let mut text = String::from(
        "<CreateFleetResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId>\
         <fleetId>fleet-1</fleetId><fleetInstanceSet>",
    );
    let lifecycle = &asked.market;
    for one in given {
        let _ = write!(
            text,
            "<item><launchTemplateAndOverrides><overrides><instanceType>{0}</instanceType><subnetId>{1}</subnetId>\
             </overrides></launchTemplateAndOverrides><lifecycle>{lifecycle}</lifecycle><instanceIds><item>{2}</item>\
             </instanceIds><instanceType>{0}</instanceType></item>",
            one.name, one.subnet, one.id
        );
    }
    text.push_str("</fleetInstanceSet><errorSet>");
    if dry == Some(UNNAMED) {
        let _ = write!(
            text,
            "<item><lifecycle>{lifecycle}</lifecycle><errorCode>{UNNAMED}</errorCode>\
             <errorMessage>as planned</errorMessage></item>"
        );
    }
    for (name, subnet) in asked.overrides.iter().filter(|_| dry.is_some_and(|code| code != UNNAMED)) {
        let _ = write!(
            text,
            "<item><launchTemplateAndOverrides><overrides><instanceType>{name}</instanceType>\
             <subnetId>{subnet}</subnetId></overrides></launchTemplateAndOverrides><lifecycle>{lifecycle}</lifecycle>\
             <errorCode>{}</errorCode><errorMessage>as planned</errorMessage></item>",
            dry.unwrap_or_default()
        );
    }
    text.push_str("</errorSet></CreateFleetResponse>");
    text
}

/// A refusal of the whole call.
pub fn failure(code: &str, message: &str) -> String {
    format!(
        "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
         <RequestID>r</RequestID></Response>"
    )
}

/// What stands between these two, the first time.
pub fn between(text: &str, open: &str, close: &str) -> Option<String> {
    let (_, rest) = text.split_once(open)?;
    Some(rest.split_once(close)?.0.to_owned())
}
