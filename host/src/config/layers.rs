use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use api::PeerId;
use toml::de::{DeTable, DeValue};

use super::{
    CLIENT_PORT, ConfigError, ELECTION_PORT, MemberConfig, MemberRole, OTHER_VARIABLES, QUORUM_PORT, Setting,
    member, problem::nearest, variable,
};

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// Built in.
    Default,
    /// A line of the file.
    File {
        /// As it was named.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// An environment variable.
    Env(String),
    /// The command line.
    Flag,
    /// Not set, and its default depends on this other setting.
    Follows(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File { path, line } => write!(f, "{}:{line}", path.display()),
            Source::Env(name) => write!(f, "environment {name}"),
            Source::Flag => f.write_str("flag"),
            Source::Follows(key) => write!(f, "follows from {key}"),
        }
    }
}

/// One setting in effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Effective {
    /// With its section: `timing.tick`.
    pub key: String,
    /// As it would be written in the file.
    pub value: String,
    /// Which layer won.
    pub source: Source,
    /// Meaning of the setting.
    pub meaning: &'static str,
}

/// The three layers above the defaults, and a record of the requested keys: a key that is never requested is
/// wrong.
pub(super) struct Layers {
    flags: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
    /// Variables of the environment that are not ours alone.
    shared: BTreeMap<String, String>,
    file: FileLayer,
    asked: Vec<Effective>,
    problems: Vec<String>,
}

/// A table of the file, flattened.
#[derive(Default)]
struct FileLayer {
    path: PathBuf,
    values: BTreeMap<String, Given>,
    members: Option<Members>,
}

/// A value as it was written.
#[derive(Clone)]
struct Given {
    /// `None` for an array, table, date or the like, which no single setting is.
    text: Option<String>,
    source: Source,
}

struct Members {
    source: Source,
    list: Vec<BTreeMap<String, Given>>,
}

impl Layers {
    pub(super) fn new(
        path: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: &[(String, String)],
    ) -> Result<Layers, ConfigError> {
        let mut problems = Vec::new();
        let file = match path {
            None => FileLayer::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| {
                    ConfigError::one(format!("cannot read the configuration {}: {e}; name a file that is there and may be read (--config), or none",
                        path.display()))
                })?;
                FileLayer::parse(path, &text, &mut problems)?
            }
        };
        let (mut env, shared): (BTreeMap<String, String>, _) =
            env.into_iter().partition(|(name, _)| name.starts_with("QUORATE_"));
        env.retain(|name, value| !OTHER_VARIABLES.contains(&name.as_str()) && !is_service_link(name, value));
        Ok(Layers { flags: flags.iter().cloned().collect(), env, shared, file, asked: Vec::new(), problems })
    }

    /// The value of `key`, from the topmost layer that has it. Asked once for each key.
    pub(super) fn get<T: Setting>(&mut self, key: &'static str, meaning: &'static str, default: T) -> T {
        let given = self.given(key);
        let value = match &given {
            None => default,
            Some(given) => self.parse(key, given).unwrap_or(default),
        };
        self.record(key, meaning, value.to_toml(), given);
        value
    }

    /// Whether a setting has another source than its default.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.given(key).is_some()
    }

    /// As [`Layers::get`], for a setting whose default depends on the setting `of`.
    pub(super) fn get_following<T: Setting>(
        &mut self,
        key: &'static str,
        meaning: &'static str,
        default: T,
        of: &'static str,
    ) -> T {
        let value = self.get(key, meaning, default);
        if let Some(Effective { source: source @ Source::Default, .. }) = self.asked.last_mut() {
            *source = Source::Follows(of);
        }
        value
    }

    /// As [`Layers::get`], for a setting that `variable`, which other programs read as well, decides if it is set nowhere else.
    /// `read` finds the value in the variables that are shared with other programs; `None`: they do not say.
    pub(super) fn get_or_shared<T: Setting>(
        &mut self,
        key: &'static str,
        meaning: &'static str,
        variable: &str,
        read: impl FnOnce(&BTreeMap<String, String>) -> Option<T>,
        default: T,
    ) -> T {
        if self.given(key).is_none()
            && let Some(value) = read(&self.shared)
        {
            let given = Given { text: None, source: Source::Env(variable.to_owned()) };
            self.record(key, meaning, value.to_toml(), Some(given));
            return value;
        }
        self.get(key, meaning, default)
    }

    /// As [`Layers::get`], for a setting that has no sensible default: `placeholder` is returned when it is missing,
    /// but loading fails.
    pub(super) fn require<T: Setting>(
        &mut self,
        key: &'static str,
        meaning: &'static str,
        placeholder: T,
        example: &str,
    ) -> T {
        if self.given(key).is_none_or(|given| given.text.is_some_and(|text| text.is_empty())) {
            let _: PathBuf = self.missing(key, example);
        }
        self.get(key, meaning, placeholder)
    }

    /// A path, `None` if it is not set or empty. A relative one from the file is relative to the file's folder.
    pub(super) fn path(&mut self, key: &'static str, meaning: &'static str) -> Option<PathBuf> {
        let given = self.given(key);
        let text =
            given.as_ref().and_then(|g| self.parse::<PathBuf>(key, g)).filter(|p| !p.as_os_str().is_empty());
        let value = text.map(|p| match &given {
            Some(Given { source: Source::File { path, .. }, .. }) => {
                path.parent().unwrap_or(Path::new("")).join(p)
            }
            _ => p,
        });
        self.record(key, meaning, value.clone().unwrap_or_default().to_toml(), given);
        value
    }

    /// Notes that a setting without a default is not set.
    pub(super) fn missing<T: Default>(&mut self, key: &str, example: &str) -> T {
        self.problems.push(format!(
            "`{key}` is not set; write {example} into the configuration file, or set {}",
            variable(key)
        ));
        T::default()
    }

    /// The list of members, in the order of their ids.
    pub(super) fn members(&mut self) -> Vec<MemberConfig> {
        const MEANING: &str =
            "all servers: id, host, count, client_port, quorum_port, election_port, role, weight, group";
        let given = self.flags.get("members").map(|t| (t.clone(), Source::Flag)).or_else(|| {
            let name = variable("members");
            self.env.get(&name).map(|t| (t.clone(), Source::Env(name.clone())))
        });
        let members = match given {
            Some((text, source)) => match parse_members(&text, &source) {
                Ok(list) => Some(Members { source, list }),
                Err(problem) => {
                    self.problems.push(problem);
                    None
                }
            },
            None => self.file.members.take(),
        };
        let source = members.as_ref().map_or(Source::Default, |m| m.source.clone());
        let mut members: Vec<MemberConfig> =
            members.map_or(Vec::new(), |m| m.list).iter().flat_map(|m| self.member(m)).collect();
        members.sort_by_key(|m| m.id);
        let list: Vec<String> = members.iter().map(MemberConfig::to_toml).collect();
        self.asked.push(Effective {
            key: "members".to_owned(),
            value: format!("[{}]", list.join(", ")),
            source,
            meaning: MEANING,
        });
        members
    }

    /// Notes that the value of `key`, though of the right type, will not do.
    pub(super) fn refuse(&mut self, key: &str, expected: &str) {
        let Some(e) = self.asked.iter().find(|e| e.key == key) else {
            return;
        };
        let problem = format!("{}: `{key}` is {}; expected {expected}", e.source, e.value);
        self.problems.push(problem);
    }

    /// Notes any other fault.
    pub(super) fn problem(&mut self, problem: &str) {
        self.problems.push(problem.to_owned());
    }

    /// Reports keys that no setting has read, and ends.
    pub(super) fn finish(mut self) -> Result<Vec<Effective>, ConfigError> {
        let known: BTreeSet<&str> = self.asked.iter().map(|e| e.key.as_str()).collect();
        let unknown = |at: String, key: &str| unknown_key(&at, key, known.iter().copied());
        for (key, given) in &self.file.values {
            if !known.contains(key.as_str()) {
                self.problems.push(unknown(given.source.to_string(), key));
            }
        }
        for key in self.flags.keys() {
            if !known.contains(key.as_str()) {
                self.problems.push(unknown(Source::Flag.to_string(), key));
            }
        }
        let variables: BTreeSet<String> = known.iter().map(|k| variable(k)).collect();
        for name in self.env.keys() {
            if !variables.contains(name) {
                let known = variables.iter().map(String::as_str).chain(OTHER_VARIABLES);
                let hint = match nearest(name, known) {
                    Some(near) => format!("did you mean {near}?"),
                    None => "`quorate config show` lists the settings".to_owned(),
                };
                self.problems.push(format!("environment: {name} is no setting; {hint}"));
            }
        }
        if self.problems.is_empty() { Ok(self.asked) } else { Err(ConfigError { problems: self.problems }) }
    }

    fn given(&self, key: &str) -> Option<Given> {
        if let Some(text) = self.flags.get(key) {
            return Some(Given { text: Some(text.clone()), source: Source::Flag });
        }
        let name = variable(key);
        if let Some(text) = self.env.get(&name) {
            return Some(Given { text: Some(text.clone()), source: Source::Env(name) });
        }
        self.file.values.get(key).cloned()
    }

    fn parse<T: Setting>(&mut self, key: &str, given: &Given) -> Option<T> {
        let value = given.text.as_deref().and_then(T::parse);
        if value.is_none() {
            let found = given.text.as_ref().map_or("a table or list".to_owned(), |t| format!("\"{t}\""));
            self.problems.push(format!("{}: `{key}` is {found}; expected {}", given.source, T::EXPECTED));
        }
        value
    }

    fn record(&mut self, key: &str, meaning: &'static str, value: String, given: Option<Given>) {
        let source = given.map_or(Source::Default, |g| g.source);
        self.asked.push(Effective { key: key.to_owned(), value, source, meaning });
    }

    /// One entry of the list: a member, or with `count` several alike.
    fn member(&mut self, table: &BTreeMap<String, Given>) -> Vec<MemberConfig> {
        const KEYS: [&str; 9] =
            ["id", "host", "count", "client_port", "quorum_port", "election_port", "role", "weight", "group"];
        for (key, given) in table {
            if !KEYS.contains(&key.as_str()) {
                let at = format!("{}, in a member", given.source);
                self.problems.push(unknown_key(&at, key, KEYS));
            }
        }
        let at = table.values().next().map_or_else(String::new, |g| format!("{}: ", g.source));
        for key in ["id", "host"] {
            if !table.contains_key(key) {
                self.problems
                    .push(format!("{at}a member has no `{key}`; every member needs an id and a host"));
            }
        }
        let id = PeerId(self.member_value(table, "id", 1));
        let config = MemberConfig {
            id,
            host: self.member_value(table, "host", String::new()),
            client_port: self.member_value(table, "client_port", CLIENT_PORT),
            quorum_port: self.member_value(table, "quorum_port", QUORUM_PORT),
            election_port: self.member_value(table, "election_port", ELECTION_PORT),
            role: self.member_value(table, "role", MemberRole::Voter),
            weight: self.member_value(table, "weight", 1),
            group: self.member_value(table, "group", 0),
        };
        if id == PeerId(0) {
            self.problems.push(format!("{at}a member has the id 0; ids count from 1"));
        }
        if [config.client_port, config.quorum_port, config.election_port].contains(&0) {
            self.problems
                .push(format!("{at}member {id} has the port 0, which others cannot dial; name the port"));
        }
        for key in ["weight", "group"] {
            if config.role == MemberRole::Observer && table.contains_key(key) {
                self.problems
                    .push(format!("{at}member {id} is an observer and has no {key}; remove `{key}`"));
            }
        }
        let count: u32 = self.member_value(table, "count", 1);
        match member::hosts(id, &config.host, count) {
            Ok(hosts) => {
                if config.host.contains('{') && !table.contains_key("count") {
                    self.problems.push(format!(
                        "{at}member {id} has the host {} and no `count`; set the number of its members, as in `count = 3`, or \
                         leave the braces out",
                        config.host.to_toml()
                    ));
                }
                let wrong = hosts.iter().find_map(|(id, host)| Some((id, host, member::not_a_host(host)?)));
                if let Some((id, host, expected)) = wrong
                    && table.contains_key("host")
                {
                    self.problems.push(format!(
                        "{at}member {id} has the host {}; expected {expected}",
                        host.to_toml()
                    ));
                }
                let alike = |(id, host)| MemberConfig { id, host, ..config.clone() };
                hosts.into_iter().map(alike).collect()
            }
            Err(problem) => {
                self.problems.push(format!("{at}member {id} {problem}"));
                vec![config]
            }
        }
    }

    fn member_value<T: Setting>(&mut self, table: &BTreeMap<String, Given>, key: &str, default: T) -> T {
        match table.get(key) {
            None => default,
            Some(given) => self.parse(&format!("members.{key}"), given).unwrap_or(default),
        }
    }
}

impl FileLayer {
    fn parse(path: &Path, text: &str, problems: &mut Vec<String>) -> Result<FileLayer, ConfigError> {
        let table = DeTable::parse(text)
            .map_err(|e| ConfigError::one(format!("{} is not valid TOML: {e}", path.display())))?;
        let mut layer = FileLayer { path: path.to_owned(), ..FileLayer::default() };
        for (key, value) in table.get_ref() {
            let source = layer.source(text, key.span().start);
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("members", DeValue::Array(_)) => {
                    let line_of = |at| layer.source(text, at);
                    match member_tables(value.get_ref(), line_of) {
                        Ok(list) => layer.members = Some(Members { source, list }),
                        Err(problem) => problems.push(format!("{source}: {problem}")),
                    }
                }
                ("members", _) => {
                    problems.push(format!("{source}: `members` is one table; write [[members]]"))
                }
                (key, value) => layer.flatten(text, key, value, source),
            }
        }
        Ok(layer)
    }

    fn flatten(&mut self, text: &str, key: &str, value: &DeValue<'_>, source: Source) {
        match value {
            DeValue::Table(table) => {
                for (inner, value) in table {
                    let source = self.source(text, inner.span().start);
                    self.flatten(text, &format!("{key}.{}", inner.get_ref()), value.get_ref(), source);
                }
            }
            other => {
                self.values.insert(key.to_owned(), Given { text: scalar(other), source });
            }
        }
    }

    fn source(&self, text: &str, at: usize) -> Source {
        Source::File {
            path: self.path.clone(),
            line: 1 + text.bytes().take(at).filter(|&b| b == b'\n').count(),
        }
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(s) => Some(s.to_string()),
        DeValue::Integer(i) => Some(i.to_string()),
        DeValue::Float(f) => Some(f.to_string()),
        DeValue::Boolean(b) => Some(b.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// Members in a flag or in the environment: an array of inline tables, as in the file after `members =`.
fn parse_members(text: &str, source: &Source) -> Result<Vec<BTreeMap<String, Given>>, String> {
    const EXPECTED: &str = "a list such as [{ id = 1, host = \"a\" }, { id = 2, host = \"b\" }]";
    let fault = |e: &dyn fmt::Display| format!("{source}: `members` is {text:?}; expected {EXPECTED}: {e}");
    let value = DeValue::parse(text).map_err(|e| fault(&e.message()))?;
    member_tables(value.get_ref(), |_| source.clone()).map_err(|e| fault(&e))
}

fn member_tables(
    value: &DeValue<'_>,
    source_at: impl Fn(usize) -> Source,
) -> Result<Vec<BTreeMap<String, Given>>, &'static str> {
    let DeValue::Array(array) = value else {
        return Err("it is not a list");
    };
    let mut list = Vec::new();
    for member in array {
        let DeValue::Table(table) = member.get_ref() else {
            return Err("a member is not a table");
        };
        let values = table.iter().map(|(key, value)| {
            let given = Given { text: scalar(value.get_ref()), source: source_at(key.span().start) };
            (key.get_ref().to_string(), given)
        });
        list.push(values.collect());
    }
    Ok(list)
}

fn unknown_key<'a>(at: &str, key: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(key, known) {
        Some(near) => format!("{at}: there is no key `{key}`; did you mean `{near}`?"),
        None => format!("{at}: there is no key `{key}`; `quorate config show` lists the keys"),
    }
}

/// Kubernetes gives every pod variables about every Service of its namespace. A Service whose name begins with
/// `quorate` must not keep nodes from starting.
/// <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>
fn is_service_link(name: &str, value: &str) -> bool {
    let port_of_link =
        name.split_once("_PORT_").is_some_and(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || port_of_link
        || (name.ends_with("_PORT") && (value.starts_with("tcp://") || value.starts_with("udp://")))
}
