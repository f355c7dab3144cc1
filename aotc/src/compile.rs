//! Options for the compiler.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::str::FromStr;

use crate::architecture::{Architecture, Platform};
use crate::error::Error;

/// The compute unit that the compiler prefers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PreferredCompute {
    /// The only unit that was measured with these graphs.
    Gpu,
    /// The Neural Engine.
    NeuralEngine,
    /// The compiler's choice.
    None,
}

impl fmt::Display for PreferredCompute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gpu => "gpu",
            Self::NeuralEngine => "neural-engine",
            Self::None => "none",
        })
    }
}

impl FromStr for PreferredCompute {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let all = [Self::Gpu, Self::NeuralEngine, Self::None];
        let found = all.into_iter().find(|unit| unit.to_string() == text);
        found.ok_or_else(|| Error::BadCompute { value: text.into() })
    }
}

/// Oldest OS version that can run the artifact, such as `27.0`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MinimumOs(String);

impl Default for MinimumOs {
    fn default() -> Self {
        Self("27.0".into())
    }
}

impl FromStr for MinimumOs {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let is_number =
            |part: &str| (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        if (1..=3).contains(&text.split('.').count()) && text.split('.').all(is_number) {
            return Ok(Self(text.into()));
        }
        Err(Error::BadVersion { value: text.into() })
    }
}

impl fmt::Display for MinimumOs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that decides what the compiler writes, besides the architecture and the source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompileSettings {
    /// Operating system of the device.
    pub platform: Platform,
    /// Oldest version of it.
    pub minimum_os: MinimumOs,
    /// Where the graph should run.
    pub preferred_compute: PreferredCompute,
    /// Whether input shapes change at every step, as the position ramp of these decoders does.
    pub expect_frequent_reshapes: bool,
}

impl Default for CompileSettings {
    fn default() -> Self {
        Self {
            platform: Platform::Ios,
            minimum_os: MinimumOs::default(),
            preferred_compute: PreferredCompute::Gpu,
            expect_frequent_reshapes: true,
        }
    }
}

impl CompileSettings {
    /// The options of `coreai-build compile` that follow from the settings; also what is recorded of a compile.
    pub fn options(&self, architecture: &Architecture) -> Vec<String> {
        let mut options = vec![
            "--platform".into(),
            self.platform.to_string(),
            "--architecture".into(),
            architecture.to_string(),
        ];
        options.extend(self.common_options());
        options
    }

    /// The options after platform and architecture.
    pub(crate) fn common_options(&self) -> Vec<String> {
        let mut options = vec![
            "--preferred-compute".into(),
            self.preferred_compute.to_string(),
            "--min-deployment-version".into(),
            self.minimum_os.to_string(),
        ];
        if self.expect_frequent_reshapes {
            options.push("--expect-frequent-reshapes".into());
        }
        options
    }

    /// The arguments of `xcrun` that compile the package `input` into the folder `output`.
    pub fn arguments(&self, input: &OsStr, output: &OsStr, architecture: &Architecture) -> Vec<OsString> {
        let mut arguments: Vec<OsString> =
            vec!["coreai-build".into(), "compile".into(), input.into(), "--output".into(), output.into()];
        arguments.extend(self.options(architecture).into_iter().map(OsString::from));
        arguments
    }
}

/// Name of the folder that the compiler writes for the package with this stem.
pub(crate) fn artifact_name(stem: &str, architecture: &Architecture) -> String {
    format!("{stem}.{architecture}.aimodelc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_those_of_the_published_recipe() {
        let settings = CompileSettings { expect_frequent_reshapes: false, ..CompileSettings::default() };
        let architecture = Architecture::known("h18p", Platform::Ios).unwrap();
        let arguments = settings.arguments(OsStr::new("X.aimodel"), OsStr::new("DIR/"), &architecture);
        let text: Vec<_> = arguments.iter().map(|a| a.to_str().unwrap()).collect();
        assert_eq!(
            text.join(" "),
            "coreai-build compile X.aimodel --output DIR/ --platform iOS --architecture h18p \
             --preferred-compute gpu --min-deployment-version 27.0"
        );
        assert!(
            CompileSettings::default()
                .options(&architecture)
                .contains(&"--expect-frequent-reshapes".to_string())
        );
    }

    #[test]
    fn versions_and_units_are_parsed() {
        for good in ["27.0", "27", "27.1.2"] {
            assert_eq!(good.parse::<MinimumOs>().unwrap().to_string(), good);
        }
        for bad in ["", "27.", "27.0.0.0", "-1", "27.0;", "v27"] {
            assert!(bad.parse::<MinimumOs>().is_err(), "{bad}");
        }
        assert_eq!("neural-engine".parse::<PreferredCompute>().unwrap(), PreferredCompute::NeuralEngine);
        assert!("ane".parse::<PreferredCompute>().is_err());
    }
}
