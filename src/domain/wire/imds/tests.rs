use super::*;
use crate::domain::wire::timestamp;

const MAINTENANCE: &str = r#"[
  {"NotBefore":"21 Jan 2026 09:00:43 GMT","Code":"system-reboot","Description":"scheduled reboot",
   "EventId":"instance-event-0d59937288b749b32","NotAfter":"21 Jan 2026 09:17:23 GMT","State":"active"},
  {"NotBefore":"2 Feb 2026 01:00:00 GMT","Code":"instance-retirement","Description":"[Canceled] retirement",
   "EventId":"instance-event-0d59937288b749b33","NotAfter":"","State":"canceled"},
  {"NotBefore":"2 Feb 2026 01:00:00 GMT","Code":"instance-teleport","Description":"new",
   "EventId":"instance-event-0d59937288b749b34","State":"active"}
]"#;

#[test]
fn an_instance_action_is_read() {
    for (word, action) in [
        ("terminate", Action::Terminate),
        ("stop", Action::Stop),
        ("hibernate", Action::Hibernate),
        ("vaporise", Action::Terminate),
    ] {
        let body = format!(r#"{{"action":"{word}","time":"2026-04-24T17:11:44Z","more":[1]}}"#);
        let read = instance_action(body.as_bytes()).unwrap();
        assert_eq!(read.action, action, "{word}");
        assert_eq!(read.time.to_string(), "2026-04-24T17:11:44Z");
    }
}

#[test]
fn an_instance_action_that_cannot_be_read_says_why() {
    for (body, expected) in [
        ("", "spot/instance-action cannot be read: EOF"),
        ("<html>503</html>", "spot/instance-action cannot be read: expected value"),
        ("[]", "spot/instance-action cannot be read: invalid length 0"),
        (r#"{"action":"stop"}"#, "spot/instance-action has no `time`"),
        (r#"{"time":"2026-04-24T17:11:44Z"}"#, "spot/instance-action has no `action`"),
        (r#"{"action":"stop","time":"soon"}"#, "the `time` of spot/instance-action is `soon`, which is not a time"),
        (r#"{"action":"stop","time":5}"#, "spot/instance-action cannot be read: invalid type"),
    ] {
        let error = instance_action(body.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{body}: {error}");
    }
    let endless = vec![b' '; BODY_BYTES_MAX + 1];
    let error = instance_action(&endless).unwrap_err().to_string();
    assert_eq!(error, "spot/instance-action has 65537 bytes, more than the 65536 that are read");
    let deep = "[".repeat(50_000);
    assert!(instance_action(deep.as_bytes()).is_err());
}

#[test]
fn a_rebalance_recommendation_is_read() {
    let read = rebalance(br#"{"noticeTime":"2026-10-16T19:18:24Z"}"#).unwrap();
    assert_eq!(read.to_string(), "2026-10-16T19:18:24Z");
    assert!(rebalance(br#"{"noticeTime":null}"#).is_err());
}

#[test]
fn scheduled_events_are_read_with_their_odd_dates_and_unknown_codes() {
    let read = maintenance(MAINTENANCE.as_bytes()).unwrap();
    assert_eq!(read.problems, []);
    let seen: Vec<_> =
        read.events.iter().map(|e| (e.code.0.as_str(), e.not_before.unwrap().to_string(), e.over)).collect();
    assert_eq!(
        seen,
        [
            ("system-reboot", "2026-01-21T09:00:43Z".to_owned(), false),
            ("instance-retirement", "2026-02-02T01:00:00Z".to_owned(), true),
            ("instance-teleport", "2026-02-02T01:00:00Z".to_owned(), false),
        ]
    );
    assert_eq!(maintenance(b"[]").unwrap(), Maintenance::default());
}

#[test]
fn a_bad_entry_does_not_hide_the_good_ones() {
    let good = r#"{"NotBefore":"21 Jan 2026 09:00:43 GMT","Code":"system-reboot","EventId":"e-1","State":"active"}"#;
    for (bad, expected) in [
        ("17", "an entry of events/maintenance/scheduled cannot be read"),
        (
            r#"{"Code":"x","EventId":"e-2","State":"active"}"#,
            "an entry of events/maintenance/scheduled has no `NotBefore`",
        ),
        (
            r#"{"NotBefore":"","Code":"x","EventId":"e-2"}"#,
            "an entry of events/maintenance/scheduled has no `NotBefore`",
        ),
        (
            r#"{"NotBefore":"21 Jan 2026 09:00:43 GMT","Code":"x"}"#,
            "an entry of events/maintenance/scheduled has no `EventId`",
        ),
    ] {
        let read = maintenance(format!("[{bad},{good}]").as_bytes()).unwrap();
        assert_eq!(read.events.len(), 1, "{bad}");
        assert_eq!(read.events[0].event_id, "e-1");
        assert!(read.problems[0].to_string().starts_with(expected), "{bad}: {:?}", read.problems);
    }
}

#[test]
fn a_cancellation_needs_no_time() {
    let body = r#"[{"NotBefore":"","Code":"system-reboot","EventId":"e-1","State":"canceled"}]"#;
    let read = maintenance(body.as_bytes()).unwrap();
    assert!(read.events[0].over && read.events[0].not_before.is_none());
}

#[test]
fn lifecycle_states_are_words() {
    assert_eq!(lifecycle_state(b"InService\n").unwrap(), "InService");
    assert_eq!(lifecycle_state(b"Warmed:Stopped").unwrap(), "Warmed:Stopped");
    for bad in [&b""[..], b"<html>", b"a\0b", &[0xff, 0xfe], &[b'x'; 70_000]] {
        assert!(lifecycle_state(bad).is_err());
    }
}

#[test]
fn the_identity_document_is_read() {
    let body = r#"{"accountId":"123456789012","architecture":"arm64","availabilityZone":"eu-west-1a",
        "billingProducts":null,"imageId":"ami-1","instanceId":"i-0123456789abcdef0","instanceType":"m7g.large",
        "privateIp":"10.0.0.7","region":"eu-west-1","version":"2017-09-30"}"#;
    let read = identity_document(body.as_bytes()).unwrap();
    assert_eq!(read.instance.as_str(), "i-0123456789abcdef0");
    assert_eq!(read.region, "eu-west-1");
    assert_eq!(read.zone.as_deref(), Some("eu-west-1a"));
    let error = identity_document(br#"{"instanceId":"mi-1","region":"r"}"#).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the `instanceId` of instance-identity/document is `mi-1`, which is not an EC2 instance id"
    );
}

#[test]
fn no_bytes_make_a_reader_panic() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|bytes: &Vec<u8>| read_all(bytes));
}

#[test]
fn no_change_to_a_real_answer_makes_a_reader_panic() {
    let real = [
        MAINTENANCE,
        r#"{"action":"terminate","time":"2026-04-24T17:11:44Z"}"#,
        r#"{"noticeTime":"2026-10-16T19:18:24Z"}"#,
        r#"{"instanceId":"i-0123456789abcdef0","region":"eu-west-1"}"#,
    ];
    bolero::check!().with_type::<(u8, Vec<(u16, u8)>)>().for_each(|(which, changes)| {
        let mut bytes = real[usize::from(*which) % real.len()].as_bytes().to_vec();
        for (at, byte) in changes {
            let at = usize::from(*at) % bytes.len();
            bytes[at] = *byte;
        }
        read_all(&bytes);
    });
}

/// What can be read has bounded texts; the rest is an error.
fn read_all(bytes: &[u8]) {
    let _ = instance_action(bytes);
    let _ = rebalance(bytes);
    if let Ok(read) = maintenance(bytes) {
        for event in read.events {
            assert!((1..=EVENT_ID_CHARS_MAX).contains(&event.event_id.chars().count()));
            assert!((1..=WORD_CHARS_MAX).contains(&event.code.0.chars().count()));
            assert!(event.over || event.not_before.is_some());
        }
    }
    if let Ok(word) = lifecycle_state(bytes) {
        assert!((1..=WORD_CHARS_MAX).contains(&word.len()));
    }
    let _ = identity_document(bytes);
}

#[test]
fn what_is_written_as_aws_writes_it_is_read_back() {
    bolero::check!().with_type::<(u32, u8)>().for_each(|(second, which)| {
        let time = Timestamp::from_second(i64::from(*second)).unwrap();
        let action = Action::ALL[usize::from(*which) % Action::ALL.len()];
        let body = format!(r#"{{"action":"{action}","time":"{time}"}}"#);
        assert_eq!(instance_action(body.as_bytes()), Ok(InstanceAction { action, time }));
        let body = format!(r#"{{"noticeTime":"{time}"}}"#);
        assert_eq!(rebalance(body.as_bytes()), Ok(time));
        let date = time.strftime("%-d %b %Y %H:%M:%S GMT").to_string();
        assert_eq!(timestamp(&date), Some(time), "{date}");
    });
}
