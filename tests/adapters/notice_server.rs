use std::time::Duration;

use jiff::Timestamp;
use spotkeeper::adapters::notice_server::file::NoticeFile;
use spotkeeper::adapters::notice_server::{Board, Notice, Reader, WAITING_MAX, board, router};
use spotkeeper::adapters::serve::Limits;
use spotkeeper::domain::notice::Kind;
use spotkeeper::domain::time::{Deadline, Epoch, Instant};
use spotkeeper::interruption::Announcement;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{client, get, served};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn empty() -> (Board, Reader) {
    board(Epoch(at("2026-04-24T17:00:00Z")))
}

fn announcement() -> Announcement {
    Announcement {
        instance: "i-0123456789abcdef0".parse().unwrap(),
        node: "node-1".into(),
        episode: 1,
        kind: Kind::SpotInterruption,
        action: Some("terminate".into()),
        deadline: Some(Deadline { at: Instant::from_millis(704_000), announced: at("2026-04-24T17:11:44.25Z") }),
        since: Instant::from_millis(584_500),
        rebalance: Some(at("2026-04-24T17:01:00Z")),
    }
}

async fn base(reader: Reader) -> String {
    format!("http://{}", served(router(reader, WAITING_MAX), Limits::default()).await)
}

#[tokio::test]
async fn a_poller_of_imds_works_unchanged() {
    let (board, reader) = empty();
    let base = base(reader).await;
    let spot = format!("{base}/latest/meta-data/spot/instance-action");
    let rebalance = format!("{base}/latest/meta-data/events/recommendations/rebalance");
    assert_eq!(get(spot.clone()).await.0, 404);
    assert_eq!(get(rebalance.clone()).await.0, 404);
    board.tell(&announcement());
    let action = r#"{"action":"terminate","time":"2026-04-24T17:11:44Z"}"#;
    assert_eq!(get(spot.clone()).await, (200, action.to_owned()));
    let time = r#"{"noticeTime":"2026-04-24T17:01:00Z"}"#;
    assert_eq!(get(rebalance).await, (200, time.to_owned()));
    board.tell(&Announcement { kind: Kind::ScheduledChange, ..announcement() });
    assert_eq!(get(spot).await.0, 404, "only a spot interruption is one");
    assert_eq!(get(format!("{base}/latest/meta-data/")).await.0, 404);
}

#[tokio::test]
async fn tokens_are_given_by_the_rules_of_imds() {
    let url = format!("{}/latest/api/token", base(empty().1).await);
    let asked = |ttl: &'static str, forwarded: bool| {
        let mut request = client().put(&url).header("x-aws-ec2-metadata-token-ttl-seconds", ttl);
        if forwarded {
            request = request.header("x-forwarded-for", "10.0.0.1");
        }
        request.send()
    };
    let good = asked("21600", false).await.unwrap();
    assert_eq!(good.headers()["x-aws-ec2-metadata-token-ttl-seconds"], "21600");
    assert_eq!(good.status(), 200);
    assert!(!good.text().await.unwrap().is_empty());
    for bad in ["0", "21601", "-1", "x", ""] {
        assert_eq!(asked(bad, false).await.unwrap().status(), 400, "{bad}");
    }
    assert_eq!(asked("60", true).await.unwrap().status(), 403);
    assert_eq!(client().put(&url).send().await.unwrap().status(), 400);
    assert_eq!(client().get(&url).send().await.unwrap().status(), 405);
}

#[tokio::test]
async fn the_notice_is_said_in_json_until_it_is_retracted() {
    let (board, reader) = empty();
    let url = format!("{}/v1/notice", base(reader).await);
    assert_eq!(get(url.clone()).await, (204, String::new()));
    board.tell(&announcement());
    let expected = r#"{"instanceId":"i-0123456789abcdef0","nodeName":"node-1","kind":"SpotInterruption","action":"terminate","deadline":"2026-04-24T17:11:44.25Z","confirmedAt":"2026-04-24T17:09:44.5Z","episode":1,"rebalance":"2026-04-24T17:01:00Z"}"#;
    assert_eq!(get(url.clone()).await, (200, expected.to_owned()));
    board.retract();
    assert_eq!(get(url).await.0, 204);
}

#[tokio::test]
async fn who_waits_is_told_at_once() {
    let (board, reader) = empty();
    let url = format!("{}/v1/notice?wait=60s", base(reader).await);
    let waiting = tokio::spawn(get(url.clone()));
    // Whether the request arrives before the notice or after it, its answer is the same.
    board.tell(&announcement());
    let told = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    assert_eq!(told.expect("told long before the wait ends").unwrap().0, 200);
    assert_eq!(get(url).await.0, 200, "what is known is not waited for");
}

#[tokio::test]
async fn with_the_last_etag_no_change_is_missed() {
    let (board, reader) = empty();
    let url = format!("{}/v1/notice?wait=", base(reader).await);
    let ask = async |wait: &str, etag: &str| {
        let request = client().get(format!("{url}{wait}")).header("if-none-match", etag);
        let response = request.send().await.unwrap();
        let etag = response.headers()["etag"].to_str().unwrap().to_owned();
        (response.status().as_u16(), etag)
    };
    let (status, nothing) = ask("60s", "\"of a process before this one\"").await;
    assert_eq!(status, 204);
    assert_eq!(ask("1ms", &nothing).await, (304, nothing.clone()));
    board.tell(&announcement());
    let (status, told) = ask("60s", &nothing).await;
    assert_eq!(status, 200);
    board.tell(&announcement());
    assert_eq!(ask("1ms", &told).await, (304, told.clone()), "the same again is no change");
    board.retract();
    board.tell(&announcement());
    board.retract();
    let (status, retracted) = ask("60s", &told).await;
    assert_eq!(status, 204);
    assert!(retracted != told && retracted != nothing);
    assert_eq!(get(format!("{url}soon")).await.0, 400);
}

#[tokio::test]
async fn too_many_who_wait_are_sent_away_and_the_others_still_answered() {
    let (board, reader) = empty();
    let base = format!("http://{}", served(router(reader, 2), Limits::default()).await);
    let url = format!("{base}/v1/notice?wait=60s");
    let mut waiting = tokio::task::JoinSet::new();
    // Of three, two can wait; which one is sent away is the server's choice.
    for _ in 0..3 {
        waiting.spawn(get(url.clone()));
    }
    let (status, _) = waiting.join_next().await.unwrap().unwrap();
    assert_eq!(status, 503);
    let refused = client().get(&url).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"5".parse().unwrap()));
    assert_eq!(get(format!("{base}/v1/notice")).await.0, 204);
    board.tell(&announcement());
    while let Some(told) = waiting.join_next().await {
        assert_eq!(told.unwrap().0, 200);
    }
}

#[tokio::test]
async fn connections_beyond_the_limits_and_heads_that_never_end_are_closed() {
    let limits =
        Limits { connections_max: 8, connections_per_address_max: 2, head_timeout: Duration::from_millis(200) };
    let address = served(router(empty().1, WAITING_MAX), limits).await;
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /v1/notice HTTP/1.1\r\nx: ").await.unwrap();
        slow.push(stream);
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    let _ = third.write_all(b"GET /v1/notice HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut text = Vec::new();
    // Closed without an answer, which some systems report as a reset.
    let _ = third.read_to_end(&mut text).await;
    assert_eq!(text, b"", "one connection too many is not served");
    for stream in &mut slow {
        let _ = stream.read_to_end(&mut text).await;
    }
    assert!(!text.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&text));
    // Both places are free again as soon as the server has noticed.
    let url = format!("http://{address}/v1/notice");
    let asked = async {
        while client().get(&url).send().await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asked).await.unwrap();
}

/// A connection from this address of the loopback net.
async fn from(own: [u8; 4], to: std::net::SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((own, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test]
async fn strangers_who_take_every_connection_do_not_keep_this_host_out() {
    let limits = Limits { connections_max: 2, connections_per_address_max: 8, ..Limits::default() };
    let address = served(router(empty().1, WAITING_MAX), limits).await;
    let asks = b"GET /v1/notice HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut strangers = Vec::new();
    for _ in 0..2 {
        let mut stream = from([127, 0, 0, 2], address).await;
        stream.write_all(asks).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        strangers.push(stream);
    }
    let mut third = from([127, 0, 0, 2], address).await;
    let _ = third.write_all(asks).await;
    let mut text = Vec::new();
    let _ = third.read_to_end(&mut text).await;
    assert_eq!(text, b"", "one too many of the others");
    assert_eq!(get(format!("http://{address}/v1/notice")).await.0, 204, "the kubelet asks from the node's own address");
}

#[tokio::test]
async fn no_bytes_from_a_client_stop_the_server() {
    let (board, reader) = empty();
    board.tell(&announcement());
    let address = served(router(reader, WAITING_MAX), Limits::default()).await;
    let good = "GET /v1/notice?wait=1ms HTTP/1.1\r\nhost: x\r\nif-none-match: \"a\"\r\nconnection: close\r\n\r\n";
    let mut rng = fastrand::Rng::with_seed(1);
    for round in 0..400 {
        let mut bytes = good.as_bytes().to_vec();
        for _ in 0..rng.usize(1..12) {
            let at = rng.usize(0..bytes.len());
            match rng.u8(0..3) {
                0 => bytes[at] = rng.u8(..),
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, rng.u8(..)),
            }
        }
        if round % 10 == 0 {
            bytes = (0..rng.usize(1..40_000)).map(|_| rng.u8(..)).collect();
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A server that has seen enough closes, also while the client is writing.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 5"), "{}", String::from_utf8_lossy(&bytes));
    }
    assert_eq!(get(format!("http://{address}/v1/notice")).await.0, 200);
}

fn folder(name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("spotkeeper-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

#[tokio::test]
async fn the_file_follows_the_board() {
    let folder = folder("follows");
    let path = folder.join("notice.json");
    std::fs::write(&path, "left by a process before this one").unwrap();
    let (board, reader) = empty();
    let following = tokio::spawn(NoticeFile::new(&path).unwrap().follow(reader));
    let until = async |holds: &dyn Fn() -> bool| {
        let waited = async {
            while !holds() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waited).await.unwrap();
    };
    until(&|| !path.exists()).await;
    board.tell(&announcement());
    until(&|| path.exists()).await;
    let notice: Notice = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!((notice.kind, notice.node_name.as_str()), (Kind::SpotInterruption, "node-1"));
    board.retract();
    until(&|| !path.exists()).await;
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "no draft is left");
    drop(board);
    following.await.unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_file_that_could_not_be_written_is_there_when_its_folder_is() {
    let folder = folder("later");
    let path = folder.join("mounted-later/notice.json");
    let (board, reader) = empty();
    board.tell(&announcement());
    let file = NoticeFile::new(&path).unwrap();
    let following = tokio::spawn(file.follow(reader));
    // The first try, which fails, itself takes time.
    tokio::time::sleep(Duration::from_millis(300)).await;
    tokio::fs::create_dir(path.parent().unwrap()).await.unwrap();
    let written = async {
        while !path.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), written).await.expect("it is tried again");
    following.abort();
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let folder = folder("missing");
    let path = folder.join("no-such-folder/notice.json");
    let notice: Notice = serde_json::from_str(
        r#"{"instanceId":"i-12345678","nodeName":"n","kind":"Requested","confirmedAt":"2026-04-24T17:00:00Z","episode":1}"#,
    )
    .unwrap();
    let file = NoticeFile::new(&path).unwrap();
    let error = file.set(Some(&notice)).unwrap_err().to_string();
    assert!(error.contains("no-such-folder/notice.json"), "{error}");
    file.set(None).unwrap();
    assert!(NoticeFile::new("/").is_err());
    std::fs::remove_dir_all(folder).unwrap();
}
