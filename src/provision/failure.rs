//! What an error of EC2 means. Six different things, each with an answer of its own; none of them is "failed, again".

use crate::domain::notice::words;

words! {
    /// The class of an error of EC2.
    Class {
        /// That offering has nothing now.
        Capacity = "Capacity",
        /// The account may have no more of this class and capacity type.
        Quota = "Quota",
        /// The subnet has no free address.
        Addresses = "Addresses",
        /// The API asks for fewer calls. Nothing was done, and nothing is short.
        Throttle = "Throttle",
        /// The request cannot work as it is, whoever sends it how often.
        SetUp = "SetUp",
        /// Nobody knows whether it was done.
        Unknown = "Unknown",
    }
}

/// The class of an error code, as `CreateFleet` has it in `Errors[]` or answers with.
///
/// A code that is not known counts as [`Class::SetUp`] where it names the request (`Invalid…`), else as
/// [`Class::Capacity`] of what it names: the next rung is tried, and the belief ends by itself.
pub fn class(code: &str) -> Class {
    listed(code).unwrap_or(Class::Capacity)
}

/// Whether EC2 answered with an error of its own of which nobody here knows what it means: then nobody knows either
/// whether it was done. Some that are well known come with a status of 5xx, too (`InsufficientInstanceCapacity`).
pub fn is_no_answer(status: u16, code: &str) -> bool {
    status >= 500 && listed(code).is_none()
}

fn listed(code: &str) -> Option<Class> {
    Some(match code {
        "InsufficientInstanceCapacity"
        | "UnfulfillableCapacity"
        | "Unsupported"
        | "UnsupportedOperation"
        | "ReservationCapacityExceeded"
        | "InsufficientHostCapacity"
        | "InsufficientCapacity"
        | "InsufficientReservedInstanceCapacity"
        | "SpotMaxPriceTooLow" => Class::Capacity,
        "MaxSpotInstanceCountExceeded"
        | "VcpuLimitExceeded"
        | "MaxFleetCountExceeded"
        | "InstanceLimitExceeded"
        | "MaxSpotFleetRequestCountExceeded" => Class::Quota,
        "InsufficientFreeAddressesInSubnet" | "InsufficientAddressCapacity" => Class::Addresses,
        "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "TooManyRequestsException"
        | "EC2ThrottledException" => Class::Throttle,
        "InternalError"
        | "InternalFailure"
        | "ServerInternal"
        | "ServiceUnavailable"
        | "Unavailable"
        | "RequestTimeout"
        | "IdempotentParameterMismatch" => Class::Unknown,
        "OptInRequired" | "PendingVerification" | "Blocked" => Class::SetUp,
        _ if forbids(code)
            || code.starts_with("Invalid")
            || code.starts_with("AuthFailure")
            || code.starts_with("Missing") =>
        {
            Class::SetUp
        }
        _ => return None,
    })
}

/// Whether a code says that whoever asks may not, or is not who they say: a permission or a credential is missing.
pub fn forbids(code: &str) -> bool {
    matches!(
        code,
        "UnauthorizedOperation"
            | "AccessDenied"
            | "AccessDeniedException"
            | "AuthFailure"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "IncompleteSignature"
            | "InvalidClientTokenId"
            | "MissingAuthenticationToken"
            | "RequestExpired"
            | "SignatureDoesNotMatch"
            | "UnrecognizedClientException"
    )
}

/// Whether it is the credentials that such a code speaks of, which may be others in a moment.
pub fn is_passing(code: &str) -> bool {
    forbids(code) && !matches!(code, "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException")
}

/// Whether a set-up error stands in the way of spot alone: on-demand may still work.
pub fn spot_only(code: &str) -> bool {
    code == "AuthFailure.ServiceLinkedRoleCreationNotPermitted"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_500_with_a_code_that_nobody_knows_is_no_answer() {
        assert!(is_no_answer(500, "SomethingNew") && is_no_answer(503, "SomethingNew"));
        assert!(!is_no_answer(400, "SomethingNew"), "it was refused, and not done");
        assert!(!is_no_answer(500, "InsufficientInstanceCapacity") && !is_no_answer(503, "RequestLimitExceeded"));
        assert_eq!(class("ServerInternal"), Class::Unknown);
    }

    #[test]
    fn each_code_means_what_ec2_says_that_it_means() {
        for (code, meant) in [
            ("InsufficientInstanceCapacity", Class::Capacity),
            ("UnfulfillableCapacity", Class::Capacity),
            ("MaxSpotInstanceCountExceeded", Class::Quota),
            ("VcpuLimitExceeded", Class::Quota),
            ("InsufficientFreeAddressesInSubnet", Class::Addresses),
            ("RequestLimitExceeded", Class::Throttle),
            ("AuthFailure.ServiceLinkedRoleCreationNotPermitted", Class::SetUp),
            ("InvalidLaunchTemplateId.NotFound", Class::SetUp),
            ("InvalidAMIID.NotFound", Class::SetUp),
            ("UnauthorizedOperation", Class::SetUp),
            ("RequestExpired", Class::SetUp),
            ("ExpiredToken", Class::SetUp),
            ("ThrottledException", Class::Throttle),
            ("IdempotentParameterMismatch", Class::Unknown),
            ("InternalError", Class::Unknown),
            ("SomethingNewOfNextYear", Class::Capacity),
        ] {
            assert_eq!(class(code), meant, "{code}");
        }
    }
}
