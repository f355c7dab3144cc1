//! What the environment says, by the same names and in the same order as for Python's `huggingface_hub`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::retry::Policy;
use crate::token::Token;

/// The Hub, unless `HF_ENDPOINT` names another.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Where the Hub is, who asks, where the cache is, and how patient to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of the Hub, without a slash at the end.
    pub endpoint: String,
    /// The folder with `models--owner--name` folders.
    pub cache: PathBuf,
    /// Whether to do without the network.
    pub offline: bool,
    /// Who asks.
    pub token: Option<Token>,
    /// How often and after which pauses to try again.
    pub policy: Policy,
    /// Asked during waits; when it says yes, the request ends.
    pub cancelled: fn() -> bool,
}

impl Settings {
    /// Reads the environment of this process.
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Reads variables from elsewhere.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        // A variable that is set to nothing counts as not set.
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let home_folder = PathBuf::from(variable("HOME").unwrap_or_default());
        let path = |name: &str| variable(name).map(|text| expand(&text, &home_folder));
        let home = path("HF_HOME").unwrap_or_else(|| {
            path("XDG_CACHE_HOME").unwrap_or_else(|| home_folder.join(".cache")).join("huggingface")
        });
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let token_path = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        Settings {
            endpoint: endpoint.trim().trim_end_matches('/').to_owned(),
            cache: cache.unwrap_or_else(|| home.join("hub")),
            offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
                .iter()
                .find_map(|name| variable(name))
                .is_some_and(|value| is_yes(&value)),
            token: ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]
                .iter()
                .find_map(|name| Token::new(&variable(name)?, *name))
                .or_else(|| Token::new(&fs::read_to_string(&token_path).ok()?, shown(&token_path))),
            policy: Policy::default(),
            cancelled: || false,
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn is_yes(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.trim().to_ascii_uppercase().as_str())
}

/// Resolves a `~` in front.
fn expand(text: &str, home: &Path) -> PathBuf {
    match text.strip_prefix('~') {
        Some("") => home.to_owned(),
        Some(rest) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => PathBuf::from(text),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Settings;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        Settings::from_variables(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn folders_follow_one_another() {
        for (variables, cache) in [
            (&[("HOME", "/h")][..], "/h/.cache/huggingface/hub"),
            (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "~/f")], "/h/f/hub"),
            (&[("HF_HOME", "/f"), ("HUGGINGFACE_HUB_CACHE", "/o")], "/o"),
            (&[("HF_HUB_CACHE", "/c"), ("HUGGINGFACE_HUB_CACHE", "/o")], "/c"),
            (&[("HOME", "/h"), ("HF_HUB_CACHE", "")], "/h/.cache/huggingface/hub"),
        ] {
            assert_eq!(settings(variables).cache, Path::new(cache), "{variables:?}");
        }
    }

    #[test]
    fn tokens_come_in_the_usual_order_and_are_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let login = folder.path().join("token");
        std::fs::write(&login, "hf_login\n").unwrap();
        let other = folder.path().join("other");
        std::fs::write(&other, "hf_other\n").unwrap();
        let home = ("HF_HOME", folder.path().to_str().unwrap());
        let path = ("HF_TOKEN_PATH", other.to_str().unwrap());
        for (variables, origin, secret) in [
            (&[home][..], login.to_str().unwrap(), "hf_login"),
            (&[home, path], other.to_str().unwrap(), "hf_other"),
            (&[home, path, ("HF_TOKEN", " hf_\nvariable ")], "HF_TOKEN", "hf_variable"),
            (&[home, path, ("HF_TOKEN", " \n")], other.to_str().unwrap(), "hf_other"),
        ] {
            let settings = settings(variables);
            let token = settings.token.clone().unwrap();
            assert_eq!((token.origin(), token.header()), (origin, format!("Bearer {secret}")));
            assert!(!format!("{settings:?}").contains("hf_"), "{settings:?}");
        }
        assert_eq!(settings(&[("HF_HOME", "/nowhere")]).token, None);
    }

    #[test]
    fn endpoint_and_offline() {
        assert_eq!(settings(&[("HF_ENDPOINT", "http://a:1/")]).endpoint, "http://a:1");
        assert_eq!(settings(&[]).endpoint, "https://huggingface.co");
        for (value, offline) in [("1", true), ("true", true), ("0", false), ("", false)] {
            assert_eq!(settings(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value:?}");
        }
    }
}
