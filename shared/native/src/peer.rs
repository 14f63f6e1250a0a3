//! One peer of a document: its sync state, flow control and loop breaker.

use std::sync::Arc;

use crate::exchange::{Draft, Exchange};
use crate::graph::Heads;

/// Distinct messages remembered since the last progress; an exchange that goes around in a
/// larger circle without progress counts as repeating.
const MOST_REMEMBERED: usize = 8;

/// Above so many unanswered bytes a peer gets nothing more: a slow one would pile them up.
const MOST_UNANSWERED_BYTES: usize = 256 << 10;

/// Messages to a peer that count as not answered yet, at the most: on a long way so many may be
/// under way, and a real loop is noticed so many messages later.
const MOST_OPEN: u32 = 64;

/// What the loop breaker says about a message that is about to be sent.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    Send,
    Renew,
    Silence,
}

pub struct Peer {
    pub state: Arc<Exchange>,
    /// It spoke, or was greeted: only then is it sent anything.
    pub engaged: bool,
    pub track_heads: bool,
    /// Messages with changes that it has not answered, and their bytes.
    unanswered: usize,
    unanswered_bytes: usize,
    /// Of its last message: its filters are kept until it is answered.
    pub kept_bytes: usize,
    /// It was held for want of answers, and has not said a word since.
    waits: bool,
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
    /// Digests of what it was sent since something moved.
    sent: Vec<u64>,
    version: u64,
    heads: Option<Heads>,
}

impl Peer {
    pub fn new(state: Arc<Exchange>, track_heads: bool) -> Self {
        Self {
            state,
            engaged: false,
            track_heads,
            unanswered: 0,
            unanswered_bytes: 0,
            kept_bytes: 0,
            waits: false,
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

    /// Note a message that has led to this state.
    pub fn note_received(&mut self, state: Arc<Exchange>, had_changes: bool, bytes: usize) {
        self.kept_bytes = if had_changes { 0 } else { bytes };
        // One with changes was most likely not an answer: a peer that types does not wait for any.
        self.open = self.open.saturating_sub(u32::from(!had_changes));
        self.is_late = self.grace > 0;
        self.grace = self.grace.saturating_sub(1);
        let named = state.their_heads.as_ref();
        let all_answered = named == Some(&state.last_sent_heads) || state.sent.is_empty();
        self.unanswered = if all_answered {
            0
        } else {
            self.unanswered.saturating_sub(1)
        };
        self.unanswered_bytes = 0;
        self.waits = false;
        self.engaged = true;
        self.state = state;
    }

    /// Note that a message of this peer brought changes: the exchange is not stuck.
    pub fn note_progress(&mut self) {
        self.renewed = false;
    }

    /// Renew the state as one that may have lost an inbound message.
    pub fn reset(&mut self, like_crate: bool) {
        self.renew(like_crate);
        self.silenced = false;
        self.renewed = false;
        self.engaged = true;
    }

    /// Like `reset`, by the loop breaker: nothing is believed any more.
    pub fn renew_after_loop(&mut self) {
        self.renew(true);
        self.renewed = true;
    }

    fn renew(&mut self, forget_shared: bool) {
        self.state = Arc::new(self.state.renewed(forget_shared));
        self.unanswered = 0;
        self.unanswered_bytes = 0;
        self.moved();
    }

    pub fn set_read_only(&mut self, read_only: bool, like_crate: bool) {
        self.state = Arc::new(self.state.with_role(read_only, like_crate));
        self.unanswered = 0;
        self.unanswered_bytes = 0;
        self.silenced = false;
        self.renewed = false;
        self.moved();
    }

    pub fn silence(&mut self) {
        self.silenced = true;
    }

    /// Whether there is news for it that has to wait for its answers, and did not before.
    pub fn begins_to_wait(&mut self, window: usize) -> bool {
        let begins = self.engaged && !self.silenced && !self.waits && self.is_full(window);
        self.waits |= begins;
        begins
    }

    fn is_full(&self, window: usize) -> bool {
        self.unanswered >= window || self.unanswered_bytes > MOST_UNANSWERED_BYTES
    }

    /// Whether it gets nothing now; `window` is the bound on unanswered messages.
    pub fn is_held(&self, window: usize, like_crate: bool) -> bool {
        let is_full = self.is_full(window);
        // One that takes nothing from us has no use for news while it has not answered.
        let is_waited_for = self.state.peer_read_only && self.state.in_flight;
        let is_held = is_full || (is_waited_for && !like_crate);
        !self.engaged || self.silenced || (is_held && !self.state.needs_reset)
    }

    /// Note a message that is sent.
    pub fn note_sent(&mut self, draft: &Draft) {
        self.open = (self.open + 1).min(MOST_OPEN);
        self.kept_bytes = 0;
        if draft.has_changes {
            self.unanswered += 1;
            self.unanswered_bytes += draft.bytes.len();
        }
    }

    fn moved(&mut self) {
        self.repeats = 0;
        self.grace = self.open;
        self.sent.clear();
    }

    /// Hold a message against those sent since something moved last; `version` counts the changes
    /// applied.
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

/// States after messages without changes, in the present graph: peers that were sent the same
/// answer the same.
#[derive(Default)]
pub struct Answers {
    known: Vec<Answer>,
}

struct Answer {
    before: Arc<Exchange>,
    bytes: Box<[u8]>,
    after: Arc<Exchange>,
}

/// Few: those of the messages that are being answered just now.
const MOST_ANSWERS: usize = 16;
const MOST_ANSWER_BYTES: usize = 1024;

impl Answers {
    pub fn get(&self, before: &Arc<Exchange>, bytes: &[u8]) -> Option<&Arc<Exchange>> {
        let is_it =
            |answer: &&Answer| Arc::ptr_eq(&answer.before, before) && *answer.bytes == *bytes;
        self.known.iter().find(is_it).map(|answer| &answer.after)
    }

    pub fn remember(&mut self, before: &Arc<Exchange>, bytes: &[u8], after: &Arc<Exchange>) {
        if bytes.len() > MOST_ANSWER_BYTES {
            return;
        }
        if self.known.len() >= MOST_ANSWERS {
            self.known.remove(0);
        }
        self.known.push(Answer {
            before: before.clone(),
            bytes: Box::from(bytes),
            after: after.clone(),
        });
    }

    pub fn clear(&mut self) {
        self.known.clear();
    }
}
