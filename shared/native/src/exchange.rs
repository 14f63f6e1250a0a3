//! One peer's sync state, and the protocol's receive and generate over the change graph.
//!
//! A state is immutable and shared: peers in equal states get one message, made once. The rules
//! are those of the crate's `sync` (PROTOCOL 5.3, 5.4), to the letter where `View::like_crate`
//! says so: that is how the lockstep tests hold it against the crate. Else they differ where the
//! crate stalls, loops or pays for the history, each with its trap in ENGINE.md:
//!
//! - a read-only peer never gets the crate's reset (T4), and nobody gets it twice for one message;
//! - refused changes are not asked for (T5);
//! - `shared_heads` takes only what the peer named, and only what we have is named to it (T6);
//! - the first hello has no Bloom filter, nor has a message to a peer that has nothing that we
//!   lack, if the filter would be large (T7);
//! - what we have is told also when something is asked for, and a peer that only asks gets what
//!   lies before it too: else the way back from an orphan takes a round trip for each change;
//! - what was sent is not sent again whole, and a message with changes is always answered.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use automerge::sync::{BloomFilter, Have, Message, MessageFlags};
use automerge::ChangeHash;
use pyo3::types::PyBytes;
use pyo3::Py;

use crate::archive::Archive;
use crate::graph::{Graph, Heads};
use crate::message::{self, Outgoing};
use crate::queue::Queue;
use crate::sent::Sent;
use crate::walk::difference;

/// A filter over more changes is left out where the peer has nothing that we lack: it costs the
/// peer's next edit a round trip, and everybody else 10 bits and some 40 ns per change.
const LARGE_FILTER: usize = 4096;

/// The digest of a message is made from so many of its first bytes, which name its heads, and as
/// many of its last ones.
const DIGESTED_BYTES: usize = 4096;

/// What generating reads; it doesn't change while messages are generated.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub graph: &'a Graph,
    pub queue: &'a Queue,
    pub archive: &'a Archive,
    pub like_crate: bool,
}

/// What the peer understands besides the first version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Capabilities {
    pub sync_reset: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    pub shared_heads: Heads,
    pub last_sent_heads: Heads,
    pub their_heads: Option<Heads>,
    pub their_need: Option<Heads>,
    pub their_have: Option<Arc<[Have]>>,
    pub sent: Sent,
    pub in_flight: bool,
    pub have_responded: bool,
    /// None for a peer that knows the first version only.
    pub capabilities: Option<Capabilities>,
    /// We take no changes from it.
    pub read_only: bool,
    /// It takes no changes from us.
    pub peer_read_only: bool,
    pub needs_reset: bool,
    /// It sent changes and no message has been generated for it since.
    owed: bool,
    /// It was told that we lack what it believes to share, and has not answered.
    told_unknown: bool,
    /// So many changes were held against its filters, which are gone since then; 0 for none.
    filtered: u32,
}

/// An encoded message.
pub struct Draft {
    pub bytes: Vec<u8>,
    pub has_changes: bool,
    pub has_heads: bool,
    pub digest: u64,
    /// The same as Python has it, once it has it.
    pub python: OnceLock<Py<PyBytes>>,
}

/// What a state gives.
pub enum Generated {
    Nothing,
    Message(Draft),
    /// It is owed these changes one by one, and they are in the saved document only.
    Frozen(Vec<u32>),
}

impl Exchange {
    pub fn new(read_only: bool) -> Self {
        Self {
            read_only,
            ..Self::default()
        }
    }

    /// The state of a peer from which a message may have been lost. Of what is shared it keeps
    /// what was named, if the peer can be told to send again what we may not have.
    pub fn renewed(&self, forget_shared: bool) -> Self {
        let is_understood = self.capabilities.is_some_and(|they| they.sync_reset);
        let shared_heads = if is_understood && !forget_shared {
            self.shared_heads.clone()
        } else {
            Heads::default()
        };
        Self {
            shared_heads,
            capabilities: self.capabilities,
            peer_read_only: self.peer_read_only,
            read_only: self.read_only,
            needs_reset: true,
            ..Self::default()
        }
    }

    /// The state after a change of our role.
    pub fn with_role(&self, read_only: bool, like_crate: bool) -> Self {
        if self.read_only == read_only {
            return self.clone();
        }
        if read_only {
            return Self {
                read_only,
                in_flight: false,
                have_responded: false,
                ..self.clone()
            };
        }
        Self {
            capabilities: self.capabilities,
            peer_read_only: self.peer_read_only && !like_crate,
            needs_reset: true,
            ..Self::default()
        }
    }

    /// Ask for the heads that follow a reset by empty heads: a peer that has nothing would take
    /// those for equal to its own, and stay silent.
    pub fn following_reset(&self) -> Self {
        Self {
            in_flight: false,
            have_responded: false,
            ..self.clone()
        }
    }

    fn takes_v2(&self) -> bool {
        self.capabilities.is_some()
    }

    fn has_nothing(&self) -> bool {
        self.their_heads
            .as_ref()
            .is_some_and(|heads| heads.is_empty())
    }

    /// The state after a message whose changes, if it had any, are in the graph or queue, or were
    /// ignored. `before` are the heads that we had before them.
    pub fn receive(
        &self,
        view: View<'_>,
        message: &Message,
        had_changes: bool,
        before: &Heads,
    ) -> Self {
        let graph = view.graph;
        let mut next = self.clone();
        next.in_flight = false;
        next.told_unknown = false;
        next.filtered = 0;
        if let Some(flags) = message.flags {
            next.capabilities = Some(Capabilities {
                sync_reset: flags.contains(MessageFlags::SUPPORTS_SYNC_RESET),
            });
            if flags.contains(MessageFlags::SYNC_RESET) {
                next.sent = Sent::default();
            }
            next.peer_read_only = flags.contains(MessageFlags::READ_ONLY);
        }
        if view.like_crate && had_changes && !next.read_only {
            next.shared_heads = advanced(before, graph.heads(), &next.shared_heads);
        }
        let heads = shared(&message.heads, graph);
        let known = graph.known(heads.iter());
        next.sent.forget(graph, &known);
        next.owed |= had_changes && !view.like_crate;
        let ours = if view.like_crate {
            before
        } else {
            graph.heads()
        };
        let is_answer = if view.like_crate {
            !had_changes
        } else {
            !next.owed
        };
        if is_answer && heads == *ours {
            next.last_sent_heads = heads.clone();
        }
        if known.len() == heads.len() {
            next.shared_heads = heads.clone();
            if heads.is_empty() {
                next.last_sent_heads = Heads::default();
                next.sent = Sent::default();
            }
        } else {
            let named = known.iter().map(|index| graph.hash(*index));
            next.shared_heads = sorted(next.shared_heads.iter().copied().chain(named));
        }
        next.their_heads = Some(heads);
        next.their_need = Some(shared(&message.need, graph));
        next.their_have = Some(Arc::from(message.have.as_slice()));
        next
    }

    /// The next message, if one is owed, and the state after it. Deterministic in both.
    pub fn generate(&self, view: View<'_>) -> (Generated, Option<Self>) {
        let ours = view.graph.heads();
        let their_heads = self.their_heads.as_deref().unwrap_or_default();
        let (need, met_refused) = if self.read_only {
            (Vec::new(), false)
        } else {
            view.queue.missing(their_heads, view.graph)
        };
        if self.names_unknown(view.graph) && (view.like_crate || !self.read_only) {
            if view.like_crate {
                return (self.tell_unknown(ours), None);
            }
            if !self.needs_reset {
                if self.told_unknown {
                    return (Generated::Nothing, None);
                }
                let next = Self {
                    told_unknown: true,
                    ..self.clone()
                };
                return (self.tell_unknown(ours), Some(next));
            }
        }
        let selection = self.select(view);
        let is_stuck = met_refused && need.is_empty() && !view.like_crate;
        if self.last_sent_heads == *ours && self.have_responded {
            let is_equal = self.their_heads.as_ref() == Some(ours);
            if (is_equal || self.read_only || is_stuck) && selection.is_empty() {
                return (Generated::Nothing, None);
            }
            if self.in_flight {
                return (Generated::Nothing, None);
            }
        }
        let parts = match self.parts(view, &selection) {
            Ok(parts) => parts,
            Err(frozen) => return (Generated::Frozen(frozen), None),
        };
        let mut next = Self {
            have_responded: true,
            last_sent_heads: ours.clone(),
            in_flight: true,
            needs_reset: false,
            owed: false,
            ..self.clone()
        };
        if !view.like_crate && self.their_have.is_some() && !self.peer_read_only {
            // What is new from here on it can't have had: no filter is looked at twice.
            next.their_have = Some(Arc::from([]));
            next.filtered = view.graph.len() as u32;
        }
        next.sent.add(view.graph, selection);
        let mut flags = MessageFlags::SUPPORTS_SYNC_RESET;
        if self.read_only {
            flags |= MessageFlags::READ_ONLY;
        }
        let mut heads: &[ChangeHash] = ours;
        if self.needs_reset {
            if self.capabilities.is_some_and(|they| they.sync_reset) {
                flags |= MessageFlags::SYNC_RESET;
            } else {
                heads = &[];
            }
        }
        let have = self.our_have(view, &need, their_heads);
        let draft = Draft::new(&Outgoing {
            is_v2: self.takes_v2(),
            heads,
            need: &need,
            have: have.as_ref(),
            parts: &parts,
            flags,
        });
        (Generated::Message(draft), Some(next))
    }

    fn names_unknown(&self, graph: &Graph) -> bool {
        let first = self.their_have.as_ref().and_then(|have| have.first());
        first.is_some_and(|have| have.last_sync.iter().any(|hash| !graph.contains(hash)))
    }

    /// The crate's `Message::reset`: our heads, and nothing taken for shared.
    fn tell_unknown(&self, ours: &Heads) -> Generated {
        Generated::Message(Draft::new(&Outgoing {
            is_v2: false,
            heads: ours,
            need: &[],
            have: Some(&Have::default()),
            parts: &[],
            flags: MessageFlags::SUPPORTS_SYNC_RESET,
        }))
    }

    /// Indices of the changes to send, ascending.
    fn select(&self, view: View<'_>) -> Vec<u32> {
        let graph = view.graph;
        let (Some(have), Some(need)) = (&self.their_have, &self.their_need) else {
            return Vec::new();
        };
        if self.peer_read_only {
            return Vec::new();
        }
        let all = || (0..graph.len() as u32).collect();
        let gets_all = self.has_nothing() && self.takes_v2();
        if view.like_crate && gets_all {
            return all();
        }
        let wanted = if self.filtered > 0 {
            (self.filtered..graph.len() as u32).collect()
        } else if gets_all {
            all()
        } else if have.is_empty() && !view.like_crate {
            self.below(graph, need)
        } else {
            lacking(graph, have, need)
        };
        let news = self.sent.removed_from(graph, wanted);
        if view.like_crate && self.takes_v2() && news.len() > graph.len() / 3 {
            return all();
        }
        news
    }

    /// What was asked for, with all before it that the peer is not known to have.
    fn below(&self, graph: &Graph, need: &[ChangeHash]) -> Vec<u32> {
        let mut theirs = graph.known(self.their_heads.iter().flat_map(|heads| heads.iter()));
        theirs.extend(graph.known(self.shared_heads.iter()));
        let needed = graph.known(need);
        let mut wanted = difference(graph, &needed, &theirs);
        wanted.extend(needed); // also what it should have
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }

    /// The bytes of the changes; the indices of those that can't be given one by one.
    fn parts<'a>(&self, view: View<'a>, selection: &[u32]) -> Result<Vec<&'a [u8]>, Vec<u32>> {
        let archive = view.archive;
        let mut parts: Vec<&[u8]> = Vec::with_capacity(selection.len());
        let single = selection.iter().map(|index| archive.get(*index));
        parts.extend(single.flatten().map(|chunk| chunk.as_ref()));
        if parts.len() == selection.len() {
            return Ok(parts);
        }
        let is_frozen = |index: &u32| archive.get(*index).is_none();
        let Some(base) = archive.base().filter(|_| self.takes_v2()) else {
            return Err(selection.iter().copied().filter(is_frozen).collect());
        };
        let in_tail = selection.iter().filter(|index| archive.is_in_tail(**index));
        let tail = in_tail.filter_map(|index| archive.get(*index));
        Ok(std::iter::once(base.bytes.as_ref())
            .chain(tail.map(|chunk| chunk.as_ref()))
            .collect())
    }

    /// What we have, for the peer to choose by; None says: send only what is asked for.
    fn our_have(
        &self,
        view: View<'_>,
        need: &[ChangeHash],
        their_heads: &[ChangeHash],
    ) -> Option<Have> {
        let graph = view.graph;
        if view.like_crate {
            if !need.iter().all(|hash| their_heads.contains(hash)) {
                return None;
            }
            let news = since(graph, &graph.known(self.shared_heads.iter()));
            return Some(filter(graph, &self.shared_heads, &news));
        }
        let is_new = self.their_heads.is_none() && self.shared_heads.is_empty();
        if is_new && !self.needs_reset && !self.peer_read_only {
            return None;
        }
        let known = graph.known(self.shared_heads.iter());
        let shared: Heads = sorted(known.iter().map(|index| graph.hash(*index)));
        let news = since(graph, &known);
        let lacks_nothing = self.their_heads.is_some() && need.is_empty() && !self.peer_read_only;
        if lacks_nothing && news.len() > LARGE_FILTER {
            return None;
        }
        Some(filter(graph, &shared, &news))
    }
}

/// Filters and needs, which may be large, are only compared.
impl Hash for Exchange {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.shared_heads.hash(hasher);
        self.last_sent_heads.hash(hasher);
        self.their_heads.hash(hasher);
        self.filtered.hash(hasher);
        let flags = [
            self.in_flight,
            self.have_responded,
            self.read_only,
            self.peer_read_only,
            self.needs_reset,
            self.owed,
        ];
        flags.hash(hasher);
    }
}

impl Draft {
    fn new(message: &Outgoing<'_>) -> Self {
        let bytes = message::encode(message);
        let mut hasher = DefaultHasher::new();
        bytes.len().hash(&mut hasher);
        bytes[..bytes.len().min(DIGESTED_BYTES)].hash(&mut hasher);
        bytes[bytes.len().saturating_sub(DIGESTED_BYTES)..].hash(&mut hasher);
        Self {
            has_changes: !message.parts.is_empty(),
            has_heads: !message.heads.is_empty(),
            digest: hasher.finish(),
            python: OnceLock::new(),
            bytes,
        }
    }
}

/// What we have and these changes and their ancestors are not.
fn since(graph: &Graph, known: &[u32]) -> Vec<u32> {
    difference(graph, graph.head_indices(), known)
}

fn filter(graph: &Graph, last_sync: &Heads, news: &[u32]) -> Have {
    Have {
        last_sync: last_sync.to_vec(),
        bloom: BloomFilter::from_hashes(news.iter().map(|index| graph.hash(*index))),
    }
}

/// What the peer needs, and what isn't in its filters, with all that comes after; ascending.
fn lacking(graph: &Graph, have: &[Have], need: &[ChangeHash]) -> Vec<u32> {
    let mut needed = graph.known(need);
    if !have.is_empty() {
        let synced = graph.known(have.iter().flat_map(|have| &have.last_sync));
        let news = since(graph, &synced);
        let mut found: Vec<u32> = Vec::with_capacity(news.len());
        for index in news {
            let hash = graph.hash(index);
            let is_lacking = |dep: &u32| found.binary_search(dep).is_ok();
            if have.iter().all(|have| !have.bloom.contains_hash(&hash))
                || graph.columns.deps(index).iter().any(is_lacking)
            {
                found.push(index);
            }
        }
        needed.extend(found);
    }
    needed.sort_unstable();
    needed.dedup();
    needed
}

/// The crate's `advance_heads`.
fn advanced(before: &Heads, after: &Heads, shared: &Heads) -> Heads {
    let fresh = after.iter().filter(|head| !before.contains(head));
    let common = shared.iter().filter(|head| after.contains(head));
    sorted(fresh.chain(common).copied())
}

fn sorted(hashes: impl Iterator<Item = ChangeHash>) -> Heads {
    let mut hashes: Vec<ChangeHash> = hashes.collect();
    hashes.sort_unstable();
    hashes.dedup();
    Heads::from(hashes)
}

/// The same list as the document's own, if it is equal.
fn shared(hashes: &[ChangeHash], graph: &Graph) -> Heads {
    if hashes == &graph.heads()[..] {
        return graph.heads().clone();
    }
    Heads::from(hashes)
}
