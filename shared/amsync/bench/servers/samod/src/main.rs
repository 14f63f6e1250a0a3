//! `amsync-bench-samod DATA_DIR [PORT]`: one samod repo behind WebSockets, with file-system
//! storage, that announces nothing. Prints where it listens; ends cleanly on SIGTERM.

use futures::{SinkExt, StreamExt, future};
use samod::storage::TokioFilesystemStorage;
use samod::{AcceptorHandle, PeerId, Repo, ShareConfig, Transport, Url};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::{Error, Message};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments
        .next()
        .ok_or("usage: amsync-bench-samod DATA_DIR [PORT]")?;
    let port: u16 = arguments.next().map_or(Ok(0), |port| port.parse())?;
    let repo = Repo::build_tokio()
        .with_peer_id(PeerId::from("storage-server-samod"))
        .with_storage(TokioFilesystemStorage::new(directory))
        .with_share_policy(ShareConfig::read_write().with_announce(false))
        .load()
        .await;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let url = format!("ws://{}", listener.local_addr()?);
    let acceptor = repo.make_acceptor(Url::parse(&url)?)?;
    println!("listening on {url}");
    let mut end = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                tokio::spawn(serve(stream, acceptor.clone()));
            }
            _ = end.recv() => break,
        }
    }
    repo.stop().await;
    Ok(())
}

async fn serve(stream: TcpStream, acceptor: AcceptorHandle) {
    // Small frames at once, as Node's servers send them.
    let _ = stream.set_nodelay(true);
    let Ok(socket) = accept_async(stream).await else {
        return;
    };
    let (sink, stream) = socket.split();
    let stream = stream
        .filter_map(|message| future::ready(bytes(message)))
        .boxed();
    let sink = sink.with(|data: Vec<u8>| future::ok::<_, Error>(Message::Binary(data.into())));
    // It fails when the repo is stopping; the socket is closed then.
    let _ = acceptor.accept(Transport::new(stream, sink));
}

fn bytes(message: Result<Message, Error>) -> Option<Result<Vec<u8>, Error>> {
    match message {
        Ok(Message::Binary(data)) => Some(Ok(data.into())),
        // The protocol has no text frames; the others are tungstenite's business.
        Ok(_) => None,
        Err(error) => Some(Err(error)),
    }
}
