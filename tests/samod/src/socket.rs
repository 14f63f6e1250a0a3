//! The dialer that samod's feature `tungstenite` has, without its TLS, and with a socket that a
//! test can cut (samod comes back by itself) or hold (it stays away until told).

use std::convert::Infallible;
use std::fmt;
use std::net::{Shutdown, TcpStream as StdTcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{BoxFuture, FutureExt};
use futures::{SinkExt, StreamExt, future};
use samod::{DialError, Dialer, Transport, Url};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Where the dialer looks whether it may connect, and leaves the socket that it opened.
#[derive(Default)]
pub struct Line {
    watched: watch::Sender<bool>,
    held: AtomicBool,
    socket: Mutex<Option<StdTcpStream>>,
}

impl Line {
    pub fn new(held: bool) -> Arc<Self> {
        Arc::new(Self {
            held: AtomicBool::new(held),
            ..Self::default()
        })
    }

    /// Lets the dialer begin: whoever counts its connections listens now.
    pub fn is_watched(&self) {
        self.watched.send_replace(true);
    }

    /// Cuts the socket as a broken network does: without a closing handshake.
    pub fn cut(&self) {
        let socket = self.lock().take();
        if let Some(socket) = socket {
            // It fails when the server has closed it first.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    pub fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
        self.cut();
    }

    pub fn release(&self) {
        self.held.store(false, Ordering::SeqCst);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<StdTcpStream>> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct SocketDialer {
    pub url: Url,
    pub line: Arc<Line>,
}

impl Dialer for SocketDialer {
    type Error = Infallible;

    fn url(&self) -> Url {
        self.url.clone()
    }

    fn connect(&self) -> BoxFuture<'static, Result<Transport, DialError<Infallible>>> {
        connect(self.url.clone(), self.line.clone()).boxed()
    }
}

async fn connect(url: Url, line: Arc<Line>) -> Result<Transport, DialError<Infallible>> {
    // The sender is in `line`: it can't be gone.
    let _ = line.watched.subscribe().wait_for(|it| *it).await;
    if line.held.load(Ordering::SeqCst) {
        return Err(DialError::transient(Held));
    }
    let address = url
        .socket_addrs(|| Some(80))
        .map_err(DialError::transient)?;
    let stream = TcpStream::connect(&address[..])
        .await
        .and_then(TcpStream::into_std)
        .map_err(DialError::transient)?;
    let to_cut = stream.try_clone().map_err(DialError::transient)?;
    let stream = TcpStream::from_std(stream).map_err(DialError::transient)?;
    *line.lock() = Some(to_cut);
    let (socket, _) = client_async_with_config(url.as_str(), stream, None::<WebSocketConfig>)
        .await
        .map_err(DialError::transient)?;
    let (sink, stream) = socket.split();
    let stream = stream
        .filter_map(|message| future::ready(bytes(message)))
        .boxed();
    let sink = sink.with(|data: Vec<u8>| future::ok::<_, Error>(Message::Binary(data.into())));
    Ok(Transport::new(stream, sink))
}

fn bytes(message: Result<Message, Error>) -> Option<Result<Vec<u8>, Error>> {
    match message {
        Ok(Message::Binary(data)) => Some(Ok(data.into())),
        // Automerge-repo's protocol has no text frames; the others are tungstenite's business.
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    }
}

#[derive(Debug)]
struct Held;

impl fmt::Display for Held {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the test holds this client offline")
    }
}

impl std::error::Error for Held {}
