//! The agent: one core, the watches and polls that feed it, and the performer that carries out what it decides.
//!
//! ```text
//!  IMDS poll ─┐
//!  own Node ──┤            ┌──────────┐  effects   ┌───────────┐
//!  own record ┼── inputs ─>│  Keeper  │ ─────────> │ performer │──> API server, notice endpoint, log, events
//!  pods ──────┤            └──────────┘            └───────────┘
//!  queue ─────┘                  ^                       │
//!                                └────────── results ────┘
//! ```
//!
//! - `identity`: which instance and which Node this is.
//! - `performer`: effects.
//! - `queue_reader`: the queue, under a lease.
//! - `observer`: metrics, readiness and the invariants, from the same stream of inputs and effects.

pub mod config;
mod identity;
mod imds_poll;
mod observer;
mod performer;
mod queue_reader;

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use self::config::{Config, PodAccess};
use self::observer::Observer;
use self::performer::{Performer, Shared};
use self::queue_reader::QueueReader;
use crate::adapters::imds::{self, Imds};
use crate::adapters::kubernetes::access::PodMode;
use crate::adapters::kubernetes::{ConnectError, Kubernetes, one_line, watches};
use crate::adapters::lease::Leases;
use crate::adapters::notice_server::file::{NoticeFile, NoticeFileError};
use crate::adapters::notice_server::{self, WAITING_MAX};
use crate::adapters::serve::{self, BindError, Limits};
use crate::adapters::sqs::Queue;
use crate::adapters::wall_clock::WallClock;
use crate::domain::node::Node;
use crate::driver::{self, Clock};
use crate::interruption::{Because, Identity, Input, Keeper, Pace};

/// How many inputs may wait for the core.
const INPUTS_MAX: usize = 1024;

/// The longest time between two asks for what this agent may do, while the answer is no.
const ACCESS_RETRY_MAX: Duration = Duration::from_secs(15);

/// The agent cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("--admin-listen")]
    Admin(#[source] BindError),
    #[error("--notice-listen")]
    Notice(#[source] BindError),
    #[error(transparent)]
    NoticeFile(#[from] NoticeFileError),
    #[error("--imds-endpoint")]
    Imds(#[from] imds::ImdsError),
    #[error("--queue-url")]
    Queue(#[from] crate::adapters::sqs::SqsError),
}

/// Runs until `stop` is done.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), AgentError> {
    let clock = Clock::start();
    let observer = Observer::new(&config);
    let admin = serve::bind(config.admin_listen).await.map_err(AgentError::Admin)?;
    tracing::info!(address = local(&admin), "serving /livez, /readyz and /metrics");
    tokio::spawn(serve::serve(admin, observer.admin().router(), Limits::default()));
    let kubernetes = Kubernetes::connect(observer.metrics().common).await?;
    let tasks = tokio::task::LocalSet::new();
    tasks
        .run_until(async {
            if config.queue_only {
                read_only_the_queue(&config, clock, kubernetes, observer, stop).await
            } else {
                keep_node(&config, clock, kubernetes, observer, stop).await
            }
        })
        .await
}

/// A reader without a node of its own.
async fn read_only_the_queue(
    config: &Config,
    clock: Clock,
    kubernetes: Kubernetes,
    observer: Observer,
    stop: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    let wall_clock = WallClock::default();
    let queue = Queue::connect(config.queue_url.as_deref().unwrap_or_default(), wall_clock.clone()).await?;
    let reporter = config.pod_name.clone().unwrap_or_else(|| "queue-reader".to_owned());
    let reader = QueueReader {
        queue,
        kubernetes,
        clock,
        wall_clock,
        reporter,
        own: None,
        dry_run: config.dry_run,
        observer: observer.clone(),
    };
    observer.reads_queue(true);
    let never = watch::Sender::new(false);
    let alive = async {
        loop {
            observer.beat(None);
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    };
    tokio::select! {
        () = Rc::new(reader).read(never.subscribe()) => {}
        () = alive => {}
        () = stop => {}
    }
    Ok(())
}

/// The agent of one node.
async fn keep_node(
    config: &Config,
    clock: Clock,
    kubernetes: Kubernetes,
    observer: Observer,
    stop: impl Future<Output = ()>,
) -> Result<(), AgentError> {
    let node_name = config.node_name.clone().unwrap_or_default();
    let options = imds::Options {
        endpoint: config.imds_endpoint.clone(),
        v1_fallback: config.imds_v1_fallback,
        ..imds::Options::default()
    };
    let wall_clock = WallClock::default();
    let imds = Imds::new(options, wall_clock.clone(), observer.metrics())?;
    let (board, reader) = notice_server::board(clock.epoch());
    let listener = serve::bind(config.notice_listen).await.map_err(AgentError::Notice)?;
    tracing::info!(address = local(&listener), "telling workloads");
    tokio::spawn(serve::serve(listener, notice_server::router(reader.clone(), WAITING_MAX), Limits::default()));
    if let Some(path) = &config.notice_file {
        tokio::spawn(NoticeFile::new(path)?.follow(reader));
    }

    tokio::pin!(stop);
    let (imds, me) = tokio::select! {
        found = identity::find(imds, &kubernetes, &node_name, &observer) => found,
        () = &mut stop => return Ok(()),
    };
    tracing::info!(instance = %me.instance, node = me.node, dry_run = config.dry_run, "keeping this node");
    let keeper = Keeper::new(me.clone(), config.policy(), clock.epoch());
    let (inputs, receiver) = mpsc::channel(INPUTS_MAX);
    let (access_known, access) = watch::channel(None);
    let (pace, paced) = watch::channel(Pace::Usual);
    let (standing, stands) = watch::channel(true);
    let shared =
        Shared::new(me.clone(), clock, kubernetes.clone(), access, inputs.clone(), config.dry_run, observer.clone());
    tokio::task::spawn_local(imds_poll::poll(
        imds,
        clock,
        config.imds_interval,
        paced,
        inputs.clone(),
        observer.clone(),
    ));
    tokio::task::spawn_local(learn_access(
        kubernetes.clone(),
        clock,
        node_name,
        config.pod_access(),
        access_known,
        observer.clone(),
    ));
    tokio::task::spawn_local(watch_node(shared.clone()));
    tokio::task::spawn_local({
        let (api, wall_clock, inputs) = (kubernetes.interruptions(), wall_clock.clone(), inputs.clone());
        let instance = me.instance.clone();
        async move { watches::record(api, instance.as_str(), clock, wall_clock, inputs).await }
    });
    if let Some(url) = &config.queue_url {
        let leases = Leases::new(
            kubernetes.client().clone(),
            &config.namespace,
            config.pod_name.clone().unwrap_or_else(|| me.node.clone()),
            config.queue_readers,
        );
        let reader = Rc::new(QueueReader {
            queue: Queue::connect(url, wall_clock.clone()).await?,
            kubernetes,
            clock,
            wall_clock: wall_clock.clone(),
            reporter: me.node.clone(),
            own: Some((me.instance, inputs.clone())),
            dry_run: config.dry_run,
            observer,
        });
        tokio::task::spawn_local(reader.read_under_lease(leases, stands));
    }
    drop(inputs);
    let performer = Performer::new(shared, board, pace, standing, wall_clock);
    driver::run(keeper, clock, receiver, performer, stop).await;
    Ok(())
}

/// Asks what this agent may do until everything it needs is allowed.
async fn learn_access(
    kubernetes: Kubernetes,
    clock: Clock,
    node: String,
    wanted: PodAccess,
    known: watch::Sender<Option<(PodMode, Kubernetes)>>,
    observer: Observer,
) {
    let mut wait = Duration::from_millis(500);
    let mut last = String::new();
    loop {
        match kubernetes.pod_mode(&node, wanted).await {
            Ok((mode, kubernetes)) => {
                tracing::info!(mode = mode.as_str(), "pods are evicted with the rights of");
                observer.access(Ok(mode));
                known.send_replace(Some((mode, kubernetes)));
                return;
            }
            Err(error) => {
                let text = one_line(&error);
                if text != last {
                    tracing::error!(error = text, "not ready");
                    last.clone_from(&text);
                    let because = Because::NotReady { why: text.clone() };
                    let at = clock.epoch().wall(clock.now());
                    // The right to publish it may be what is missing.
                    if let Err(error) = kubernetes.publish_of_node(&node, &because, at).await {
                        tracing::debug!(error = one_line(&error), "the event could not be published");
                    }
                }
                observer.access(Err(text));
            }
        }
        tokio::time::sleep(wait.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        wait = (wait * 2).min(ACCESS_RETRY_MAX);
    }
}

/// Watches the agent's own Node, and checks that it is the one of our instance.
async fn watch_node(shared: std::sync::Arc<Shared>) {
    let name = shared.me.node.clone();
    let mut said = false;
    watches::own_node(shared.kubernetes.nodes(), &name, async |object| {
        let node = Node::from(object);
        let contradiction = contradiction(&shared.me, &node);
        shared.observer.node(contradiction.clone());
        if let Some(text) = contradiction {
            if !said {
                tracing::error!(error = text, "not ready");
            }
            said = true;
            shared.verified.send_replace(false);
            return;
        }
        said = false;
        shared.set_node(node.clone());
        shared.verified.send_replace(true);
        // The receiver is gone only when the program ends.
        let _ = shared.inputs.send(Input::NodeSeen(node)).await;
    })
    .await;
}

/// What speaks against this Node being the one of our instance; one without a providerID says nothing.
fn contradiction(me: &Identity, node: &Node) -> Option<String> {
    let provider_id = node.provider_id.as_deref()?;
    (!provider_id.ends_with(me.instance.as_str())).then(|| {
        format!(
            "IMDS says that this is instance {}, but Node {} has providerID {provider_id}: check NODE_NAME \
             (fieldRef spec.nodeName) and --imds-endpoint",
            me.instance, node.name
        )
    })
}

fn local(listener: &tokio::net::TcpListener) -> String {
    listener.local_addr().map(|address| address.to_string()).unwrap_or_default()
}
