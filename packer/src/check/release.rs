//! Rules of a release tree: its card, license and manifest, and how its bundles and tables fit together.

use text::small;

use super::context::{Context, Folder};
use super::{bundle, files, rules, tables};
use crate::FileError;
use crate::contents::{FolderKind, GRAPHS, TABLES};
use crate::front_matter::FrontMatter;
use crate::manifest;

const CARD: &str = "README.md";
const LICENSE: &str = "LICENSE";

/// Fields of the card's front matter with the value that they must have, if it is fixed.
const FIELDS: [(&str, Option<&str>); 4] = [
    ("license", None),
    ("base_model", None),
    ("pipeline_tag", Some("text-generation")),
    ("library_name", Some("coreai")),
];
const TAGS: [&str; 6] = ["coreai", "aimodel", "apple-silicon", "on-device", "gemma-4", "qat"];

/// Checks the release and everything in it.
pub(super) fn check(context: &mut Context<'_>, folder: &Folder) -> Result<(), FileError> {
    let bundles = folders(&folder.part(GRAPHS));
    let table_folders = tables::below(&folder.part(TABLES), &folders(&folder.part(TABLES)));
    let summaries =
        table_folders.iter().map(|tables| tables::check(context, tables)).collect::<Result<Vec<_>, _>>()?;

    let (mut portable, mut compiled) = (0, 0);
    for name in &bundles {
        let bundle_folder = folder.part(GRAPHS).below(name, FolderKind::Bundle);
        let summary = bundle::check(context, &bundle_folder)?;
        if summary.is_compiled {
            compiled += 1;
        } else {
            portable += 1;
        }
        match summary.tables {
            Some(_) if summaries.is_empty() => {
                let what = format!("{name} needs gather tables, but {TABLES}/ holds none");
                context.report(&rules::TABLES_NOT_IN_RELEASE, folder, "", what);
            }
            Some(needed) => tables::compare(context, &bundle_folder, &needed, &summaries),
            None => {}
        }
    }
    if portable + compiled == 0 {
        context.report(&rules::RELEASE_EMPTY, folder, GRAPHS, "the folder holds no bundle");
    } else if compiled == 0 {
        let what = "no bundle is compiled ahead of time";
        context.report(&rules::RELEASE_NO_IPHONE, folder, GRAPHS, what);
    }
    check_card(context, folder);
    check_own_files(context, folder)
}

/// Names of the folders in a folder, sorted; hidden ones are leftovers.
fn folders(folder: &Folder) -> Vec<String> {
    let entries = paths::list(&folder.path).into_iter().flatten();
    entries
        .filter(|entry| paths::is_folder(&folder.path.join(&entry.name)))
        .map(|entry| entry.name.to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect()
}

/// License and manifest, and files outside of bundles and tables.
fn check_own_files(context: &mut Context<'_>, folder: &Folder) -> Result<(), FileError> {
    let known = |path: &str| {
        let in_part = |part: &str| path.strip_prefix(part).is_some_and(|rest| rest.starts_with('/'));
        matches!(path, CARD | LICENSE | ".gitattributes" | "NOTICE") || in_part(GRAPHS) || in_part(TABLES)
    };
    let contents = files::check(context, folder, &known)?;
    if !contents.files.contains_key(LICENSE) {
        context.report(&rules::RELEASE_LICENSE, folder, LICENSE, "the file is missing");
    }
    if !contents.files.contains_key(manifest::FILE_NAME) {
        let what = "the release has no manifest";
        context.report(&rules::RELEASE_MANIFEST, folder, manifest::FILE_NAME, what);
    }
    Ok(())
}

fn check_card(context: &mut Context<'_>, folder: &Folder) {
    let Ok(card) = paths::read_text(&folder.path.join(CARD), small::TEXT) else {
        context.report(&rules::RELEASE_CARD, folder, CARD, "the file is missing");
        return;
    };
    let Some(front_matter) = FrontMatter::of(&card) else {
        let what = "the card does not begin with front matter between lines of ---";
        context.report(&rules::RELEASE_CARD, folder, CARD, what);
        return;
    };
    for (field, expected) in FIELDS {
        let values = front_matter.values(field);
        let missing = values.is_empty() || expected.is_some_and(|expected| values != [expected]);
        if missing {
            let expected = expected.map_or(String::new(), |expected| format!(", not {expected}"));
            let found = if values.is_empty() { "missing".to_owned() } else { values.join(", ") };
            let what = format!("{field} is {found}{expected}");
            context.report(&rules::RELEASE_CARD_FIELD, folder, CARD, what);
        }
    }
    let tags = front_matter.values("tags");
    let missing: Vec<&str> = TAGS.into_iter().filter(|tag| !tags.contains(tag)).collect();
    if !missing.is_empty() {
        let what = format!("tags lack {}", missing.join(", "));
        context.report(&rules::RELEASE_CARD_FIELD, folder, CARD, what);
    }
}
