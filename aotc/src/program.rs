//! Where programs are looked for.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Resolves the name of a program: a path as it is, a bare name from the absolute folders of `PATH`.
///
/// The system would also look into the current folder where `PATH` has an empty or relative entry, and would run what somebody
/// else put there.
///
/// # Errors
/// If no folder has an executable file of that name.
pub fn find(name: &Path) -> io::Result<PathBuf> {
    find_in(name, std::env::var_os("PATH").unwrap_or_default())
}

fn find_in(name: &Path, path: OsString) -> io::Result<PathBuf> {
    if name.components().count() != 1 || name.as_os_str().as_encoded_bytes().contains(&b'/') {
        return Ok(name.to_owned());
    }
    let folders = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    let found = folders.map(|folder| folder.join(name)).find(|file| is_executable(file));
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "not found in the absolute folders of PATH"))
}

fn is_executable(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};

    use super::find_in;

    /// A folder with a program and a file that is not one.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, mode) in [("tool", 0o755), ("text", 0o644)] {
            fs::write(folder.path().join(name), "").unwrap();
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        folder
    }

    #[test]
    fn only_absolute_folders_are_searched() {
        let folder = folder();
        let find =
            |name: &str, path: &[&Path]| find_in(Path::new(name), std::env::join_paths(path).unwrap()).ok();
        let tool = folder.path().join("tool");
        assert_eq!(find("tool", &[Path::new("/nowhere"), folder.path()]), Some(tool));
        assert_eq!(find("text", &[folder.path()]), None);
        // This leads from the current folder to the tool.
        let depth = std::env::current_dir().unwrap().components().count();
        let to_root: PathBuf = std::iter::repeat_n("..", depth).collect();
        let relative = to_root.join(folder.path().strip_prefix("/").unwrap());
        assert!(relative.join("tool").is_file());
        assert_eq!(find("tool", &[&relative, Path::new(""), Path::new(".")]), None);
        for path in ["./tool", "/absent/tool", "a/tool"] {
            assert_eq!(find(path, &[folder.path()]), Some(PathBuf::from(path)));
        }
        assert_eq!(find("..", &[folder.path()]), None);
    }
}
