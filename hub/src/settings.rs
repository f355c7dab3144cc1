//! Settings from the environment, by the same names and in the same order as in Python's `huggingface_hub`.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::limits::Limits;
use crate::retry::Policy;
use crate::token::Token;

/// The Hub, unless `HF_ENDPOINT` names another.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Where the Hub is, which token to use, where the cache is, and how long to wait.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of the Hub, without a slash at the end.
    pub endpoint: String,
    /// The folder with `models--owner--name` folders.
    pub cache: PathBuf,
    /// The folder in which Xet remembers which chunks of files it has seen.
    pub xet_cache: PathBuf,
    /// Whether to avoid the network.
    pub offline: bool,
    /// The token to use.
    pub token: Option<Token>,
    /// Where a token is looked for when no variable has one.
    pub token_path: PathBuf,
    /// Whether a token, if there is one, must not be used (`HF_HUB_DISABLE_IMPLICIT_TOKEN`).
    pub token_disabled: bool,
    /// How often and after which pauses to try again.
    pub policy: Policy,
    /// How long to wait for an answer.
    pub limits: Limits,
    /// Called during waits; when it returns true, the request ends.
    pub cancelled: fn() -> bool,
}

impl Settings {
    /// Reads the environment of this process.
    pub fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// The endpoint without the user and password that it may carry, for messages.
    pub fn public_endpoint(&self) -> String {
        let (scheme, rest) = self.endpoint.split_once("://").unwrap_or(("http", &self.endpoint));
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority.rsplit('@').next().unwrap_or(authority);
        format!("{scheme}://{host}{path}")
    }

    /// Reads variables from elsewhere.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        // An empty variable counts as not set.
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let home_folder = PathBuf::from(variable("HOME").unwrap_or_default());
        let path = |name: &str| variable(name).map(|text| expand(&text, &home_folder));
        let home = path("HF_HOME").unwrap_or_else(|| {
            path("XDG_CACHE_HOME").unwrap_or_else(|| home_folder.join(".cache")).join("huggingface")
        });
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let token_path = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let is_set =
            |names: &[&str]| names.iter().find_map(|name| variable(name)).is_some_and(|value| is_yes(&value));
        let token_disabled = is_set(&["HF_HUB_DISABLE_IMPLICIT_TOKEN"]);
        let token = || {
            let set = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]
                .iter()
                .find_map(|name| Token::new(&variable(name)?, *name));
            set.or_else(|| Token::new(&read_token(&token_path)?, shown(&token_path)))
        };
        Settings {
            endpoint: endpoint.trim().trim_end_matches('/').to_owned(),
            cache: cache.unwrap_or_else(|| home.join("hub")),
            xet_cache: path("HF_XET_CACHE").unwrap_or_else(|| home.join("xet")),
            offline: is_set(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]),
            token: if token_disabled { None } else { token() },
            token_path,
            token_disabled,
            policy: Policy::default(),
            limits: Limits::default(),
            cancelled: || false,
        }
    }
}

/// The content of a token's file, if it is a file.
fn read_token(path: &Path) -> Option<String> {
    /// Anything longer is not a token.
    const LONGEST: u64 = 4096;
    // Opening a pipe would block.
    fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mut text = String::new();
    File::open(path).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Whether a variable says yes, as `huggingface_hub` reads it.
fn is_yes(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.trim().to_ascii_uppercase().as_str())
}

/// Resolves a leading `~`.
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
        let mirror = settings(&[("HF_ENDPOINT", "https://user:secret@mirror:8443/hub/")]);
        assert_eq!(mirror.public_endpoint(), "https://mirror:8443/hub");
        for value in ["1", "ON", "yes", "True", "0", "no", "2", ""] {
            let yes = ["1", "ON", "yes", "True"].contains(&value);
            assert_eq!(settings(&[("HF_HUB_OFFLINE", value)]).offline, yes, "{value:?}");
            let disabled = settings(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", value), ("HF_TOKEN", "hf_token")]);
            assert_eq!((disabled.token_disabled, disabled.token.is_none()), (yes, yes), "{value:?}");
        }
        // An empty variable counts as not set, one that says no does not.
        let both =
            |first: &str| settings(&[("HF_HUB_OFFLINE", first), ("TRANSFORMERS_OFFLINE", "1")]).offline;
        assert_eq!((both(""), both("0")), (true, false));
    }
}
