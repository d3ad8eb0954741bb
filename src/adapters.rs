//! What touches the world: each adapter speaks to one thing outside.

pub mod kubernetes;
pub mod lease;
