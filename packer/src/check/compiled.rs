//! Rules of an ahead-of-time compiled asset: a folder that ends in `.aimodelc`.

use std::collections::BTreeSet;
use std::path::Path;

use aimodel::package::{HASH, METADATA, PROGRAM};
use output::Digest;
use text::small;

use super::context::{Context, Folder};
use super::files::Contents;
use super::metadata::MetadataFacts;
use super::rules;
use crate::FileError;
use crate::manifest::{CompiledFrom, Manifest};
use crate::metadata::FILE_NAME;

/// Architectures of known devices, iOS and macOS.
pub const ARCHITECTURES: [&str; 19] = [
    "h13c", "h13g", "h13s", "h14c", "h14g", "h14s", "h15c", "h15g", "h15s", "h16c", "h16g", "h16p", "h16s",
    "h17c", "h17g", "h17p", "h17s", "h18p", "h19p",
];

/// Statistics of the compiler.
const STATISTICS: &str = "stats.json";

/// Checks the compiled asset `asset` of the bundle in `folder`.
pub(super) fn check(
    context: &mut Context<'_>,
    folder: &Folder,
    asset: &str,
    metadata: &MetadataFacts,
    contents: &Contents,
) -> Result<(), FileError> {
    let part = folder.part(asset);
    let inside: Vec<&str> =
        contents.files.keys().filter_map(|path| path.strip_prefix(asset)?.strip_prefix('/')).collect();
    let architectures: Vec<&str> =
        inside.iter().filter_map(|path| path.strip_prefix("main-")?.strip_suffix(".mlirb")).collect();
    let &[architecture] = &architectures[..] else {
        let what = format!("{} programs main-<architecture>.mlirb instead of one", architectures.len());
        context.report(&rules::COMPILED_PROGRAM, &part, "", what);
        return Ok(());
    };
    check_architecture(context, folder, asset, architecture, metadata);
    check_files(context, &part, architecture, &inside);
    check_hash(context, &part, architecture)?;
    if let Some(source) = contents.manifest.as_ref().and_then(|manifest| manifest.compiled_from.as_ref()) {
        check_source(context, folder, architecture, source)?;
    }
    Ok(())
}

fn check_architecture(
    context: &mut Context<'_>,
    folder: &Folder,
    asset: &str,
    architecture: &str,
    metadata: &MetadataFacts,
) {
    if !ARCHITECTURES.contains(&architecture) {
        let what = format!("no device is known to have the architecture {architecture}");
        context.report(&rules::COMPILED_UNKNOWN, folder, asset, what);
    }
    let name = folder.name();
    let names = [
        name.rsplit_once("_aotc_").map(|(_, named)| named),
        asset.trim_end_matches(".aimodelc").rsplit_once('.').map(|(_, named)| named),
    ];
    for named in names.into_iter().flatten().filter(|&named| named != architecture) {
        let what = format!("the name says {named}, the program inside is for {architecture}");
        context.report(&rules::COMPILED_ARCHITECTURE, folder, asset, what);
    }
    if !metadata.targets.iter().any(|target| target == architecture) {
        let what =
            format!("compilation.targets is {:?}, the program is for {architecture}", metadata.targets);
        context.report(&rules::COMPILED_TARGETS, folder, FILE_NAME, what);
    }
}

fn check_files(context: &mut Context<'_>, part: &Folder, architecture: &str, inside: &[&str]) {
    for name in [HASH, METADATA, STATISTICS] {
        if !inside.contains(&name) {
            context.report(&rules::COMPILED_FILES, part, name, "the file is missing");
        }
    }
    let delegates = format!("main-{architecture}-delegates");
    let folders: BTreeSet<&str> = inside.iter().filter_map(|path| Some(path.split_once('/')?.0)).collect();
    if !folders.contains(delegates.as_str()) {
        context.report(&rules::COMPILED_FILES, part, &delegates, "the folder is missing or empty");
    }
    for foreign in folders.iter().filter(|name| name.starts_with("main-") && **name != delegates) {
        let what = format!("it is for another architecture than {architecture}");
        context.report(&rules::COMPILED_ARCHITECTURE, part, foreign, what);
    }
}

fn check_hash(context: &mut Context<'_>, part: &Folder, architecture: &str) -> Result<(), FileError> {
    let Ok(hash) = paths::read(&part.path.join(HASH), small::TEXT) else { return Ok(()) };
    let Some(stated) = as_digest(&hash) else {
        let what = format!("{} bytes that are not a SHA-256", hash.len());
        context.report(&rules::COMPILED_HASH, part, HASH, what);
        return Ok(());
    };
    let program = format!("main-{architecture}.mlirb");
    if context.options.digests && context.digest(&part.path.join(&program))? != stated {
        context.report(&rules::COMPILED_HASH, part, HASH, format!("it is not the SHA-256 of {program}"));
    }
    Ok(())
}

/// A digest as raw bytes or as text.
fn as_digest(bytes: &[u8]) -> Option<Digest> {
    match <[u8; 32]>::try_from(bytes) {
        Ok(raw) => Some(Digest::from(raw)),
        Err(_) => std::str::from_utf8(bytes).ok()?.trim().parse().ok(),
    }
}

/// Compares the recorded source with the bundle beside this one, if it is there.
fn check_source(
    context: &mut Context<'_>,
    folder: &Folder,
    architecture: &str,
    source: &CompiledFrom,
) -> Result<(), FileError> {
    if source.architecture != architecture {
        let what = format!("the manifest says {}, the program is for {architecture}", source.architecture);
        context.report(&rules::COMPILED_ARCHITECTURE, folder, crate::manifest::FILE_NAME, what);
    }
    let Some(sibling) = folder.path.parent().map(|parent| parent.join(&source.bundle)) else { return Ok(()) };
    let Some(digest) = program_digest(context, &sibling)? else { return Ok(()) };
    if digest != source.main_sha256 {
        let what = format!(
            "it was compiled from a graph {}, {} now holds {digest}",
            source.main_sha256, source.bundle
        );
        context.report(&rules::COMPILED_STALE, folder, "", what);
    }
    Ok(())
}

/// SHA-256 of the portable program of the bundle at `bundle`: from its manifest, or computed.
fn program_digest(context: &mut Context<'_>, bundle: &Path) -> Result<Option<Digest>, FileError> {
    if !paths::is_folder(bundle) {
        return Ok(None);
    }
    if let Ok(manifest) = Manifest::read(bundle) {
        let suffix = format!(".aimodel/{PROGRAM}");
        return Ok(manifest.files.iter().find(|file| file.path.ends_with(&suffix)).map(|file| file.sha256));
    }
    let entries = paths::list(bundle).into_iter().flatten();
    let program =
        entries.map(|entry| bundle.join(entry.name).join(PROGRAM)).find(|path| paths::is_file(path));
    program.map(|program| context.digest(&program)).transpose()
}
