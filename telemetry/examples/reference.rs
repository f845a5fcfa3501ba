//! Prints docs/metrics.md.

fn main() {
    print!("{}", telemetry::reference::page());
}
