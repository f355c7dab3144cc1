//! `coreai-bundle check`: what is wrong with a bundle, before a phone finds out.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use coreai_bundle::contents::noun;
use coreai_bundle::parts::packer::check::{CheckReport, Finding, Options, check};
use coreai_bundle::parts::packer::contents::Member;
use coreai_bundle::parts::text::terminal::word;

use coreai_bundle::parts::text::counted;

use crate::template;
use crate::terminal::{self, RED, YELLOW, paint};

/// Check a bundle, a table folder, a package, or all of them in a folder, a release or an archive, against everything loaders and engines impose
#[derive(Debug, Args)]
#[command(after_help = "The exit status is 1 if there are defects; notes do not count.

Examples:
  coreai-bundle check out/gemma4_e4b_qat_decode_int4lin
  coreai-bundle check release.zip")]
pub(crate) struct Arguments {
    /// Folder to check, or an archive of `pack`, which is read in place; FILE.zip/PATH is a folder in it
    path: PathBuf,
    /// Tables that the bundle belongs to, if they are not beside it
    #[arg(long, value_name = "DIR")]
    tables: Option<PathBuf>,
    /// Skip the digests: check sizes and structure only
    #[arg(long)]
    quick: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let options = Options {
        tables: arguments.tables.as_deref(),
        digests: !arguments.quick,
        ..Options::new(&template::render)
    };
    let report = check(&arguments.path, &options)?;
    if terminal::is_json() {
        terminal::print_json(&report)?;
    } else {
        print(&mut terminal::out(), &report)?;
    }
    Ok(if report.has_defects() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(out: &mut impl Write, report: &CheckReport) -> io::Result<()> {
    for (title, findings) in [
        (paint(RED, "defect"), report.defects().collect::<Vec<_>>()),
        (paint(YELLOW, "note"), report.notes().collect()),
    ] {
        findings.into_iter().try_for_each(|finding| print_finding(out, &title, finding))?;
    }
    let (defects, notes) = (report.defects().count(), report.notes().count());
    for Member { path, kind } in &report.members {
        writeln!(out, "checked {}, {}", word(path), noun(*kind))?;
    }
    let (defects, notes) = (counted(defects, "defect"), counted(notes, "note"));
    writeln!(out, "{}: {defects}, {notes}", report.path.display())
}

fn print_finding(out: &mut impl Write, title: &str, finding: &Finding) -> io::Result<()> {
    let place = if finding.path.is_empty() { String::new() } else { format!("{}: ", finding.path) };
    let width = terminal::width();
    let wrapped = |text: &str, indent: usize| terminal::wrap(text, indent, indent, width);
    writeln!(out, "{title} {}\n  {}", finding.id, wrapped(&format!("{place}{}", finding.what), 2))?;
    writeln!(out, "  why:  {}\n  fix:  {}", wrapped(finding.why, 8), wrapped(&finding.fix, 8))
}
