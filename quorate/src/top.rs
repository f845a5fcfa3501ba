//! `quorate top`: the nodes and their load, again and again.

use std::{
    io::{self, IsTerminal as _},
    time::Instant,
};

use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::{
    args::TopArgs,
    exit::{Doing as _, Failure},
    output,
    status::{Found, unavailable},
};

mod frame;
mod load;
mod screen;

use frame::frame;
use screen::{Key, Screen};

/// What all nodes said at about one moment.
struct Sample {
    at: Instant,
    found: Found,
}

impl Sample {
    async fn take(args: &TopArgs) -> Result<Option<Sample>, Failure> {
        let found = Found::ask(&args.nodes).await?;
        Ok(found.map(|found| Sample { at: Instant::now(), found }))
    }
}

pub(crate) async fn run(args: &TopArgs) -> Result<(), Failure> {
    let first = Sample::take(args).await?.ok_or_else(|| unavailable(&args.nodes.endpoints.addresses()))?;
    if args.once {
        return once(args, &first).await;
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::usage("this is no terminal; --once prints one frame as text"));
    }
    live(args, first).await
}

async fn once(args: &TopArgs, first: &Sample) -> Result<(), Failure> {
    sleep(args.interval).await;
    let second = Sample::take(args).await?.ok_or_else(|| unavailable(&args.nodes.endpoints.addresses()))?;
    let lines: Vec<String> = frame(&second, Some(first)).into_iter().map(|line| line.text).collect();
    output::print(&lines.join("\n"))
}

async fn live(args: &TopArgs, first: Sample) -> Result<(), Failure> {
    let stopped = host::shutdown::on_signals().doing("listen for signals")?;
    let mut screen = Screen::open().doing("use the terminal")?;
    let mut ticks = interval(args.interval);
    // A slow answer delays the next question, and does not double it.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let (mut last, mut before) = (first, None::<Sample>);
    let (mut paused, mut silent) = (false, false);
    loop {
        let mut lines = frame(&last, before.as_ref());
        lines.push(frame::footer(paused, silent));
        screen.draw(&lines).doing("write to the terminal")?;
        let key = tokio::select! {
            key = screen.key() => key,
            () = stopped.cancelled() => return Ok(()),
            sample = next(&mut ticks, args), if !paused => {
                match sample? {
                    // Without an answer there is nothing newer to show.
                    None => silent = true,
                    Some(sample) => {
                        silent = false;
                        before = Some(std::mem::replace(&mut last, sample));
                    }
                }
                continue;
            }
        };
        match key {
            None | Some(Key::Quit) => return Ok(()),
            Some(Key::Pause) => paused = !paused,
            Some(Key::Other) => {}
        }
    }
}

async fn next(ticks: &mut tokio::time::Interval, args: &TopArgs) -> Result<Option<Sample>, Failure> {
    ticks.tick().await;
    Sample::take(args).await
}
