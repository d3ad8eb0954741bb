//! What a queue's URL says.

use super::SqsError;

/// Refuses a text that cannot be a queue's URL.
pub fn check_url(queue_url: &str) -> Result<(), SqsError> {
    let wrong = || SqsError::NotAQueueUrl(queue_url.chars().take(200).collect());
    let (scheme, rest) = queue_url.split_once("://").ok_or_else(wrong)?;
    let (host, path) = rest.split_once('/').ok_or_else(wrong)?;
    let plain = queue_url.bytes().all(|b| b.is_ascii_graphic());
    let named = path.split_once('/').is_some_and(|(account, name)| !account.is_empty() && !name.is_empty());
    if matches!(scheme, "http" | "https") && !host.is_empty() && named && plain { Ok(()) } else { Err(wrong()) }
}

/// The region in a queue's URL: `sqs.<region>.…`, `<region>.queue.…`, and a VPC endpoint's `….sqs.<region>.vpce.…`.
pub(super) fn region_of(queue_url: &str) -> Option<String> {
    let (_, rest) = queue_url.split_once("://")?;
    let host = rest.split(['/', ':']).next()?;
    if !host.contains(".amazonaws.com") && !host.ends_with(".api.aws") {
        return None;
    }
    let labels: Vec<&str> = host.split('.').collect();
    let at = labels.iter().position(|label| matches!(*label, "sqs" | "sqs-fips"));
    let region = match at {
        Some(at) => labels.get(at + 1)?,
        None => labels.first().filter(|_| labels.get(1) == Some(&"queue"))?,
    };
    // Every region's name ends in its number, which tells it from `amazonaws`.
    region.ends_with(|c: char| c.is_ascii_digit()).then(|| (*region).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_read_from_the_url() {
        for (url, expected) in [
            ("https://sqs.eu-west-1.amazonaws.com/123456789012/q", Some("eu-west-1")),
            ("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/q", Some("cn-north-1")),
            ("https://sqs-fips.us-gov-west-1.amazonaws.com/1/q", Some("us-gov-west-1")),
            ("https://eu-west-1.queue.amazonaws.com/123456789012/q", Some("eu-west-1")),
            ("https://vpce-1.sqs.us-east-1.vpce.amazonaws.com/1/q", Some("us-east-1")),
            ("https://sqs.us-east-1.api.aws/1/q", Some("us-east-1")),
            ("https://queue.amazonaws.com/123456789012/q", None),
            ("http://127.0.0.1:5000/123456789012/q", None),
            ("nonsense", None),
        ] {
            assert_eq!(region_of(url).as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn any_text_is_a_queue_url_or_a_mistake() {
        bolero::check!().with_type::<(u8, String)>().for_each(|(which, text): &(u8, String)| {
            let url = match which % 3 {
                0 => text.clone(),
                1 => format!("https://{text}"),
                _ => format!("https://sqs.{text}.amazonaws.com/1/{text}"),
            };
            drop(check_url(&url));
            drop(region_of(&url));
        });
    }

    #[test]
    fn a_text_that_is_no_queue_url_is_refused() {
        for good in ["https://sqs.eu-west-1.amazonaws.com/1/q", "http://127.0.0.1:5000/1/q"] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "q",
            "arn:aws:sqs:eu-west-1:1:q",
            "https://sqs.eu-west-1.amazonaws.com",
            "https://host/1",
            "https://host/1/",
            "ftp://host/1/q",
            "https:///1/q",
            "https://host/1/q q",
        ] {
            let error = check_url(bad).unwrap_err().to_string();
            assert!(error.contains("https://sqs.REGION.amazonaws.com/ACCOUNT/NAME"), "{error}");
        }
    }
}
