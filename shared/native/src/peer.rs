//! One peer's exchange with a document: the crate's sync state, flow control, loop breaker.
//!
//! Differences from the crate's own generate and receive, each with its trap in ENGINE.md: a
//! read-only peer never gets the crate's reset (T4), refused changes are not asked for (T5),
//! `shared_heads` takes only what the peer named (T6).

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use automerge::sync::{ChunkList, Message, State, SyncDoc};
use automerge::{Automerge, ChangeHash};

use crate::graph::Graph;
use crate::queue::Queue;

/// Distinct messages remembered since the last progress; an exchange that goes around in a
/// larger circle without progress counts as repeating.
const MOST_REMEMBERED: usize = 8;

/// Above so many unanswered bytes a peer gets nothing more: until it answers, each edit would
/// send it another whole copy of a document that it doesn't have yet
/// (`test_large_document_in_flight_is_not_sent_again`).
const MOST_UNANSWERED_BYTES: usize = 256 << 10;

/// Messages to a peer that count as not answered yet, at the most: on a long way so many may be
/// under way, and a real loop is noticed so many messages later.
const MOST_OPEN: u32 = 64;

/// What generating reads; it doesn't change while messages are generated.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub document: &'a Automerge,
    pub graph: &'a Graph,
    pub queue: &'a Queue,
    /// Counts the changes applied so far.
    pub version: u64,
}

/// An encoded message.
#[derive(Clone)]
pub struct Draft {
    pub bytes: Vec<u8>,
    pub has_changes: bool,
    pub has_heads: bool,
    digest: u64,
}

/// What the loop breaker says about a message that is about to be sent.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    Send,
    Renew,
    Silence,
}

pub struct Peer {
    pub state: State,
    /// It spoke, or was greeted: only then is it sent anything.
    pub engaged: bool,
    pub track_heads: bool,
    /// Messages with changes that it has not answered, and their bytes.
    pub unanswered: usize,
    pub unanswered_bytes: usize,
    /// It sent changes and no message has been generated for it since.
    owed: bool,
    silenced: bool,
    /// The breaker renewed the state, and nothing has moved since.
    renewed: bool,
    repeats: u32,
    /// Messages sent to it and not answered, roughly.
    open: u32,
    /// Of its next messages so many may answer what we sent before something moved.
    grace: u32,
    /// Its last message was one of those: our repeating the answer says nothing.
    is_late: bool,
    sent: Vec<u64>,
    version: u64,
    heads: Option<Vec<ChangeHash>>,
}

impl Peer {
    pub fn new(read_only: bool, track_heads: bool) -> Self {
        let state = if read_only {
            State::new_read_only()
        } else {
            State::new()
        };
        Self {
            state,
            engaged: false,
            track_heads,
            unanswered: 0,
            unanswered_bytes: 0,
            owed: false,
            silenced: false,
            renewed: false,
            repeats: 0,
            open: 0,
            grace: 0,
            is_late: false,
            sent: Vec::new(),
            version: 0,
            heads: None,
        }
    }

    /// Take a message whose changes, if it had any, were applied or queued already.
    pub fn receive(
        &mut self,
        document: &mut Automerge,
        message: Message,
        had_changes: bool,
    ) -> Result<(), automerge::AutomergeError> {
        let last_sent = self.state.last_sent_heads.clone();
        let lost_everything = message.heads.is_empty();
        let heads = message.heads.clone();
        document.receive_sync_message(&mut self.state, message)?;
        // The crate sees no changes, so it takes equal heads for an acknowledgement that needs
        // no answer; but a message with changes is always owed one, also when messages without
        // changes come after it in the same batch, before anything was generated.
        self.owed |= had_changes;
        // One with changes was most likely not an answer: a peer that types does not wait for any.
        self.open = self.open.saturating_sub(u32::from(!had_changes));
        self.is_late = self.grace > 0;
        self.grace = self.grace.saturating_sub(1);
        if self.owed && !lost_everything {
            self.state.last_sent_heads = last_sent;
        }
        let all_answered = heads == self.state.last_sent_heads || self.state.sent_hashes.is_empty();
        self.unanswered = if all_answered {
            0
        } else {
            self.unanswered.saturating_sub(1)
        };
        self.unanswered_bytes = 0;
        self.engaged = true;
        Ok(())
    }

    /// Note that a message of this peer brought changes: the exchange is not stuck.
    pub fn note_progress(&mut self) {
        self.renewed = false;
    }

    /// Renew the state as one that may have lost an inbound message.
    pub fn reset(&mut self) {
        self.renew();
        self.silenced = false;
        self.renewed = false;
        self.engaged = true;
    }

    /// Like `reset`, by the loop breaker.
    pub fn renew_after_loop(&mut self) {
        self.renew();
        self.renewed = true;
    }

    /// Note that a message is sent.
    pub fn note_sent(&mut self) {
        self.open = (self.open + 1).min(MOST_OPEN);
    }

    /// Note that a message is being generated: it names what it has sent.
    pub fn note_generated(&mut self) {
        self.owed = false;
    }

    fn renew(&mut self) {
        let old = std::mem::take(&mut self.state);
        self.state = State {
            their_capabilities: old.their_capabilities,
            peer_read_only: old.peer_read_only,
            read_only: old.read_only,
            needs_reset: true,
            ..State::new()
        };
        self.unanswered = 0;
        self.unanswered_bytes = 0;
        self.moved();
    }

    pub fn set_read_only(&mut self, read_only: bool) {
        let peer_read_only = self.state.peer_read_only;
        self.state.set_read_only(read_only);
        self.state.peer_read_only = peer_read_only;
        self.unanswered = 0;
        self.unanswered_bytes = 0;
        self.silenced = false;
    }

    pub fn silence(&mut self) {
        self.silenced = true;
    }

    /// Whether a call of `generate` can be spared; `window` is the bound on unanswered messages.
    pub fn is_quiet(&self, our_heads: &[ChangeHash], window: usize) -> bool {
        let state = &self.state;
        let settled = state.have_responded
            && !state.needs_reset
            && state.last_sent_heads == our_heads
            && state.their_heads.as_deref() == Some(our_heads)
            && state.their_need.as_ref().is_none_or(Vec::is_empty);
        let full = self.unanswered >= window || self.unanswered_bytes > MOST_UNANSWERED_BYTES;
        let held = full && !state.needs_reset;
        !self.engaged || self.silenced || settled || held
    }

    /// Ask for the heads that follow a reset by empty heads: a peer that has nothing would take
    /// those for equal to its own, and stay silent.
    pub fn follow_reset(&mut self) {
        self.state.in_flight = false;
        self.state.have_responded = false;
    }

    fn moved(&mut self) {
        self.repeats = 0;
        self.grace = self.open;
        self.sent.clear();
    }

    /// Hold a message against those sent since something moved last.
    pub fn judge(&mut self, draft: &Draft, version: u64, loop_limit: u32) -> Verdict {
        if self.heads != self.state.their_heads {
            self.heads.clone_from(&self.state.their_heads);
            self.renewed = false;
            self.moved();
        }
        if self.version != version {
            self.version = version;
            self.moved();
        }
        if self.sent.contains(&draft.digest) || self.sent.len() >= MOST_REMEMBERED {
            self.repeats += u32::from(!self.is_late);
        } else {
            self.sent.push(draft.digest);
        }
        match (self.repeats >= loop_limit, self.renewed) {
            (false, _) => Verdict::Send,
            (true, false) => Verdict::Renew,
            (true, true) => Verdict::Silence,
        }
    }
}

/// The next message for a state, if it is owed one; deterministic in the state and the view.
pub fn generate(view: View<'_>, state: &mut State) -> Option<Draft> {
    cut_last_sync(view, state);
    let their_heads = state.their_heads.clone().unwrap_or_default();
    let (need, met_refused) = view.queue.missing(&their_heads, view.graph);
    let is_stuck = met_refused && need.is_empty();
    let before = is_stuck.then(|| state.clone());
    let is_crate_reset = names_unknown(view, state);

    let mut message = view.document.generate_sync_message(state)?;
    if let Some(before) = before {
        let is_news = before.last_sent_heads != view.graph.heads() || !before.have_responded;
        if message.changes.is_empty() && !is_news && !before.needs_reset {
            *state = before;
            return None;
        }
    }
    if !is_crate_reset && !state.read_only && message.need != need {
        if !need.iter().all(|hash| their_heads.contains(hash)) {
            message.have.clear();
        }
        message.need = need;
    }
    // The crate sends an empty document as a chunk without changes (ENGINE T14), which a peer
    // that has nothing either never answers: it would count as unanswered for good.
    if view.graph.len() == 0 {
        message.changes = ChunkList::empty();
    }
    let has_changes = !message.changes.is_empty();
    let has_heads = !message.heads.is_empty();
    let bytes = message.encode();
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Some(Draft {
        bytes,
        has_changes,
        has_heads,
        digest: hasher.finish(),
    })
}

/// Answer a read-only peer from the part of its `last_sync` that we know (ENGINE T4): the
/// crate's reset would never end, since we never ask such a peer for what we lack.
fn cut_last_sync(view: View<'_>, state: &mut State) {
    if !state.read_only && !state.needs_reset {
        return;
    }
    for have in state.their_have.iter_mut().flatten() {
        have.last_sync.retain(|hash| view.graph.contains(hash));
    }
}

fn names_unknown(view: View<'_>, state: &State) -> bool {
    state
        .their_have
        .as_ref()
        .and_then(|have| have.first())
        .is_some_and(|have| have.last_sync.iter().any(|hash| !view.graph.contains(hash)))
}
