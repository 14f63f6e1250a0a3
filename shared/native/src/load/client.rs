//! One connection: its handshake, and the documents it has opened.

use std::collections::HashMap;
use std::sync::Arc;

use super::measured::Measured;
use super::real::Real;
use super::script::Script;
use super::session::Session;
use super::socket::{Outbox, Socket};
use super::wire;

/// A document and what has been done with it.
pub struct Shared {
    pub script: Arc<Script>,
    pub made: u32,
    /// When each change after the history was sent, by the generator's clock.
    pub sent_at: Vec<u64>,
}

pub enum Kind {
    Light(Session),
    Real(Box<Real>),
}

/// A document that a client has asked for or offered.
pub struct Opened {
    pub document: usize,
    pub kind: Kind,
    request_head: Vec<u8>,
    sync_head: Vec<u8>,
    is_unavailable: bool,
    has_spoken: bool,
}

#[derive(PartialEq)]
pub enum Phase {
    Joining,
    Joined,
    Closed,
}

pub struct Client {
    pub socket: Option<Socket>,
    pub phase: Phase,
    pub peer_id: String,
    pub server_id: String,
    pub opened: Vec<Opened>,
    /// Where in `opened` a document is, by its id.
    pub places: HashMap<String, usize>,
}

impl Opened {
    pub fn new(document: usize, kind: Kind) -> Self {
        Self {
            document,
            kind,
            request_head: Vec::new(),
            sync_head: Vec::new(),
            is_unavailable: false,
            has_spoken: false,
        }
    }

    /// How many changes this client has, and how many the server has said that it has.
    pub fn progress(&self, script: &Script) -> (u32, Option<u32>) {
        match &self.kind {
            Kind::Light(session) => (session.have, session.theirs),
            Kind::Real(real) => (real.have, real.theirs(script)),
        }
    }

    fn receive(&mut self, script: &Script, data: &[u8]) -> Result<(), String> {
        match &mut self.kind {
            Kind::Light(session) => session.receive(script, data),
            Kind::Real(real) => real.receive(script, data),
        }
    }

    /// Write the heads of its messages; again when the server's name is known.
    pub fn address(&mut self, sender: &str, target: &str, script: &Script) {
        self.request_head = wire::sync_head("request", sender, target, &script.document_id);
        self.sync_head = wire::sync_head("sync", sender, target, &script.document_id);
    }

    pub fn duplicates(&self) -> u64 {
        match &self.kind {
            Kind::Light(session) => session.duplicates,
            Kind::Real(_) => 0,
        }
    }

    /// What is wrong with it, given that it should have everything.
    pub fn fault(&self, shared: &Shared) -> Option<String> {
        let made = shared.made;
        let (have, theirs) = self.progress(&shared.script);
        if have != made {
            let why = match theirs {
                _ if self.is_unavailable => "; the server says that it has no such document",
                None => "; the server has not answered",
                Some(0) => "; the server says that it has nothing of it",
                Some(_) => "",
            };
            return Some(format!("{have} of {made} changes{why}"));
        }
        if theirs != Some(made) {
            let theirs = theirs.unwrap_or(0);
            return Some(format!(
                "the server has acknowledged {theirs} of {made} changes"
            ));
        }
        match &self.kind {
            Kind::Real(real) => real.fault(&shared.script, made),
            Kind::Light(_) => None,
        }
    }
}

impl Client {
    pub fn new(socket: Socket, peer_id: String) -> Self {
        Self {
            socket: Some(socket),
            phase: Phase::Joining,
            peer_id,
            server_id: String::new(),
            opened: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// Take one message in, or the end of the upgrade (no bytes), and answer it.
    pub fn take(
        &mut self,
        documents: &[Shared],
        measured: &mut Measured,
        outbox: &mut Outbox<'_>,
        frame: &[u8],
    ) -> Result<(), String> {
        if frame.is_empty() {
            // The upgrade is done.
            outbox.send(&[&wire::join(&self.peer_id)]);
            return Ok(());
        }
        measured.frames_in += 1;
        let incoming = wire::read(frame)?;
        match incoming.kind {
            "peer" => {
                self.server_id = incoming.sender_id.to_owned();
                self.phase = Phase::Joined;
                for opened in &mut self.opened {
                    let script = &documents[opened.document].script;
                    opened.address(&self.peer_id, &self.server_id, script);
                    let sent = answer(opened, script, &mut |parts| outbox.send(parts))?;
                    measured.frames_out += u64::from(sent);
                }
                Ok(())
            }
            "sync" | "request" => {
                let Some(place) = self.places.get(incoming.document_id) else {
                    return Err("a message about a document that was not asked for".into());
                };
                let opened = &mut self.opened[*place];
                let shared = &documents[opened.document];
                let at = measured.now();
                let (before, _) = opened.progress(&shared.script);
                opened.receive(&shared.script, incoming.data)?;
                let (after, _) = opened.progress(&shared.script);
                measured.count(shared, before, after, at);
                opened.is_unavailable = false;
                let sent = answer(opened, &shared.script, &mut |parts| outbox.send(parts))?;
                measured.frames_out += u64::from(sent);
                Ok(())
            }
            "doc-unavailable" => {
                if let Some(place) = self.places.get(incoming.document_id) {
                    self.opened[*place].is_unavailable = true;
                }
                Ok(())
            }
            "error" => Err(format!("the server says: {}", incoming.message)),
            // Gossip and ephemeral messages ask nothing of a client.
            _ => Ok(()),
        }
    }
}

/// Send what a client owes the server for a document; whether that was anything.
pub fn answer(
    opened: &mut Opened,
    script: &Script,
    send: &mut dyn FnMut(&[&[u8]]),
) -> Result<bool, String> {
    let mut data = Vec::new();
    let is_owed = match &mut opened.kind {
        Kind::Light(session) => session.generate(script, &mut data)?,
        Kind::Real(real) => real.generate(&mut data)?,
    };
    if !is_owed {
        return Ok(false);
    }
    // PROTOCOL 2: the first message for a document of which it has nothing.
    let is_request = !opened.has_spoken && opened.progress(script).0 == 0;
    opened.has_spoken = true;
    let head = if is_request {
        &opened.request_head
    } else {
        &opened.sync_head
    };
    let mut header = Vec::with_capacity(5);
    wire::bytes_header(&mut header, data.len());
    send(&[head, &header, &data]);
    Ok(true)
}
