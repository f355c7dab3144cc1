//! Rules of a folder of outputs: those of everything in it.

use super::context::{Context, Folder};
use super::{bundle, package, release, tables};
use crate::FileError;
use crate::contents::{self, FolderKind};

/// Checks everything in the folder; each bundle needs its tables beside it, as it does alone.
pub(super) fn check(context: &mut Context<'_>, folder: &Folder) -> Result<(), FileError> {
    for member in contents::members(&folder.path) {
        let inside = folder.below(&member.path, member.kind);
        match member.kind {
            FolderKind::Package => package::check_bare(context, &inside)?,
            FolderKind::Bundle => bundle::check_alone(context, &inside)?,
            FolderKind::Tables => tables::check(context, &inside).map(drop)?,
            FolderKind::Release => release::check(context, &inside)?,
            FolderKind::Outputs => {}
        }
    }
    Ok(())
}
