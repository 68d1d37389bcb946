//! Protocol versions and their negotiation (protocol basics, section "Version Negotiation").

use std::{fmt, str::FromStr};

/// A protocol version: "1.4" is the same as "1.4.0".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    major: u16,
    minor: u16,
    revision: u16,
}

const fn version(major: u16, minor: u16, revision: u16) -> Version {
    Version {
        major,
        minor,
        revision,
    }
}

impl Version {
    pub const V1_0: Version = version(1, 0, 0);
    pub const V1_1: Version = version(1, 1, 0);
    pub const V1_2: Version = version(1, 2, 0);
    pub const V1_3: Version = version(1, 3, 0);
    pub const V1_4: Version = version(1, 4, 0);
    pub const V1_4_1: Version = version(1, 4, 1);
    pub const V1_4_2: Version = version(1, 4, 2);
    pub const V1_4_3: Version = version(1, 4, 3);
    /// 1.5 was never defined.
    pub const V1_6: Version = version(1, 6, 0);
    /// Coded in the reference server, not yet in the protocol's text.
    pub const V1_7: Version = version(1, 7, 0);

    /// The oldest version spoken.
    pub const MIN: Version = Version::V1_0;
    /// The newest version that this server knows, finished or not.
    pub const NEWEST: Version = Version::V1_7;
    /// What a client means that names no version: the default in the text of `server.version`.
    pub const UNSAID: Version = Version::V1_4;

    /// Every version that the protocol defines, ascending.
    pub const DEFINED: [Version; 10] = [
        Version::V1_0,
        Version::V1_1,
        Version::V1_2,
        Version::V1_3,
        Version::V1_4,
        Version::V1_4_1,
        Version::V1_4_2,
        Version::V1_4_3,
        Version::V1_6,
        Version::V1_7,
    ];

    /// Which defined version rules this one: the newest that is not above it.
    pub fn index(self) -> usize {
        Version::DEFINED
            .iter()
            .rposition(|defined| *defined <= self)
            .unwrap_or(0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        match self.revision {
            0 => Ok(()),
            revision => write!(f, ".{revision}"),
        }
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A version is numbers with dots between them, at least one dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a protocol version is two or three numbers with dots between them, like \"1.4\"")]
pub struct NotAVersion;

impl FromStr for Version {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Version, NotAVersion> {
        let mut numbers = text.split('.').map(|part| {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        });
        let mut next = || numbers.next().map(|number| number.ok_or(NotAVersion));
        let major = next().ok_or(NotAVersion)??;
        let minor = next().ok_or(NotAVersion)??;
        let revision = next().transpose()?.unwrap_or(0);
        match next() {
            None => Ok(version(major, minor, revision)),
            Some(_) => Err(NotAVersion),
        }
    }
}

/// What a session speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// No `server.version` yet: every method is there, in shapes that clients of 1.0 and of 1.4 both read.
    Anything,
    Agreed(Version),
}

impl Speaks {
    /// The version whose shapes an answer has. Sessions that agreed on none get those of 1.4.3.
    pub fn version(self) -> Version {
        match self {
            Speaks::Anything => Version::V1_4_3,
            Speaks::Agreed(version) => version,
        }
    }
}

/// The range of versions that a client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    pub min: Version,
    pub max: Version,
}

impl Offer {
    pub const fn only(version: Version) -> Offer {
        Offer {
            min: version,
            max: version,
        }
    }

    /// The version to use: `min(client's max, server's max)`, unless that is below
    /// `max(client's min, server's min)`.
    ///
    /// A client whose newest version is older than 1.0 (Electrum 2 sends "0.10") gets 1.0: the text
    /// of 1.0 says that the value is ignored.
    pub fn choose(self, server_max: Version) -> Option<Version> {
        if self.max < Version::MIN {
            return Some(Version::MIN);
        }
        let chosen = self.max.min(server_max);
        (chosen >= self.min.max(Version::MIN)).then_some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_read_and_written() {
        for (text, written) in [
            ("1.0", "1.0"),
            ("1.4", "1.4"),
            ("1.4.0", "1.4"),
            ("1.4.2", "1.4.2"),
            ("0.10", "0.10"),
            ("2.0", "2.0"),
        ] {
            assert_eq!(parsed(text).to_string(), written);
        }
        for text in [
            "", "1", "1.", ".1", "1.x", "1.4.2.1", "-1.4", "+1.4", " 1.4", "1.99999",
        ] {
            assert_eq!(text.parse::<Version>(), Err(NotAVersion), "{text:?}");
        }
    }

    #[test]
    fn versions_are_ordered_by_number_not_by_text() {
        assert!(parsed("1.10") > parsed("1.4.2"));
        assert!(parsed("0.10") < Version::V1_0);
        assert!(Version::DEFINED.is_sorted());
    }

    #[test]
    fn a_version_between_two_is_ruled_by_the_older_one() {
        let rules = |text: &str| Version::DEFINED[parsed(text).index()];
        assert_eq!(rules("1.5"), Version::V1_4_3);
        assert_eq!(rules("1.6.1"), Version::V1_6);
        assert_eq!(rules("0.9"), Version::V1_0);
        for defined in Version::DEFINED {
            assert_eq!(Version::DEFINED[defined.index()], defined);
        }
    }

    #[test]
    fn the_highest_common_version_is_chosen() {
        let choose = |min: &str, max: &str| {
            Offer {
                min: parsed(min),
                max: parsed(max),
            }
            .choose(Version::V1_6)
            .map(|version| version.to_string())
        };
        assert_eq!(choose("1.4", "1.6").as_deref(), Some("1.6"));
        assert_eq!(choose("1.4", "1.4").as_deref(), Some("1.4"));
        assert_eq!(choose("1.3", "1.4.2").as_deref(), Some("1.4.2"));
        assert_eq!(choose("0.10", "1.1").as_deref(), Some("1.1"));
        assert_eq!(choose("1.4", "9.0").as_deref(), Some("1.6"));
        assert_eq!(choose("1.4", "1.5").as_deref(), Some("1.5"));
        assert_eq!(choose("1.7", "1.8"), None);
        assert_eq!(choose("1.6", "1.4"), None, "an empty range");
        assert_eq!(choose("0.9", "0.10").as_deref(), Some("1.0"));
    }
}
