//! One document with its peers, without Python: the inside of `Document`.

use std::collections::{BTreeMap, HashMap};

use automerge::sync::State;
use automerge::{Automerge, Change, ChangeHash};

use crate::chunk;
use crate::columns::Budget;
use crate::error::{guarded, reason, Failure, Panicked, Refusal};
use crate::graph::Graph;
use crate::ingest::{
    budget, read_blob, read_chunk, settle, stored_budget, Adoptable, Intake, Mode, SavedDocument,
    Settled,
};
use crate::message;
use crate::outcome::{Fault, Report};
use crate::peer::{generate, Draft, Peer, Verdict, View};
use crate::queue::{Arrival, Queue};
use crate::reader::Reader;
use crate::value::{self, TooDeep, Tree};

/// Estimates for `size_bytes`, from a document typed one character per change.
const BYTES_PER_CHANGE: usize = 250;
const BYTES_PER_OPERATION: usize = 40;
const BYTES_PER_PEER: usize = 500;

/// A state that was asked before in this call, and what it gave.
type Memo = HashMap<State, (State, Option<Draft>)>;

pub struct Engine {
    document: Automerge,
    graph: Graph,
    queue: Queue,
    peers: BTreeMap<i64, Peer>,
    window: usize,
    loop_limit: u32,
    version: u64,
    operation_count: usize,
    change_bytes: usize,
    broken: Option<Panicked>,
}

impl Engine {
    pub fn new(window: usize, loop_limit: u32) -> Self {
        Self {
            document: Automerge::new(),
            graph: Graph::new(),
            queue: Queue::default(),
            peers: BTreeMap::new(),
            window,
            loop_limit,
            version: 0,
            operation_count: 0,
            change_bytes: 0,
            broken: None,
        }
    }

    /// Load blobs; returns what is wrong with each that has a bad part, in order.
    pub fn load(blobs: &[&[u8]], window: usize, loop_limit: u32) -> Result<LoadedEngine, Panicked> {
        let mut engine = Self::new(window, loop_limit);
        let mut problems = Vec::new();
        let (arrivals, adoptable) = engine.read_all_stored(blobs, &mut problems);
        let taken = engine.take_stored(arrivals, adoptable, &mut problems);
        if let Err(Failure::Panicked(panicked)) = taken {
            return Err(panicked);
        }
        problems.sort_by_key(|(index, _)| *index);
        problems.dedup_by_key(|(index, _)| *index);
        Ok((engine, problems))
    }

    /// The index of the blob takes the place of the peer.
    fn read_all_stored(
        &self,
        blobs: &[&[u8]],
        problems: &mut Vec<Problem>,
    ) -> (Vec<Arrival>, Option<Adoptable>) {
        // Snapshots first: what they inflate to pays for the rows of the changes after them.
        let mut order: Vec<usize> = (0..blobs.len()).collect();
        order.sort_by_key(|index| !chunk::starts_with_document(blobs[*index]));
        let mut budget = stored_budget(blobs);
        let mut arrivals = Vec::new();
        let mut intake = Intake::default();
        for index in order {
            let read = self.read_stored(blobs[index], &mut budget, &mut intake);
            problems.extend(read.err().map(|refusal| (index, refusal)));
            arrivals.extend(intake.changes.drain(..).map(|checked| Arrival {
                checked,
                peer: i64::try_from(index).ok(),
            }));
        }
        (arrivals, intake.adoptable)
    }

    /// Take what can be applied. If something can't be, look for it by halves: that is slow, but
    /// only foreign files have such changes, and all others must load.
    fn take_stored(
        &mut self,
        mut arrivals: Vec<Arrival>,
        adoptable: Option<Adoptable>,
        problems: &mut Vec<Problem>,
    ) -> Result<(), Failure> {
        let before = self.graph.heads();
        let spare = arrivals.clone();
        let mut settled = self.settle(arrivals, Mode::Tolerant)?;
        let applied = std::mem::take(&mut settled.applied);
        match self.commit(applied, adoptable, before) {
            Err(Failure::Refused(refusal)) => {
                settled.undo(&mut self.graph, &mut self.queue);
                arrivals = spare;
                if arrivals.len() > 1 {
                    let rest = arrivals.split_off(arrivals.len() / 2);
                    self.take_stored(arrivals, None, problems)?;
                    return self.take_stored(rest, None, problems);
                }
                problems.extend(arrivals.iter().map(|bad| (blob_of(bad), refusal.clone())));
            }
            other => other?,
        }
        problems.extend(
            settled
                .refused
                .iter()
                .map(|(bad, why)| (blob_of(bad), why.clone())),
        );
        Ok(())
    }

    /// A chunk that can be cut off but is bad doesn't hide those behind it.
    fn read_stored<'a>(
        &self,
        blob: &'a [u8],
        budget: &mut Budget,
        intake: &mut Intake<'a>,
    ) -> Result<(), Refusal> {
        let mut reader = Reader::new(blob);
        let mut result = Ok(());
        while !reader.is_empty() {
            let chunk = chunk::cut(&mut reader)?;
            result = result.and(read_chunk(&chunk, budget, &self.graph, intake));
        }
        result
    }

    pub fn heads(&self) -> Vec<ChangeHash> {
        self.graph.heads()
    }

    pub fn has_change(&self, hash: &ChangeHash) -> bool {
        self.graph.contains(hash)
    }

    pub fn change_count(&self) -> usize {
        self.graph.len()
    }

    pub fn queued_count(&self) -> usize {
        self.queue.len()
    }

    pub fn size_bytes(&self) -> usize {
        self.graph.len() * BYTES_PER_CHANGE
            + self.operation_count * BYTES_PER_OPERATION
            + self.change_bytes
            + self.queue.bytes()
            + self.peers.len() * BYTES_PER_PEER
    }

    pub fn add_peer(&mut self, peer: i64, read_only: bool, track_heads: bool) {
        self.peers.insert(peer, Peer::new(read_only, track_heads));
    }

    pub fn remove_peer(&mut self, peer: i64) {
        self.peers.remove(&peer);
    }

    pub fn has_peer(&self, peer: i64) -> bool {
        self.peers.contains_key(&peer)
    }

    pub fn peer_mut(&mut self, peer: i64) -> Option<&mut Peer> {
        self.peers.get_mut(&peer)
    }

    /// Take messages, then generate; every peer named is known.
    pub fn sync(&mut self, batch: &[(i64, &[u8])], hello: &[i64]) -> Result<Report, Panicked> {
        self.alive()?;
        let mut report = Report::default();
        let before = self.tracked_heads(batch);
        for peer in hello {
            if let Some(peer) = self.peers.get_mut(peer) {
                peer.engaged = true;
            }
        }
        for (peer, bytes) in batch {
            match self.receive(*peer, bytes, &mut report) {
                Ok(()) => {}
                Err(Failure::Refused(refusal)) => report.faults.push(Fault::new(*peer, refusal)),
                Err(Failure::Panicked(panicked)) => return Err(self.broken_by(panicked)),
            }
        }
        let refused: Vec<i64> = report.faults.iter().map(Fault::peer).collect();
        self.generate_all(&refused, &mut report)?;
        for (peer, old) in before {
            let new = self
                .peers
                .get(&peer)
                .and_then(|peer| peer.state.their_heads.clone());
            match new {
                Some(new) if old.as_ref() != Some(&new) => report.peer_heads.push((peer, new)),
                _ => {}
            }
        }
        report.heads = self.graph.heads();
        Ok(report)
    }

    /// Take a blob from the application, all or nothing.
    pub fn apply(&mut self, blob: &[u8]) -> Result<Report, Failure> {
        self.alive()?;
        let mut intake = Intake::default();
        read_blob(blob, &mut budget(&self.graph), &self.graph, &mut intake)?;
        let mut report = Report::default();
        self.take(intake, None, Mode::Complete, &mut report)?;
        self.generate_all(&[], &mut report)?;
        report.heads = self.graph.heads();
        Ok(report)
    }

    pub fn save(&mut self) -> Result<Vec<u8>, Panicked> {
        self.alive()?;
        let result = guarded(|| self.document.save());
        result.map_err(|panicked| self.broken_by(panicked))
    }

    pub fn value(&mut self) -> Result<Result<Tree, TooDeep>, Panicked> {
        self.alive()?;
        let result = guarded(|| value::read(&self.document));
        result.map_err(|panicked| self.broken_by(panicked))
    }

    fn tracked_heads(&self, batch: &[(i64, &[u8])]) -> BTreeMap<i64, Option<Vec<ChangeHash>>> {
        batch
            .iter()
            .filter_map(|(id, _)| self.peers.get(id).map(|peer| (*id, peer)))
            .filter(|(_, peer)| peer.track_heads)
            .map(|(id, peer)| (id, peer.state.their_heads.clone()))
            .collect()
    }

    fn receive(&mut self, id: i64, bytes: &[u8], report: &mut Report) -> Result<(), Failure> {
        let received = message::read(bytes)?;
        let had_changes = !received.blobs.is_empty();
        let read_only = self.peers.get(&id).is_none_or(|peer| peer.state.read_only);
        let mut grew = false;
        if had_changes && !read_only {
            let mut intake = Intake::default();
            let mut budget = budget(&self.graph);
            for blob in &received.blobs {
                read_blob(blob, &mut budget, &self.graph, &mut intake)?;
            }
            grew = self.take(intake, Some(id), Mode::Whole, report)?;
        }
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(());
        };
        if grew {
            peer.note_progress();
        }
        let document = &mut self.document;
        guarded(|| peer.receive(document, received.message, had_changes))?
            .map_err(|error| Panicked(error.to_string()))?;
        Ok(())
    }

    /// Settle and apply; whether the document grew.
    fn take(
        &mut self,
        intake: Intake<'_>,
        peer: Option<i64>,
        mode: Mode,
        report: &mut Report,
    ) -> Result<bool, Failure> {
        let arrivals: Vec<Arrival> = intake
            .changes
            .into_iter()
            .map(|checked| Arrival { checked, peer })
            .collect();
        let spare = (self.queue.len() > 0).then(|| arrivals.clone());
        let documents = &intake.documents;
        let mut outcome =
            self.settle_and_commit(arrivals, mode, documents, intake.adoptable, report);
        if let (Err(Failed::WithQueued(refusal, queued)), Some(arrivals)) = (&outcome, spare) {
            // The bad change may be one that waited: its sender, not this one, is to blame.
            for arrival in queued {
                self.queue.remove(&arrival.hash());
                self.queue.refuse(arrival);
                report.add_fault(arrival.peer, refusal.clone());
            }
            outcome = self.settle_and_commit(arrivals, mode, documents, None, report);
        }
        match outcome {
            Ok(chunks) => {
                let grew = !chunks.is_empty();
                report.chunks.extend(chunks);
                Ok(grew)
            }
            Err(Failed::WithQueued(refusal, _) | Failed::Alone(refusal)) => Err(refusal.into()),
            Err(Failed::Panicked(panicked)) => Err(panicked.into()),
        }
    }

    fn settle_and_commit(
        &mut self,
        arrivals: Vec<Arrival>,
        mode: Mode,
        documents: &[SavedDocument<'_>],
        adoptable: Option<Adoptable>,
        report: &mut Report,
    ) -> Result<Vec<Vec<u8>>, Failed> {
        let before = self.graph.heads();
        let mut settled = self.settle(arrivals, mode).map_err(Failed::Alone)?;
        let applied = std::mem::take(&mut settled.applied);
        let chunks = chunks_to_persist(&applied, documents);
        match self.commit(applied, adoptable, before) {
            Ok(()) => {
                for (arrival, refusal) in settled.refused {
                    report.add_fault(arrival.peer, refusal);
                }
                Ok(chunks)
            }
            Err(Failure::Panicked(panicked)) => Err(Failed::Panicked(panicked)),
            Err(Failure::Refused(refusal)) => {
                let queued = settled.undo(&mut self.graph, &mut self.queue);
                if queued.is_empty() {
                    return Err(Failed::Alone(refusal));
                }
                Err(Failed::WithQueued(refusal, queued))
            }
        }
    }

    fn settle(&mut self, arrivals: Vec<Arrival>, mode: Mode) -> Result<Settled, Refusal> {
        settle(
            arrivals,
            mode,
            &mut self.graph,
            &mut self.queue,
            &self.document,
        )
    }

    /// Hand settled changes to the crate.
    ///
    /// The checks before can't see everything that its operations refer to: an element that
    /// doesn't exist panics, a predecessor that doesn't exist gives a document that saves and
    /// never loads again. So a panic is survived by building the document anew from the changes
    /// that were in it before, and what was applied is read back.
    fn commit(
        &mut self,
        mut applied: Vec<Change>,
        adoptable: Option<Adoptable>,
        mut before: Vec<ChangeHash>,
    ) -> Result<(), Failure> {
        if applied.is_empty() {
            return Ok(());
        }
        let count = applied.len() as u64;
        let operations: usize = applied.iter().map(Change::len).sum();
        let bytes: usize = applied.iter().map(|change| change.raw_bytes().len()).sum();
        let floor = before.clone();
        if let Some(Adoptable { document, hashes }) = adoptable {
            let is_in = |change: &Change| hashes.contains(&change.hash());
            let is_whole = applied.iter().filter(|change| is_in(change)).count() == hashes.len();
            if before.is_empty() && is_whole {
                applied.retain(|change| !is_in(change));
                before = document.get_heads();
                self.document = document;
            }
        }
        let document = &mut self.document;
        let result = guarded(|| apply_and_read_back(document, applied, &before));
        match result {
            Ok(Ok(())) => {
                self.version += count;
                self.operation_count += operations;
                self.change_bytes += bytes;
                Ok(())
            }
            Ok(Err(detail)) | Err(Panicked(detail)) => {
                self.rebuild(&floor)?;
                Err(Refusal::malformed(detail).into())
            }
        }
    }

    /// Make the crate's document anew, from its own changes up to `heads`.
    fn rebuild(&mut self, heads: &[ChangeHash]) -> Result<(), Panicked> {
        let document = &self.document;
        let rebuilt = guarded(|| document.fork_at(heads));
        match rebuilt {
            Ok(Ok(document)) if document.get_heads() == heads => {
                self.document = document;
                Ok(())
            }
            Ok(Ok(_)) => Err(self.broken_by(Panicked("heads differ after rebuilding".to_owned()))),
            Ok(Err(error)) => Err(self.broken_by(Panicked(error.to_string()))),
            Err(panicked) => Err(self.broken_by(panicked)),
        }
    }

    fn generate_all(&mut self, refused: &[i64], report: &mut Report) -> Result<(), Panicked> {
        let view = View {
            document: &self.document,
            graph: &self.graph,
            queue: &self.queue,
            version: self.version,
        };
        let our_heads = view.graph.heads();
        let mut memo = Memo::new();
        let mut outbox = Outbox::default();
        let mut result = Ok(());
        for (id, peer) in &mut self.peers {
            if refused.contains(id) || peer.is_quiet(&our_heads, self.window) {
                continue;
            }
            let mut sender = Sender {
                view,
                id: *id,
                loop_limit: self.loop_limit,
                memo: &mut memo,
                outbox: &mut outbox,
            };
            if let Err(panicked) = guarded(|| sender.run(peer)) {
                result = Err(panicked);
                break;
            }
        }
        report.messages = outbox.messages;
        report.faults.extend(outbox.faults);
        result.map_err(|panicked| self.broken_by(panicked))
    }

    fn alive(&self) -> Result<(), Panicked> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    fn broken_by(&mut self, panicked: Panicked) -> Panicked {
        self.broken = Some(panicked.clone());
        panicked
    }
}

/// Why changes could not be committed.
enum Failed {
    /// Changes that had waited in the queue were among them.
    WithQueued(Refusal, Vec<Arrival>),
    Alone(Refusal),
    Panicked(Panicked),
}

/// Index of a blob, and what is wrong with it.
pub type Problem = (usize, Refusal);
pub type LoadedEngine = (Engine, Vec<Problem>);

fn blob_of(arrival: &Arrival) -> usize {
    let index = arrival.peer.and_then(|index| usize::try_from(index).ok());
    index.unwrap_or_default()
}

/// Apply changes to a document that has the heads `before`, and find them in it.
fn apply_and_read_back(
    document: &mut Automerge,
    changes: Vec<Change>,
    before: &[ChangeHash],
) -> Result<(), String> {
    let mut expected: Vec<ChangeHash> = changes.iter().map(Change::hash).collect();
    document
        .apply_changes(changes)
        .map_err(|error| error.to_string())?;
    let changes = document.get_changes(before);
    let mut found: Vec<ChangeHash> = changes.iter().map(Change::hash).collect();
    expected.sort_unstable();
    found.sort_unstable();
    if found == expected {
        Ok(())
    } else {
        Err("operations that can't be read back".to_owned())
    }
}

/// The changes one by one; but a saved document whole if that is smaller.
fn chunks_to_persist(applied: &[Change], documents: &[SavedDocument<'_>]) -> Vec<Vec<u8>> {
    let mut sizes: HashMap<ChangeHash, usize> = applied
        .iter()
        .map(|change| (change.hash(), change.raw_bytes().len()))
        .collect();
    let mut chunks = Vec::new();
    for document in documents {
        let single: usize = document
            .hashes
            .iter()
            .filter_map(|hash| sizes.get(hash))
            .sum();
        if single > document.whole.len() {
            document.hashes.iter().for_each(|hash| {
                sizes.remove(hash);
            });
            chunks.push(document.whole.to_vec());
        }
    }
    let rest = applied
        .iter()
        .filter(|change| sizes.contains_key(&change.hash()));
    chunks.extend(rest.map(|change| change.raw_bytes().to_vec()));
    chunks
}

/// Messages grouped by bytes, each peer's in their order.
#[derive(Default)]
struct Outbox {
    messages: Vec<(Vec<u8>, Vec<i64>)>,
    faults: Vec<Fault>,
    groups: HashMap<Vec<u8>, usize>,
}

impl Outbox {
    /// Returns the place of the message; it comes after place `after`, which this peer got.
    fn add(&mut self, bytes: Vec<u8>, peer: i64, after: Option<usize>) -> usize {
        if let Some(place) = self.groups.get(&bytes).copied() {
            if after.is_none_or(|after| place > after) {
                self.messages[place].1.push(peer);
                return place;
            }
        }
        let place = self.messages.len();
        self.groups.insert(bytes.clone(), place);
        self.messages.push((bytes, vec![peer]));
        place
    }
}

/// Generates for one peer.
struct Sender<'a> {
    view: View<'a>,
    id: i64,
    loop_limit: u32,
    memo: &'a mut Memo,
    outbox: &'a mut Outbox,
}

impl Sender<'_> {
    fn run(&mut self, peer: &mut Peer) {
        let is_reset = peer.state.needs_reset;
        let Some(draft) = self.generate(peer) else {
            return;
        };
        match peer.judge(&draft, self.view.version, self.loop_limit) {
            Verdict::Send if is_reset => self.send_reset(draft, peer),
            Verdict::Send => {
                self.send(draft, peer, None);
            }
            Verdict::Renew => {
                self.fault(reason::LOOP_RESET);
                peer.renew_after_loop();
                if let Some(draft) = self.generate(peer) {
                    self.send_reset(draft, peer);
                }
            }
            Verdict::Silence => {
                self.fault(reason::LOOP);
                peer.silence();
            }
        }
    }

    fn send_reset(&mut self, draft: Draft, peer: &mut Peer) {
        let needs_heads = !draft.has_heads && self.view.graph.len() > 0;
        let place = self.send(draft, peer, None);
        if needs_heads {
            peer.follow_reset();
            if let Some(draft) = self.generate(peer) {
                self.send(draft, peer, Some(place));
            }
        }
    }

    fn send(&mut self, draft: Draft, peer: &mut Peer, after: Option<usize>) -> usize {
        if draft.has_changes {
            peer.unanswered += 1;
        }
        self.outbox.add(draft.bytes, self.id, after)
    }

    fn fault(&mut self, label: &'static str) {
        let refusal = Refusal::new(label, "the exchange repeats itself without progress");
        self.outbox.faults.push(Fault::new(self.id, refusal));
    }

    /// Equal states get equal messages: generated once.
    fn generate(&mut self, peer: &mut Peer) -> Option<Draft> {
        if let Some((after, draft)) = self.memo.get(&peer.state) {
            peer.state.clone_from(after);
            return draft.clone();
        }
        let before = peer.state.clone();
        let draft = generate(self.view, &mut peer.state);
        self.memo
            .insert(before, (peer.state.clone(), draft.clone()));
        draft
    }
}
