//! What EC2 says of instances that it takes: spot requests that are marked, states with a reason.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// `DescribeSpotInstanceRequests` by instance: each has one, which is fulfilled or marked.
pub fn spot_requests(form: &HashMap<String, String>, marked: &BTreeMap<String, &'static str>) -> String {
    assert_eq!(form.get("Filter.1.Name").map(String::as_str), Some("instance-id"), "{form:?}");
    let of = (1..).map_while(|n| form.get(&format!("Filter.1.Value.{n}")));
    let mut text = String::from(
        "<DescribeSpotInstanceRequestsResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
         <requestId>r</requestId><spotInstanceRequestSet>",
    );
    for instance in of {
        let code = marked.get(instance).copied().unwrap_or("fulfilled");
        let _ = write!(
            text,
            "<item><spotInstanceRequestId>sir-{instance}</spotInstanceRequestId><state>active</state><status>\
             <code>{code}</code><message>as planned</message></status><instanceId>{instance}</instanceId></item>"
        );
    }
    text.push_str("</spotInstanceRequestSet></DescribeSpotInstanceRequestsResponse>");
    text
}

/// An answer to `DescribeInstances` in which these instances have a reason for their state. Moto itself says of all that
/// somebody has ended them.
pub fn with_reasons(text: &str, taken: &BTreeMap<String, &'static str>) -> String {
    const ID: &str = "<instanceId>";
    let mut parts = text.split(ID);
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        all.push_str(ID);
        let reason = part.split_once('<').and_then(|(id, _)| taken.get(id));
        let Some(reason) = reason else {
            all.push_str(part);
            continue;
        };
        let own = match part.split_once("<stateReason>") {
            Some((before, rest)) => {
                before.to_owned() + rest.split_once("</stateReason>").map_or("", |(_, after)| after)
            }
            None => part.to_owned().replace("<stateReason/>", ""),
        };
        let (id, rest) = own.split_once("</instanceId>").expect("an id ends");
        let _ = write!(
            all,
            "{id}</instanceId><stateReason><code>{reason}</code><message>as planned</message></stateReason>{rest}"
        );
    }
    all
}
