//! temp
use clap::Parser;
use explore::*;
#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 3)] voters: usize,
    #[arg(long, default_value_t = 0)] observers: usize,
    #[arg(long, value_enum, default_value_t)] start: zab::Start,
    #[arg(long, value_enum, default_value_t)] fault: zab::Fault,
    #[command(flatten)] bounds: zab::Bounds,
    #[arg(long, default_value_t = 80_000_000)] states: usize,
    #[arg(long, default_value_t = 600)] seconds: u64,
}
fn main() {
    let a = Args::parse();
    let mut m = zab::Zab::new(zab::Setup{voters:a.voters,observers:a.observers,start:a.start,bounds:a.bounds,fault:a.fault}).unwrap();
    let r = explore(&mut m, Limits{states:a.states,time:std::time::Duration::from_secs(a.seconds),progress:std::time::Duration::from_secs(5)});
    println!("{r}");
}
