//! A recipe to start from, with comments.

use std::fmt::Write as _;

use checkpoint::source::Identity;
use converter::Model;

use crate::source::SourceSpec;

/// How recipes of `init` begin; `init` replaces no other file.
const FIRST_LINE: &str = "# A recipe for `coreai-bundle build`";

/// Everything that is left to its default is a comment.
const FORMATS: &str = r#"
# How the weights are stored. Defaults keep every weight that was trained on a 4-bit lattice.
[formats]
# weights = "int4"        # int4, int8, f16
# rule = "lattice"        # lattice, q4_0, absmax
# head = "auto"           # auto, int4, int8, f16
# embedding = "auto"      # auto, shared, dequantized, si4, f16
# per-layer = "auto"      # of stock bundles: auto, int4, int8

# Formats of some of the projections; the first that matches counts. Roles are head, attention, mlp and per-layer.
# [[format]]
# tensors = "layers.*.mlp.down_proj"
# weights = "int8"
"#;

/// Bundles of models with per-layer tables.
const BUNDLES_WITH_TABLES: &str = r#"
# One table for each bundle. Variants: `provider` and `tbl` need an engine with the community's patches and share one folder of tables,
# `stock` runs on Apple's unpatched engine.
[[bundle]]
variant = "provider"
max-context = 4096

[[bundle]]
variant = "tbl"
max-context = 4096

# [[bundle]]
# variant = "stock"
# max-context = 4096
"#;

/// The bundle of models without.
const BUNDLE_WITHOUT_TABLES: &str = r#"
# One table for each bundle. This model has one graph, which runs on Apple's unpatched engine.
[[bundle]]
variant = "stock"
max-context = 4096
# cache = "split"         # caches of their own for sliding layers: less than half the memory, run on no Mac yet
"#;

/// What is measured and made of the bundles.
const REST: &str = r#"
# Every bundle is compared with the checkpoint in fp32; one that disagrees is not released.
[gate]
# prompts-file = "prompts.txt"   # a text to continue on each line; the tool has its own

# Distance from the checkpoint on a text, for the model card.
[evaluation]
# text-file = "text.txt"         # the tool has its own: prose, code, several languages, a chat
limit = 1024

"#;

/// For models that fit into an iPhone.
const AHEAD_OF_TIME: &str = r#"
# iPhones need graphs that were compiled ahead of time, on a Mac with Xcode.
# [ahead-of-time]
# architectures = ["h18p"]       # that of iPhone 17 Pro
# ssh = "me@my-mac.local"
"#;

/// The recipe for an opened checkpoint that was given as `source`.
pub fn starter(source: &SourceSpec, identity: &Identity, model: &Model<'_>) -> String {
    let mut text = format!("{FIRST_LINE}: `coreai-bundle build FILE` makes the whole release.\n\n");
    let mut line = |content: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{content}");
    };
    match &identity.repository {
        Some(repository) => line(format!("source = {}", quoted(repository))),
        None => line(format!(
            "source = {}         # a repository, or a folder beside this file",
            quoted(&source.to_string())
        )),
    }
    if let Some(revision) = &identity.revision {
        line(format!("revision = {}", quoted(revision)));
    }
    text.push_str(FORMATS);
    text.push_str(if model.config.per_layer.is_some() { BUNDLES_WITH_TABLES } else { BUNDLE_WITHOUT_TABLES });
    text.push_str(REST);
    if model.config.per_layer.is_some() {
        text.push_str(AHEAD_OF_TIME);
    }
    text.push_str("\n# The card and the license come from the checkpoint's repository, if they are not given here.\n[release]\n");
    let _ = writeln!(text, "# base-model = \"OWNER/NAME\"");
    let _ = writeln!(text, "# license-id = \"apache-2.0\"\n# license-file = \"LICENSE\"");
    text.push_str("\n# `coreai-bundle build FILE --publish` sends the release there.\n# [publish]\n# repository = \"USER/NAME\"\n# private = true\n");
    text
}

/// A TOML string.
fn quoted(content: &str) -> String {
    toml::Value::String(content.to_owned()).to_string()
}
