//! The remaining events: every kind of fault and of request has a budget, so that the number of states is
//! finite.

/// How often each thing may happen in one run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, clap::Args)]
pub struct Bounds {
    /// Times that the election makes a server the leader
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..16))]
    pub elections: u8,
    /// Crashes, each followed by a restart
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..8))]
    pub crashes: u8,
    /// Writes, each asked of any server that serves
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..8))]
    pub writes: u8,
    /// Time-outs: a server loses patience with its leader or its learners; or a leader that is about to stop
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..16))]
    pub timeouts: u8,
    /// Crashes in which the server loses its whole disk
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..4))]
    pub wipes: u8,
    /// Crashes after which the server finds the end of its log damaged, or has got an older copy of its disk
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..4))]
    pub damages: u8,
    /// Barriers (what a linearizable read waits for)
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..4))]
    pub barriers: u8,
    /// Snapshots that stores save; the second of a server purges its log
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..4))]
    pub snapshots: u8,
    /// Connections that break by themselves
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..8))]
    pub cuts: u8,
}

impl Bounds {
    /// Nothing happens.
    pub const NONE: Bounds = Bounds {
        elections: 0,
        crashes: 0,
        writes: 0,
        timeouts: 0,
        wipes: 0,
        damages: 0,
        barriers: 0,
        snapshots: 0,
        cuts: 0,
    };
}

/// The remaining budgets, and three facts about the run, in one word of a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Left {
    pub(crate) of: Bounds,
    /// Servers that were wiped, damaged or put back, a bit each.
    pub(crate) wiped: u8,
    /// A server was elected before.
    pub(crate) led: bool,
    /// Server 2 followed before.
    pub(crate) followed: bool,
}

impl Left {
    pub(crate) fn pack(self) -> u32 {
        let Bounds { elections, crashes, writes, timeouts, wipes, damages, barriers, snapshots, cuts } =
            self.of;
        let fields = [
            (elections, 4),
            (crashes, 3),
            (writes, 3),
            (timeouts, 4),
            (wipes, 2),
            (damages, 2),
            (barriers, 2),
            (snapshots, 2),
            (cuts, 3),
            (self.wiped, 5),
            (u8::from(self.led), 1),
            (u8::from(self.followed), 1),
        ];
        fields.into_iter().fold(0, |word, (field, bits)| (word << bits) | u32::from(field))
    }

    pub(crate) fn unpack(mut word: u32) -> Left {
        let mut take = |bits: u32| {
            let field = word & ((1 << bits) - 1);
            word >>= bits;
            field as u8
        };
        // The last field that was packed comes out first.
        let (followed, led, wiped) = (take(1) == 1, take(1) == 1, take(5));
        let (cuts, snapshots, barriers, damages, wipes) = (take(3), take(2), take(2), take(2), take(2));
        let (timeouts, writes, crashes, elections) = (take(4), take(3), take(3), take(4));
        let of = Bounds { elections, crashes, writes, timeouts, wipes, damages, barriers, snapshots, cuts };
        Left { of, wiped, led, followed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_again() {
        let of = Bounds {
            elections: 15,
            crashes: 1,
            writes: 7,
            timeouts: 9,
            wipes: 3,
            damages: 2,
            barriers: 1,
            snapshots: 2,
            cuts: 5,
        };
        for (wiped, led, followed) in [(0, false, true), (31, true, false), (5, true, true)] {
            let left = Left { of, wiped, led, followed };
            assert_eq!(Left::unpack(left.pack()), left);
        }
    }
}
