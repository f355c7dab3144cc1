//! `coreai-bundle aotc`: compiles a bundle ahead of time, here, on another Mac, or by somebody else.

use coreai_bundle::parts::aotc;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{ArgAction, Args};
use coreai_bundle::contents;
use coreai_bundle::doctor::{self, DoctorOptions};
use coreai_bundle::outputs::creation_date;
use coreai_bundle::parts::aotc::remote::RemoteOptions;
use coreai_bundle::parts::aotc::report::CompileReport;
use coreai_bundle::parts::aotc::workflow::{DEFAULT_RUNNER, Workflow};
use coreai_bundle::parts::aotc::{
    Architecture, CompileRequest, CompileSettings, Compiler, Device, Existing, Interrupt, MinimumOs,
    PlannedSibling, Platform, PreferredCompute, Remote, Sibling, Stage, Toolchain, ToolchainOptions,
};
use coreai_bundle::parts::output::StagedFile;
use coreai_bundle::parts::packer::replace::{FileKind, Output, Outputs};
use coreai_bundle::parts::paths::archive_of;
use serde_json::{Value, json};

use crate::progress::Lines;
use crate::{digits, interrupt, terminal};

/// Compile a bundle ahead of time for a device's architecture
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coreai-bundle aotc out/gemma4_e4b_qat_decode_int4lin --arch h18p
  coreai-bundle aotc out/gemma4_e4b_qat_decode_int4lin --arch h18p --ssh me@my-mac.local")]
pub(crate) struct Arguments {
    /// Bundle with a portable graph
    bundle: PathBuf,
    /// Architecture to compile for, such as h18p; may be repeated
    #[arg(long = "arch", value_name = "NAME")]
    architectures: Vec<String>,
    /// Device to compile for, such as iPhone18,1; may be repeated
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<String>,
    /// Operating system of the device: ios or macos
    #[arg(long, default_value = "ios")]
    platform: Platform,
    /// Oldest version of it that can run the artifact
    #[arg(long, value_name = "VERSION", default_value = "27.0")]
    min_os: MinimumOs,
    /// Compute unit that the compiler prefers: gpu, neural-engine or none
    #[arg(long, value_name = "UNIT", default_value = "gpu")]
    preferred_compute: PreferredCompute,
    /// Tell the compiler that shapes change at every step, as they do in these graphs
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true", require_equals = true)]
    expect_frequent_reshapes: bool,
    /// Compile the prefill function for iOS too; it is left out otherwise, since it was reported to crash on betas of iOS 27
    #[arg(long)]
    keep_prefill: bool,
    /// Folder to put the compiled bundles into [default: that of the bundle]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Longest time for one architecture
    #[arg(long, value_name = "SECONDS", default_value_t = aotc::DEFAULT_TIMEOUT.as_secs())]
    timeout: u64,
    /// Keep the compiler's output in this file
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Write a report for an issue, whether it works or not
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The xcrun to use, on the Mac that compiles
    #[arg(long, value_name = "PATH")]
    xcrun: Option<PathBuf>,
    /// The Xcode to use (DEVELOPER_DIR), on the Mac that compiles
    #[arg(long, value_name = "DIR")]
    developer_dir: Option<PathBuf>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Accept unknown architectures, replace other bundles and scripts of this tool, and ignore the estimate of disk space
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    elsewhere: Elsewhere,
}

/// Ways to compile without a compiler on this machine. At most one.
#[derive(Debug, Args)]
#[command(next_help_heading = "Without Xcode on this machine")]
struct Elsewhere {
    /// Print the commands to run on a Mac
    #[arg(long, group = "elsewhere")]
    print: bool,
    /// Write a script for a Mac that checks its own work; - prints it
    #[arg(long, value_name = "FILE", group = "elsewhere")]
    script: Option<PathBuf>,
    /// Make the compiled bundle from an artifact that was compiled elsewhere
    #[arg(long, value_name = "X.ARCH.aimodelc", group = "elsewhere")]
    artifact: Option<PathBuf>,
    /// Compile on this Mac, over ssh with a key
    #[arg(long, value_name = "HOST", group = "elsewhere")]
    ssh: Option<String>,
    /// Configuration file for ssh
    #[arg(long, value_name = "FILE", requires = "ssh")]
    ssh_config: Option<PathBuf>,
    /// Folder on that Mac to work in [default: .cache/coreai-bundle/aotc]
    #[arg(long, value_name = "DIR", requires = "ssh")]
    ssh_directory: Option<String>,
    /// Write a workflow that compiles a published bundle on a hosted Mac; - prints it
    #[arg(long, value_name = "FILE", group = "elsewhere", requires = "repo_id")]
    github_workflow: Option<PathBuf>,
    /// Hub repository that the workflow reads and writes
    #[arg(long, value_name = "USER/NAME", requires = "github_workflow")]
    repo_id: Option<String>,
    /// Label of the hosted Mac
    #[arg(long, value_name = "LABEL", requires = "github_workflow", default_value = DEFAULT_RUNNER)]
    runner: String,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::watching(interrupt::asked);
    let elsewhere = &arguments.elsewhere;
    let stage = Stage::open(request(arguments)?)?;
    for stray in &stage.source().strays {
        let bundle = stage.source().path.display();
        terminal::tell(format!(
            "warning: {bundle} holds {stray}, which its manifest does not list: it is left out"
        ));
    }
    // Up to here a signal can simply end the process.
    interrupt::listen()?;
    if elsewhere.print {
        print(&aotc::script::commands(&stage)?)?;
    } else if let Some(file) = &elsewhere.script {
        write(file, &aotc::script::script(&stage)?, 0o755, arguments.outputs().file(FileKind::Script))?;
    } else if let Some(file) = &elsewhere.github_workflow {
        write(file, &workflow(arguments, &stage)?, 0o644, arguments.outputs().file(FileKind::Script))?;
    } else if let Some(artifact) = &elsewhere.artifact {
        result(&[stage.adopt(artifact)?])?;
    } else if arguments.dry_run {
        note_left_out(&stage);
        plan(arguments, &stage, &interrupt)?;
    } else {
        note_left_out(&stage);
        compile(arguments, &stage, &interrupt)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn outputs(&self) -> Outputs {
        let inputs = [&self.elsewhere.artifact, &self.elsewhere.ssh_config].into_iter().flatten();
        Outputs::new(inputs.chain([&self.bundle]), self.force)
    }
}

fn request(arguments: &Arguments) -> anyhow::Result<CompileRequest> {
    let architecture = |name: &String| match arguments.force {
        true => Architecture::unchecked(name),
        false => Architecture::known(name, arguments.platform),
    };
    let mut architectures =
        arguments.architectures.iter().map(architecture).collect::<Result<Vec<_>, _>>()?;
    for name in &arguments.devices {
        architectures.push(Device::find(name)?.architecture());
    }
    let settings = CompileSettings {
        platform: arguments.platform,
        minimum_os: arguments.min_os.clone(),
        preferred_compute: arguments.preferred_compute,
        expect_frequent_reshapes: arguments.expect_frequent_reshapes,
    };
    let bundle = contents::one_bundle(&arguments.bundle)?;
    if let Some(archive) = archive_of(&bundle) {
        bail!("{} is in an archive, where no compiler reads: unpack {}", bundle.display(), archive.display());
    }
    // Unless a date is given, siblings carry none: equal inputs make equal bytes.
    let dated = std::env::var_os("SOURCE_DATE_EPOCH").is_some();
    let date = dated.then(creation_date).transpose()?;
    Ok(CompileRequest {
        output: arguments.output.clone(),
        settings,
        keep_prefill: arguments.keep_prefill,
        timeout: Duration::from_secs(arguments.timeout),
        force: arguments.force,
        log: arguments.log.clone(),
        date,
        ..CompileRequest::new(bundle, architectures)
    })
}

fn toolchain_options(arguments: &Arguments) -> ToolchainOptions {
    ToolchainOptions { xcrun: arguments.xcrun.clone(), developer_dir: arguments.developer_dir.clone() }
}

fn remote(arguments: &Arguments, host: &str, stage: &Stage, interrupt: &Interrupt) -> anyhow::Result<Remote> {
    let text = |path: &Option<PathBuf>| match path {
        Some(path) => {
            path.to_str().map(|text| Some(text.to_owned())).context("a path of the Mac is not UTF-8")
        }
        None => Ok(None),
    };
    let mut options = RemoteOptions::new(host);
    options.ssh_config = arguments.elsewhere.ssh_config.clone();
    options.xcrun = text(&arguments.xcrun)?;
    options.developer_dir = text(&arguments.developer_dir)?;
    if let Some(directory) = &arguments.elsewhere.ssh_directory {
        options.directory.clone_from(directory);
    }
    Ok(Remote::connect(options, stage.source(), arguments.force, interrupt)?)
}

fn note_left_out(stage: &Stage) {
    if stage.leaves_out_prefill() {
        terminal::tell(
            "note: the prefill function is left out: functions that take several tokens were reported to crash on betas of \
             iOS 27; --keep-prefill compiles it",
        );
    }
}

/// Compiles, and writes the report if one was asked for, even about a failure.
fn compile(arguments: &Arguments, stage: &Stage, interrupt: &Interrupt) -> anyhow::Result<()> {
    let Some(file) = &arguments.report else { return compile_with(arguments, stage, interrupt, None) };
    let output = arguments.outputs().file(FileKind::CompileReport).always();
    StagedFile::check(file, output.clone())?;
    let checks = doctor::examine(&doctor_options(arguments), interrupt)?;
    let mut report = CompileReport::new(checks, interrupt)?;
    let done = compile_with(arguments, stage, interrupt, Some(&mut report));
    if let Some(error) = done.as_ref().err().and_then(|error| error.downcast_ref()) {
        report.add_error(error);
    }
    let home = std::env::home_dir();
    write(file, &report.to_json(home.as_deref())?, 0o644, output)?;
    done
}

fn doctor_options(arguments: &Arguments) -> DoctorOptions {
    DoctorOptions {
        toolchain: toolchain_options(arguments),
        output: arguments.output.clone().unwrap_or_else(|| arguments.bundle.clone()),
        python: None,
    }
}

fn compile_with(
    arguments: &Arguments,
    stage: &Stage,
    interrupt: &Interrupt,
    report: Option<&mut CompileReport>,
) -> anyhow::Result<()> {
    let outcome = match &arguments.elsewhere.ssh {
        Some(host) => {
            let mut remote = remote(arguments, host, stage, interrupt)?;
            stage.run(&mut remote, interrupt, &Lines)
        }
        None => {
            let mut toolchain = Toolchain::find(&toolchain_options(arguments), interrupt)?;
            stage.run(&mut toolchain, interrupt, &Lines)
        }
    };
    if let Some(report) = report {
        if let Ok(toolchain) = Toolchain::find(&toolchain_options(arguments), interrupt) {
            report.add_toolchain(&toolchain, interrupt)?;
        }
        report.add_outcome(stage, &outcome);
    }
    result(&outcome.siblings)?;
    match outcome.failure {
        Some((_, error)) => Err(error.into()),
        None => Ok(()),
    }
}

/// Prints the siblings that exist now.
fn result(siblings: &[Sibling]) -> anyhow::Result<()> {
    if terminal::is_json() {
        let siblings: Vec<Value> = siblings.iter().map(in_json).collect();
        return Ok(terminal::print_json(&json!({ "bundles": siblings }))?);
    }
    let mut text = String::new();
    for sibling in siblings {
        text.push_str(&format!("{}\n", sibling.path.display()));
    }
    print(&text)
}

fn in_json(sibling: &Sibling) -> Value {
    json!({
        "path": sibling.path,
        "architecture": sibling.architecture.as_str(),
        "seconds": sibling.compiled_in.map(|time| time.as_secs_f64()),
        "bytes": sibling.artifact.as_ref().map(|artifact| artifact.bytes),
        "program_sha256": sibling.artifact.as_ref().map(|artifact| artifact.program_sha256),
    })
}

fn plan(arguments: &Arguments, stage: &Stage, interrupt: &Interrupt) -> anyhow::Result<()> {
    let (version, hint) = match &arguments.elsewhere.ssh {
        Some(host) => (remote(arguments, host, stage, interrupt)?.version().to_owned(), None),
        None => match Toolchain::find(&toolchain_options(arguments), interrupt) {
            Ok(found) => (found.version, None),
            Err(error @ (aotc::Error::NoXcrun { .. } | aotc::Error::NoCompiler { .. })) => {
                ("not on this machine".to_owned(), error.hint())
            }
            Err(error) => return Err(error.into()),
        },
    };
    let planned = stage.plan(&version)?;
    if terminal::is_json() {
        let bundles: Vec<Value> = planned.iter().map(planned_in_json).collect();
        return Ok(terminal::print_json(&json!({ "compiler": version, "bundles": bundles }))?);
    }
    let mut text = format!("compiler: {version}\n");
    if let Some(hint) = hint {
        text.push_str(&format!("hint: {hint}\n"));
    }
    for planned in planned {
        let (needed, available) = (digits::bytes(planned.needed), digits::bytes(planned.available));
        text.push_str(&format!("\n{}: {}\n", planned.path.display(), state(planned.existing)));
        text.push_str(&format!("  {}\n", planned.command));
        text.push_str(&format!("  needs about {needed}, {available} are free\n"));
    }
    print(&text)
}

fn planned_in_json(planned: &PlannedSibling) -> Value {
    json!({
        "path": planned.path,
        "architecture": planned.architecture.as_str(),
        "state": state(planned.existing),
        "command": planned.command,
        "needed_bytes": planned.needed,
        "available_bytes": planned.available,
    })
}

fn state(existing: Existing) -> &'static str {
    match existing {
        Existing::Absent => "will be made",
        Existing::UpToDate => "is up to date",
        Existing::Outdated => "will be made again",
        Existing::Foreign => "is in the way and will not be replaced",
    }
}

fn workflow(arguments: &Arguments, stage: &Stage) -> anyhow::Result<String> {
    let Elsewhere { repo_id, runner, .. } = &arguments.elsewhere;
    let request = request(arguments)?;
    Ok(aotc::workflow::workflow(&Workflow {
        repository: repo_id.as_deref().unwrap_or_default(),
        bundle: &format!("gpu-pipelined/{}", stage.source().name),
        architectures: &request.architectures,
        settings: &request.settings,
        keep_prefill: request.keep_prefill,
        runner,
    })?)
}

/// Writes a text completely or not at all; `-` is standard output.
fn write(file: &Path, text: &str, mode: u32, output: Output) -> anyhow::Result<()> {
    if file == Path::new("-") {
        return print(text);
    }
    let mut staged = StagedFile::new(file, output)?;
    staged.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", file.display()))?;
    fs::set_permissions(staged.path(), fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the permissions of {}", file.display()))?;
    staged.commit()?;
    Ok(())
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(terminal::out().write_all(text.as_bytes())?)
}
