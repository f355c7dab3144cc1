//! What a release is made from, as a file: a recipe that a user wrote, or the one that a release's manifest holds.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use aotc::{Architecture, Platform};
use checkpoint::config::CacheForm;
use converter::decoder::Variant;
use hub::RepositoryId;
use packer::manifest::{self, Manifest, ManifestKind};
use quantizer::Int4Rule;
use serde::{Deserialize, Serialize};
use text::small;

use crate::options::{
    DEFAULT_CONTEXT, Embedding, Formats, GraphChoice, Head, Main, PerLayer, PrefillChoice, TensorFormat,
    Weights, variant_named,
};
use crate::runnable::DEFAULT_CHUNK;

/// Most bundles of a release.
const MOST_BUNDLES: usize = 64;
/// Most bytes of a text that is kept in the manifest.
const MAX_TEXT: u64 = 1 << 20;

/// What to make of a checkpoint. Texts that a recipe names as files are part of the value once it was read, so that the manifest that
/// holds it is enough to make the same bytes again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BuildRecipe {
    /// Repository of the Hub, or folder. Absent in manifests of releases from a folder of unknown origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Branch, tag or commit; in manifests always the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Fingerprint of the checkpoint, in manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Base name of the outputs, instead of one made from the checkpoint's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How the weights are stored.
    #[serde(default)]
    pub formats: FormatsRecipe,
    /// How some of the projections are stored instead; the first that matches counts.
    #[serde(default, rename = "format", skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<TensorFormatRecipe>,
    /// The bundles.
    #[serde(default, rename = "bundle")]
    pub bundles: Vec<BundleRecipe>,
    /// Whether and how the bundles are compared with the checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateRecipe>,
    /// Whether and how their distance from the checkpoint is measured on a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<EvaluationRecipe>,
    /// What is compiled ahead of time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ahead_of_time: Option<AheadOfTimeRecipe>,
    /// The card and the license.
    #[serde(default)]
    pub release: ReleaseRecipe,
    /// Where the release may be published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<PublishRecipe>,
}

/// Formats by role.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct FormatsRecipe {
    /// Of projections.
    pub weights: Weights,
    /// Of 4-bit codes.
    pub rule: Int4Rule,
    /// Of the head.
    pub head: Head,
    /// How tokens are looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding: Option<Embedding>,
    /// Of the per-layer table of stock graphs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_layer: Option<PerLayer>,
}

/// A format for some of the projections.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TensorFormatRecipe {
    /// A role (`head`, `attention`, `mlp`, `per-layer`) or a name with wildcards.
    pub tensors: String,
    /// Their format.
    pub weights: Weights,
    /// Their rule for 4-bit codes, if it is not that of the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Int4Rule>,
}

/// A bundle.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BundleRecipe {
    /// `provider`, `tbl` or `stock`.
    pub variant: String,
    /// Base name, where two bundles of a release would have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Positions that the caches may grow to.
    #[serde(default = "default_context")]
    pub max_context: u64,
    /// `padded` or `split`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
    /// Tokens that main takes at a time.
    #[serde(default)]
    pub main: Main,
    /// Function that reads prompts.
    #[serde(default)]
    pub prefill: PrefillChoice,
    /// Tokens of a prompt that the engine should read at a time.
    #[serde(default = "default_chunk")]
    pub prefill_chunk: NonZeroUsize,
}

/// Comparison with the checkpoint.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct GateRecipe {
    /// Texts to continue; the default ones if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<String>,
    /// A file with a text on each line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompts_file: Option<PathBuf>,
}

/// Measurement on a text.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct EvaluationRecipe {
    /// The text; the one that comes with the tool if it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// A file of text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_file: Option<PathBuf>,
    /// What the text is called in the card.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_name: Option<String>,
    /// Tokens of a window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<NonZeroUsize>,
    /// Tokens to measure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<NonZeroUsize>,
}

/// Compilation ahead of time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AheadOfTimeRecipe {
    /// Architectures such as `h18p`.
    pub architectures: Vec<String>,
    /// Variants that are compiled; all if it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variants: Option<Vec<String>>,
    /// A Mac that is reached over ssh; this machine otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<String>,
    /// Whether the prefill function is compiled for iOS too.
    #[serde(default)]
    pub keep_prefill: bool,
}

/// Card and license.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ReleaseRecipe {
    /// Repository that the card names as the base model; the source otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
    /// Identifier of the license in cards; the one in the checkpoint's card otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license_id: Option<String>,
    /// Text of the license; the checkpoint's otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license_text: Option<String>,
    /// A file with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license_file: Option<PathBuf>,
}

/// Publication on the Hub.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PublishRecipe {
    /// `USER/NAME`.
    pub repository: String,
    /// Whether a new repository is private.
    #[serde(default)]
    pub private: bool,
}

impl PublishRecipe {
    /// The repository.
    pub(super) fn id(&self) -> anyhow::Result<RepositoryId> {
        Ok(RepositoryId::new(&self.repository)?)
    }
}

impl AheadOfTimeRecipe {
    /// The architectures.
    pub(super) fn known_architectures(&self) -> anyhow::Result<Vec<Architecture>> {
        let known = self.architectures.iter().map(|name| Architecture::known(name, Platform::Ios));
        Ok(known.collect::<Result<_, _>>()?)
    }
}

fn default_context() -> u64 {
    DEFAULT_CONTEXT
}

fn default_chunk() -> NonZeroUsize {
    DEFAULT_CHUNK
}

/// Bundles that one conversion makes: they differ in their variant alone.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct BundleGroup {
    pub(super) name: Option<String>,
    pub(super) graphs: GraphChoice,
}

impl BuildRecipe {
    /// Reads a recipe, or the one in a release's manifest. Files that it names are read too; their paths are relative to it.
    ///
    /// # Errors
    /// If it cannot be read, is neither, or contradicts itself.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let of_folder = path.is_dir().then(|| path.join(manifest::FILE_NAME));
        let file = of_folder.as_deref().unwrap_or(path);
        if of_folder.as_ref().is_some_and(|manifest| !manifest.exists()) {
            bail!(
                "{shown} holds no manifest.json: give a recipe, or a release that `coreai-bundle build` made"
            );
        }
        let content = small::read_text(file, small::JSON).with_context(|| format!("cannot read {shown}"))?;
        let mut recipe = match content.trim_start().starts_with('{') {
            true => Self::of_manifest(file)?,
            false => parse(&content).with_context(|| format!("{shown} is not a recipe"))?,
        };
        recipe.read_files(file.parent().unwrap_or(Path::new("")))?;
        recipe.check().with_context(|| format!("{shown} cannot be built"))?;
        Ok(recipe)
    }

    fn of_manifest(file: &Path) -> anyhow::Result<Self> {
        if file.file_name() != Some(manifest::FILE_NAME.as_ref()) {
            bail!("{} is JSON: give a recipe in TOML, or the manifest.json of a release", file.display());
        }
        let folder = file.parent().unwrap_or(Path::new(""));
        let found = Manifest::read(folder)?;
        if found.kind != ManifestKind::Release || found.recipe.is_null() {
            bail!(
                "{} holds no recipe: only releases that `coreai-bundle build` made can be made again from their manifest",
                file.display()
            );
        }
        serde_json::from_value(found.recipe)
            .with_context(|| format!("the recipe in {} is not one of this version", file.display()))
    }

    /// Replaces names of files by what is in them, and finds the checkpoint's folder if it is relative to the recipe.
    fn read_files(&mut self, base: &Path) -> anyhow::Result<()> {
        if let Some(source) = &mut self.source
            && base.join(&*source).is_dir()
            && let Some(path) = base.join(&*source).to_str()
        {
            path.clone_into(source);
        }
        let read = |path: &Path| {
            let path = base.join(path);
            small::read_text(&path, MAX_TEXT).with_context(|| format!("cannot read {}", path.display()))
        };
        if let Some(gate) = &mut self.gate
            && let Some(path) = gate.prompts_file.take()
        {
            only_one(gate.prompts.is_empty(), "gate.prompts", "prompts-file")?;
            let content = read(&path)?;
            gate.prompts.extend(content.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
            if gate.prompts.is_empty() {
                bail!("{}: there is no prompt in it", path.display());
            }
        }
        if let Some(evaluation) = &mut self.evaluation
            && let Some(path) = evaluation.text_file.take()
        {
            only_one(evaluation.text.is_none(), "evaluation.text", "text-file")?;
            evaluation.text = Some(read(&path)?);
            let name = || path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            evaluation.text_name.get_or_insert_with(name);
        }
        if let Some(path) = self.release.license_file.take() {
            only_one(self.release.license_text.is_none(), "release.license-text", "license-file")?;
            self.release.license_text = Some(read(&path)?);
        }
        Ok(())
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.bundles.len() > MOST_BUNDLES {
            bail!("it lists {} bundles: a release has at most {MOST_BUNDLES}", self.bundles.len());
        }
        if self.release.license_text.is_some() && self.release.license_id.is_none() {
            bail!("release.license-file needs release.license-id: cards name the license");
        }
        self.publish.as_ref().map(PublishRecipe::id).transpose()?;
        self.ahead_of_time.as_ref().map(AheadOfTimeRecipe::known_architectures).transpose()?;
        self.formats()?;
        let mut seen = Vec::new();
        for bundle in &self.bundles {
            bundle.graphs()?;
            let place = (&bundle.variant, &bundle.name, bundle.cache.as_deref().unwrap_or("padded"));
            if seen.contains(&place) {
                bail!("two bundles are {}: give one of them a name", bundle.variant);
            }
            seen.push(place);
        }
        Ok(())
    }

    /// How the weights are stored.
    pub(super) fn formats(&self) -> anyhow::Result<Formats> {
        let given = &self.formats;
        let overrides = self.overrides.iter().map(|given| {
            if given.rule.is_some() && given.weights != Weights::Int4 {
                bail!("format {:?}: only int4 has rules", given.tensors);
            }
            Ok(TensorFormat { tensors: given.tensors.parse()?, weights: given.weights, rule: given.rule })
        });
        Ok(Formats {
            weights: given.weights,
            rule: given.rule,
            head: given.head,
            embedding: given.embedding,
            per_layer: given.per_layer,
            overrides: overrides.collect::<anyhow::Result<_>>()?,
        })
    }

    /// The bundles, by the conversions that make them. A recipe without bundles asks for the model's default one.
    pub(super) fn groups(&self) -> anyhow::Result<Vec<BundleGroup>> {
        let mut groups: Vec<BundleGroup> = Vec::new();
        for bundle in &self.bundles {
            let graphs = bundle.graphs()?;
            let name = bundle.name.clone();
            let is_alike = |group: &&mut BundleGroup| {
                let alone = [&group.graphs, &graphs].iter().any(|one| one.variants.contains(&Variant::Stock));
                let variants = group.graphs.variants.clone();
                !alone && group.name == name && group.graphs == GraphChoice { variants, ..graphs.clone() }
            };
            match groups.iter_mut().find(is_alike) {
                Some(group) => group.graphs.variants.extend(graphs.variants),
                None => groups.push(BundleGroup { name, graphs }),
            }
        }
        if groups.is_empty() {
            groups.push(BundleGroup { name: None, graphs: GraphChoice::default() });
        }
        Ok(groups)
    }
}

impl BundleRecipe {
    fn graphs(&self) -> anyhow::Result<GraphChoice> {
        let caches = match self.cache.as_deref() {
            None => CacheForm::default(),
            Some(name) => CacheForm::ALL
                .into_iter()
                .find(|form| form.name() == name)
                .with_context(|| format!("cache {name:?}: give padded or split"))?,
        };
        Ok(GraphChoice {
            variants: vec![variant_named(&self.variant)?],
            caches,
            main: self.main,
            prefill: self.prefill,
            chunk: self.prefill_chunk,
            max_context: self.max_context,
        })
    }
}

/// Refuses a text that is given twice.
fn only_one(is_alone: bool, given: &str, file: &str) -> anyhow::Result<()> {
    if !is_alone {
        bail!("{given} and {file} say the same: give one of them");
    }
    Ok(())
}

/// Parses a recipe. A key that does not exist is answered with the nearest one that does.
fn parse(content: &str) -> anyhow::Result<BuildRecipe> {
    let error = match toml::from_str::<BuildRecipe>(content) {
        Ok(recipe) if recipe.fingerprint.is_some() => {
            bail!("fingerprint is a key of manifests: leave it out")
        }
        Ok(recipe) => return Ok(recipe),
        Err(error) => error,
    };
    let place = error.span().map(|span| {
        let before = content.get(..span.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        format!("line {line}: ")
    });
    let message = &error.message().trim_end().replace("a nonzero usize", "a whole number above 0");
    let hint = nearest(message).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
    bail!("{}{message}{hint}", place.unwrap_or_default())
}

/// The name nearest to an unknown one, by the words in which serde reports it: the unknown name and those expected are in backquotes.
fn nearest(message: &str) -> Option<&str> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next().filter(|_| message.starts_with("unknown "))?;
    let rated = quoted.map(|name| (strsim::jaro_winkler(unknown, name), name));
    let (rating, name) = rated.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (rating > 0.75).then_some(name)
}
