//! How an interruption is to be treated: what a person may choose, by flags or on the Node.

use std::collections::BTreeMap;
use std::time::Duration;

use super::notice::words;
use super::time::duration;

/// The annotation of a Node that says more than the agent's `--rebalance`.
pub const REBALANCE: &str = "spotkeeper.dev/rebalance";

/// The annotation of a Node that says more than the agent's `--drain`.
pub const DRAIN: &str = "spotkeeper.dev/drain";

/// The annotation of a Node that says more than the agent's `--margin`.
pub const MARGIN: &str = "spotkeeper.dev/margin";

/// The longest margin: more leaves too little of a spot notice's 120 s.
pub const MARGIN_MAX: Duration = Duration::from_secs(60);

words! {
    /// What a rebalance recommendation does.
    #[cfg_attr(feature = "agent", derive(clap::ValueEnum))]
    #[cfg_attr(feature = "agent", value(rename_all = "PascalCase"))]
    Rebalance {
        /// It is logged, and nothing else.
        Ignore = "Ignore",
        /// The node takes no new pods; those that run stay.
        Avoid = "Avoid",
        /// The node takes no new pods, and is emptied by asking when its replacement is Ready.
        Replace = "Replace",
        /// The node is emptied, by asking only.
        Drain = "Drain",
    }
}

words! {
    /// When a drain begins to evict.
    #[cfg_attr(feature = "agent", derive(clap::ValueEnum))]
    #[cfg_attr(feature = "agent", value(rename_all = "PascalCase"))]
    DrainStart {
        /// At once.
        Immediate = "Immediate",
        /// When the replacement is Ready, as far as every pod can still end in time then.
        CapacityFirst = "CapacityFirst",
    }
}

words! {
    /// Who cordons and drains.
    #[cfg_attr(feature = "agent", derive(clap::ValueEnum))]
    #[cfg_attr(feature = "agent", value(rename_all = "lowercase"))]
    DrainBy {
        /// The node's own agent; the provisioner where that is silent.
        Agent = "agent",
        /// The provisioner; the agent only notices, tells the workloads and writes the record.
        Provisioner = "provisioner",
    }
}

/// What the annotations of a Node say of how it is to be treated; `None` leaves the flags as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnNode {
    pub rebalance: Option<Rebalance>,
    pub drain: Option<DrainStart>,
    pub margin: Option<Duration>,
    /// What cannot be used, each in words for people.
    pub nonsense: Vec<String>,
}

impl OnNode {
    /// Reads the three annotations.
    pub fn read(annotations: &BTreeMap<String, String>) -> Self {
        let mut read = Self::default();
        if let Some(text) = annotations.get(REBALANCE) {
            read.rebalance = Rebalance::from_word(text.trim());
            read.unless(read.rebalance.is_some(), REBALANCE, text, "Ignore, Avoid, Replace or Drain");
        }
        if let Some(text) = annotations.get(DRAIN) {
            read.drain = DrainStart::from_word(text.trim());
            read.unless(read.drain.is_some(), DRAIN, text, "Immediate or CapacityFirst");
        }
        if let Some(text) = annotations.get(MARGIN) {
            read.margin = duration(text.trim()).ok().filter(|margin| *margin <= MARGIN_MAX);
            read.unless(read.margin.is_some(), MARGIN, text, "a duration of at most 60s, such as 5s");
        }
        read
    }

    fn unless(&mut self, good: bool, annotation: &str, text: &str, wanted: &str) {
        if !good {
            let text: String = text.chars().take(64).collect();
            self.nonsense.push(format!("{annotation}: `{text}` is not {wanted}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> OnNode {
        OnNode::read(&pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_node_says_how_it_is_to_be_treated() {
        let read = read(&[(REBALANCE, "Replace"), (DRAIN, " CapacityFirst "), (MARGIN, "8s"), ("a/b", "c")]);
        assert_eq!((read.rebalance, read.drain), (Some(Rebalance::Replace), Some(DrainStart::CapacityFirst)));
        assert_eq!((read.margin, read.nonsense.len()), (Some(Duration::from_secs(8)), 0));
    }

    #[test]
    fn nonsense_is_named_and_the_rest_is_taken() {
        let read = read(&[(REBALANCE, "replace"), (DRAIN, ""), (MARGIN, "2m")]);
        assert_eq!((read.rebalance, read.drain, read.margin), (None, None, None));
        for named in [REBALANCE, DRAIN, MARGIN, "Ignore, Avoid", "CapacityFirst", "60s"] {
            assert!(read.nonsense.join("; ").contains(named), "{named}: {:?}", read.nonsense);
        }
        assert_eq!(super::OnNode::read(&BTreeMap::new()), OnNode::default());
    }
}
