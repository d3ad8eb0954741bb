use std::collections::BTreeSet;

use super::health::schedule_code;
use super::*;
use crate::domain::notice::ScheduleCode;

const I: &str = "i-0123456789abcdef0";

fn event(source: &str, detail_type: &str, detail: &str) -> String {
    format!(
        r#"{{"version":"0","id":"72d6566c-e6bd-117d-5bbc-2779c679abd5","detail-type":"{detail_type}",
        "source":"{source}","account":"123456789012","time":"2026-04-24T17:09:44Z","region":"eu-west-1",
        "resources":["arn:aws:ec2:eu-west-1a:instance/{I}"],"detail":{detail}}}"#
    )
}

fn ec2(detail_type: &str, detail: &str) -> String {
    event("aws.ec2", detail_type, detail)
}

fn spot(action: &str) -> String {
    ec2("EC2 Spot Instance Interruption Warning", &format!(r#"{{"instance-id":"{I}","instance-action":"{action}"}}"#))
}

fn state(state: &str) -> String {
    ec2("EC2 Instance State-change Notification", &format!(r#"{{"instance-id":"{I}","state":"{state}"}}"#))
}

const HOOK_FIELDS: &str = r#""LifecycleActionToken":"87654321-4321-4321-4321-210987654321",
    "AutoScalingGroupName":"asg","LifecycleHookName":"hook","EC2InstanceId":"i-0123456789abcdef0",
    "NotificationMetadata":"x","Origin":"AutoScalingGroup","Destination":"EC2""#;

fn direct_hook(transition: &str) -> String {
    format!(
        r#"{{"Service":"AWS Auto Scaling","RequestId":"req-1","Time":"2026-04-24T17:09:44Z","AccountId":"123456789012",
        "LifecycleTransition":"autoscaling:{transition}",{HOOK_FIELDS}}}"#
    )
}

const TEST_NOTIFICATION: &str = r#"{"AccountId":"123456789012","RequestId":"req-1","AutoScalingGroupARN":"arn:aws:autoscaling:x",
    "AutoScalingGroupName":"asg","Service":"AWS Auto Scaling","Event":"autoscaling:TEST_NOTIFICATION","Time":"2026-04-24T17:09:44Z"}"#;

fn in_sns(message: &str) -> String {
    serde_json::json!({
        "Type": "Notification", "MessageId": "m-1", "TopicArn": "arn:aws:sns:eu-west-1:123456789012:topic",
        "Message": message, "Timestamp": "2026-04-24T17:09:44.000Z", "SignatureVersion": "1",
    })
    .to_string()
}

fn health(changes: &[(&str, serde_json::Value)]) -> String {
    let mut detail = serde_json::json!({
        "eventArn": "arn:aws:health:eu-west-1::event/EC2/AWS_EC2_INSTANCE_RETIREMENT_SCHEDULED/e-1",
        "service": "EC2",
        "eventTypeCode": "AWS_EC2_PERSISTENT_INSTANCE_RETIREMENT_SCHEDULED",
        "eventTypeCategory": "scheduledChange",
        "communicationId": "c-1",
        "startTime": "Sat, 05 Jun 2026 15:10:09 GMT",
        "eventDescription": [{"language": "en_US", "latestDescription": "…"}],
        "affectedEntities": [{"entityValue": I}, {"entityValue": "i-0fedcba9876543210"}, {"entityValue": I}],
    });
    for (field, value) in changes {
        detail[*field] = value.clone();
    }
    event("aws.health", "AWS Health Event", &detail.to_string())
}

fn notices(body: &str) -> Vec<Notice> {
    match parse(body.as_bytes()) {
        Ok(Parsed::Message(message)) => {
            assert_eq!(message.problems, [], "{body}");
            message.notices
        }
        other => panic!("{body}: {other:?}"),
    }
}

fn not_for_us(body: &str) -> NotForUs {
    match parse(body.as_bytes()) {
        Ok(Parsed::NotForUs(why)) => why,
        other => panic!("{body}: {other:?}"),
    }
}

fn error(body: &str) -> String {
    parse(body.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_spot_warning_has_a_deadline_two_minutes_after_it_was_sent() {
    for (word, action) in [
        ("terminate", Action::Terminate),
        ("stop", Action::Stop),
        ("hibernate", Action::Hibernate),
        ("evaporate", Action::Terminate),
    ] {
        let expected = Notice {
            instance: I.parse().unwrap(),
            source: Source::Sqs,
            subject: Subject::SpotInterruption(action),
            event_id: "72d6566c-e6bd-117d-5bbc-2779c679abd5".into(),
            deadline: Some("2026-04-24T17:11:44Z".parse().unwrap()),
        };
        assert_eq!(notices(&spot(word)), [expected]);
    }
}

#[test]
fn an_envelope_without_an_account_is_read() {
    let body = spot("stop").replace(r#""account":"123456789012","#, "");
    assert!(!body.contains("account"));
    assert_eq!(notices(&body).len(), 1);
}

#[test]
fn the_other_events_of_ec2_have_no_deadline() {
    let of = |detail_type| ec2(detail_type, &format!(r#"{{"instance-id":"{I}"}}"#));
    for (body, subject) in [
        (of("EC2 Instance Rebalance Recommendation"), Subject::RebalanceRecommendation),
        (of("EC2 Capacity Reservation Instance Interruption Warning"), Subject::CapacityReservationInterruption),
        (state("stopping"), Subject::StateChange(InstanceState::Stopping)),
        (state("stopped"), Subject::StateChange(InstanceState::Stopped)),
        (state("shutting-down"), Subject::StateChange(InstanceState::ShuttingDown)),
        (state("terminated"), Subject::StateChange(InstanceState::Terminated)),
    ] {
        let read = notices(&body);
        assert_eq!((&read[0].subject, read[0].deadline), (&subject, None));
    }
    assert_eq!(not_for_us(&state("pending")), NotForUs::Alive(InstanceState::Pending));
    assert_eq!(not_for_us(&state("running")), NotForUs::Alive(InstanceState::Running));
    assert!(error(&state("melting")).contains("`detail.state`"));
}

#[test]
fn the_warning_of_a_reservation_says_when_its_instance_is_ended() {
    for name in [
        "EC2 Capacity Reservation Instance Interruption Warning",
        "EC2 Interruptible Capacity Reservation Instance Interruption Warning",
    ] {
        let of = |time: &str| {
            let detail = format!(
                r#"{{"instance-id":"{I}","instance-action":"terminate","instance-termination-time":"{time}","azId":"z"}}"#
            );
            notices(&ec2(name, &detail)).remove(0)
        };
        let notice = of("2026-04-24T17:11:44Z");
        assert_eq!(notice.subject, Subject::CapacityReservationInterruption);
        assert_eq!(notice.deadline, "2026-04-24T17:11:44Z".parse().ok());
        // What cannot be read costs the deadline, not the notice.
        assert_eq!((of("soon").deadline, of("").deadline), (None, None));
    }
}

#[test]
fn a_termination_hook_is_the_same_notice_on_every_way() {
    let eventbridge = event(
        "aws.autoscaling",
        "EC2 Instance-terminate Lifecycle Action",
        &format!(r#"{{{HOOK_FIELDS},"LifecycleTransition":"autoscaling:EC2_INSTANCE_TERMINATING"}}"#),
    );
    let direct = direct_hook("EC2_INSTANCE_TERMINATING");
    let read = notices(&eventbridge);
    assert_eq!(read[0].subject, Subject::AutoScalingTermination);
    assert_eq!(read[0].event_id, "87654321-4321-4321-4321-210987654321");
    for body in [&direct, &in_sns(&direct), &in_sns(&eventbridge)] {
        assert_eq!(notices(body), read, "{body}");
    }
}

#[test]
fn hooks_that_ask_nothing_of_us_are_recognised() {
    for body in [TEST_NOTIFICATION.to_owned(), in_sns(TEST_NOTIFICATION)] {
        assert_eq!(not_for_us(&body), NotForUs::TestNotification);
    }
    let launch = event("aws.autoscaling", "EC2 Instance-launch Lifecycle Action", "{}");
    for body in [launch, direct_hook("EC2_INSTANCE_LAUNCHING")] {
        assert_eq!(not_for_us(&body), NotForUs::Launching);
    }
    let other = r#"{"Event":"autoscaling:EC2_INSTANCE_TERMINATE_ERROR"}"#;
    assert!(matches!(not_for_us(other), NotForUs::OtherNotification(_)));
    assert!(error(&direct_hook("EC2_INSTANCE_JUMPING")).contains("`LifecycleTransition`"));
}

#[test]
fn a_health_event_names_many_instances_each_once() {
    let read = notices(&health(&[]));
    let ids: Vec<_> = read.iter().map(|n| n.instance.as_str()).collect();
    assert_eq!(ids, [I, "i-0fedcba9876543210"]);
    for notice in &read {
        assert_eq!(notice.subject, Subject::ScheduledChange(ScheduleCode("instance-retirement".into())));
        assert_eq!(notice.deadline, Some("2026-06-05T15:10:09Z".parse().unwrap()));
        assert!(notice.event_id.starts_with("arn:aws:health:"));
    }
}

#[test]
fn an_entity_that_is_no_instance_does_not_hide_the_others() {
    let entities = serde_json::json!([{"entityValue": "vol-1"}, {"entityValue": I}, {}, {"entityValue": [7]}]);
    let body = health(&[("affectedEntities", entities)]);
    let Ok(Parsed::Message(message)) = parse(body.as_bytes()) else {
        panic!("{body}");
    };
    assert_eq!((message.notices.len(), message.problems.len()), (1, 3));
}

#[test]
fn other_words_of_aws_health_are_not_for_us() {
    let with = |field: &str, value: serde_json::Value| not_for_us(&health(&[(field, value)]));
    assert_eq!(with("service", "RDS".into()), NotForUs::HealthOfService("RDS".into()));
    assert_eq!(with("eventTypeCategory", "issue".into()), NotForUs::HealthCategory("issue".into()));
    assert_eq!(
        with("eventTypeCode", "AWS_EC2_OPERATIONAL_ISSUE".into()),
        NotForUs::HealthCode("AWS_EC2_OPERATIONAL_ISSUE".into())
    );
    assert_eq!(with("statusCode", "closed".into()), NotForUs::HealthClosed);
    assert_eq!(with("affectedEntities", serde_json::json!([])), NotForUs::HealthWithoutInstances);
    assert_eq!(with("affectedEntities", serde_json::Value::Null), NotForUs::HealthWithoutInstances);
    assert!(error(&health(&[("startTime", serde_json::Value::Null)])).contains("`detail.startTime`"));
    let storm = serde_json::json!(vec![serde_json::json!({"entityValue": I}); INSTANCES_MAX + 1]);
    assert!(error(&health(&[("affectedEntities", storm)])).contains("1001"));
}

#[test]
fn types_of_health_events_become_codes_as_imds_writes_them() {
    let code = |text| schedule_code(text).map(|c| c.0);
    for (type_code, expected) in [
        ("AWS_EC2_INSTANCE_REBOOT_MAINTENANCE_SCHEDULED", Some("instance-reboot")),
        ("AWS_EC2_SYSTEM_REBOOT_MAINTENANCE_SCHEDULED", Some("system-reboot")),
        ("AWS_EC2_INSTANCE_RETIREMENT_SCHEDULED", Some("instance-retirement")),
        ("AWS_EC2_INSTANCE_STOP_SCHEDULED", Some("instance-stop")),
        ("AWS_EC2_INSTANCE_TERMINATION_SCHEDULED", Some("instance-termination")),
        ("AWS_EC2__SCHEDULED", None),
        ("AWS_EC2_SCHEDULED", None),
        ("AWS_RDS_REBOOT_SCHEDULED", None),
        ("AWS_EC2_ü_SCHEDULED", None),
    ] {
        assert_eq!(code(type_code).as_deref(), expected, "{type_code}");
    }
}

#[test]
fn events_that_nobody_here_uses_are_recognised_whatever_their_detail() {
    for body in [
        event("aws.cloudwatch", "CloudWatch Alarm State Change", r#"{"state":{"value":"ALARM"}}"#),
        event("my.app", "EC2 Spot Instance Interruption Warning", "[]"),
        r#"{"detail-type":"x"}"#.to_owned(),
    ] {
        assert!(matches!(not_for_us(&body), NotForUs::OtherEvent { .. }), "{body}");
    }
}

#[test]
fn a_message_that_cannot_be_read_says_why() {
    for (body, expected) in [
        (String::new(), "the message cannot be read"),
        ("hello".into(), "the message cannot be read"),
        ("{}".into(), "neither an EventBridge event"),
        (in_sns("hello"), "the Message of an SNS notification cannot be read"),
        (in_sns(&in_sns(&spot("stop"))), "neither an EventBridge event"),
        (spot("stop").replace(I, "i-nonsense"), "`detail.instance-id` of an EventBridge event is `i-nonsense`"),
        (spot("stop").replace("2026-04-24T17:09:44Z", "now"), "the `time` of an EventBridge event is `now`"),
        (spot(""), "has no `detail.instance-action`"),
        (spot("stop").replace("72d6566c-e6bd-117d-5bbc-2779c679abd5", ""), "has no `id`"),
        (ec2("EC2 Instance Rebalance Recommendation", "null"), "has no `detail`"),
    ] {
        let error = error(&body);
        assert!(error.contains(expected), "{body}: {error}");
    }
    assert!(parse(&vec![b' '; BODY_BYTES_MAX + 1]).is_err());
    assert!(parse("[".repeat(100_000).as_bytes()).is_err());
}

#[test]
fn a_spot_warning_at_the_end_of_time_has_no_deadline_rather_than_a_panic() {
    let body = spot("stop").replace("2026-04-24T17:09:44Z", "9999-12-30T21:59:59Z");
    assert_eq!(notices(&body)[0].deadline.map(|_| ()), None);
}

/// What goes on into the API fits its schema.
fn check(body: &[u8]) {
    let Ok(Parsed::Message(message)) = parse(body) else {
        return;
    };
    assert!(!message.notices.is_empty());
    let mut seen = BTreeSet::new();
    for notice in message.notices {
        assert!((1..=EVENT_ID_CHARS_MAX).contains(&notice.event_id.chars().count()));
        assert!(notice.subject.action().is_none_or(|a| a.len() <= WORD_CHARS_MAX));
        assert_eq!(notice.source, Source::Sqs);
        assert!(seen.insert(notice.instance));
    }
}

#[test]
fn no_bytes_make_the_reader_panic() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|bytes: &Vec<u8>| check(bytes));
}

#[test]
fn no_change_to_a_real_message_makes_the_reader_panic() {
    let real = [
        spot("terminate"),
        state("stopping"),
        health(&[]),
        direct_hook("EC2_INSTANCE_TERMINATING"),
        in_sns(&direct_hook("EC2_INSTANCE_TERMINATING")),
        in_sns(&spot("stop")),
        TEST_NOTIFICATION.to_owned(),
    ];
    bolero::check!().with_type::<(u8, Vec<(u16, u8)>)>().for_each(|(which, changes)| {
        let mut bytes = real[usize::from(*which) % real.len()].as_bytes().to_vec();
        for (at, byte) in changes {
            let at = usize::from(*at) % bytes.len();
            bytes[at] = *byte;
        }
        check(&bytes);
    });
}

#[test]
fn what_is_written_as_aws_writes_it_is_read_back() {
    bolero::check!().with_type::<(u64, u32, u8)>().for_each(|(number, second, which)| {
        let id = format!("i-{number:017x}");
        let time = jiff::Timestamp::from_second(i64::from(*second)).unwrap();
        let action = Action::ALL[usize::from(*which) % Action::ALL.len()];
        let body = serde_json::json!({
            "id": format!("event-{number}"), "detail-type": "EC2 Spot Instance Interruption Warning",
            "source": "aws.ec2", "time": time.to_string(),
            "detail": {"instance-id": id, "instance-action": action.as_str()},
        });
        let read = notices(&body.to_string());
        assert_eq!(read[0].instance.as_str(), id);
        assert_eq!(read[0].subject, Subject::SpotInterruption(action));
        assert_eq!(read[0].deadline, Some(time + SPOT_WARNING));
    });
}
