//! What `doctor` says about the Hub: what the client itself would use, and whether it gets an answer.

use std::time::Duration;

use aotc::doctor::Check;
use hub::{Client, Limits, Policy, Settings};

/// Longest wait for one answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Token and endpoint, as these settings have them.
pub(super) fn examine(settings: Settings) -> [Check; 2] {
    let limits = Limits { connect: LIMIT, answer: LIMIT, silence: LIMIT, ..settings.limits };
    let policy = Policy { attempts: 1, ..settings.policy };
    [token(&settings), endpoint(Settings { limits, policy, ..settings })]
}

/// Where the token comes from; never the token.
fn token(settings: &Settings) -> Check {
    let subject = "Hub token";
    if settings.token_disabled {
        let detail = "not used: HF_HUB_DISABLE_IMPLICIT_TOKEN is set";
        return Check::missing(subject, detail, "unset it to read gated checkpoints and to publish");
    }
    match &settings.token {
        Some(token) => Check::ok(subject, format!("from {}", token.origin())),
        None => Check::missing(
            subject,
            format!("not set, and none in {}", settings.token_path.display()),
            "set HF_TOKEN, or log in with `hf auth login`; gated checkpoints and publishing need it",
        ),
    }
}

fn endpoint(settings: Settings) -> Check {
    let subject = "Hub endpoint";
    let url = settings.public_endpoint();
    if settings.offline {
        let remedy = "unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE";
        return Check::missing(subject, format!("{url} (offline)"), remedy);
    }
    let client = match Client::new(settings) {
        Ok(client) => client,
        Err(error) => {
            return Check::missing(subject, error.to_string(), "install certificates (ca-certificates)");
        }
    };
    let detail = match client.proxy() {
        Some(proxy) => format!("{url} through the proxy {proxy}"),
        None => url,
    };
    match client.reach() {
        Ok(()) => Check::ok(subject, detail),
        Err(error) => Check::missing(
            subject,
            format!("{detail}: {error}"),
            "check the network, HF_ENDPOINT and the proxy variables; local folders work without it",
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        Settings::from_variables(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn doctor_and_client_agree_about_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        let secret = "hf_abcdefgh";
        let look = |variables: &[(&str, &str)]| {
            let settings = settings(&[variables, &[("HF_HOME", home)]].concat());
            let check = token(&settings);
            assert!(!format!("{check:?} {check}").contains(secret), "{check}");
            assert_eq!(check.ok, settings.token.is_some(), "{check}");
            check.ok
        };
        assert!(look(&[("HF_TOKEN", secret)]));
        assert!(look(&[("HUGGING_FACE_HUB_TOKEN", secret)]));
        assert!(!look(&[("HF_TOKEN", " \n")]));
        assert!(!look(&[("HF_TOKEN", secret), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "yes")]));
        // A file with only white space holds no token.
        std::fs::write(folder.path().join("token"), "\n").unwrap();
        assert!(!look(&[]));
        std::fs::write(folder.path().join("token"), secret).unwrap();
        assert!(look(&[]));
    }

    #[test]
    fn the_endpoint_is_that_of_the_client() {
        let hub = fixtures::hub::Hub::start().unwrap();
        let here = hub.endpoint();
        let look = |variables: &[(&str, &str)]| endpoint(settings(variables));
        let found = look(&[("HF_ENDPOINT", &here)]);
        assert!(found.ok && found.detail == here, "{found}");
        let with_password = here.replace("http://", "http://user:secret@");
        assert!(!look(&[("HF_ENDPOINT", &with_password)]).to_string().contains("secret"));
        for name in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
            let offline = look(&[("HF_ENDPOINT", &here), (name, "Yes")]);
            assert!(!offline.ok && offline.detail.contains("offline"), "{offline}");
        }
        let gone = look(&[("HF_ENDPOINT", "http://127.0.0.1:9")]);
        assert!(!gone.ok && gone.detail.contains("connection refused"), "{gone}");
    }
}
