use std::net::{IpAddr, Ipv4Addr};

use api::{Member, Membership, PeerId};

use super::{Setting, value};

/// One server of the ensemble and where the others reach it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberConfig {
    /// Its number, at least 1.
    pub id: PeerId,
    /// Name or IP address.
    pub host: String,
    /// Of its client API.
    pub client_port: u16,
    /// Of its quorum-svc.
    pub quorum_port: u16,
    /// Of its election-svc.
    pub election_port: u16,
    /// Whether it votes.
    pub role: MemberRole,
    /// Share of the quorum of its group, of a voter.
    pub weight: u32,
    /// Of a voter: a quorum is a majority of weight in a majority of groups.
    pub group: u32,
}

/// How a member takes part, as written in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberRole {
    /// Votes and acknowledges.
    Voter,
    /// Learns and serves reads only.
    Observer,
}

impl MemberConfig {
    /// `host:port` of the client API, with brackets around an IPv6 address.
    #[must_use]
    pub fn client_address(&self) -> String {
        self.address(self.client_port)
    }

    /// `host:port` of quorum-svc.
    #[must_use]
    pub fn quorum_address(&self) -> String {
        self.address(self.quorum_port)
    }

    /// `host:port` of election-svc.
    #[must_use]
    pub fn election_address(&self) -> String {
        self.address(self.election_port)
    }

    /// As the cores see it.
    #[must_use]
    pub fn member(&self) -> Member {
        let membership = match self.role {
            MemberRole::Voter => Membership::Voter { weight: self.weight, group: self.group },
            MemberRole::Observer => Membership::Observer,
        };
        Member { id: self.id, membership }
    }

    /// Whether its host is a machine of this name; either may have a domain that the other leaves out.
    pub(super) fn is_on(&self, host_name: &str) -> bool {
        let (host, name) = (self.host.to_ascii_lowercase(), host_name.to_ascii_lowercase());
        let within = |long: &str, short: &str| {
            let rest = long.strip_prefix(short).filter(|_| !short.is_empty());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        within(&host, &name) || within(&name, &host)
    }

    fn address(&self, port: u16) -> String {
        if self.host.contains(':') {
            format!("[{}]:{port}", self.host)
        } else {
            format!("{}:{port}", self.host)
        }
    }
}

impl value::Setting for MemberRole {
    const EXPECTED: &'static str = "\"voter\" or \"observer\"";

    fn parse(text: &str) -> Option<MemberRole> {
        match text {
            "voter" => Some(MemberRole::Voter),
            "observer" => Some(MemberRole::Observer),
            _ => None,
        }
    }

    fn to_toml(&self) -> String {
        match self {
            MemberRole::Voter => "\"voter\"".to_owned(),
            MemberRole::Observer => "\"observer\"".to_owned(),
        }
    }
}

impl MemberConfig {
    /// As an inline table of TOML.
    pub(super) fn to_toml(&self) -> String {
        let vote = match self.role {
            MemberRole::Voter if self.group == 0 => format!(", weight = {}", self.weight),
            MemberRole::Voter => format!(", weight = {}, group = {}", self.weight, self.group),
            MemberRole::Observer => String::new(),
        };
        format!(
            "{{ id = {}, host = {}, client_port = {}, quorum_port = {}, election_port = {}, role = {}{vote} }}",
            self.id,
            self.host.to_toml(),
            self.client_port,
            self.quorum_port,
            self.election_port,
            self.role.to_toml(),
        )
    }
}

/// The expected form of a host, if the text has another: a possible DNS name or an IP address at which others
/// can reach a machine. No port, no brackets.
pub(super) fn not_a_host(text: &str) -> Option<&'static str> {
    match text.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(address) if address.is_unspecified() => Some(
            "the name or the address at which the others reach this member; to listen on all addresses is what `listen.host` is for",
        ),
        Ok(address) if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) => {
            Some("the address of one machine")
        }
        Ok(_) => None,
        Err(_) if is_name(text) => None,
        Err(_) => Some(
            "a name or an IP address, without port: names have letters, digits, `_` and, but not at an end, `-`, at most 63 between \
             two dots and 253 in all, and do not end in a number",
        ),
    }
}

fn is_name(text: &str) -> bool {
    // A trailing dot does not change a name.
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // Resolvers take a name that ends in a number for an IPv4 address.
    let ends_in_number = text.rsplit('.').next().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit()));
    text.len() <= 253 && text.split('.').all(is_label) && !ends_in_number
}

/// The name of this machine, container or pod.
pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The member whose host is a machine of this name. The error names the requirement.
pub(super) fn called(host_name: &str, members: &[MemberConfig]) -> Result<PeerId, String> {
    let ids_of = |is: &dyn Fn(&MemberConfig) -> bool| -> Vec<PeerId> {
        members.iter().filter(|m| is(m)).map(|m| m.id).collect()
    };
    let exactly = ids_of(&|m| m.host.eq_ignore_ascii_case(host_name));
    let found = if exactly.is_empty() { ids_of(&|m| m.is_on(host_name)) } else { exactly };
    match found[..] {
        [id] => Ok(id),
        [] => {
            let hosts: Vec<&str> = members.iter().map(|m| m.host.as_str()).collect();
            Err(format!(
                "a member whose host is this machine, {host_name:?}, with or without a domain; the members' hosts are {}",
                hosts.join(", ")
            ))
        }
        _ => {
            let ids: Vec<String> = found.iter().map(PeerId::to_string).collect();
            Err(format!(
                "a number, because the members {} are all on this machine, {host_name:?}",
                ids.join(", ")
            ))
        }
    }
}

/// Ids and hosts of `count` members from those of the first: its number in the host is in braces and counts
/// up, so that `q-{0}.example` with 2 means `q-0.example` and `q-1.example`. The error names the fault.
pub(super) fn hosts(id: PeerId, host: &str, count: u32) -> Result<Vec<(PeerId, String)>, String> {
    if !(1..=COUNT_MAX).contains(&count) {
        return Err(format!("has the count {count}; expected a number from 1 to {COUNT_MAX}"));
    }
    let braced = host.split_once('{').and_then(|(before, rest)| {
        let (number, after) = rest.split_once('}')?;
        Some((before, number.parse::<u32>().ok()?, after))
    });
    match braced {
        Some((before, first, after)) if !after.contains(['{', '}']) => {
            let counted =
                |i| Some((PeerId(id.0.checked_add(i)?), format!("{before}{}{after}", first.checked_add(i)?)));
            let counted: Option<_> = (0..count).map(counted).collect();
            counted.ok_or_else(|| {
                format!("has the host {host:?} and the count {count}: the last number is too large")
            })
        }
        None if count == 1 && !host.contains(['{', '}']) => Ok(vec![(id, host.to_owned())]),
        _ => Err(format!(
            "has the host {host:?} and the count {count}; for several members write the number of the first into \
             braces, once, as in \"quorate-{{0}}.example\""
        )),
    }
}

/// Maximum number of members of one entry.
const COUNT_MAX: u32 = 255;
