//! The values that fields of a scenario have.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::domain::time::duration;

/// A duration as Kubernetes writes it, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Millis(pub u64);

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let read = duration(&text).map_err(D::Error::custom)?;
        Ok(Self(u64::try_from(read.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// One that is more than nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Positive(pub u64);

impl<'de> Deserialize<'de> for Positive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Millis::deserialize(deserializer)?.0 {
            0 => Err(D::Error::custom("it takes some time: more than 0s")),
            millis => Ok(Self(millis)),
        }
    }
}

/// One of whole seconds, as `terminationGracePeriodSeconds` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seconds(pub u64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Millis(millis) = Millis::deserialize(deserializer)?;
        if millis.is_multiple_of(1_000) {
            return Ok(Self(millis / 1_000));
        }
        Err(D::Error::custom(format!("`{millis}ms`: a grace is whole seconds (terminationGracePeriodSeconds)")))
    }
}

/// One in so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OneIn(pub u32);

impl<'de> Deserialize<'de> for OneIn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            0 => Err(D::Error::custom("one in 0: 1 (every one) or more; leave it out where none is meant")),
            many => Ok(Self(many)),
        }
    }
}

/// So many of a hundred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Percent(pub u8);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let part = u32::deserialize(deserializer)?;
        let of = u8::try_from(part).ok().filter(|part| *part <= 100);
        of.map(Self).ok_or_else(|| D::Error::custom(format!("{part} of a hundred: 0 to 100")))
    }
}

/// A field that is there without a value (`steps:`) is as if it were not there.
pub(super) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
