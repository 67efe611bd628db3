//! The baseline of the whole path: a bare relay on hyper. It forwards a request's body and returns the answer, without
//! disk, filter, signature or record.

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// Relays to `to` until it is killed. Prints `listening on ADDRESS` first.
#[expect(clippy::print_stdout, reason = "that line is how the bench learns its port")]
pub(crate) async fn run(to: &str) -> anyhow::Result<()> {
    let to: Uri = to.parse().context("where to relay to")?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (client, to) = (client.clone(), to.clone());
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let (client, to) = (client.clone(), to.clone());
                async move {
                    let body = request.into_body().collect().await?.to_bytes();
                    let mut onward = Request::new(Full::new(body));
                    *onward.method_mut() = http::Method::POST;
                    *onward.uri_mut() = to;
                    let answer = client.request(onward).await?;
                    let status = answer.status();
                    let body = answer.into_body().collect().await?.to_bytes();
                    let mut answer = Response::new(Full::new(body));
                    *answer.status_mut() = status;
                    Ok::<_, anyhow::Error>(answer)
                }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
