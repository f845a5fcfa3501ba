//! A collector that costs next to nothing, because a real one is elsewhere: takes pushes of spans without reading them. Prints its
//! address, and how many bytes came when that has changed. For `bench/tracing`.

use std::{
    convert::Infallible,
    error::Error,
    future::{Ready, ready},
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Buf as _;
use host::listen::{self, Bounds, Listener};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{BoxFuture, Service, http},
    server::{Grpc, NamedService, UnaryService},
    service::Routes,
};

static BYTES: AtomicU64 = AtomicU64::new(0);

/// Reads only how long a message is; an empty answer is an empty message.
#[derive(Default)]
struct Counting;

impl Codec for Counting {
    type Encode = ();
    type Decode = ();
    type Encoder = Counting;
    type Decoder = Counting;

    fn encoder(&mut self) -> Counting {
        Counting
    }

    fn decoder(&mut self) -> Counting {
        Counting
    }
}

impl Encoder for Counting {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }
}

impl Decoder for Counting {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        BYTES.fetch_add(message.remaining() as u64, Ordering::Relaxed);
        message.advance(message.remaining());
        Ok(Some(()))
    }
}

#[derive(Clone)]
struct Sink;

impl UnaryService<()> for Sink {
    type Response = ();
    type Future = Ready<Result<Response<()>, Status>>;

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(())))
    }
}

impl NamedService for Sink {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl Service<http::Request<Body>> for Sink {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move { Ok(Grpc::new(Counting).unary(Sink, request).await) })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = Listener::bind("collector", SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    println!("http://{}", listener.address());
    let routes = Routes::new(Sink);
    tokio::spawn(listen::serve(
        listener,
        routes,
        Bounds::neighbours(),
        CancellationToken::new(),
        Duration::ZERO,
    ));
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let now = BYTES.load(Ordering::Relaxed);
        if std::mem::replace(&mut before, now) != now {
            println!("{now} bytes of spans");
        }
    }
}
