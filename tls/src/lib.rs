//! TLS of Quorate's ports: one place that reads certificates, checks those of others, and makes every configuration of rustls.
//!
//! A [`Keeper`] holds the files of one set of ports and reads them again when they change, so that certificates are renewed without a
//! restart. An [`Acceptor`] secures accepted connections, a [`Dialer`] those to other members. Members prove who they are by a name
//! in their certificate ([`member_name`]); a certificate without such a name opens no port of members.
#![forbid(unsafe_code)]

/// `AsyncWrite` for a type that writes to its field `stream`.
#[macro_export]
macro_rules! write_to_stream {
    ($($header:tt)+) => {
        $($header)+ {
            fn poll_write(
                mut self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
                from: &[u8],
            ) -> ::std::task::Poll<::std::io::Result<usize>> {
                ::std::pin::Pin::new(&mut self.stream).poll_write(cx, from)
            }

            fn poll_write_vectored(
                mut self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
                from: &[::std::io::IoSlice<'_>],
            ) -> ::std::task::Poll<::std::io::Result<usize>> {
                ::std::pin::Pin::new(&mut self.stream).poll_write_vectored(cx, from)
            }

            fn is_write_vectored(&self) -> bool {
                self.stream.is_write_vectored()
            }

            fn poll_flush(
                mut self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                ::std::pin::Pin::new(&mut self.stream).poll_flush(cx)
            }

            fn poll_shutdown(
                mut self: ::std::pin::Pin<&mut Self>,
                cx: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<::std::io::Result<()>> {
                ::std::pin::Pin::new(&mut self.stream).poll_shutdown(cx)
            }
        }
    };
}

mod accept;
mod any_member;
mod dial;
mod files;
mod handshakes;
mod issue;
mod keeper;
mod names;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
mod trust;

pub use accept::{Accepted, Acceptor, Admitted, Caller, HandshakeError, Socket};
pub use dial::Dialer;
pub use files::{Files, TlsError};
pub use issue::{Authority, IssueError, Issued, is_due};
pub use keeper::{Certificates, Keeper};
pub use names::{gateway_name, member_name};
pub use trust::Trust;

/// How a set of ports speaks. Plaintext turns into TLS without downtime by restarting the members one by one with each of the modes,
/// in this order.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Plaintext only.
    #[default]
    Off,
    /// Takes TLS and plaintext, dials in plaintext.
    Accept,
    /// Takes TLS and plaintext, dials by TLS.
    Prefer,
    /// TLS only.
    Require,
}

impl Mode {
    /// Whether connections to others are TLS.
    #[must_use]
    pub fn dials(self) -> bool {
        matches!(self, Mode::Prefer | Mode::Require)
    }
}
