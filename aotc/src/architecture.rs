//! Platforms, device architectures and devices.
//!
//! The compiler exits 0 for any architecture name, and a device refuses an artifact of another architecture
//! without falling back, so names are checked here first.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// Operating system that an artifact is compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Platform {
    /// iPhone and iPad.
    Ios,
    /// Mac.
    Macos,
}

impl Platform {
    /// The compiler's name of the platform.
    pub fn name(self) -> &'static str {
        match self {
            Platform::Ios => "iOS",
            Platform::Macos => "macOS",
        }
    }

    /// Architectures known to be accepted for the platform.
    pub fn architectures(self) -> &'static [&'static str] {
        match self {
            Platform::Ios => &["h13g", "h14g", "h15g", "h16g", "h16p", "h17g", "h17p", "h18p", "h19p"],
            Platform::Macos => &[
                "h13c", "h13g", "h13s", "h14c", "h14g", "h14s", "h15c", "h15g", "h15s", "h16c", "h16g",
                "h16s", "h17c", "h17g", "h17p", "h17s",
            ],
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.to_ascii_lowercase().as_str() {
            "ios" => Ok(Platform::Ios),
            "macos" => Ok(Platform::Macos),
            _ => Err(Error::UnknownPlatform { name: text.into() }),
        }
    }
}

/// The architecture of a device family, such as `h18p`. Safe in file names and on command lines.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Architecture(String);

impl Architecture {
    /// Checks `name` against the architectures known for `platform`.
    ///
    /// # Errors
    /// [`Error::UnknownArchitecture`] lists the known ones; [`Error::BadArchitecture`] for text that cannot be an
    /// architecture at all.
    pub fn known(name: &str, platform: Platform) -> Result<Self, Error> {
        let architecture = Self::unchecked(name)?;
        if platform.architectures().contains(&name) {
            return Ok(architecture);
        }
        Err(Error::UnknownArchitecture { name: name.into(), platform, other: other_platform(name, platform) })
    }

    /// Accepts any name of lower-case letters and digits, for architectures newer than this program.
    ///
    /// # Errors
    /// [`Error::BadArchitecture`] for anything else.
    pub fn unchecked(name: &str) -> Result<Self, Error> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if name.is_empty() || name.len() > 16 || !name.bytes().all(allowed) {
            return Err(Error::BadArchitecture { name: name.into() });
        }
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn other_platform(name: &str, platform: Platform) -> Option<Platform> {
    let other = match platform {
        Platform::Ios => Platform::Macos,
        Platform::Macos => Platform::Ios,
    };
    other.architectures().contains(&name).then_some(other)
}

/// A device whose architecture is known from measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Device {
    /// What Apple calls it, such as `iPhone 17 Pro`.
    pub name: &'static str,
    /// Hardware identifier, such as `iPhone18,1`, where one is documented.
    pub identifier: Option<&'static str>,
    /// Its operating system.
    pub platform: Platform,
    architecture: &'static str,
}

/// Devices with a documented architecture. Others are refused: a guess would produce an artifact that fails on the phone.
pub const DEVICES: &[Device] = &[
    Device {
        name: "iPhone 17 Pro",
        identifier: Some("iPhone18,1"),
        platform: Platform::Ios,
        architecture: "h18p",
    },
    Device { name: "iPhone 18 Pro", identifier: None, platform: Platform::Ios, architecture: "h19p" },
];

impl Device {
    /// The device with this identifier or name.
    ///
    /// # Errors
    /// [`Error::UnknownDevice`] lists the known ones.
    pub fn find(text: &str) -> Result<&'static Device, Error> {
        let fits =
            |device: &&Device| device.identifier == Some(text) || device.name.eq_ignore_ascii_case(text);
        DEVICES.iter().find(fits).ok_or_else(|| Error::UnknownDevice { name: text.into() })
    }

    /// Its architecture.
    pub fn architecture(&self) -> Architecture {
        Architecture(self.architecture.into())
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.identifier {
            Some(identifier) => write!(f, "{identifier} ({}, {})", self.name, self.architecture),
            None => write!(f, "\"{}\" ({})", self.name, self.architecture),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_architectures_are_accepted_and_others_are_named() {
        assert_eq!(Architecture::known("h18p", Platform::Ios).unwrap().as_str(), "h18p");
        let unknown = Architecture::known("h18q", Platform::Ios).unwrap_err();
        assert!(unknown.to_string().contains("h19p"), "{unknown}");
        let mac = Architecture::known("h17s", Platform::Ios).unwrap_err();
        assert!(mac.hint().unwrap().contains("--platform macos"), "{mac}");
        assert_eq!(Architecture::unchecked("h20p").unwrap().as_str(), "h20p");
    }

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        for bad in ["", "../h18p", "h18p/", "H18P", "h 18", "h18p;rm", "hhhhhhhhhhhhhhhhh", "-h18p"] {
            assert!(Architecture::unchecked(bad).is_err(), "{bad}");
            assert!(Architecture::known(bad, Platform::Ios).is_err(), "{bad}");
        }
    }

    #[test]
    fn devices_are_found_by_identifier_and_name() {
        assert_eq!(Device::find("iPhone18,1").unwrap().architecture().as_str(), "h18p");
        assert_eq!(Device::find("iphone 18 pro").unwrap().architecture().as_str(), "h19p");
        let unknown = Device::find("iPhone12,1").unwrap_err();
        assert!(unknown.to_string().contains("iPhone18,1 (iPhone 17 Pro, h18p)"), "{unknown}");
    }

    #[test]
    fn every_device_has_a_known_architecture() {
        for device in DEVICES {
            assert!(Architecture::known(device.architecture, device.platform).is_ok(), "{device}");
        }
    }
}
