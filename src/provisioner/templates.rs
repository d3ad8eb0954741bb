//! The launch templates of ours: had where one of their content is wanted, and removed.

use super::observer::Observer;
use crate::adapters::ec2::{Ec2, Ec2Error, Named};
use crate::adapters::kubernetes::one_line;
use crate::api::node_class::{AmiSelectorTerm, ResolvedTemplate};
use crate::domain::notice::InstanceId;
use crate::interruption::Outcome;
use crate::provision::Copied;
use crate::provision::class::template::{self, Template};
use crate::provision::templates::OurTemplate;

/// Cheap to clone.
#[derive(Clone)]
pub struct Templates {
    pub ec2: Ec2,
    pub observer: Observer,
}

/// A launch template cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    #[error(transparent)]
    Ec2(#[from] Ec2Error),
    /// Somebody else has one of that name.
    #[error(
        "launch template {name} ({id}) has not the tag spotkeeper.dev/cluster of this cluster, so it is none of ours and \
         is not used: rename or delete it"
    )]
    Foreign { name: String, id: String },
    /// Ours, and it says something else.
    #[error("launch template {name} ({id}) was not made by spotkeeper as it is ({field} differs): delete it")]
    Changed { name: String, id: String, field: &'static str },
    /// EC2 does not show it yet.
    #[error("launch template {name} is there, and EC2 does not show it yet")]
    NotShown { name: String },
}

impl Templates {
    /// The launch template of this content, and whether it was made just now.
    pub async fn there(&self, of: &Template) -> Result<(ResolvedTemplate, bool), Unavailable> {
        let name = self.ec2.name_of(of);
        if let Some(found) = self.found(of, &name).await? {
            return Ok((found, false));
        }
        if let Some(made) = self.observer.asking("CreateLaunchTemplate", Box::pin(self.ec2.make_template(of))).await? {
            tracing::info!(template = made.name, "a launch template was made");
            return Ok((made, true));
        }
        // Another replica was quicker.
        match self.found(of, &name).await? {
            Some(found) => Ok((found, true)),
            None => Err(Unavailable::NotShown { name }),
        }
    }

    /// The one that has this name, if it is ours and says so.
    async fn found(&self, of: &Template, name: &str) -> Result<Option<ResolvedTemplate>, Unavailable> {
        match self.observer.asking("DescribeLaunchTemplates", Box::pin(self.ec2.template_named(name))).await? {
            Named::Missing => Ok(None),
            Named::Foreign { id } => Err(Unavailable::Foreign { name: name.to_owned(), id }),
            Named::Ours { id } => {
                let says = Box::pin(self.ec2.template_says(&id));
                let says = self.observer.asking("DescribeLaunchTemplateVersions", says).await?;
                match says.map_or(Some("its first version"), |says| of.differs(&says)) {
                    None => {
                        let (name, version) = (name.to_owned(), template::VERSION.to_owned());
                        Ok(Some(ResolvedTemplate { id, name, version }))
                    }
                    Some(field) => Err(Unavailable::Changed { name: name.to_owned(), id, field }),
                }
            }
        }
    }

    /// What another like it is launched with; `None`: it has ended.
    async fn read(&self, instance: &InstanceId) -> Result<Option<Template>, Ec2Error> {
        let Some(plain) = self.observer.asking("DescribeInstances", self.ec2.plain(instance)).await? else {
            return Ok(None);
        };
        let user_data = self.observer.asking("DescribeInstanceAttribute", self.ec2.user_data(instance)).await?;
        let Some(user_data) = user_data else { return Ok(None) };
        let volumes = self.observer.asking("DescribeVolumes", self.ec2.volumes(plain.volumes.keys())).await?;
        let image = AmiSelectorTerm { id: Some(plain.image.clone()), ..AmiSelectorTerm::default() };
        let images = self.observer.asking("DescribeImages", self.ec2.images(&image)).await?;
        let of_image = images.into_iter().next().map(|image| image.devices).unwrap_or_default();
        Ok(Some(template::copy(&plain, Some(user_data), &volumes, &of_image)))
    }

    /// Has a template that says what an instance without one is made of.
    pub async fn copy(&self, instance: &InstanceId) -> Copied {
        let template = match Box::pin(self.read(instance)).await {
            Ok(Some(template)) => template,
            Ok(None) => return Copied::Gone,
            Err(error) => return Copied::Failed(one_line(&error)),
        };
        match Box::pin(self.there(&template)).await {
            Ok((there, made)) => Copied::Like { template: there.name, made },
            Err(error) => Copied::Failed(one_line(&error)),
        }
    }

    pub async fn all(&self) -> Result<Vec<OurTemplate>, String> {
        let all = self.observer.asking("DescribeLaunchTemplates", self.ec2.our_templates()).await;
        all.map_err(|error| one_line(&error))
    }

    pub async fn delete(&self, of: &OurTemplate) -> Outcome {
        match self.observer.asking("DeleteLaunchTemplate", self.ec2.delete_template(of)).await {
            Ok(()) => Outcome::Done,
            Err(error @ Ec2Error::Refused { .. }) => Outcome::Refused(one_line(&error)),
            Err(error) => Outcome::Failed(one_line(&error)),
        }
    }
}
