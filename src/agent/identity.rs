//! Which instance this is: IMDS knows; where it cannot be asked, the Node's providerID says it.

use std::time::Duration;

use super::observer::Observer;
use crate::adapters::imds::Imds;
use crate::adapters::kubernetes::{Kubernetes, one_line};
use crate::domain::notice::InstanceId;
use crate::interruption::Identity;

const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Asks IMDS and the API server in turn until one of them knows.
pub async fn find(mut imds: Imds, kubernetes: &Kubernetes, node: &str, observer: &Observer) -> (Imds, Identity) {
    let mut wait = RETRY_FIRST;
    let mut said = false;
    loop {
        let by_imds = match imds.identity().await {
            Ok(document) => {
                let zone = document.zone.unwrap_or_default();
                let provider_id = format!("aws:///{zone}/{}", document.instance);
                // The Node's own spelling is what records are compared with.
                let registered = kubernetes.node(node).await.ok().and_then(|node| node.provider_id);
                let same = registered.filter(|id| id.ends_with(document.instance.as_str()));
                let provider_id = same.unwrap_or(provider_id);
                return (imds, Identity { instance: document.instance, node: node.to_owned(), provider_id });
            }
            Err(error) => one_line(&error),
        };
        let by_node = match kubernetes.node(node).await {
            Ok(found) => match found.provider_id.as_deref().map(|id| (id, InstanceId::from_provider_id(id))) {
                Some((provider_id, Some(instance))) => {
                    let provider_id = provider_id.to_owned();
                    return (imds, Identity { instance, node: node.to_owned(), provider_id });
                }
                Some((provider_id, None)) => {
                    format!("Node {node} has providerID {provider_id}, which names no EC2 instance")
                }
                None => format!("Node {node} has no providerID"),
            },
            Err(error) => one_line(&error),
        };
        let what = format!("which instance this is cannot be told yet: IMDS: {by_imds}; Kubernetes: {by_node}");
        if !said {
            tracing::warn!("{what}");
            said = true;
        }
        observer.node(Some(what));
        observer.beat(None);
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}
