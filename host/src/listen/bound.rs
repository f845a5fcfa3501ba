//! Where connections come from: a TCP port, or a Unix socket for processes of the same user.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    task::{Context, Poll, ready},
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

use super::ListenError;

/// What a connection stands on.
pub(super) type Stream = Either<TcpStream, UnixStream>;

/// A trait so that tests can script faults.
pub(crate) trait Accept: Unpin {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>>;
}

/// What is bound.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(TcpListener),
    Unix(Socket),
}

impl Accept for Bound {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> {
        match self {
            Bound::Tcp(listener) => {
                let (stream, peer) = ready!(listener.poll_accept(cx))?;
                Poll::Ready(Ok((Stream::Left(stream), peer)))
            }
            Bound::Unix(socket) => socket.poll_accept(cx),
        }
    }
}

/// A Unix socket; its file goes with it.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// The user of this process.
    user: u32,
}

impl Socket {
    pub(super) async fn bind(what: &'static str, path: &Path) -> Result<Socket, ListenError> {
        match UnixStream::connect(path).await {
            Ok(_) => return Err(ListenError::SocketInUse { what, path: path.to_owned() }),
            // Left behind by a process that was killed.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => drop(fs::remove_file(path)),
            // Binding says what is wrong, if anything is.
            Err(_) => {}
        }
        let bound = || {
            if let Some(dir) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            }
            let listener = UnixListener::bind(path)?;
            // The user of a caller is checked as well, because the directory may be open to others.
            fs::set_permissions(path, Permissions::from_mode(0o600))?;
            let user = rustix::process::geteuid().as_raw();
            Ok(Socket { listener, path: path.to_owned(), user })
        };
        bound().map_err(|cause| ListenError::Socket { what, path: path.to_owned(), cause })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The next caller that is of this user, or root, who can do anything anyway.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> {
        let (stream, _) = ready!(self.listener.poll_accept(cx))?;
        let user = stream.peer_cred()?.uid();
        if user != self.user && user != 0 {
            tracing::warn!(socket = %self.path.display(), user, "a process of another user was refused at an internal socket");
            // Speaks of this connection alone.
            return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
        }
        Poll::Ready(Ok((Stream::Right(stream), SocketAddr::from(([127, 0, 0, 1], 0)))))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A file that stays is removed at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_for_its_user_alone_and_goes_with_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/quorum.sock");
        let socket = Socket::bind("internal quorum", &path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        let second = Socket::bind("internal quorum", &path).await.unwrap_err().to_string();
        assert!(second.contains("in use"), "{second}");
        let _caller = UnixStream::connect(&path).await.unwrap();
        assert!(std::future::poll_fn(|cx| socket.poll_accept(cx)).await.is_ok());
        drop(socket);
        assert!(!path.exists());
        // One that a killed process left behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        Socket::bind("internal quorum", &path).await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_cannot_be_made_names_the_setting() {
        let long = format!("/tmp/{}/quorum.sock", "x".repeat(120));
        let refused = Socket::bind("internal quorum", Path::new(&long)).await.unwrap_err().to_string();
        let _ = fs::remove_dir(Path::new(&long).parent().unwrap());
        assert!(refused.contains("listen.internal_dir"), "{refused}");
    }
}
