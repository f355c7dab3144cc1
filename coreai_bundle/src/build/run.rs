//! The steps of a build.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use aotc::remote::RemoteOptions;
use aotc::{CompileRequest, Interrupt, Remote, Stage, Toolchain, ToolchainOptions};
use converter::decoder::Variant;
use converter::name::ModelName;
use converter::{Model, Plan};
use hub::upload::PublishTarget;
use hub::{Client, RepositoryId};
use interpreter::Rounding;
use output::WrittenFile;
use packer::manifest::{self, Manifest, ManifestKind};
use packer::verdict::Verdict;
use progress::Progress;
use report::digits;
use serde::Serialize;
use serde_json::{Value, json};

use super::recipe::{AheadOfTimeRecipe, BundleGroup};
use super::record::{EVALUATION, Record, key_of};
use super::{BuildRecipe, RELEASE_FOLDER, warnings};
use crate::convert::{self, ConversionOptions, Job, Watchers};
use crate::eval::{EvalRequest, EvalText, Limits};
use crate::options::as_options;
use crate::oracle::GivenPrompts;
use crate::origin::{Access, Opened, Opener};
use crate::outputs::{RunOptions, creation_date, default_folder, model_name};
use crate::publish;
use crate::release::{LicenseText, ReleaseRequest};
use crate::runnable::Runnable;
use crate::source::SourceSpec;
use crate::stage::RunOutcome;

/// What to build, and where.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// What to make.
    pub recipe: BuildRecipe,
    /// The checkpoint, instead of the recipe's.
    pub source: Option<String>,
    /// Folder for the outputs; [`default_folder`] otherwise.
    pub output: Option<PathBuf>,
    /// Whether to publish the release to the repository that the recipe names.
    pub publish: bool,
    /// Whether to replace outputs that no build made here.
    pub force: bool,
    /// Threads to use.
    pub threads: usize,
}

/// What a build reports to.
#[derive(Clone, Copy)]
pub struct BuildWatchers<'a> {
    /// Receives the name of each step, and notes.
    pub steps: &'a dyn Progress,
    /// Receives the progress of evaluations.
    pub work: &'a dyn Progress,
    /// Receives what conversions report.
    pub conversion: Watchers<'a>,
    /// Opens the checkpoint.
    pub opener: Opener<'a>,
}

/// How a step ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// It was done.
    Made,
    /// An earlier build had done it, with the same inputs.
    Kept,
    /// It was not done, for this reason.
    NotRun(String),
}

/// A step, or one of its outputs.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// What it makes: the name of a folder, or of the step.
    pub name: String,
    /// How it ended.
    pub state: StepState,
    /// What was measured.
    pub facts: Vec<String>,
}

/// What a build made.
#[derive(Debug, Serialize)]
pub struct BuildOutcome {
    /// Folder of the outputs.
    pub output: PathBuf,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// Folder of the release tree.
    pub release: PathBuf,
}

/// Where the release goes.
struct Publication {
    id: RepositoryId,
    private: bool,
    client: Client,
}

/// A build whose checkpoint is open.
struct Build<'a> {
    request: &'a BuildRequest,
    watchers: BuildWatchers<'a>,
    source: &'a SourceSpec,
    model: &'a Model<'a>,
    publication: Option<Publication>,
    /// Base name of outputs that have none of their own.
    name: ModelName,
    output: PathBuf,
    record: Record,
    /// What the outputs of every step depend on.
    origin: Value,
    /// The recipe for the manifest.
    recipe: Value,
    steps: Vec<Step>,
    /// Names of bundles, then of tables.
    bundles: Vec<String>,
    tables: Vec<String>,
}

impl BuildRequest {
    /// Carries the recipe out, as far as an earlier build has not.
    ///
    /// # Errors
    /// If the recipe does not fit the checkpoint, a step fails, a bundle fails its gate, or the run is cancelled.
    pub fn run(&self, watchers: BuildWatchers<'_>) -> anyhow::Result<BuildOutcome> {
        let recipe = &self.recipe;
        let source =
            self.source.as_ref().or(recipe.source.as_ref()).context(
                "the recipe names no checkpoint, as those of checkpoints in folders do in manifests: give it with --source",
            )?;
        let publication = self.publication(watchers.opener)?;
        let source = &self.spec(source)?;
        let opened = watchers.opener.open(source, self.access(source))?;
        let model = Model::open(&*opened.source)?;
        let name = model_name(self.recipe.name.as_deref(), &opened.name, &model.config)?;
        let output = self.output.clone().unwrap_or_else(|| default_folder(&name));
        let mut build = Build {
            request: self,
            watchers,
            source,
            model: &model,
            publication,
            record: Record::read(&output),
            origin: origin_of(source, &opened)?,
            recipe: self.for_manifest(&opened, &name)?,
            name,
            output,
            steps: Vec::new(),
            bundles: Vec::new(),
            tables: Vec::new(),
        };
        build.run()
    }

    /// Everything that publication needs, before minutes are spent.
    fn publication(&self, opener: Opener<'_>) -> anyhow::Result<Option<Publication>> {
        if !self.publish {
            return Ok(None);
        }
        let publish = self.recipe.publish.as_ref();
        let publish = publish.context("--publish: the recipe has no [publish] with a repository")?;
        let id = publish.id()?;
        Ok(Some(Publication { id, private: publish.private, client: publish::client(opener.cancelled)? }))
    }

    /// The checkpoint. Revisions are for repositories; a folder in the place of one is compared by its fingerprint.
    fn spec(&self, source: &str) -> anyhow::Result<SourceSpec> {
        let revision = self.recipe.revision.as_deref().filter(|_| !Path::new(source).exists());
        SourceSpec::parse(source, revision)
    }

    /// A gate and an evaluation read the checkpoint many times, so it is kept then.
    fn access(&self, source: &SourceSpec) -> Access {
        let is_kept = self.recipe.gate.is_some() || self.recipe.evaluation.is_some();
        if is_kept { Access::kept(source) } else { Access::default() }
    }

    /// The recipe with what was found out about the checkpoint, without what is private to this machine.
    fn for_manifest(&self, opened: &Opened, name: &ModelName) -> anyhow::Result<Value> {
        let identity = opened.source.identity();
        let fingerprint = opened.source.fingerprint()?.to_string();
        if let Some(expected) = self.recipe.fingerprint.as_ref().filter(|expected| **expected != fingerprint)
        {
            bail!(
                "the release was made from a checkpoint with fingerprint {expected}, this one has {fingerprint}: give that checkpoint"
            );
        }
        let mut recipe = self.recipe.clone();
        // A folder of another name makes the same bytes.
        recipe.name = Some(name.to_string());
        recipe.source.clone_from(&identity.repository);
        recipe.revision.clone_from(&identity.revision);
        recipe.fingerprint = Some(fingerprint);
        if let Some(ahead_of_time) = &mut recipe.ahead_of_time {
            ahead_of_time.ssh = None;
        }
        Ok(serde_json::to_value(recipe)?)
    }
}

impl Build<'_> {
    fn run(&mut self) -> anyhow::Result<BuildOutcome> {
        let recipe = &self.request.recipe;
        let groups = recipe.groups()?;
        let release = self.release_request(Vec::new());
        release.check(self.model.source)?;
        for warning in warnings::of_recipe(recipe, &groups, &self.model.config) {
            self.watchers.steps.note(&format!("warning: {warning}"));
        }
        self.convert(&groups)?;
        self.evaluate()?;
        self.refuse_failed()?;
        let compiled = self.compile(&groups)?;
        self.release(&compiled)?;
        self.publish()?;
        let (output, steps) = (self.output.clone(), std::mem::take(&mut self.steps));
        Ok(BuildOutcome { release: output.join(RELEASE_FOLDER), output, steps })
    }

    /// The choices of every conversion are checked before the first one is run.
    fn convert(&mut self, groups: &[BundleGroup]) -> anyhow::Result<()> {
        let (model, request) = (self.model, self.request);
        let formats = request.recipe.formats()?;
        let mut tables: Option<PathBuf> = None;
        let mut options = Vec::with_capacity(groups.len());
        for group in groups {
            let wants_tables = !group.graphs.variants(&model.config).contains(&Variant::Stock);
            let mut conversion = ConversionOptions {
                run: self.run_options(group)?,
                request: formats.request(&group.graphs, &model.config, tables.is_none())?,
                max_context: group.graphs.max_context,
                prompt_chunk: group.graphs.chunk,
                tables: tables.clone().filter(|_| wants_tables),
                gate: request
                    .recipe
                    .gate
                    .as_ref()
                    .map(|gate| GivenPrompts { texts: gate.prompts.clone(), ..GivenPrompts::default() }),
                has_report: true,
                allow_no_template: false,
            };
            conversion.run.typed =
                as_options(&formats, &group.graphs, &group.graphs.variant_names(&model.config));
            if conversion.request.tables {
                tables = Some(self.output.join(conversion.run.name.tables()));
            }
            options.push(conversion);
        }
        let plans = options.iter().map(|conversion| model.plan(&conversion.request));
        let plans = plans.collect::<Result<Vec<_>, _>>()?;
        for (conversion, plan) in options.iter_mut().zip(plans) {
            self.convert_one(conversion, plan)?;
        }
        Ok(())
    }

    fn convert_one(&mut self, conversion: &mut ConversionOptions, plan: Plan) -> anyhow::Result<()> {
        let names = convert::names(&plan, &conversion.run.name);
        let step = format!("convert {}", names.join(" "));
        let recipe = &self.request.recipe;
        let key = key_of(&json!({
            "origin": self.origin,
            "options": conversion.run.typed,
            "tables": conversion.tables,
            "gate": recipe.gate,
            "evaluation": recipe.evaluation,
        }));
        let is_kept = self.record.finished(&step, &key)?.is_some_and(|found| found.len() == names.len());
        if !is_kept {
            self.watchers.steps.begin(&step);
            conversion.run.force |=
                names.iter().all(|name| !self.output.join(name).exists() || self.record.knows(name));
            // What a run over a commit had finished is taken over; there may be nothing.
            conversion.run.resume = self.model.source.identity().revision.is_some();
            let job = Job::of_plan(conversion, self.model, plan)?;
            if let RunOutcome::Made(finished) = job.run(self.watchers.conversion)? {
                job.write_report(&finished)
                    .context("the outputs are complete, but their report could not be written")?;
            }
            self.record.finish(&step, key, &names)?;
        }
        let state = if is_kept { StepState::Kept } else { StepState::Made };
        for name in names {
            self.steps.push(Step { name: name.clone(), state: state.clone(), facts: Vec::new() });
            let manifest = Manifest::read(&self.output.join(&name))?;
            let is_bundle = manifest.kind == ManifestKind::Bundle;
            if is_bundle { self.bundles.push(name) } else { self.tables.push(name) }
        }
        Ok(())
    }

    /// Measures the bundles on the text, and puts the figures into their manifests.
    fn evaluate(&mut self) -> anyhow::Result<()> {
        let Some(evaluation) = &self.request.recipe.evaluation else {
            self.not_run("evaluation", "the recipe has no [evaluation]");
            return Ok(());
        };
        let key = key_of(&json!({
            "origin": self.origin, "evaluation": evaluation, "bundles": self.bundles,
        }));
        if self.record.finished(EVALUATION, &key)?.is_some() {
            return Ok(());
        }
        self.watchers.steps.begin(EVALUATION);
        let runnable = |name: &String| Runnable {
            bundle: self.output.join(name),
            tables: None,
            rounding: Rounding::Once,
            chunk: None,
        };
        let text = evaluation.text.as_ref().map(|content| EvalText::Given {
            name: evaluation.text_name.clone().unwrap_or_else(|| "the recipe's text".to_owned()),
            content: content.clone(),
        });
        let request = EvalRequest {
            bundles: self.bundles.iter().map(runnable).collect(),
            text,
            window: evaluation.window.map(NonZeroUsize::get),
            limit: evaluation.limit.map(NonZeroUsize::get),
            threads: self.request.threads,
            ..EvalRequest::default()
        };
        let found = request.run(Some(self.model.source), Limits::default(), self.watchers.work)?;
        found.record(&request)?;
        self.record.complete(EVALUATION, key, &self.bundles)
    }

    /// A release of bundles that disagree with their checkpoint is of no use.
    fn refuse_failed(&mut self) -> anyhow::Result<()> {
        let mut failed = Vec::new();
        for step in &mut self.steps {
            let folder = self.output.join(&step.name);
            if !matches!(step.state, StepState::Made | StepState::Kept) {
                continue;
            }
            let manifest = Manifest::read(&folder)?;
            step.facts = facts(&manifest);
            if Verdict::of(&manifest.gate).is_some_and(|verdict| !verdict.passed) {
                failed.push(step.name.clone());
            }
        }
        if !failed.is_empty() {
            bail!(
                "not released: {} failed the gate; `coreai-bundle gate` looks for causes",
                failed.join(", ")
            );
        }
        Ok(())
    }

    /// Compiles the bundles ahead of time, where there is a compiler; returns the folders that were made.
    fn compile(&mut self, groups: &[BundleGroup]) -> anyhow::Result<Vec<PathBuf>> {
        /// What the step is called.
        const NAME: &str = "ahead of time";
        let Some(wanted) = &self.request.recipe.ahead_of_time else {
            self.not_run(NAME, "the recipe has no [ahead-of-time]");
            return Ok(Vec::new());
        };
        let interrupt = Interrupt::watching(self.watchers.opener.cancelled);
        let architectures = wanted.known_architectures()?;
        let toolchain = match &wanted.ssh {
            Some(_) => None,
            None => match Toolchain::find(&ToolchainOptions::default(), &interrupt) {
                Ok(found) => Some(found),
                Err(aotc::Error::Interrupted) => bail!(aotc::Error::Interrupted),
                Err(_) => {
                    let reason = format!(
                        "it needs Xcode: run this on a Mac, or give `ssh` in the recipe; `coreai-bundle aotc BUNDLE --arch {} --script FILE` \
                         writes a script for a Mac",
                        wanted.architectures.join(" --arch ")
                    );
                    self.not_run(NAME, &reason);
                    return Ok(Vec::new());
                }
            },
        };
        let mut made = Vec::new();
        for bundle in self.bundles_to_compile(groups, wanted) {
            self.watchers.steps.begin(&format!("{NAME} {bundle}"));
            let stage = Stage::open(CompileRequest {
                keep_prefill: wanted.keep_prefill,
                ..CompileRequest::new(self.output.join(&bundle), architectures.clone())
            })?;
            let outcome = match (&toolchain, &wanted.ssh) {
                (Some(found), _) => stage.run(&mut found.clone(), &interrupt, self.watchers.steps),
                (None, host) => {
                    let options = RemoteOptions::new(host.as_deref().unwrap_or_default());
                    let mut remote = Remote::connect(options, stage.source(), false, &interrupt)?;
                    stage.run(&mut remote, &interrupt, self.watchers.steps)
                }
            };
            if let Some((_, error)) = outcome.failure {
                return Err(error.into());
            }
            for sibling in outcome.siblings {
                let name = sibling.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let state = if sibling.compiled_in.is_some() { StepState::Made } else { StepState::Kept };
                let facts = facts(&Manifest::read(&sibling.path)?);
                self.steps.push(Step { name, state, facts });
                made.push(sibling.path);
            }
        }
        Ok(made)
    }

    /// Names of the bundles whose variants are compiled. Bundles are made in the order of the groups and their variants.
    fn bundles_to_compile(&self, groups: &[BundleGroup], wanted: &AheadOfTimeRecipe) -> Vec<String> {
        let variants = groups.iter().flat_map(|group| group.graphs.variants(&self.model.config));
        let is_wanted = |variant: Variant| {
            wanted.variants.as_ref().is_none_or(|names| names.iter().any(|name| *name == variant.name()))
        };
        let chosen = self.bundles.iter().zip(variants).filter(|(_, variant)| is_wanted(*variant));
        chosen.map(|(name, _)| name.clone()).collect()
    }

    fn run_options(&self, group: &BundleGroup) -> anyhow::Result<RunOptions> {
        let own = group.name.as_deref();
        Ok(RunOptions {
            source: self.source.clone(),
            output: self.output.clone(),
            name: own
                .map_or_else(|| Ok(self.name.clone()), |own| model_name(Some(own), "", &self.model.config))?,
            resume: false,
            force: self.request.force,
            threads: self.request.threads,
            typed: BTreeMap::new(),
        })
    }

    fn release_request(&self, folders: Vec<PathBuf>) -> ReleaseRequest {
        let release = &self.request.recipe.release;
        ReleaseRequest {
            folders,
            output: self.output.join(RELEASE_FOLDER),
            source: Some(self.source_at_commit()),
            base_model: release
                .base_model
                .clone()
                .or_else(|| self.model.source.identity().repository.clone()),
            license: release.license_text.clone().map(LicenseText::Text),
            license_id: release.license_id.clone(),
            force: self.request.force || self.record.knows(RELEASE_FOLDER),
            recipe: self.recipe.clone(),
        }
    }

    /// The repository at the commit that was converted, or the folder.
    fn source_at_commit(&self) -> SourceSpec {
        match self.source {
            SourceSpec::Repository { id, .. } => {
                let revision = self.model.source.identity().revision.clone();
                SourceSpec::Repository { id: id.clone(), revision }
            }
            SourceSpec::Local(path) => SourceSpec::Local(path.clone()),
        }
    }

    fn release(&mut self, compiled: &[PathBuf]) -> anyhow::Result<()> {
        let own = self.bundles.iter().chain(&self.tables).map(|name| self.output.join(name));
        let folders: Vec<PathBuf> = own.chain(compiled.iter().cloned()).collect();
        let digests = folders.iter().map(|folder| {
            let manifest = WrittenFile::of(&folder.join(manifest::FILE_NAME))?;
            Ok(manifest.digest.to_string())
        });
        let digests =
            digests.collect::<io::Result<Vec<_>>>().context("cannot read the manifests of the bundles")?;
        let key = key_of(&json!({"origin": self.origin, "members": digests, "recipe": self.recipe}));
        let is_kept = self.record.finished(RELEASE_FOLDER, &key)?.is_some();
        if !is_kept {
            self.watchers.steps.begin(RELEASE_FOLDER);
            let request = self.release_request(folders);
            request.make(self.watchers.conversion.render, self.watchers.opener)?;
            self.record.finish(RELEASE_FOLDER, key, &[RELEASE_FOLDER.to_owned()])?;
        }
        let manifest = Manifest::read(&self.output.join(RELEASE_FOLDER))?;
        let state = if is_kept { StepState::Kept } else { StepState::Made };
        self.steps.push(Step { name: RELEASE_FOLDER.to_owned(), state, facts: facts(&manifest) });
        Ok(())
    }

    fn publish(&mut self) -> anyhow::Result<()> {
        /// What the step is called.
        const NAME: &str = "publish";
        let Some(publish) = &self.request.recipe.publish else {
            self.not_run(NAME, "the recipe has no [publish]");
            return Ok(());
        };
        let folder = self.output.join(RELEASE_FOLDER);
        let Some(Publication { id, private, client }) = &self.publication else {
            let reason = format!("--publish sends {} to {}", folder.display(), publish.repository);
            self.not_run(NAME, &reason);
            return Ok(());
        };
        self.watchers.steps.begin(NAME);
        let checked = publish::Checked::new(&folder, self.watchers.conversion.render)?;
        let target = PublishTarget {
            id,
            revision: "main",
            private: *private,
            pull_request: false,
            message: &checked.message,
        };
        let comparison = checked.compare(client, &target)?;
        let published = checked.send(client, &target, &comparison, self.watchers.conversion.bytes)?;
        let fact = match published.commit {
            Some(commit) => format!("{id} at commit {commit}"),
            None => format!("{id} has every file already"),
        };
        self.steps.push(Step { name: NAME.to_owned(), state: StepState::Made, facts: vec![fact] });
        Ok(())
    }

    fn not_run(&mut self, name: &str, reason: &str) {
        let state = StepState::NotRun(reason.to_owned());
        self.steps.push(Step { name: name.to_owned(), state, facts: Vec::new() });
    }
}

/// What the outputs depend on besides the recipe: the checkpoint's bytes, by commit or by the state of its files, and the date that
/// outputs carry.
fn origin_of(source: &SourceSpec, opened: &Opened) -> anyhow::Result<Value> {
    let identity = opened.source.identity();
    let files = source.path().map(|folder| stamps(folder).with_context(|| format!("cannot read {source}")));
    let files = files.transpose()?.unwrap_or_default();
    Ok(json!({
        "repository": identity.repository,
        "revision": identity.revision,
        "fingerprint": opened.source.fingerprint()?.to_string(),
        "files": files,
        "date": creation_date()?,
    }))
}

/// Name, size and time of the last change of each file of a folder.
fn stamps(folder: &Path) -> io::Result<Vec<(String, u64, i64, i64)>> {
    let mut stamps = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = fs::metadata(entry.path())?;
        if metadata.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            stamps.push((name, metadata.len(), metadata.mtime(), metadata.mtime_nsec()));
        }
    }
    stamps.sort();
    Ok(stamps)
}

/// What a manifest says was measured.
fn facts(manifest: &Manifest) -> Vec<String> {
    let mut facts = vec![digits::bytes(manifest.files.iter().map(|file| file.size).sum())];
    facts.extend(Verdict::of(&manifest.gate).map(|verdict| format!("gate {verdict}")));
    let evaluation = &manifest.evaluation;
    if let Some(kl) = evaluation["mean_kl"].as_f64() {
        facts.push(format!("mean KL {}", digits::nats(kl)));
    }
    let agreement = &evaluation["agreement"];
    if let (Some(agreed), Some(of)) = (agreement["agreed"].as_u64(), agreement["of"].as_u64()) {
        facts.push(format!("agreement {}", digits::percent(agreed, of)));
    }
    facts
}
