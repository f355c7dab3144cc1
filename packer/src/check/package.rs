//! Rules of a graph package: a folder that ends in `.aimodel`.

use std::path::Path;

use aimodel::package::{HASH, METADATA, PROGRAM};
use text::small;

use super::context::{Context, Folder};
use super::facts::GraphFacts;
use super::json::{self, Unreadable};
use super::{files, graph, rules};
use crate::FileError;

/// The only version of packages that loaders take.
const ASSET_VERSION: &str = "2.0";
/// Files whose size is a multiple of this are read into memory by Apple's Linux loader instead of mapped.
const PAGE: u64 = 4096;

/// Whether a file belongs in a package.
pub(super) fn expects(path: &str) -> bool {
    matches!(path, PROGRAM | HASH | METADATA)
}

/// Checks a package that is not in a bundle.
pub(super) fn check_bare(context: &mut Context<'_>, folder: &Folder) -> Result<(), FileError> {
    files::check(context, folder, &expects)?;
    if let Some(facts) = check(context, folder)? {
        graph::check(context, folder, &facts);
    }
    context.report(&rules::PACKAGE_BARE, folder, "", "a graph package without a bundle around it");
    Ok(())
}

/// Checks the package in `folder` and returns the facts of its graph, if that can be read.
pub(super) fn check(context: &mut Context<'_>, folder: &Folder) -> Result<Option<GraphFacts>, FileError> {
    check_metadata(context, folder);
    let program = folder.path.join(PROGRAM);
    let size = paths::open(&program).map_or(0, |file| file.length());
    if size == 0 {
        context.report(&rules::PACKAGE_PROGRAM, folder, PROGRAM, "the program is missing or empty");
        return Ok(None);
    }
    if size.is_multiple_of(PAGE) {
        let what = format!("{size} bytes, a multiple of {PAGE}");
        context.report(&rules::PACKAGE_PAGE, folder, PROGRAM, what);
    }
    check_hash(context, folder, &program)?;
    match (context.options.graph_reader)(&folder.path) {
        Ok(facts) => Ok(Some(facts)),
        Err(reason) => {
            context.report(&rules::GRAPH_UNREADABLE, folder, PROGRAM, reason);
            Ok(None)
        }
    }
}

fn check_metadata(context: &mut Context<'_>, folder: &Folder) {
    let metadata = match json::object(&folder.path.join(METADATA)) {
        Ok(metadata) => metadata,
        Err(Unreadable::Missing) => {
            return context.report(&rules::PACKAGE_METADATA, folder, METADATA, "the file is missing");
        }
        Err(Unreadable::Malformed(reason)) => {
            return context.report(&rules::PACKAGE_METADATA, folder, METADATA, reason);
        }
    };
    if metadata.get("assetVersion").is_none_or(|version| version != ASSET_VERSION) {
        let found = metadata.get("assetVersion").map_or("missing".to_owned(), ToString::to_string);
        let what = format!("assetVersion is {found}, not \"{ASSET_VERSION}\"");
        context.report(&rules::PACKAGE_ASSET_VERSION, folder, METADATA, what);
    }
    let producer = metadata.get("producer").and_then(|producer| producer.as_str());
    if producer.is_none_or(|producer| producer.trim().is_empty()) {
        let what = format!("producer is {}", json::kind_of(&metadata, "producer"));
        context.report(&rules::PACKAGE_PRODUCER, folder, METADATA, what);
    }
}

fn check_hash(context: &mut Context<'_>, folder: &Folder, program: &Path) -> Result<(), FileError> {
    let Ok(hash) = paths::read(&folder.path.join(HASH), small::TEXT) else {
        context.report(&rules::PACKAGE_HASH_MISSING, folder, HASH, "the file is missing");
        return Ok(());
    };
    if hash.len() != 32 {
        let what = format!("{} bytes instead of the 32 of a SHA-256", hash.len());
        context.report(&rules::PACKAGE_HASH, folder, HASH, what);
    } else if context.options.digests && context.digest(program)?.as_bytes() != hash.as_slice() {
        let what = format!("it is not the SHA-256 of {PROGRAM}");
        context.report(&rules::PACKAGE_HASH, folder, HASH, what);
    }
    Ok(())
}
