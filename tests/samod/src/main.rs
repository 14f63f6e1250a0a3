//! Many samod repos in one process, commanded by JSON lines, as tests/js/driver.mjs has it.
//!
//! In:  {id, peer?, command, args}          Out: {id, ok: true, result} | {id, ok: false, error}
//! Without a peer: `connect` makes one (args.peer names it), `closePeer` ends it. With a peer:
//! any `Command`, with args in milliseconds and hexadecimal heads, each with `timeoutMs`.
//! Commands run at once; a later one doesn't wait for an earlier one. stdin's end ends it all.

mod document;
mod edits;
mod peer;
mod signal;
mod socket;

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value as Json, json};
use tracing_subscriber::EnvFilter;

use crate::peer::{Command, Options, Peer};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;
type Peers = Arc<Mutex<HashMap<String, Arc<Peer>>>>;

#[derive(Deserialize)]
struct Request {
    id: u64,
    peer: Option<String>,
    command: String,
    args: Json,
}

#[derive(Deserialize)]
struct Connect {
    peer: String,
    #[serde(flatten)]
    options: Options,
}

fn main() -> Result<(), Failure> {
    // A cut socket is nothing to report; RUST_LOG=samod=debug shows every message.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_env_filter(filter)
        .init();
    let runtime = tokio::runtime::Runtime::new()?;
    let peers = Peers::default();
    answer(&json!({"ready": true}));
    for line in std::io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?)?;
        runtime.spawn(serve(peers.clone(), request));
    }
    // Without waiting: what a repo still does after its end is of no interest.
    runtime.shutdown_background();
    Ok(())
}

async fn serve(peers: Peers, request: Request) {
    let id = request.id;
    // In a task of its own, so that a panic in samod is an answer too.
    let outcome = match tokio::spawn(run(peers, request)).await {
        Ok(outcome) => outcome,
        Err(panic) => Err(panic.into()),
    };
    answer(&match outcome {
        Ok(result) => json!({"id": id, "ok": true, "result": result}),
        Err(error) => json!({"id": id, "ok": false, "error": error.to_string()}),
    });
}

async fn run(peers: Peers, request: Request) -> Result<Json, Failure> {
    let Request {
        peer,
        command,
        args,
        ..
    } = request;
    let limit = Duration::from_secs_f64(args["timeoutMs"].as_f64().ok_or("no timeoutMs")? / 1000.0);
    let lock = || peers.lock().unwrap_or_else(PoisonError::into_inner);
    match (peer, command.as_str()) {
        (None, "connect") => {
            let Connect { peer, options } = serde_json::from_value(args)?;
            let started = Arc::new(Peer::start(options).await?);
            let peer_id = started.peer_id();
            lock().insert(peer, started);
            Ok(json!({"peerId": peer_id}))
        }
        (None, "closePeer") => {
            let name = args["peer"].as_str().ok_or("no peer")?;
            let peer = lock().remove(name);
            peer.ok_or("no such peer")?.close().await
        }
        (None, other) => Err(format!("unknown command {other}").into()),
        (Some(name), _) => {
            let command: Command =
                serde_json::from_value(json!({"command": command, "args": args}))?;
            let peer = lock().get(&name).cloned();
            let peer = peer.ok_or_else(|| format!("no peer {name}"))?;
            peer.run(command, limit).await
        }
    }
}

fn answer(message: &Json) {
    let mut out = std::io::stdout().lock();
    // Nobody reads any more: stdin ends too.
    let _ = writeln!(out, "{message}").and_then(|()| out.flush());
}
