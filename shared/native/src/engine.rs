//! One document with its peers, without Python: the inside of `Document`.

use std::collections::{BTreeMap, BTreeSet};

use automerge::ChangeHash;

use crate::error::{guarded, Failure, Panicked};
use crate::history::{History, Problem};
use crate::ingest::{read_blob, Intake, Mode};
use crate::message;
use crate::outcome::{Fault, Report};
use crate::peer::{Peer, View};
use crate::sender::{Memo, Outbox, Sender};
use crate::value::{self, TooDeep, Tree};

const BYTES_PER_PEER: usize = 500;

pub struct Engine {
    history: History,
    peers: BTreeMap<i64, Peer>,
    window: usize,
    loop_limit: u32,
    broken: Option<Panicked>,
}

impl Engine {
    pub fn new(history: History, window: usize, loop_limit: u32) -> Self {
        Self {
            history,
            peers: BTreeMap::new(),
            window,
            loop_limit,
            broken: None,
        }
    }

    pub fn load(
        blobs: &[&[u8]],
        window: usize,
        loop_limit: u32,
        queue_bytes: usize,
    ) -> Result<(Self, Vec<Problem>), Panicked> {
        let (history, problems) = guarded(|| History::load(blobs, queue_bytes))??;
        Ok((Self::new(history, window, loop_limit), problems))
    }

    pub fn heads(&self) -> Vec<ChangeHash> {
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

    pub fn size_bytes(&self) -> usize {
        self.history.size_bytes() + self.peers.len() * BYTES_PER_PEER
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
        let result = guarded(|| self.sync_unguarded(batch, hello));
        result
            .and_then(|report| report)
            .map_err(|panicked| self.broken_by(panicked))
    }

    fn sync_unguarded(
        &mut self,
        batch: &[(i64, &[u8])],
        hello: &[i64],
    ) -> Result<Report, Panicked> {
        let mut report = Report::default();
        let before = self.tracked_heads(batch);
        for peer in hello {
            if let Some(peer) = self.peers.get_mut(peer) {
                peer.engaged = true;
            }
        }
        let mut refused = BTreeSet::new();
        for (peer, bytes) in batch {
            match self.receive(*peer, bytes, &mut report) {
                Ok(()) => {}
                Err(Failure::Refused(refusal)) => {
                    report.faults.push(Fault::new(*peer, refusal));
                    refused.insert(*peer);
                }
                Err(Failure::Panicked(panicked)) => return Err(panicked),
            }
        }
        self.generate_all(&refused, &mut report);
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
        report.heads = self.history.graph.heads();
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
        self.take(intake, None, Mode::Complete, &mut report)?;
        self.generate_all(&BTreeSet::new(), &mut report);
        report.heads = self.history.graph.heads();
        Ok(report)
    }

    pub fn save(&mut self) -> Result<Vec<u8>, Panicked> {
        self.alive()?;
        let result = guarded(|| self.history.document.save());
        result.map_err(|panicked| self.broken_by(panicked))
    }

    pub fn value(&mut self) -> Result<Result<Tree, TooDeep>, Panicked> {
        self.alive()?;
        let result = guarded(|| value::read(&self.history.document));
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
            let mut budget = self.history.account.budget();
            for blob in &received.blobs {
                read_blob(blob, &mut budget, &self.history.graph, &mut intake)?;
            }
            grew = self.take(intake, Some(id), Mode::Whole, report)?;
        }
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(());
        };
        if grew {
            peer.note_progress();
        }
        let document = &mut self.history.document;
        peer.receive(document, received.message, had_changes)
            .map_err(|error| Panicked(error.to_string()))?;
        Ok(())
    }

    /// Whether the document grew.
    fn take(
        &mut self,
        intake: Intake<'_>,
        peer: Option<i64>,
        mode: Mode,
        report: &mut Report,
    ) -> Result<bool, Failure> {
        let taken = self.history.take(intake, peer, mode)?;
        for (peer, refusal) in taken.blamed {
            report
                .faults
                .extend(peer.map(|peer| Fault::new(peer, refusal)));
        }
        let grew = !taken.chunks.is_empty();
        report.chunks.extend(taken.chunks);
        Ok(grew)
    }

    fn generate_all(&mut self, refused: &BTreeSet<i64>, report: &mut Report) {
        let view = View {
            document: &self.history.document,
            graph: &self.history.graph,
            queue: &self.history.queue,
            version: self.history.version,
        };
        let our_heads = view.graph.heads();
        let mut memo = Memo::new();
        let mut outbox = Outbox::default();
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
            sender.run(peer);
        }
        report.messages = outbox.messages;
        report.faults.extend(outbox.faults);
    }

    fn alive(&self) -> Result<(), Panicked> {
        self.broken.clone().map_or(Ok(()), Err)
    }

    fn broken_by(&mut self, panicked: Panicked) -> Panicked {
        self.broken = Some(panicked.clone());
        panicked
    }
}
