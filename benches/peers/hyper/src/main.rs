//! hyper as a benchmark server of plain requests: `bench-hyper PORT`.
//!
//! One thread. A POST is answered with the number of bytes of its body, which is collected whole. A GET is
//! answered with a file, which is opened and read for each request, as every server here does: by plain
//! calls, which block for a file that is in memory no longer than a pool of threads takes to be asked.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

const FILE_BYTES: usize = 1 << 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: bench-hyper PORT")?.parse()?;
    let folder = std::env::temp_dir().join(format!("bench-hyper-{port}"));
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("file.html"), [b'x'; FILE_BYTES])?;
    let folder = Rc::new(folder);
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    tokio::task::LocalSet::new()
        .run_until(async {
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let folder = Rc::clone(&folder);
                tokio::task::spawn_local(async move {
                    let service = service_fn(move |request| answer(request, Rc::clone(&folder)));
                    // A client that hangs up ends its task and nothing else.
                    let _ =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        })
        .await
}

async fn answer(
    request: Request<Incoming>,
    folder: Rc<PathBuf>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(match *request.method() {
        Method::POST => match request.into_body().collect().await {
            Ok(body) => typed("text/plain", body.to_bytes().len().to_string().into()),
            Err(_) => status(StatusCode::BAD_REQUEST),
        },
        Method::GET => match file(&folder, request.uri().path()) {
            Some(bytes) => typed("text/html", bytes.into()),
            None => status(StatusCode::NOT_FOUND),
        },
        _ => status(StatusCode::METHOD_NOT_ALLOWED),
    })
}

/// Of the folder itself: no path leads out of it.
fn file(folder: &Path, path: &str) -> Option<Vec<u8>> {
    let name = path.strip_prefix('/')?;
    if name.contains('/') { None } else { std::fs::read(folder.join(name)).ok() }
}

fn typed(kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, kind.parse().expect("a name"));
    response
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
