//! The base model and the license of a release.

use anyhow::{Context, bail};
use checkpoint::source::Source;
use hub::RepositoryId;
use packer::release::{License, license_of_card};

use super::ReleaseRequest;

/// Names under which repositories keep their license.
const LICENSE_FILES: [&str; 3] = ["LICENSE", "LICENSE.txt", "LICENSE.md"];
/// The standard text, for sources that name the license but do not contain it.
const APACHE: (&str, &str) = ("apache-2.0", include_str!("../../../LICENSE"));

/// What a card says about the weights' origin.
pub(super) struct Terms {
    pub(super) base_model: String,
    pub(super) license: License,
}

impl Terms {
    /// What was asked for, else what the checkpoint says. Everything that is missing is listed at once.
    pub(super) fn find(
        request: &ReleaseRequest,
        repository: Option<&str>,
        source: Option<&dyn Source>,
    ) -> anyhow::Result<Self> {
        let mut missing = Vec::new();
        let base_model = request.base_model.clone().or_else(|| repository.map(str::to_owned));
        match &base_model {
            Some(name) => {
                RepositoryId::new(name).context("the base model is not named as OWNER/NAME of the Hub")?;
            }
            None => missing.push(
                "--base-model OWNER/NAME: the manifests name no repository, the checkpoint was a folder"
                    .to_owned(),
            ),
        }
        let license = license(request, source, &mut missing)?;
        match (base_model, license) {
            (Some(base_model), Some(license)) if missing.is_empty() => Ok(Terms { base_model, license }),
            _ => bail!(
                "a release needs more (in a recipe: base-model, license-id and license-file under [release]):\n  {}",
                missing.join("\n  ")
            ),
        }
    }
}

/// The given license, else the checkpoint's; adds what is missing.
fn license(
    request: &ReleaseRequest,
    source: Option<&dyn Source>,
    missing: &mut Vec<String>,
) -> anyhow::Result<Option<License>> {
    let given = request.license.as_ref().map(super::LicenseText::read).transpose()?;
    let (card, own) = match source {
        Some(source) => (source.read_file("README.md")?.unwrap_or_default(), license_text(source)?),
        None => (Vec::new(), None),
    };
    let id = request.license_id.clone().or_else(|| license_of_card(&String::from_utf8_lossy(&card)));
    let text = given.or(own).or_else(|| {
        let is_standard = source.is_some() && id.as_deref() == Some(APACHE.0);
        is_standard.then(|| APACHE.1.as_bytes().to_vec())
    });
    if id.is_none() {
        missing
            .push("--license-id ID, such as apache-2.0: the checkpoint's card names no license".to_owned());
    }
    if text.is_none() {
        let what = match (&id, source) {
            (_, None) => {
                "the checkpoint, whose license it is, was a folder; --source FOLDER says where it is"
                    .to_owned()
            }
            (Some(id), Some(_)) => format!("the checkpoint holds no LICENSE, only its name ({id})"),
            (None, Some(_)) => "the checkpoint holds no LICENSE".to_owned(),
        };
        missing.push(format!("--license FILE: {what}"));
    }
    Ok(id.zip(text).map(|(id, text)| License { id, text }))
}

fn license_text(source: &dyn Source) -> anyhow::Result<Option<Vec<u8>>> {
    for name in LICENSE_FILES {
        if let Some(text) = source.read_file(name)? {
            return Ok(Some(text));
        }
    }
    Ok(None)
}
