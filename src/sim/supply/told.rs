//! What another world is told that runs in step with this one.

use std::collections::BTreeMap;

use crate::api::interruption::NoticeEntry;
use crate::domain::notice::InstanceId;
use crate::domain::offering::Offering;
use crate::provision::Because;

/// What has happened here that another world may have to know of.
pub(in crate::sim) enum Told {
    /// An Interruption's replacement was written.
    Replacement {
        instance: InstanceId,
    },
    /// An instance was launched.
    Launched {
        instance: usize,
    },
    /// A Node has joined, not Ready yet.
    Joined {
        instance: usize,
    },
    Ready {
        instance: usize,
    },
    /// What was seen in EC2 is written into a record.
    SeenInEc2 {
        instance: InstanceId,
        entry: NoticeEntry,
    },
    /// A record is made of an instance that was taken unheard.
    TakenUnheard {
        instance: InstanceId,
        entry: NoticeEntry,
        because: Because,
    },
    /// A drain is asked for.
    Requested {
        instance: InstanceId,
        event_id: String,
        action: Option<String>,
    },
    /// That is taken back.
    Withdrawn {
        instance: InstanceId,
        event_id: String,
    },
    /// A Node's annotations were changed: `None` takes one off.
    Annotated {
        node: String,
        annotations: BTreeMap<String, Option<String>>,
    },
    /// An instance has ended.
    Died {
        instance: usize,
    },
    /// What is left in a pool was changed by a launch.
    Taken {
        offering: Offering,
    },
    /// A replica has decided something.
    Decided {
        replica: usize,
        about: String,
        because: Because,
    },
}
