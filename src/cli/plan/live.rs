//! The cluster of a kubeconfig: the same objects, asked of its API server. Nothing but `list` is asked.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use crate::cli::CliError;
use crate::cli::input::chain;
use crate::plan::reading::{Gap, KINDS, Objects};

/// How many objects one answer has at most.
const PAGE: usize = 500;

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Which cluster is read where no `--from` is given.
#[derive(Clone, Debug, Default, Args)]
pub struct Live {
    /// The kubeconfig; by default that of KUBECONFIG, or ~/.kube/config.
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    pub kubeconfig: Option<PathBuf>,

    /// Its context; by default the current one.
    #[arg(long, value_name = "NAME", conflicts_with = "from")]
    pub context: Option<String>,
}

impl Live {
    /// Asks for everything that a plan depends on. What may not be read is a gap.
    pub fn read(&self) -> Result<Objects, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| CliError::Failed(error.to_string()))?;
        runtime.block_on(async {
            let client = self.client().await?;
            let mut objects = Objects::default();
            for (kind, resource, group) in KINDS {
                list(&client, &mut objects, kind, resource, group).await?;
            }
            Ok(objects)
        })
    }

    async fn client(&self) -> Result<Client, CliError> {
        let wrong =
            |error: &dyn std::error::Error| CliError::Data(format!("the kubeconfig cannot be used: {}", chain(error)));
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(file) => {
                let read = Kubeconfig::read_from(file)
                    .map_err(|error| CliError::Data(format!("--kubeconfig {}: {}", file.display(), chain(&error))))?;
                Config::from_custom_kubeconfig(read, &options).await
            }
            None => Config::from_kubeconfig(&options).await,
        };
        let mut config = config.map_err(|error| wrong(&error))?;
        // Whoever waits in front of a shell wants to know.
        config.default_retry = false;
        (config.connect_timeout, config.read_timeout) = (Some(Duration::from_secs(10)), Some(TIMEOUT));
        Client::try_from(config).map_err(|error| wrong(&error))
    }
}

async fn list(client: &Client, into: &mut Objects, kind: &str, resource: &str, group: &str) -> Result<(), CliError> {
    let path = match group {
        "" => format!("/api/v1/{resource}"),
        "spotkeeper.dev" => format!("/apis/{group}/v1alpha1/{resource}"),
        _ => format!("/apis/{group}/v1/{resource}"),
    };
    let mut more = String::new();
    loop {
        let uri = format!("{path}?limit={PAGE}{more}");
        let request = Request::get(&uri).body(Vec::new()).map_err(|error| CliError::Failed(error.to_string()))?;
        let mut answer: Value = match client.request(request).await {
            Ok(answer) => answer,
            // No NodePools or EC2NodeClasses: a cluster without their CRDs.
            Err(kube::Error::Api(status)) if status.code == 404 && group == "spotkeeper.dev" => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 403 => {
                into.gaps.push(Gap(format!(
                    "{resource} may not be listed ({}): manifests/examples/plan-reader.yaml has the rights",
                    status.message
                )));
                return Ok(());
            }
            Err(error) => return Err(CliError::Data(format!("{resource} cannot be listed: {}", chain(&error)))),
        };
        for item in answer.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default() {
            into.add(kind, group, item);
        }
        into.listed.insert(kind.to_owned());
        let next = answer.get("metadata").and_then(|of| of.get("continue")).and_then(Value::as_str).unwrap_or_default();
        if next.is_empty() {
            return Ok(());
        }
        more = format!("&continue={}", escaped(next));
    }
}

/// As it may stand in a query.
fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continuation_is_escaped() {
        assert_eq!(escaped("eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ=="), "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ%3D%3D");
        assert_eq!(escaped("a+b/c&d"), "a%2Bb%2Fc%26d");
    }
}
