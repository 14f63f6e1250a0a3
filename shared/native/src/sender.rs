//! Sends what peers are owed: each state's message generated once, equal bytes grouped.

use std::collections::HashMap;

use automerge::sync::State;

use crate::error::{reason, Refusal};
use crate::outcome::Fault;
use crate::peer::{generate, Draft, Peer, Verdict, View};

/// A state that was asked before in this call, and what it gave.
pub type Memo = HashMap<State, (State, Option<Draft>)>;

/// Messages grouped by bytes, each peer's in their order.
#[derive(Default)]
pub struct Outbox {
    pub messages: Vec<(Vec<u8>, Vec<i64>)>,
    pub faults: Vec<Fault>,
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
pub struct Sender<'a> {
    pub view: View<'a>,
    pub id: i64,
    pub loop_limit: u32,
    pub memo: &'a mut Memo,
    pub outbox: &'a mut Outbox,
}

impl Sender<'_> {
    pub fn run(&mut self, peer: &mut Peer) {
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
        peer.note_sent();
        if draft.has_changes {
            peer.unanswered += 1;
            peer.unanswered_bytes += draft.bytes.len();
        }
        self.outbox.add(draft.bytes, self.id, after)
    }

    fn fault(&mut self, label: &'static str) {
        let refusal = Refusal::new(label, "the exchange repeats itself without progress");
        self.outbox.faults.push(Fault::new(self.id, refusal));
    }

    /// Equal states get equal messages: generated once.
    fn generate(&mut self, peer: &mut Peer) -> Option<Draft> {
        peer.note_generated();
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
