//! The provisioner: one core, the watches and reads that feed it, and the performer that carries out what it decides.
//!
//! ```text
//!  Interruptions ─┐
//!  Nodes, pods ───┤            ┌─────────────┐  effects   ┌───────────┐
//!  NodeClaims ────┼── inputs ─>│ Provisioner │ ─────────> │ performer │──> EC2, API server, log, events
//!  what EC2 has ──┤            └─────────────┘            └───────────┘
//!  lease ─────────┘                   ^                         │
//!                                     └──────── results ────────┘
//! ```
//!
//! - `classes`: what EC2NodeClasses come to.
//! - `config`: flags and environment.
//! - `templates`: the launch templates of ours.
//! - `sights`: what the watches see.
//! - `market`: what there is and what it costs.
//! - `performer`: effects.
//! - `stand_ins`: the drains of nodes whose agent is silent.
//! - `observer`: metrics, readiness and the invariants, from the same stream of inputs and effects.

mod classes;
pub mod config;
mod market;
mod observer;
mod performer;
mod sights;
mod stand_ins;
mod templates;
mod turns;

use std::time::Duration;

use tokio::sync::{mpsc, watch};

use self::classes::Classes;
use self::config::Config;
use self::market::Market;
use self::observer::Observer;
use self::performer::{OnTheirWay, Performer};
use self::stand_ins::StandIns;
use crate::adapters::ec2::{Ec2, Ec2Error};
use crate::adapters::kubernetes::{ConnectError, Kubernetes, one_line};
use crate::adapters::leader::{self, Candidate, Look};
use crate::adapters::serve::{self, BindError, Limits};
use crate::domain::offering::CapacityType;
use crate::driver::{self, Clock};
use crate::prices::{self, OnDemandPrices, PricesError};
use crate::provision::leadership::CALL_TIMEOUT;
use crate::provision::{Input, Provisioner};

/// How many inputs may wait for the core.
const INPUTS_MAX: usize = 4096;

const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The provisioner cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionerError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("--admin-listen")]
    Admin(#[source] BindError),
    #[error(transparent)]
    Ec2(#[from] Ec2Error),
    #[error(transparent)]
    Prices(#[from] PricesError),
}

/// Runs until `stop` is done.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), ProvisionerError> {
    let clock = Clock::with_past();
    let prices = config.prices.as_deref().map(prices::read).transpose()?.unwrap_or_default();
    let observer = Observer::new();
    let admin = serve::bind(config.admin_listen).await.map_err(ProvisionerError::Admin)?;
    let address = admin.local_addr().map(|address| address.to_string()).unwrap_or_default();
    tracing::info!(address, "serving /livez, /readyz and /metrics");
    tokio::spawn(serve::serve(admin, observer.admin().router(), Limits::default()));
    let heard = observer.clone();
    let kubernetes = Kubernetes::connect(observer.metrics().common).await?.heard_by(std::sync::Arc::new(
        move |verb: &'static str, resource: &'static str, denied: Option<&str>| {
            heard.asked_kubernetes(verb, resource, denied);
        },
    ));
    tokio::pin!(stop);
    let cluster = tokio::select! {
        cluster = cluster_id(&kubernetes, &observer) => cluster,
        () = &mut stop => return Ok(()),
    };
    let ec2 = Ec2::connect(&cluster).await?;
    tracing::info!(cluster, "providing for this cluster");
    let tasks = tokio::task::LocalSet::new();
    Box::pin(tasks.run_until(provide(&config, clock, kubernetes, ec2, prices, observer, stop))).await;
    Ok(())
}

async fn provide(
    config: &Config,
    clock: Clock,
    kubernetes: Kubernetes,
    ec2: Ec2,
    prices: OnDemandPrices,
    observer: Observer,
    stop: impl Future<Output = ()>,
) {
    let (inputs, receiver) = mpsc::channel(INPUTS_MAX);
    let (standing, stands) = watch::channel(true);
    let (leaving, leaves) = watch::channel(false);
    let core = Provisioner::new(config.settings(), clock.epoch());
    let (wants_reserved, reserved) = watch::channel(config.order.contains(&CapacityType::Reserved));
    let market = Market {
        ec2: ec2.clone(),
        kubernetes: kubernetes.clone(),
        namespace: config.namespace.clone(),
        prices,
        reservations: reserved,
        observer: observer.clone(),
    };
    tokio::task::spawn_local(market.follow(inputs.clone()));
    let (records, seen) = mpsc::unbounded_channel();
    let classes = sights::watch(&kubernetes, clock, config.node_name.clone(), standing, &inputs, records, &observer);
    let all = Classes::new(ec2.clone(), kubernetes.clone(), observer.clone(), inputs.clone());
    tokio::task::spawn_local(all.follow(classes));
    let candidate = Candidate::new(kubernetes.client().clone(), &config.namespace, config.pod_name.clone());
    let performer = Performer::new(
        kubernetes.clone(),
        config.namespace.clone(),
        ec2,
        clock,
        inputs.clone(),
        observer.clone(),
        wants_reserved,
    );
    let on_their_way = performer.on_their_way();
    let campaign = Campaign {
        candidate,
        clock,
        inputs,
        observer: observer.clone(),
        on_their_way: on_their_way.clone(),
        acts: performer.leads(),
    };
    let campaign = tokio::task::spawn_local(campaign.run(stands, leaves));
    if config.take_over {
        let stand_ins = StandIns { kubernetes, clock, observer, on_their_way: on_their_way.clone() };
        tokio::task::spawn_local(stand_ins.keep(seen, performer.leads()));
    }
    driver::run(core, clock, receiver, performer, stop).await;
    // Nothing new begins.
    leaving.send_replace(true);
    let _ = campaign.await;
}

/// Asks until the API server has said which cluster this is.
async fn cluster_id(kubernetes: &Kubernetes, observer: &Observer) -> String {
    let mut wait = RETRY_FIRST;
    let mut last = String::new();
    loop {
        match kubernetes.cluster_id().await {
            Ok(id) => return id,
            Err(error) => {
                let text = format!("namespace kube-system cannot be read: {}", one_line(&error));
                if text != last {
                    tracing::error!(error = text, "not ready");
                    last.clone_from(&text);
                }
                observer.kubernetes(Err(text));
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// Holds the lease where it can be had; gives it up where this replica's node is doomed, and at the end.
struct Campaign {
    candidate: Candidate,
    clock: Clock,
    inputs: mpsc::Sender<Input>,
    observer: Observer,
    on_their_way: OnTheirWay,
    /// Whether the core may begin something.
    acts: watch::Receiver<bool>,
}

impl Campaign {
    async fn run(mut self, mut stands: watch::Receiver<bool>, mut leaves: watch::Receiver<bool>) {
        let mut last = String::new();
        let mut told_lost = true;
        loop {
            let stays = *stands.borrow_and_update();
            let look = tokio::select! {
                look = self.candidate.look(stays) => look,
                _ = leaves.wait_for(|leaves| *leaves) => break,
            };
            let wait = match look {
                Ok(Look::Held { sent }) => {
                    told_lost = false;
                    let until = self.clock.now() - sent.elapsed() + leader::DURATION;
                    let _ = self.inputs.send(Input::LeaseHeld { until }).await;
                    self.observer.lease(Ok(()));
                    leader::EVERY
                }
                Ok(Look::Theirs { holder }) => {
                    if !told_lost {
                        told_lost = true;
                        tracing::warn!(holder, "another replica holds the lease");
                        let _ = self.inputs.send(Input::LeaseLost).await;
                    }
                    self.observer.lease(Ok(()));
                    leader::EVERY / 3
                }
                Err(error) => {
                    let text = error.to_string();
                    if text != last {
                        tracing::warn!(error = text, "the lease cannot be read or written, trying again");
                        last.clone_from(&text);
                    }
                    self.observer.lease(Err(text));
                    leader::EVERY / 3
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait.mul_f64(0.9 + fastrand::f64() / 5.0)) => {}
                Ok(()) = stands.changed() => {
                    if !*stands.borrow() && !told_lost {
                        tracing::warn!("this replica's node is doomed: the other one is let lead");
                        told_lost = true;
                        let _ = self.inputs.send(Input::LeaseLost).await;
                        self.give_up().await;
                    }
                }
                _ = leaves.wait_for(|leaves| *leaves) => break,
            }
        }
        self.give_up().await;
    }

    /// Nothing begins once the core knows; what is on its way then ends before another may lead.
    async fn give_up(&mut self) {
        let ended = async {
            // Where the core has been stopped there is nobody to wait for.
            let _ = self.acts.wait_for(|acts| !*acts).await;
            self.on_their_way.clone().ended().await;
        };
        let _ = tokio::time::timeout(CALL_TIMEOUT, ended).await;
        if let Err(error) = self.candidate.release().await {
            tracing::warn!(error = %error, "the lease could not be given up: it runs out by itself");
        }
    }
}
