//! One document with its peers, without Python: the inside of `Document`.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{Automerge, ChangeHash};

use crate::chunk;
use crate::error::{guarded, Failure, Panicked, Refusal};
use crate::exchange::{Exchange, View};
use crate::graph::Heads;
use crate::history::{History, Problem};
use crate::ingest::{read_blob, Intake, Mode};
use crate::message::{self, Received};
use crate::outcome::{Fault, Report};
use crate::peer::{Answers, Peer};
use crate::reader::Reader;
use crate::sender::{Memo, Outbox, Sender, States};
use crate::token;
use crate::value::{self, Tree, Unshown};

const BYTES_PER_PEER: usize = 400;

/// What a batch may have in changes to be light: that is some milliseconds.
const LIGHT_BYTES: usize = 32 << 10;
/// The same for the history that a peer's filter must be held against.
const LIGHT_FILTERED: usize = 1 << 15;

#[derive(Clone, Copy)]
pub struct Limits {
    pub window: usize,
    pub loop_limit: u32,
    pub queue_bytes: usize,
    pub like_crate: bool,
}

pub struct Engine {
    pub history: History,
    peers: BTreeMap<i64, Peer>,
    limits: Limits,
    /// Counts the changes applied.
    version: u64,
    states: States,
    answers: Answers,
    memo: Memo,
    /// Peers whose state has changed since messages were generated.
    stirred: BTreeSet<i64>,
    /// The graph or the queue has changed since then.
    is_changed: bool,
    /// What peers are owed that is in the saved document only.
    frozen: BTreeSet<u32>,
    broken: Option<Panicked>,
}

impl Engine {
    pub fn new(limits: Limits) -> Self {
        Self::with_history(History::new(limits.queue_bytes), limits)
    }

    fn with_history(history: History, limits: Limits) -> Self {
        Self {
            history,
            peers: BTreeMap::new(),
            limits,
            version: 0,
            states: States::default(),
            answers: Answers::default(),
            memo: Memo::default(),
            stirred: BTreeSet::new(),
            is_changed: false,
            frozen: BTreeSet::new(),
            broken: None,
        }
    }

    pub fn load(
        blobs: &[&[u8]],
        sidecar: Option<&[u8]>,
        limits: Limits,
    ) -> Result<(Self, Vec<Problem>), Panicked> {
        let loaded = guarded(|| History::load(blobs, sidecar, limits.queue_bytes));
        let (history, problems) = loaded?;
        Ok((Self::with_history(history, limits), problems))
    }

    pub fn heads(&self) -> &Heads {
        self.history.graph.heads()
    }

    pub fn has_change(&self, hash: &ChangeHash) -> bool {
        self.history.graph.contains(hash)
    }

    pub fn change_count(&self) -> usize {
        self.history.graph.len()
    }

    pub fn queued_count(&self) -> usize {
        self.history.queue.len()
    }

    /// Raw chunks of the changes that wait for a dependency, oldest first.
    pub fn queued(&self) -> Vec<Vec<u8>> {
        self.history.queue.chunks()
    }

    pub fn stored_bytes(&self) -> usize {
        self.history.archive.stored_bytes()
    }

    pub fn size_bytes(&self) -> usize {
        let kept: usize = self.peers.values().map(|peer| peer.kept_bytes).sum();
        self.history.size_bytes() + self.peers.len() * BYTES_PER_PEER + kept
    }

    fn view(&self) -> View<'_> {
        self.history.view(self.limits.like_crate)
    }

    pub fn add_peer(&mut self, id: i64, read_only: bool, track_heads: bool) {
        let state = self.states.share(Exchange::new(read_only));
        self.peers.insert(id, Peer::new(state, track_heads));
    }

    /// Continue with a peer that another engine had; see `token`.
    pub fn resume_peer(
        &mut self,
        id: i64,
        token: &[u8],
        read_only: bool,
        track_heads: bool,
    ) -> Result<(), Refusal> {
        let state = token::decode(token, read_only)?;
        let state = self.states.share(state);
        self.peers.insert(id, Peer::new(state, track_heads));
        Ok(())
    }

    /// What another engine needs to continue with a peer.
    pub fn token(&self, id: i64) -> Option<Vec<u8>> {
        self.peers.get(&id).map(|peer| token::encode(&peer.state))
    }

    pub fn remove_peer(&mut self, id: i64) {
        self.peers.remove(&id);
        self.stirred.remove(&id);
    }

    pub fn has_peer(&self, id: i64) -> bool {
        self.peers.contains_key(&id)
    }

    pub fn state(&self, id: i64) -> Option<&Exchange> {
        self.peers.get(&id).map(|peer| peer.state.as_ref())
    }

    pub fn set_read_only(&mut self, id: i64, read_only: bool) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.set_read_only(read_only, self.limits.like_crate);
            self.stirred.insert(id);
        }
    }

    pub fn reset_peer(&mut self, id: i64) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.reset(self.limits.like_crate);
            self.stirred.insert(id);
        }
    }

    /// Take messages, then generate; every peer named is known. With `only_light` the messages
    /// before the first one that would take long.
    pub fn sync(
        &mut self,
        batch: &[(i64, &[u8])],
        hello: &[i64],
        only_light: bool,
    ) -> Result<Report, Panicked> {
        self.alive()?;
        let result = guarded(|| self.sync_unguarded(batch, hello, only_light));
        result
            .and_then(|report| report)
            .map_err(|panicked| self.broken_by(panicked))
    }

    fn sync_unguarded(
        &mut self,
        batch: &[(i64, &[u8])],
        hello: &[i64],
        only_light: bool,
    ) -> Result<Report, Panicked> {
        let mut report = Report::default();
        let before = self.tracked_heads(batch);
        for id in hello {
            if let Some(peer) = self.peers.get_mut(id) {
                peer.engaged = true;
                self.stirred.insert(*id);
            }
        }
        let mut refused = BTreeSet::new();
        let mut light_bytes = LIGHT_BYTES;
        for (id, bytes) in batch {
            let most_bytes = only_light.then_some(light_bytes);
            match self.receive(*id, bytes, most_bytes, &mut report) {
                Ok(true) => {}
                Ok(false) => break,
                Err(refusal) => {
                    report.faults.push(Fault::new(*id, refusal));
                    refused.insert(*id);
                }
            }
            report.taken += 1;
            light_bytes = light_bytes.saturating_sub(bytes.len());
        }
        self.generate_all(&refused, &mut report);
        if !only_light {
            self.thaw(&refused, &mut report);
            report.sidecar = self.history.missing_sidecar();
        }
        for (id, old) in before {
            let peer = self.peers.get(&id);
            let new = peer.and_then(|peer| peer.state.their_heads.clone());
            match new {
                Some(new) if old.as_ref() != Some(&new) => report.peer_heads.push((id, new)),
                _ => {}
            }
        }
        Ok(report)
    }

    /// Take a blob from the application, all or nothing.
    pub fn apply(&mut self, blob: &[u8]) -> Result<Report, Failure> {
        self.alive()?;
        let result =
            guarded(|| self.apply_unguarded(blob)).unwrap_or_else(|panicked| Err(panicked.into()));
        if let Err(Failure::Panicked(panicked)) = &result {
            self.broken = Some(panicked.clone());
        }
        result
    }

    fn apply_unguarded(&mut self, blob: &[u8]) -> Result<Report, Failure> {
        let mut intake = Intake::default();
        let mut budget = self.history.account.budget();
        read_blob(blob, &mut budget, &self.history.graph, &mut intake)?;
        let mut report = Report::default();
        self.take(intake, None, Mode::Complete, false, &mut report)?;
        self.generate_all(&BTreeSet::new(), &mut report);
        self.thaw(&BTreeSet::new(), &mut report);
        report.sidecar = self.history.missing_sidecar();
        Ok(report)
    }

    /// Put a snapshot in the place of what it was made of; false if it isn't of this document.
    pub fn rebase(&mut self, snapshot: &[u8], heads: &[ChangeHash]) -> bool {
        self.memo.clear();
        self.history.rebase(snapshot, heads)
    }

    pub fn open(&self) -> Result<Automerge, Refusal> {
        self.history.open()
    }

    pub fn save(&self) -> Result<Vec<u8>, Failure> {
        self.alive()?;
        let document = self.open()?;
        Ok(guarded(|| document.save())?)
    }

    pub fn value(&self, most_bytes: usize) -> Result<Result<Tree, Unshown>, Failure> {
        self.alive()?;
        let document = self.open()?;
        Ok(guarded(|| value::read(&document, most_bytes))?)
    }

    /// Get at the changes that peers are owed one by one, and send them.
    fn thaw(&mut self, refused: &BTreeSet<i64>, report: &mut Report) {
        if self.frozen.is_empty() {
            return;
        }
        let wanted: Vec<u32> = std::mem::take(&mut self.frozen).into_iter().collect();
        let History { archive, graph, .. } = &mut self.history;
        if let Err(refusal) = archive.thaw(graph, &wanted) {
            for id in std::mem::take(&mut self.stirred) {
                report.faults.push(Fault::new(id, refusal.clone()));
            }
        } else {
            self.generate_all(refused, report);
            self.history.archive.trim();
        }
        report.is_frozen = false;
    }

    /// Whether it takes no more than some milliseconds, but for its changes.
    fn is_light_message(&self, received: &Received<'_>) -> bool {
        let has_plain_chunks = received.blobs.iter().all(|blob| {
            let mut reader = Reader::new(blob);
            while !reader.is_empty() {
                match chunk::cut(&mut reader) {
                    Ok(chunk) if chunk.is_costly() => return false,
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
            true
        });
        let message = &received.message;
        let has_all = message.heads.is_empty() || message.heads[..] == self.heads()[..];
        let graph = &self.history.graph;
        let shares = |hashes: &[ChangeHash]| hashes.iter().any(|hash| graph.contains(hash));
        let is_filter_small = graph.len() <= LIGHT_FILTERED
            || has_all
            || message.have.iter().all(|have| shares(&have.last_sync));
        has_plain_chunks && is_filter_small
    }

    fn tracked_heads(&self, batch: &[(i64, &[u8])]) -> BTreeMap<i64, Option<Heads>> {
        batch
            .iter()
            .filter_map(|(id, _)| self.peers.get(id).map(|peer| (*id, peer)))
            .filter(|(_, peer)| peer.track_heads)
            .map(|(id, peer)| (id, peer.state.their_heads.clone()))
            .collect()
    }

    /// False, and nothing was done, if it isn't light: has more than `most_bytes`, if any bound is
    /// given, or would take long.
    fn receive(
        &mut self,
        id: i64,
        bytes: &[u8],
        most_bytes: Option<usize>,
        report: &mut Report,
    ) -> Result<bool, Refusal> {
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(true);
        };
        self.stirred.insert(id);
        if let Some(after) = self.answers.get(&peer.state, bytes) {
            peer.note_received(after.clone(), false, bytes.len());
            return Ok(true);
        }
        let state = peer.state.clone();
        let received = message::read(bytes)?;
        let only_light = most_bytes.is_some();
        let is_long = most_bytes.is_some_and(|most| bytes.len() > most);
        if is_long || (only_light && !self.is_light_message(&received)) {
            return Ok(false);
        }
        let had_changes = !received.blobs.is_empty();
        let before = self.history.graph.heads().clone();
        let mut grew = false;
        if had_changes && !state.read_only {
            let mut intake = Intake::default();
            let mut budget = self.history.account.budget();
            for blob in &received.blobs {
                read_blob(blob, &mut budget, &self.history.graph, &mut intake)?;
            }
            let Some(took) = self.take(intake, Some(id), Mode::Whole, only_light, report)? else {
                return Ok(false);
            };
            grew = took;
        } else if had_changes {
            report.ignored.push(id);
        }
        let next = state.receive(self.view(), &received.message, had_changes, &before);
        let next = self.states.share(next);
        if !had_changes && self.peers.len() > 1 {
            self.answers.remember(&state, bytes, &next);
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            if grew {
                peer.note_progress();
            }
            peer.note_received(next, had_changes, bytes.len());
        }
        Ok(true)
    }

    /// Whether the document grew; None, and nothing was done, if it isn't light.
    fn take(
        &mut self,
        intake: Intake<'_>,
        peer: Option<i64>,
        mode: Mode,
        only_light: bool,
        report: &mut Report,
    ) -> Result<Option<bool>, Refusal> {
        // Also what is refused changes what is asked for.
        self.is_changed = true;
        self.answers.clear();
        self.memo.clear();
        let Some(taken) = self.history.take(intake, peer, mode, only_light)? else {
            return Ok(None);
        };
        for (peer, refusal) in taken.blamed {
            report
                .faults
                .extend(peer.map(|peer| Fault::new(peer, refusal)));
        }
        self.version += taken.count;
        report.chunks.extend(taken.chunks);
        Ok(Some(taken.count > 0))
    }

    fn generate_all(&mut self, refused: &BTreeSet<i64>, report: &mut Report) {
        let view = self.history.view(self.limits.like_crate);
        let mut outbox = Outbox::default();
        let mut run = |id: i64, peer: &mut Peer| {
            if refused.contains(&id) {
                return;
            }
            if peer.is_held(self.limits.window, self.limits.like_crate) {
                report.holds += usize::from(peer.begins_to_wait(self.limits.window));
                return;
            }
            let mut sender = Sender {
                view,
                id,
                version: self.version,
                loop_limit: self.limits.loop_limit,
                states: &mut self.states,
                memo: &mut self.memo,
                outbox: &mut outbox,
            };
            sender.run(peer);
        };
        let stirred = std::mem::take(&mut self.stirred);
        if std::mem::take(&mut self.is_changed) {
            for (id, peer) in &mut self.peers {
                run(*id, peer);
            }
        } else {
            for id in stirred {
                if let Some(peer) = self.peers.get_mut(&id) {
                    run(id, peer);
                }
            }
        }
        // Whoever waits is asked again, whatever happens meanwhile.
        self.stirred.extend(&outbox.waiting);
        self.frozen.extend(&outbox.frozen);
        self.memo.trim(self.peers.len());
        self.states.prune(self.peers.len());
        report.is_frozen = !self.frozen.is_empty();
        report.messages.extend(outbox.messages);
        report.faults.extend(outbox.faults);
        report.heads = self.history.graph.heads().clone();
    }

    fn alive(&self) -> Result<(), Panicked> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    fn broken_by(&mut self, panicked: Panicked) -> Panicked {
        self.broken = Some(panicked.clone());
        panicked
    }
}
