//! The threads of a node. One, the engine, runs all its services: a hand-over between two tasks of one thread costs a third of one
//! between threads, and a write has about ten. The log and the checkpoint have threads of their own, which block. Front threads, if
//! there are any, serve the connections of clients: decode what comes, encode what goes.

use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::exit::{Doing as _, Failure};

/// The runtime of a command: of one that runs a node, the engine; of one for people, with a thread for each core.
pub(crate) fn runtime(runs_a_node: bool) -> Result<Runtime, Failure> {
    let mut builder = Builder::new_multi_thread();
    if runs_a_node {
        // The thread that waits for the services is another one, so that recovery, which blocks it, does not hold up probes.
        builder.worker_threads(1).thread_name("engine");
    }
    builder.enable_all().build().doing("start the runtime")
}

/// The front threads, which end with this; without any, the engine.
pub(crate) struct Front(Option<Runtime>);

impl Front {
    /// Starts this many; without a number, as many as suit this machine.
    pub(crate) fn start(threads: Option<u32>) -> Result<Front, Failure> {
        let threads = threads.map_or_else(suitable, |threads| threads as usize);
        if threads == 0 {
            return Ok(Front(None));
        }
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads).thread_name("front").enable_all();
        Ok(Front(Some(builder.build().doing("start the front threads")?)))
    }

    /// Where connections of clients are served: on the engine if there are no front threads.
    pub(crate) fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// On two cores one did best (docs/performance.md); with more of them it is not measured.
fn suitable() -> usize {
    (available_parallelism().map_or(1, usize::from) / 2).clamp(1, 8)
}
