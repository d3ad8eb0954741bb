//! An instance metadata service of our own: faithful where AWS's mock is not, and faulty at will.
//!
//! It runs as tasks of the runtime that started it, with no thread of its own: a hundred of them are cheap, and a test
//! that blocks its runtime's only thread blocks them too.

mod answers;
mod server;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use self::answers::{Instance, SpotTime};
use self::server::Port;

pub const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
pub const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
pub const TOKEN: &str = "/latest/api/token";
pub const SPOT: &str = "/latest/meta-data/spot/instance-action";
pub const REBALANCE: &str = "/latest/meta-data/events/recommendations/rebalance";
pub const SCHEDULED: &str = "/latest/meta-data/events/maintenance/scheduled";
pub const HISTORY: &str = "/latest/meta-data/events/maintenance/history";
pub const LIFECYCLE: &str = "/latest/meta-data/autoscaling/target-lifecycle-state";
pub const IDENTITY: &str = "/latest/dynamic/instance-identity/document";

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Fault {
    #[default]
    None,
    /// Every answer is this status.
    Status(u16),
    /// Tokens are given out, and every one is refused.
    DenyTokens,
    /// Every item has a body that nobody can read, another one at every request.
    Garbage,
    /// The same, but of the tokens.
    GarbageTokens,
    /// Nothing is answered; when the fault ends, what hangs is cut.
    Hang,
    /// Connections are reset: those that are open, and new ones as soon as they are accepted.
    Reset,
    /// Every answer comes this late.
    Delay(Duration),
}

/// One instance's service. It ends when dropped.
pub struct Imds {
    instance: Arc<Mutex<Instance>>,
    port: Port,
}

impl Imds {
    /// Starts on a free port of the loopback address.
    pub async fn start(instance: &str) -> Imds {
        Imds::start_in(instance, "eu-west-1a").await
    }

    /// The same, for an instance of this zone.
    pub async fn start_in(instance: &str, zone: &str) -> Imds {
        let instance = Instance { id: instance.to_owned(), zone: zone.to_owned(), ..Instance::default() };
        let instance = Arc::new(Mutex::new(instance));
        Imds { port: Port::open(instance.clone()), instance }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.port.address())
    }

    fn set(&self, change: impl FnOnce(&mut Instance)) {
        change(&mut self.instance.lock().unwrap());
    }

    fn get<T>(&self, read: impl FnOnce(&Instance) -> T) -> T {
        read(&self.instance.lock().unwrap())
    }

    fn mark(&self, spot: Option<(String, SpotTime)>) {
        self.set(|instance| {
            instance.spot = spot;
            instance.first_notice = None;
        });
    }

    /// Its clock is off by so much: it says so with every answer, and in the times that it announces from now on.
    pub fn clock(&self, off: SignedDuration) {
        self.set(|instance| instance.clock_off = off);
    }

    /// The instance is marked: its action comes in `left`. Returns the announced time, which has whole seconds.
    pub fn spot(&self, action: &str, left: Duration) -> Timestamp {
        let at = from_now(left) + self.get(|instance| instance.clock_off);
        self.spot_at(action, at);
        at
    }

    /// The same, its action coming at this time, which may be over.
    pub fn spot_at(&self, action: &str, at: Timestamp) {
        self.mark(Some((action.to_owned(), SpotTime::At(at))));
    }

    /// The same, its time sliding with every poll.
    pub fn spot_sliding(&self, left: Duration) {
        self.mark(Some(("terminate".to_owned(), SpotTime::Sliding(left))));
    }

    pub fn clear_spot(&self) {
        self.mark(None);
    }

    pub fn rebalance(&self) {
        self.set(|instance| instance.rebalance = Some(Timestamp::now()));
    }

    pub fn clear_rebalance(&self) {
        self.set(|instance| instance.rebalance = None);
    }

    /// A scheduled event `left` from now; `state` is `active`, `completed` or `canceled`. One of the same id is
    /// replaced.
    pub fn scheduled(&self, id: &str, code: &str, state: &str, left: Duration) {
        let at = from_now(left).strftime("%-d %b %Y %H:%M:%S GMT").to_string();
        self.scheduled_as(json!({
            "NotBefore": at, "NotAfter": "", "Code": code, "Description": "the lab's", "EventId": id, "State": state,
        }));
    }

    /// A scheduled event of any shape.
    pub fn scheduled_as(&self, event: Value) {
        self.set(|instance| {
            instance.scheduled.retain(|e| e["EventId"] != event["EventId"]);
            instance.scheduled.push(event);
        });
    }

    /// A scheduled event is over, or was withdrawn: it goes to the history, `state` being `completed` or `canceled`.
    pub fn scheduled_ends(&self, id: &str, state: &str) {
        self.set(|instance| {
            for mut event in instance.scheduled.extract_if(.., |e| e["EventId"] == id) {
                event["State"] = state.into();
                instance.history.push(event);
            }
        });
    }

    /// No scheduled events, and no word of where they went.
    pub fn clear_scheduled(&self) {
        self.set(|instance| instance.scheduled.clear());
    }

    /// What Auto Scaling wants of the instance: `InService`, `Terminated`, …
    pub fn lifecycle(&self, state: &str) {
        self.set(|instance| instance.lifecycle = Some(state.to_owned()));
    }

    /// From the next request on, also of connections that are open. Those that hung, or are to be reset, are cut.
    pub fn fault(&self, fault: Fault) {
        let before = {
            let mut instance = self.instance.lock().unwrap();
            std::mem::replace(&mut instance.fault, fault)
        };
        if before == Fault::Hang || fault == Fault::Reset {
            self.port.cut();
        }
    }

    /// The service was started anew: it knows none of its tokens.
    pub fn forget_tokens(&self) {
        self.set(|instance| instance.tokens.clear());
    }

    /// Nobody listens any more, and connections that were open are cut: nothing is answered once this returns.
    pub fn refuse(&self) {
        self.port.shut();
    }

    /// Listens again, on the same port, and without a fault.
    pub async fn recover(&self) {
        self.fault(Fault::None);
        self.port.reopen();
    }

    /// How often a path was asked for, answered or not.
    pub fn requests(&self, path: &str) -> u64 {
        self.get(|instance| instance.requests.get(path).copied().unwrap_or(0))
    }

    pub fn total(&self) -> u64 {
        self.get(|instance| instance.requests.values().sum())
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> u64 {
        self.get(|instance| instance.connections)
    }

    /// When the first answer that says that the instance is marked was handed to the socket, since it was last marked.
    pub fn first_notice(&self) -> Option<Instant> {
        self.get(|instance| instance.first_notice)
    }
}

/// In whole seconds, as IMDS says its times.
fn from_now(left: Duration) -> Timestamp {
    let left = SignedDuration::try_from(left).expect("a duration of this century");
    let at = Timestamp::now().checked_add(left).expect("a time of this century");
    Timestamp::from_second(at.as_second()).expect("the seconds of a time")
}
