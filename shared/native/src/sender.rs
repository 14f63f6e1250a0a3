//! Sends what peers are owed: each state's message generated once, equal bytes grouped.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::error::{reason, Refusal};
use crate::exchange::{Draft, Exchange, Generated, View};
use crate::outcome::Fault;
use crate::peer::{Peer, Verdict};

/// More drafts are not kept for the peers that come into the same state later.
const MOST_DRAFT_BYTES: usize = 256 << 10;

/// The states of a document's peers, equal ones once.
#[derive(Default)]
pub struct States {
    known: HashSet<Arc<Exchange>>,
}

impl States {
    pub fn share(&mut self, state: Exchange) -> Arc<Exchange> {
        if let Some(known) = self.known.get(&state) {
            return known.clone();
        }
        let state = Arc::new(state);
        self.known.insert(state.clone());
        state
    }

    /// Forget those that nobody is in.
    pub fn prune(&mut self, peer_count: usize) {
        if self.known.len() > 2 * peer_count + 2 {
            self.known.retain(|state| Arc::strong_count(state) > 1);
        }
    }
}

/// What states gave in the present graph, by their address; they are held, so it stays theirs.
#[derive(Default)]
pub struct Memo {
    known: HashMap<*const Exchange, Given>,
    draft_bytes: usize,
}

// The addresses are only compared.
unsafe impl Send for Memo {}
unsafe impl Sync for Memo {}

#[derive(Clone)]
struct Given {
    _before: Arc<Exchange>,
    after: Arc<Exchange>,
    draft: Option<Arc<Draft>>,
}

impl Memo {
    /// The graph or the queue has changed.
    pub fn clear(&mut self) {
        self.known.clear();
        self.draft_bytes = 0;
    }

    /// Keep what later calls may need, within bounds; for one peer there is nothing to share.
    pub fn trim(&mut self, peer_count: usize) {
        if peer_count < 2 {
            *self = Self::default();
        } else if self.draft_bytes > MOST_DRAFT_BYTES || self.known.len() > 2 * peer_count + 16 {
            self.clear();
        }
    }
}

/// Messages grouped by bytes, each peer's in their order.
#[derive(Default)]
pub struct Outbox {
    pub messages: Vec<(Arc<Draft>, Vec<i64>)>,
    pub faults: Vec<Fault>,
    /// Changes that are owed one by one, and are in the saved document only.
    pub frozen: BTreeSet<u32>,
    /// Peers that wait for them.
    pub waiting: Vec<i64>,
    groups: HashMap<u64, usize>,
}

impl Outbox {
    /// Returns the place of the message; it comes after place `after`, which this peer got.
    fn add(&mut self, draft: Arc<Draft>, peer: i64, after: Option<usize>) -> usize {
        if let Some(place) = self.groups.get(&draft.digest).copied() {
            let other = &self.messages[place].0;
            let is_same = Arc::ptr_eq(other, &draft) || other.bytes == draft.bytes;
            if is_same && after.is_none_or(|after| place > after) {
                self.messages[place].1.push(peer);
                return place;
            }
        }
        let place = self.messages.len();
        self.groups.insert(draft.digest, place);
        self.messages.push((draft, vec![peer]));
        place
    }
}

/// Generates for one peer.
pub struct Sender<'a> {
    pub view: View<'a>,
    pub id: i64,
    /// Counts the changes applied so far.
    pub version: u64,
    pub loop_limit: u32,
    pub states: &'a mut States,
    pub memo: &'a mut Memo,
    pub outbox: &'a mut Outbox,
}

impl Sender<'_> {
    pub fn run(&mut self, peer: &mut Peer) {
        let is_reset = peer.state.needs_reset;
        let Some(draft) = self.generate(peer) else {
            return;
        };
        match peer.judge(&draft, self.version, self.loop_limit) {
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

    fn send_reset(&mut self, draft: Arc<Draft>, peer: &mut Peer) {
        let is_empty = self.view.graph.len() == 0;
        let needs_heads = !draft.has_heads && !is_empty && !self.view.like_crate;
        let place = self.send(draft, peer, None);
        if needs_heads {
            peer.state = self.states.share(peer.state.following_reset());
            if let Some(draft) = self.generate(peer) {
                self.send(draft, peer, Some(place));
            }
        }
    }

    fn send(&mut self, draft: Arc<Draft>, peer: &mut Peer, after: Option<usize>) -> usize {
        peer.note_sent(&draft);
        self.outbox.add(draft, self.id, after)
    }

    fn fault(&mut self, label: &'static str) {
        let refusal = Refusal::new(label, "the exchange repeats itself without progress");
        self.outbox.faults.push(Fault::new(self.id, refusal));
    }

    /// Equal states get equal messages: generated once.
    fn generate(&mut self, peer: &mut Peer) -> Option<Arc<Draft>> {
        let address = Arc::as_ptr(&peer.state);
        if let Some(given) = self.memo.known.get(&address) {
            peer.state = given.after.clone();
            return given.draft.clone();
        }
        let (generated, after) = peer.state.generate(self.view);
        let draft = match generated {
            Generated::Nothing => None,
            Generated::Message(draft) => Some(Arc::new(draft)),
            Generated::Frozen(frozen) => {
                self.outbox.frozen.extend(frozen);
                self.outbox.waiting.push(self.id);
                return None;
            }
        };
        let after = after.map_or_else(|| peer.state.clone(), |after| self.states.share(after));
        let before = std::mem::replace(&mut peer.state, after.clone());
        self.memo.draft_bytes += draft.as_ref().map_or(0, |draft| draft.bytes.len());
        let given = Given {
            _before: before,
            after,
            draft: draft.clone(),
        };
        self.memo.known.insert(address, given);
        draft
    }
}
