//! One document of a repo, with all that samod's streams have told about it so far.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use automerge::{Automerge, ChangeHash, ReadDoc};
use futures::{Stream, StreamExt};
use samod::{ConnectionId, DocHandle, PeerDocState};
use serde_json::{Value as Json, json};
use tokio::task::JoinHandle;

use crate::Failure;
use crate::edits::{self, Wanted};
use crate::signal::Signal;

pub struct Document {
    handle: DocHandle,
    signal: Signal,
    heard: Arc<Mutex<Heard>>,
    typist: Mutex<Option<Typist>>,
    listeners: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Heard {
    /// What the other side of each connection has named last.
    states: HashMap<ConnectionId, PeerDocState>,
    /// Every head that anybody has ever named as his own.
    ever: HashSet<ChangeHash>,
    ephemerals: Vec<Json>,
}

struct Typist {
    stopped: Arc<AtomicBool>,
    written: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Document {
    pub fn new(handle: DocHandle, signal: Signal) -> Self {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (now, later) = handle.peers();
        let states = futures::stream::iter([now]).chain(later);
        let listeners = vec![
            listen(states, &heard, &signal, Heard::note_states),
            listen(handle.ephemera(), &heard, &signal, Heard::note_ephemeral),
            listen(handle.changes(), &heard, &signal, |_, _| ()),
        ];
        Self {
            handle,
            signal,
            heard,
            typist: Mutex::default(),
            listeners,
        }
    }

    pub fn report(&self) -> Result<Json, Failure> {
        let (value, heads) = self
            .handle
            .with_document(|doc| (edits::plain(doc), edits::hex(doc.get_heads())));
        Ok(json!({
            "documentId": self.handle.document_id().to_string(),
            "state": "ready",
            "value": value?,
            "heads": heads,
        }))
    }

    pub fn change(&self, edits: &[Json]) -> Result<Json, Failure> {
        self.edited(|doc| edits::apply_all(doc, edits))
    }

    /// Appends every character of `text` as a change of its own.
    pub fn type_text(&self, path: &Vec<Json>, text: &str) -> Result<Json, Failure> {
        for character in text.chars() {
            self.edited(|doc| edits::append(doc, path, character))?;
        }
        self.edited(|_| Ok(()))
    }

    pub async fn wait(&self, wanted: &Wanted, limit: Duration) -> Result<Json, Failure> {
        let check = || {
            let is_met = self.handle.with_document(|doc| wanted.is_met(doc));
            is_met.then(|| self.report())
        };
        self.signal
            .until(limit, "such document", check, || self.brief())
            .await?
    }

    /// Waits until the other side of the connection has named all our changes as its own.
    pub async fn wait_saved(
        &self,
        connection: impl Fn() -> Option<ConnectionId>,
        limit: Duration,
    ) -> Result<Json, Failure> {
        let check = || {
            let theirs = self.heard().named_by(connection()?)?;
            self.handle.with_document(|doc| {
                let missing = doc.get_changes(&known(doc, theirs));
                missing
                    .is_empty()
                    .then(|| json!({"heads": edits::hex(doc.get_heads())}))
            })
        };
        let seen = || format!("{:?}; {}", self.heard().states, self.brief());
        self.signal
            .until(limit, "acknowledgement of all changes", check, seen)
            .await
    }

    /// The document as far as anybody has ever named its changes as his own.
    pub fn acknowledged(&self) -> Result<Json, Failure> {
        let named = self.heard().ever.iter().copied().collect();
        self.handle.with_document(|doc| {
            let heads = known(doc, named);
            // Without heads the fork would be of everything.
            let value = if heads.is_empty() {
                json!({})
            } else {
                edits::plain(&doc.fork_at(&heads)?)?
            };
            Ok(json!({"heads": edits::hex(heads), "value": value}))
        })
    }

    pub fn broadcast(&self, message: &Json) -> Result<Json, Failure> {
        let mut data = Vec::new();
        ciborium::into_writer(message, &mut data)?;
        self.handle.broadcast(data);
        Ok(Json::Null)
    }

    pub async fn ephemerals(&self, at_least: usize, limit: Duration) -> Result<Json, Failure> {
        let check = || {
            let heard = self.heard();
            (heard.ephemerals.len() >= at_least).then(|| Json::Array(heard.ephemerals.clone()))
        };
        let seen = || format!("{:?}", self.heard().ephemerals);
        self.signal.until(limit, "ephemerals", check, seen).await
    }

    /// Pushes `label-0`, `label-1`, ... to a list until `stop_typing`.
    pub fn start_typing(self: &Arc<Self>, path: &Json, label: String, interval: Duration) {
        let stopped = Arc::new(AtomicBool::new(false));
        let written = Arc::new(Mutex::new(Vec::new()));
        let task = {
            let (document, path) = (self.clone(), path.clone());
            let (stopped, written) = (stopped.clone(), written.clone());
            tokio::spawn(async move {
                let mut ticks = tokio::time::interval(interval);
                for number in 0.. {
                    ticks.tick().await;
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let item = format!("{label}-{number}");
                    let edit = json!(["push", path, item]);
                    if let Err(error) = document.change(&[edit]) {
                        eprintln!("typing failed: {error}");
                        return;
                    }
                    lock(&written).push(item);
                    document.signal.bump();
                }
            })
        };
        *lock(&self.typist) = Some(Typist {
            stopped,
            written,
            task,
        });
    }

    pub async fn wait_typed(&self, count: usize, limit: Duration) -> Result<Json, Failure> {
        let typed = || {
            let typist = lock(&self.typist);
            typist.as_ref().map_or(0, |it| lock(&it.written).len())
        };
        let check = || (typed() >= count).then(|| json!(typed()));
        let seen = || format!("{} items", typed());
        self.signal.until(limit, "items", check, seen).await
    }

    pub async fn stop_typing(&self) -> Result<Json, Failure> {
        let typist = lock(&self.typist).take();
        let Some(typist) = typist else {
            return Ok(json!({"written": []}));
        };
        typist.stopped.store(true, Ordering::SeqCst);
        typist.task.await?;
        Ok(json!({"written": *lock(&typist.written)}))
    }

    fn edited(
        &self,
        edit: impl FnOnce(&mut Automerge) -> Result<(), Failure>,
    ) -> Result<Json, Failure> {
        let heads = self.handle.with_document(|doc| {
            edit(doc)?;
            Ok::<_, Failure>(edits::hex(doc.get_heads()))
        })?;
        self.signal.bump();
        Ok(json!({"heads": heads}))
    }

    fn brief(&self) -> String {
        match self.report() {
            Ok(report) => report.to_string().chars().take(400).collect(),
            Err(error) => error.to_string(),
        }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        lock(&self.heard)
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        for listener in &self.listeners {
            listener.abort();
        }
    }
}

impl Heard {
    fn note_states(&mut self, states: HashMap<ConnectionId, PeerDocState>) {
        let named = states.values().filter_map(|it| it.their_heads.as_ref());
        self.ever.extend(named.flatten());
        self.states.extend(states);
    }

    fn note_ephemeral(&mut self, data: Vec<u8>) {
        let message = ciborium::from_reader::<Json, _>(&data[..]);
        let message = message.unwrap_or_else(|error| json!({"notCbor": error.to_string()}));
        self.ephemerals.push(json!({"message": message}));
    }

    fn named_by(&self, connection: ConnectionId) -> Option<Vec<ChangeHash>> {
        self.states.get(&connection)?.their_heads.clone()
    }
}

/// Those of the heads whose changes the document has.
fn known(doc: &Automerge, mut heads: Vec<ChangeHash>) -> Vec<ChangeHash> {
    heads.retain(|head| doc.get_change_by_hash(head).is_some());
    heads
}

fn listen<T: Send + 'static>(
    stream: impl Stream<Item = T> + Send + 'static,
    heard: &Arc<Mutex<Heard>>,
    signal: &Signal,
    note: impl Fn(&mut Heard, T) + Send + 'static,
) -> JoinHandle<()> {
    let (heard, signal) = (heard.clone(), signal.clone());
    tokio::spawn(stream.for_each(move |item| {
        note(&mut lock(&heard), item);
        signal.bump();
        futures::future::ready(())
    }))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
