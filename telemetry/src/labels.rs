use api::session::Verb;

/// A fixed set of label values, so that a metric has one slot for each and recording looks nothing up.
pub trait Label: Copy {
    /// The names of the labels.
    const KEYS: &'static [&'static str];
    /// How many slots there are.
    const COUNT: usize;

    /// The slot.
    fn index(self) -> usize;

    /// The values that belong to a slot, in the order of [`Label::KEYS`].
    fn values(index: usize) -> Vec<&'static str>;
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident($key:literal) { $($(#[$value_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name {
            $($(#[$value_doc])* $variant,)+
        }

        impl $name {
            const VALUES: &'static [&'static str] = &[$($text),+];

            /// The value of the label.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)+
                }
            }
        }

        impl Label for $name {
            const KEYS: &'static [&'static str] = &[$key];
            const COUNT: usize = Self::VALUES.len();

            fn index(self) -> usize {
                self as usize
            }

            fn values(index: usize) -> Vec<&'static str> {
                Self::VALUES.get(index).copied().into_iter().collect()
            }
        }
    };
}

impl Label for Verb {
    const KEYS: &'static [&'static str] = &["verb"];
    const COUNT: usize = Verb::ALL.len();

    fn index(self) -> usize {
        self as usize
    }

    fn values(index: usize) -> Vec<&'static str> {
        Verb::ALL.get(index).map(|verb| verb.as_str()).into_iter().collect()
    }
}

label! {
    /// A part of a request's time.
    Phase("phase") {
        /// From the socket to the store's turn.
        Queue = "queue",
        /// From there to the answer: for a write, the path through the quorum.
        Serve = "serve",
    }
}

label! {
    /// How a learner is brought up to date.
    Mode("mode") {
        /// By the entries that it lacks.
        Diff = "diff",
        /// The same, after it has cut off what the leader does not have.
        Trunc = "trunc",
        /// By a snapshot.
        Snap = "snap",
    }
}

label! {
    /// The role of a node.
    RoleLabel("role") {
        /// Without a leader.
        Looking = "looking",
        /// Votes and follows.
        Follower = "follower",
        /// Leads.
        Leader = "leader",
        /// Follows without a vote.
        Observer = "observer",
    }
}

label! {
    /// Which ports a certificate secures.
    TlsUse("use") {
        /// Those between members.
        Members = "members",
        /// Those for clients.
        Clients = "clients",
        /// That of probes and metrics.
        Http = "http",
        /// None: a gateway shows it to stores.
        Gateway = "gateway",
    }
}

label! {
    /// A port of a node.
    Port("port") {
        /// The client API.
        Client = "client",
        /// Leader and learners.
        Quorum = "quorum",
        /// Votes.
        Election = "election",
        /// Probes and metrics.
        Http = "http",
        /// ZooKeeper's clients.
        ZooKeeper = "zookeeper",
        /// Any other.
        Other = "other",
    }
}

impl Port {
    /// The port that is called this in messages and in the log.
    #[must_use]
    pub fn named(name: &str) -> Port {
        match name {
            "client" => Port::Client,
            "quorum" => Port::Quorum,
            "election" => Port::Election,
            "HTTP" => Port::Http,
            "ZooKeeper" => Port::ZooKeeper,
            _ => Port::Other,
        }
    }
}

label! {
    /// Why a node closed a connection, or took none.
    Closed("reason") {
        /// No complete request arrived in time, or others needed the place of a connection that waited for a
        /// request.
        Silent = "silent",
        /// A message was begun and did not become whole in time.
        Unfinished = "unfinished",
        /// Answers were not read.
        Unread = "unread",
        /// The protocol was broken, or the network.
        Broken = "broken",
        /// The port has its maximum of connections.
        Full = "full",
        /// The address has its maximum of connections.
        Address = "address",
        /// No TLS, or no certificate that this port takes.
        Handshake = "handshake",
        /// The certificate expired or was revoked since the connection began.
        Untrusted = "untrusted",
    }
}

label! {
    /// Where processor time went.
    CpuMode("cpu_mode") {
        /// Our own code.
        User = "user",
        /// The system on our behalf.
        System = "system",
    }
}

/// Two labels: a slot for each pair.
impl<A: Label, B: Label> Label for (A, B) {
    const KEYS: &'static [&'static str] = &[A::KEYS[0], B::KEYS[0]];
    const COUNT: usize = A::COUNT * B::COUNT;

    fn index(self) -> usize {
        self.0.index() * B::COUNT + self.1.index()
    }

    fn values(index: usize) -> Vec<&'static str> {
        let mut values = A::values(index / B::COUNT);
        values.extend(B::values(index % B::COUNT));
        values
    }
}
