//! The client of the API server where the real one cannot be made to behave so.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use kube::Config;
use kube::runtime::watcher;
use spotkeeper::adapters::kubernetes::{ConnectError, Kubernetes, watches};
use spotkeeper::adapters::metrics::agent::Metrics;
use spotkeeper::adapters::serve::Limits;

use crate::client::served;

#[tokio::test]
async fn a_watch_that_cannot_begin_is_tried_again_less_and_less_often() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = asked.clone();
    let away = Router::new().fallback(move || {
        noted.lock().unwrap().push(Instant::now());
        async { StatusCode::SERVICE_UNAVAILABLE }
    });
    let address = served(away, Limits::default()).await;
    let config = Config::new(format!("http://{address}").parse().unwrap());
    let kubernetes = Kubernetes::with(config, Metrics::new().common).unwrap();
    let watching = watches::follow("nodes", kubernetes.nodes(), watcher::Config::default(), async |_| {});
    let five = async {
        while asked.lock().unwrap().len() < 5 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = watching => panic!("a watch never ends"),
        asked = tokio::time::timeout(Duration::from_secs(30), five) => asked.expect("it goes on"),
    }
    let asked = asked.lock().unwrap().clone();
    // 250 ms, 500 ms, 1 s, 2 s, each a quarter more or less.
    let pause = asked[4].duration_since(asked[3]);
    assert!(pause >= Duration::from_millis(1_400), "{pause:?} before the fifth time");
}

#[tokio::test]
async fn a_server_that_is_no_url_is_named_before_anything_is_asked() {
    for server in ["nonsense", "10.0.0.1:6443", "ftp://api/"] {
        let config = Config::new(server.parse().unwrap());
        let refused = Kubernetes::with(config, Metrics::new().common).err().expect(server);
        assert!(matches!(refused, ConnectError::Server { .. }), "{refused}");
        assert!(refused.to_string().contains(server), "{refused}");
    }
}
