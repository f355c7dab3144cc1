//! What installs release archives: a Homebrew formula and a container file, made from the archives' names and digests.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Suffix of the files that hold an archive's SHA-256.
const DIGEST: &str = ".tar.gz.sha256";
/// Where release archives are published, by version.
const RELEASES: &str = "https://github.com/coreai-bundle/coreai-bundle/releases/download";
/// Targets of the formula, and how Homebrew asks for them.
const TARGETS: [(&str, &str, &str); 4] = [
    ("aarch64-apple-darwin", "on_macos", "on_arm"),
    ("x86_64-apple-darwin", "on_macos", "on_intel"),
    ("aarch64-unknown-linux-gnu", "on_linux", "on_arm"),
    ("x86_64-unknown-linux-gnu", "on_linux", "on_intel"),
];

/// SHA-256 of the archives of a version in a folder, by target.
fn digests(folder: &Path, version: &str) -> Result<BTreeMap<String, String>> {
    let stem = format!("coreai-bundle-{version}-");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(triple) = name.strip_prefix(&stem).and_then(|name| name.strip_suffix(DIGEST)) else {
            continue;
        };
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let digest = text.split(' ').next().unwrap_or_default();
        if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            bail!("{} does not begin with a SHA-256", path.display());
        }
        found.insert(triple.to_owned(), digest.to_owned());
    }
    Ok(found)
}

/// The formula for the archives of a version in a folder, which must have all targets.
pub(crate) fn formula(folder: &Path, version: &str) -> Result<String> {
    let digests = digests(folder, version)?;
    let mut text = format!(
        "class CoreaiBundle < Formula\n  desc \"Turns Gemma 4 QAT checkpoints into Apple Core AI bundles\"\n  homepage \
         \"https://github.com/coreai-bundle/coreai-bundle\"\n  version \"{version}\"\n  license \"Apache-2.0\"\n"
    );
    for system in ["on_macos", "on_linux"] {
        text.push_str(&format!("\n  {system} do\n"));
        for (triple, _, machine) in TARGETS.iter().filter(|(_, of, _)| *of == system) {
            let digest = digests.get(*triple).with_context(|| {
                format!(
                    "{} has no archive of {version} for {triple}: build it with `cargo xtask dist`",
                    folder.display()
                )
            })?;
            text.push_str(&format!(
                "    {machine} do\n      url \"{RELEASES}/v{version}/coreai-bundle-{version}-{triple}.tar.gz\"\n      sha256 \
                 \"{digest}\"\n    end\n"
            ));
        }
        text.push_str("  end\n");
    }
    text.push_str(
        "\n  def install\n    bin.install \"coreai-bundle\"\n    bash_completion.install \"completions/coreai-bundle.bash\" => \
         \"coreai-bundle\"\n    fish_completion.install \"completions/coreai-bundle.fish\"\n    zsh_completion.install \
         \"completions/_coreai-bundle\"\n    man1.install Dir[\"man/man1/*.1\"]\n  end\n\n  test do\n    assert_match version.to_s, \
         shell_output(\"#{bin}/coreai-bundle --version\")\n  end\nend\n",
    );
    Ok(text)
}

/// A container file that takes the archives from the folder that it lies in, and compares their digests.
pub(crate) fn container(folder: &Path, version: &str) -> Result<String> {
    let digests = digests(folder, version)?;
    let digest = |triple: &str| {
        digests
            .get(triple)
            .with_context(|| format!("{} has no archive of {version} for {triple}", folder.display()))
    };
    let (intel, arm) = (digest("x86_64-unknown-linux-gnu")?, digest("aarch64-unknown-linux-gnu")?);
    Ok(format!(
        "# coreai-bundle {version}, from the release archives beside this file:\n#   docker build -t coreai-bundle:{version} .\nFROM \
         debian:bookworm-slim\nARG TARGETARCH=amd64\nCOPY coreai-bundle-{version}-*-unknown-linux-gnu.tar.gz /tmp/\nRUN set -eu; \\\n    \
         case \"$TARGETARCH\" in \\\n        amd64) triple=x86_64-unknown-linux-gnu; digest={intel} ;; \\\n        arm64) \
         triple=aarch64-unknown-linux-gnu; digest={arm} ;; \\\n        *) echo \"no archive for $TARGETARCH\" >&2; exit 1 ;; \\\n    \
         esac; \\\n    archive=/tmp/coreai-bundle-{version}-$triple.tar.gz; \\\n    echo \"$digest  $archive\" | sha256sum -c -; \\\n    \
         tar -xzf \"$archive\" -C /usr/local/bin --strip-components=1 \"coreai-bundle-{version}-$triple/coreai-bundle\"; \\\n    \
         rm /tmp/*.tar.gz\nWORKDIR /work\nENTRYPOINT [\"coreai-bundle\"]\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_its_own_digest() {
        let folder = tempfile::tempdir().unwrap();
        for (at, (triple, ..)) in TARGETS.iter().enumerate() {
            let name = format!("coreai-bundle-1.2.3-{triple}");
            let digest = at.to_string().repeat(64);
            fs::write(folder.path().join(format!("{name}{DIGEST}")), format!("{digest}  {name}.tar.gz\n"))
                .unwrap();
        }
        let (formula, container) =
            (formula(folder.path(), "1.2.3").unwrap(), container(folder.path(), "1.2.3").unwrap());
        for (at, (triple, ..)) in TARGETS.iter().enumerate() {
            let digest = at.to_string().repeat(64);
            let lines = format!("coreai-bundle-1.2.3-{triple}.tar.gz\"\n      sha256 \"{digest}\"");
            assert!(formula.contains(&lines), "{formula}");
            assert_eq!(container.contains(&digest), triple.contains("linux"), "{container}");
        }
        assert_eq!(formula.matches(" do\n").count(), formula.matches("end\n").count() - 2, "{formula}");
    }

    #[test]
    fn a_missing_archive_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = formula(folder.path(), "1.2.3").unwrap_err().to_string();
        assert!(error.contains("no archive of 1.2.3 for aarch64-apple-darwin"), "{error}");
        fs::write(folder.path().join(format!("coreai-bundle-1.2.3-x{DIGEST}")), "nothing").unwrap();
        assert!(
            container(folder.path(), "1.2.3")
                .unwrap_err()
                .to_string()
                .contains("does not begin with a SHA-256")
        );
    }
}
