//! Needs as constraints rather than instance types: Kubernetes' node selector requirements over an offering's labels.

use serde::{Deserialize, Serialize};

use super::notice::words;
use super::offering::{InstanceType, Offering};

pub const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
pub const ZONE: &str = "topology.kubernetes.io/zone";
pub const ARCH: &str = "kubernetes.io/arch";
pub const OS: &str = "kubernetes.io/os";
/// Which NodePool a node belongs to.
pub const NODE_POOL: &str = "spotkeeper.dev/nodepool";
pub const CAPACITY_TYPE: &str = "spotkeeper.dev/capacity-type";
pub const FAMILY: &str = "spotkeeper.dev/instance-family";
pub const CATEGORY: &str = "spotkeeper.dev/instance-category";
pub const GENERATION: &str = "spotkeeper.dev/instance-generation";
pub const CPU: &str = "spotkeeper.dev/instance-cpu";
pub const MEMORY: &str = "spotkeeper.dev/instance-memory";
pub const GPU_COUNT: &str = "spotkeeper.dev/instance-gpu-count";

/// The keys that offerings have; a requirement on another one concerns labels of the node alone.
pub const KEYS: &[&str] =
    &[INSTANCE_TYPE, ZONE, ARCH, OS, CAPACITY_TYPE, FAMILY, CATEGORY, GENERATION, CPU, MEMORY, GPU_COUNT];

/// Keys whose values are numbers.
const NUMBERS: &[&str] = &[GENERATION, CPU, MEMORY, GPU_COUNT];

words! {
    /// As in a node selector.
    Operator {
        In = "In",
        NotIn = "NotIn",
        Exists = "Exists",
        DoesNotExist = "DoesNotExist",
        /// Greater than the one value, a number.
        Gt = "Gt",
        /// Less than the one value, a number.
        Lt = "Lt",
    }
}

/// One constraint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Requirement {
    /// A label's key, such as `kubernetes.io/arch` or `spotkeeper.dev/instance-cpu`.
    #[cfg_attr(feature = "api", schemars(length(min = 1, max = 316)))]
    pub key: String,
    /// How the label's value is compared with `values`.
    pub operator: Operator,
    /// At least one for `In` and `NotIn`, exactly one number for `Gt` and `Lt`, none for the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "api", schemars(length(max = 100), inner(length(max = 63))))]
    pub values: Vec<String>,
}

/// What is wrong with a requirement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequirementError {
    #[error("{key}: {operator} takes {wanted}, and has {found} values")]
    Values { key: String, operator: Operator, wanted: &'static str, found: usize },
    #[error("{key}: `{value}` is not a whole number")]
    NotANumber { key: String, value: String },
}

impl Requirement {
    pub fn new(key: &str, operator: Operator, values: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { key: key.to_owned(), operator, values: values.into_iter().map(Into::into).collect() }
    }

    /// Whether it can be understood.
    pub fn check(&self) -> Result<(), RequirementError> {
        let wrong = |wanted| {
            let (key, operator, found) = (self.key.clone(), self.operator, self.values.len());
            Err(RequirementError::Values { key, operator, wanted, found })
        };
        match self.operator {
            Operator::In | Operator::NotIn if self.values.is_empty() => wrong("at least one value"),
            Operator::Exists | Operator::DoesNotExist if !self.values.is_empty() => wrong("no value"),
            Operator::Gt | Operator::Lt if self.values.len() != 1 => wrong("one value"),
            Operator::Gt | Operator::Lt => self.number(&self.values[0]).map(drop),
            _ if NUMBERS.contains(&self.key.as_str()) => self.values.iter().try_for_each(|v| self.number(v).map(drop)),
            _ => Ok(()),
        }
    }

    fn number(&self, value: &str) -> Result<u64, RequirementError> {
        value.parse().map_err(|_| RequirementError::NotANumber { key: self.key.clone(), value: value.to_owned() })
    }

    /// Whether a label with this value, or its absence, meets it.
    pub fn allows(&self, value: Option<&str>) -> bool {
        let number = |text: &str| text.parse::<u64>().ok();
        let bound = || self.values.first().and_then(|v| number(v));
        match (self.operator, value) {
            (Operator::In, Some(value)) => self.values.iter().any(|v| v == value),
            (Operator::NotIn, Some(value)) => self.values.iter().all(|v| v != value),
            (Operator::NotIn | Operator::DoesNotExist, None) | (Operator::Exists, Some(_)) => true,
            (Operator::Gt, Some(value)) => number(value).zip(bound()).is_some_and(|(a, b)| a > b),
            (Operator::Lt, Some(value)) => number(value).zip(bound()).is_some_and(|(a, b)| a < b),
            (Operator::In | Operator::Exists | Operator::Gt | Operator::Lt, None)
            | (Operator::DoesNotExist, Some(_)) => false,
        }
    }
}

/// The value of one of [`KEYS`] for an offering; `None` where it has no such label.
fn label(key: &str, of: &InstanceType, offering: &Offering) -> Option<String> {
    Some(match key {
        INSTANCE_TYPE => of.name.clone(),
        ZONE => offering.zone.clone(),
        ARCH => of.arch.clone(),
        OS => "linux".to_owned(),
        CAPACITY_TYPE => offering.capacity_type.to_string(),
        FAMILY => of.family().to_owned(),
        CATEGORY => of.category().to_owned(),
        GENERATION => of.generation()?.to_string(),
        CPU => of.vcpus.to_string(),
        MEMORY => of.memory_mib.to_string(),
        GPU_COUNT if of.gpus > 0 => of.gpus.to_string(),
        _ => return None,
    })
}

/// Whether an offering meets all of them. Bare metal is chosen by name only.
pub fn met(requirements: &[Requirement], of: &InstanceType, offering: &Offering) -> bool {
    let named = || requirements.iter().any(|r| r.key == INSTANCE_TYPE && r.operator == Operator::In);
    (!of.bare_metal || named())
        && requirements
            .iter()
            .filter(|r| KEYS.contains(&r.key.as_str()))
            .all(|r| r.allows(label(&r.key, of, offering).as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::offering::CapacityType;

    fn m7g() -> (InstanceType, Offering) {
        let of = InstanceType {
            name: "m7g.2xlarge".into(),
            arch: "arm64".into(),
            vcpus: 8,
            memory_mib: 32_768,
            ..InstanceType::default()
        };
        let offering = Offering { instance_type: of.name.clone(), zone: "a".into(), capacity_type: CapacityType::Spot };
        (of, offering)
    }

    #[test]
    fn each_operator_compares_as_a_node_selector_does() {
        let (of, offering) = m7g();
        let holds = |key, operator, values: &[&str]| {
            met(&[Requirement::new(key, operator, values.iter().copied())], &of, &offering)
        };
        assert!(holds(ARCH, Operator::In, &["amd64", "arm64"]) && !holds(ARCH, Operator::NotIn, &["arm64"]));
        assert!(holds(CPU, Operator::Gt, &["7"]) && !holds(CPU, Operator::Gt, &["8"]));
        assert!(holds(MEMORY, Operator::Lt, &["65537"]) && !holds(MEMORY, Operator::Lt, &["32768"]));
        assert!(holds(GPU_COUNT, Operator::DoesNotExist, &[]) && !holds(GPU_COUNT, Operator::Exists, &[]));
        assert!(holds(CAPACITY_TYPE, Operator::In, &["spot"]) && !holds(ZONE, Operator::In, &["b"]));
        assert!(holds("team.example/own", Operator::In, &["x"]), "not about offerings");
    }

    #[test]
    fn nonsense_is_named_and_allows_nothing() {
        let gt = Requirement::new(CPU, Operator::Gt, ["many"]);
        assert_eq!(gt.check().unwrap_err().to_string(), "spotkeeper.dev/instance-cpu: `many` is not a whole number");
        assert!(!gt.allows(Some("8")));
        let none = Requirement::new(ARCH, Operator::In, Vec::<String>::new());
        assert_eq!(
            none.check().unwrap_err().to_string(),
            "kubernetes.io/arch: In takes at least one value, and has 0 values"
        );
        assert!(Requirement::new(ARCH, Operator::Exists, ["x"]).check().is_err());
    }

    #[test]
    fn bare_metal_is_chosen_by_name_only() {
        let (mut of, offering) = m7g();
        of.bare_metal = true;
        assert!(!met(&[], &of, &offering));
        assert!(met(&[Requirement::new(INSTANCE_TYPE, Operator::In, ["m7g.2xlarge"])], &of, &offering));
    }
}
