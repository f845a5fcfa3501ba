//! One direction of one connection.

use std::io;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    sync::{mpsc, watch},
    time::Instant,
};

use crate::Flow;

/// Bytes that came together.
struct Piece {
    came: Instant,
    /// Empty for the end.
    bytes: Vec<u8>,
}

/// Carries bytes, and at last the end, as `flow` has it.
pub(crate) async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut flow: watch::Receiver<Flow>,
) -> io::Result<()> {
    // Bytes under way. When the queue is full, the sender's own buffers fill up, as with a real line.
    let (came, mut under_way) = mpsc::channel::<Piece>(PIECES_MAX);
    let take = async move {
        loop {
            let mut bytes = vec![0; PIECE_MAX];
            let count = from.read(&mut bytes).await?;
            bytes.truncate(count);
            let sent = came.send(Piece { came: Instant::now(), bytes }).await;
            if count == 0 || sent.is_err() {
                return Ok(());
            }
        }
    };
    let give = async move {
        while let Some(piece) = under_way.recv().await {
            passes(&mut flow, piece.came).await;
            if piece.bytes.is_empty() {
                return to.shutdown().await;
            }
            to.write_all(&piece.bytes).await?;
        }
        Ok(())
    };
    tokio::try_join!(take, give).map(|((), ())| ())
}

/// Waits until bytes that came then may go on.
async fn passes(flow: &mut watch::Receiver<Flow>, came: Instant) {
    loop {
        let now = *flow.borrow_and_update();
        if !now.stalled && Instant::now() >= came + now.delay {
            return;
        }
        tokio::select! {
            changed = flow.changed() => {
                if changed.is_err() {
                    // The network is being dropped, and this with it.
                    return;
                }
            }
            () = tokio::time::sleep_until(came + now.delay), if !now.stalled => {}
        }
    }
}

/// Together as much as a fast line holds for a quarter of a second.
const PIECES_MAX: usize = 256;
const PIECE_MAX: usize = 16 << 10;
