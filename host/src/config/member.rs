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
