use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// A type that a setting can have. The text is the same in a flag, in the environment and in the file.
pub trait Setting: Sized {
    /// The expected form, with an example; ends the sentence "expected ...".
    const EXPECTED: &'static str;

    /// Reads the text; `None` if it is not what is expected.
    fn parse(text: &str) -> Option<Self>;

    /// As it would be written in the file.
    fn to_toml(&self) -> String;
}

/// A number of bytes, written as `512B`, `64KiB`, `1MiB`, `2GiB` (or with `kB`, `MB`, `GB` for powers of ten, or
/// without a unit).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Size(pub u64);

impl Size {
    /// `n` MiB.
    #[must_use]
    pub const fn mib(n: u64) -> Size {
        Size(n << 20)
    }

    /// As a length in memory; saturates on machines whose memory is smaller.
    #[must_use]
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, bytes) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= bytes && self.0.is_multiple_of(bytes) {
                return write!(f, "{}{unit}", self.0 / bytes);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl Setting for Size {
    const EXPECTED: &'static str = "a size such as \"64KiB\", \"1MiB\" or a number of bytes";

    fn parse(text: &str) -> Option<Size> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at_checked(digits)?;
        let factor = match unit.trim_start() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(factor).map(Size)
    }

    fn to_toml(&self) -> String {
        format!("\"{self}\"")
    }
}

/// A text that nothing shows.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Hidden(pub(super) String);

impl Setting for Hidden {
    const EXPECTED: &'static str = "a text";

    fn parse(text: &str) -> Option<Hidden> {
        Some(Hidden(text.to_owned()))
    }

    fn to_toml(&self) -> String {
        if self.0.is_empty() { "\"\"" } else { "\"(hidden)\"" }.to_owned()
    }
}

/// A port, or `off`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionalPort(pub Option<u16>);

impl OptionalPort {
    /// Port of the quorum's probes and metrics, if it is a process of its own beside the one with this port.
    #[must_use]
    pub fn quorum(self) -> OptionalPort {
        self.behind(1)
    }

    /// The same for the election.
    #[must_use]
    pub fn election(self) -> OptionalPort {
        self.behind(2)
    }

    /// Off stays off, and any port stays any.
    fn behind(self, distance: u16) -> OptionalPort {
        match self.0 {
            Some(0) | None => self,
            // At the very end there is no next one: any, rather than the same.
            Some(port) => OptionalPort(Some(port.checked_add(distance).unwrap_or(0))),
        }
    }
}

impl Setting for OptionalPort {
    const EXPECTED: &'static str = "a number from 0 to 65535, or \"off\"";

    fn parse(text: &str) -> Option<OptionalPort> {
        match text {
            "off" => Some(OptionalPort(None)),
            _ => text.parse().ok().map(|port| OptionalPort(Some(port))),
        }
    }

    fn to_toml(&self) -> String {
        self.0.map_or("\"off\"".to_owned(), |port| port.to_string())
    }
}

/// A number of threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Count(pub(super) Option<u32>);

impl Setting for Count {
    const EXPECTED: &'static str = "a number from 0 to 256, or \"auto\"";

    fn parse(text: &str) -> Option<Count> {
        match text {
            "auto" => Some(Count(None)),
            _ => text.parse().ok().filter(|&threads| threads <= 256).map(|threads| Count(Some(threads))),
        }
    }

    fn to_toml(&self) -> String {
        self.0.map_or("\"auto\"".to_owned(), |threads| threads.to_string())
    }
}

/// Which member a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NodeId {
    /// The member with this id.
    Number(u32),
    /// The member whose host is this machine.
    HostName,
}

impl Setting for NodeId {
    const EXPECTED: &'static str = "a number from 1 to 4294967295, or \"hostname\"";

    fn parse(text: &str) -> Option<NodeId> {
        match text {
            "hostname" => Some(NodeId::HostName),
            _ => text.parse().ok().filter(|&id| id != 0).map(NodeId::Number),
        }
    }

    fn to_toml(&self) -> String {
        match self {
            NodeId::Number(id) => id.to_string(),
            NodeId::HostName => "\"hostname\"".to_owned(),
        }
    }
}

impl Setting for Duration {
    const EXPECTED: &'static str = "a duration such as \"200ms\", \"2s\" or \"1m 30s\"";

    fn parse(text: &str) -> Option<Duration> {
        humantime::parse_duration(text).ok()
    }

    fn to_toml(&self) -> String {
        format!("\"{}\"", humantime::format_duration(*self))
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";

    fn parse(text: &str) -> Option<bool> {
        text.parse().ok()
    }

    fn to_toml(&self) -> String {
        self.to_string()
    }
}

impl Setting for String {
    const EXPECTED: &'static str = "a text";

    fn parse(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn to_toml(&self) -> String {
        toml::Value::from(self.as_str()).to_string()
    }
}

impl Setting for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn parse(text: &str) -> Option<PathBuf> {
        Some(Path::new(text).to_owned())
    }

    fn to_toml(&self) -> String {
        self.to_string_lossy().into_owned().to_toml()
    }
}

impl Setting for IpAddr {
    const EXPECTED: &'static str = "an IP address such as \"127.0.0.1\", \"0.0.0.0\" or \"::\"";

    fn parse(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    fn to_toml(&self) -> String {
        format!("\"{self}\"")
    }
}

macro_rules! number {
    ($type:ty, $expected:literal) => {
        impl Setting for $type {
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Option<$type> {
                text.parse().ok()
            }

            fn to_toml(&self) -> String {
                self.to_string()
            }
        }
    };
}

number!(u16, "a number from 0 to 65535");
number!(u32, "a number from 0 to 4294967295");
number!(u64, "a number from 0 upward");
number!(f64, "a number such as 0.01");
