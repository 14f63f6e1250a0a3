//! The graph of a saved document as a file beside it, so that opening it is a matter of reading
//! bytes: a saved document has no hashes, and getting at them takes microseconds per change.
//!
//! A cache: with a checksum, named after the document that it belongs to, and made anew when
//! missing or wrong. All numbers are little-endian:
//!
//! magic 8 | sha256 of all that follows 32 | sha256 of the document 32 | its length u64 |
//! rows u64 | paid bytes u64 | changes u32 | edges u32 | authors u32 |
//! for each author: length u32, id |
//! hashes 32 each | authors u32 each | start ops | max ops | ends of edges | edges |
//! secret 16 | runs u32 | objects u32 | for each run first, object, slot u32 |
//! for each object its operation and its kind u32

use automerge::{ActorId, ChangeHash};
use sha2::{Digest, Sha256};

use crate::account::Cost;
use crate::chunk::MOST_OP_ID;
use crate::graph::{Author, Columns, Graph};
use crate::operations::{Kind, Made, Operations, Run};

const MAGIC: [u8; 8] = *b"amsyncG2";
const CHECKED_FROM: usize = MAGIC.len() + 32;

/// What a sidecar says of the document that it is read for.
pub struct Sidecar {
    pub graph: Graph,
    pub operations: Operations,
    pub cost: Cost,
    pub count: u32,
}

/// Encode the first `count` changes of a graph, which are those of `document`.
pub fn encode(
    graph: &Graph,
    operations: &Operations,
    count: u32,
    cost: Cost,
    document: &[u8],
) -> Vec<u8> {
    let columns = &graph.columns;
    let length = count as usize;
    let edges = length
        .checked_sub(1)
        .map_or(0, |last| columns.edge_ends[last]);
    let is_in = |author: &&Author| author.changes.first().is_some_and(|first| *first < count);
    let authors: Vec<&Author> = graph.authors.iter().filter(is_in).collect();
    let mut out = Vec::with_capacity(128 + length * 52 + authors.len() * 32);
    out.extend(MAGIC);
    out.extend([0; 32]);
    out.extend(Sha256::digest(document));
    out.extend((document.len() as u64).to_le_bytes());
    out.extend(cost.rows.to_le_bytes());
    out.extend(cost.bytes.to_le_bytes());
    for number in [count, edges, authors.len() as u32] {
        out.extend(number.to_le_bytes());
    }
    for author in authors {
        let id = author.id.as_ref().map_or(&[][..], ActorId::to_bytes);
        out.extend((id.len() as u32).to_le_bytes());
        out.extend(id);
    }
    for hash in &columns.hashes[..length] {
        out.extend(hash.as_ref());
    }
    for column in [
        &columns.actors[..length],
        &columns.start_ops[..length],
        &columns.max_ops[..length],
        &columns.edge_ends[..length],
        &columns.edges[..edges as usize],
    ] {
        column
            .iter()
            .for_each(|number| out.extend(number.to_le_bytes()));
    }
    let (secret, runs, objects) = operations.parts(length);
    out.extend(secret);
    for number in [runs.len() as u32, objects.len() as u32] {
        out.extend(number.to_le_bytes());
    }
    for run in runs {
        for number in [run.first, run.object, run.slot] {
            out.extend(number.to_le_bytes());
        }
    }
    for made in objects {
        out.extend(made.by.to_le_bytes());
        out.extend(made.kind.number().to_le_bytes());
    }
    let checksum = Sha256::digest(&out[CHECKED_FROM..]);
    out[MAGIC.len()..CHECKED_FROM].copy_from_slice(&checksum);
    out
}

/// Find the document among blobs that a sidecar belongs to; None if it isn't a sound sidecar, or
/// none of them is its document.
pub fn decode(bytes: &[u8], blobs: &[&[u8]]) -> Option<(usize, Sidecar)> {
    let mut input = Input(bytes);
    if input.take(MAGIC.len())? != MAGIC {
        return None;
    }
    let checksum = input.take(32)?;
    if Sha256::digest(input.0).as_slice() != checksum {
        return None;
    }
    let name = input.take(32)?;
    let length = usize::try_from(input.long()?).ok()?;
    let is_it = |blob: &&[u8]| blob.len() == length && Sha256::digest(blob).as_slice() == name;
    let blob = blobs.iter().position(is_it)?;
    Some((blob, read(&mut input)?))
}

fn read(input: &mut Input<'_>) -> Option<Sidecar> {
    let cost = Cost {
        rows: input.long()?,
        bytes: input.long()?,
    };
    let count = input.word()?;
    let edge_count = input.word()? as usize;
    let author_count = input.word()?;
    let mut authors = Vec::new();
    for _ in 0..author_count {
        let length = input.word()? as usize;
        let id = ActorId::from(input.take(length)?);
        authors.push(Author {
            id: Some(id),
            changes: Vec::new(),
        });
    }
    let length = count as usize;
    let hashes = input.take(length.checked_mul(32)?)?.chunks_exact(32);
    let hashes: Option<Vec<ChangeHash>> = hashes.map(|hash| hash.try_into().ok()).collect();
    let columns = Columns {
        hashes: hashes?,
        actors: input.words(length)?,
        start_ops: input.words(length)?,
        max_ops: input.words(length)?,
        edge_ends: input.words(length)?,
        edges: input.words(edge_count)?,
    };
    if !is_sound(&columns, author_count) {
        return None;
    }
    let mut operations = read_operations(input)?;
    for index in 0..length {
        let behind = columns.max_ops[index].checked_add(1)?;
        operations.skip(behind.checked_sub(columns.start_ops[index])?)?;
    }
    let graph = Graph::from_columns(columns, authors)?;
    input.0.is_empty().then_some(Sidecar {
        graph,
        operations,
        cost,
        count,
    })
}

fn read_operations(input: &mut Input<'_>) -> Option<Operations> {
    let secret = input.take(16)?.try_into().ok()?;
    let run_count = input.word()? as usize;
    let object_count = input.word()? as usize;
    let runs = input.words(run_count.checked_mul(3)?)?;
    let objects = input.words(object_count.checked_mul(2)?)?;
    let run = |numbers: &[u32]| Run {
        first: numbers[0],
        object: numbers[1],
        slot: numbers[2],
    };
    let made = |numbers: &[u32]| {
        let kind = Kind::from_number(numbers[1])?;
        Some(Made {
            by: numbers[0],
            kind,
        })
    };
    let objects: Option<Vec<Made>> = objects.chunks_exact(2).map(made).collect();
    Some(Operations::from_parts(
        secret,
        runs.chunks_exact(3).map(run).collect(),
        objects?,
    ))
}

/// Whether all numbers are within bounds.
fn is_sound(columns: &Columns, author_count: u32) -> bool {
    let ends_ascend = columns.edge_ends.windows(2).all(|pair| pair[0] <= pair[1]);
    let last = columns.edge_ends.last().copied().unwrap_or(0) as usize;
    let is_below = |index: u32| columns.deps(index).iter().all(|dep| *dep < index);
    columns.actors.iter().all(|author| *author < author_count)
        && columns
            .max_ops
            .iter()
            .all(|op| u64::from(*op) <= MOST_OP_ID)
        && ends_ascend
        && last == columns.edges.len()
        && (0..columns.len() as u32).all(is_below)
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn long(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn word(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn words(&mut self, count: usize) -> Option<Vec<u32>> {
        let bytes = self.take(count.checked_mul(4)?)?;
        let word = |four: &[u8]| Some(u32::from_le_bytes(four.try_into().ok()?));
        bytes.chunks_exact(4).map(word).collect()
    }
}
