//! What EC2 says of an instance that a notice is about: its state and why, what its spot request is marked for, and until
//! when its capacity reservation lasts.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::types as ec2;
use jiff::Timestamp;

use super::view::Described;
use super::{Ec2, Ec2Error, FILTER_VALUES_MAX, failed, filter};
use crate::domain::notice::{Action, InstanceId};
use crate::provision::Sight;

/// Begins the codes of spot requests whose instances are about to be taken.
const MARKED: &str = "marked-for-";

impl Ec2 {
    /// These instances, as they are described; one that EC2 does not know is not among them.
    pub async fn described(&self, of: &[InstanceId]) -> Result<Vec<Described>, Ec2Error> {
        let mut found = Vec::new();
        for some in of.chunks(FILTER_VALUES_MAX) {
            found.extend(self.describe(vec![filter("instance-id", some.iter().map(InstanceId::as_str))]).await?);
        }
        Ok(found)
    }

    /// What the spot requests of these instances are marked for, where they are.
    pub async fn marked(&self, of: &[InstanceId]) -> Result<BTreeMap<InstanceId, Action>, Ec2Error> {
        const ACTION: &str = "ec2:DescribeSpotInstanceRequests";
        let mut marked = BTreeMap::new();
        for some in of.chunks(FILTER_VALUES_MAX) {
            let filter = filter("instance-id", some.iter().map(InstanceId::as_str));
            let mut pages = self.client.describe_spot_instance_requests().filters(filter).into_paginator().send();
            while let Some(page) = pages.next().await {
                let page = page.map_err(|error| failed(ACTION, error))?;
                marked.extend(page.spot_instance_requests.unwrap_or_default().into_iter().filter_map(mark));
            }
        }
        Ok(marked)
    }

    /// Until when these capacity reservations last, where that is known.
    pub async fn reserved_until(&self, of: &BTreeSet<String>) -> Result<BTreeMap<String, Timestamp>, Ec2Error> {
        const ACTION: &str = "ec2:DescribeCapacityReservations";
        let call = self
            .client
            .describe_capacity_reservations()
            .set_capacity_reservation_ids(Some(of.iter().cloned().collect()));
        let mut pages = call.into_paginator().send();
        let mut until = BTreeMap::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| failed(ACTION, error))?;
            for of in page.capacity_reservations.unwrap_or_default() {
                let ends = of.end_date.and_then(|at| Timestamp::from_second(at.secs()).ok());
                until.extend(of.capacity_reservation_id.zip(ends));
            }
        }
        Ok(until)
    }
}

/// What a spot request is marked for.
fn mark(of: ec2::SpotInstanceRequest) -> Option<(InstanceId, Action)> {
    let code = of.status?.code?;
    let action = match code.strip_prefix(MARKED)? {
        "stop" => Action::Stop,
        word if word.contains("hibernat") => Action::Hibernate,
        // A word that is not known yet is taken as the harshest.
        _ => Action::Terminate,
    };
    Some((of.instance_id?.parse().ok()?, action))
}

/// What is seen of instances, put together.
pub fn sights(
    described: Vec<Described>,
    marked: &BTreeMap<InstanceId, Action>,
    until: &BTreeMap<String, Timestamp>,
) -> Vec<Sight> {
    let sight = |of: Described| Sight {
        marked: marked.get(&of.id).copied(),
        reserved_until: of.reservation.and_then(|id| until.get(&id).copied()),
        instance: of.id,
        state: of.state,
        by_ec2: of.by_ec2,
    };
    described.into_iter().map(sight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(code: &str, instance: Option<&str>) -> ec2::SpotInstanceRequest {
        let status = ec2::SpotInstanceStatus::builder().code(code).build();
        let request = ec2::SpotInstanceRequest::builder().status(status);
        request.set_instance_id(instance.map(str::to_owned)).build()
    }

    #[test]
    fn a_spot_request_that_is_marked_says_for_what() {
        let of = |code| mark(request(code, Some("i-00000001"))).map(|(_, action)| action);
        assert_eq!(of("marked-for-termination"), Some(Action::Terminate));
        assert_eq!(of("marked-for-stop"), Some(Action::Stop));
        assert_eq!(of("marked-for-hibernation"), Some(Action::Hibernate));
        assert_eq!(of("marked-for-something-new"), Some(Action::Terminate));
        for quiet in ["fulfilled", "instance-terminated-by-user", "request-canceled-and-instance-running"] {
            assert_eq!(of(quiet), None, "{quiet}");
        }
        assert_eq!(mark(request("marked-for-stop", None)), None);
    }
}
