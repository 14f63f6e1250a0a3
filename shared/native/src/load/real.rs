//! A client with a document and the crate's own sync: an independent check of every run.

use automerge::sync::{Message, State, SyncDoc};
use automerge::{Automerge, ReadDoc, ROOT};

use super::script::{Script, TEXT_KEY};
use crate::error::guarded;

pub struct Real {
    pub document: Automerge,
    state: State,
    /// The first so many changes of the chain are in its document.
    pub have: u32,
}

impl Real {
    pub fn new() -> Self {
        Self {
            document: Automerge::new(),
            state: State::new(),
            have: 0,
        }
    }

    /// What the server says that it has.
    pub fn theirs(&self, script: &Script) -> Option<u32> {
        let heads = self.state.their_heads.as_ref()?;
        let places = heads.iter().map(|head| script.place(head));
        places.max().map_or(Some(0), |place| Some(place? + 1))
    }

    pub fn receive(&mut self, script: &Script, bytes: &[u8]) -> Result<(), String> {
        guarded(|| {
            let message = Message::decode(bytes).map_err(|error| error.to_string())?;
            self.document
                .receive_sync_message(&mut self.state, message)
                .map_err(|error| error.to_string())
        })
        .map_err(|panicked| panicked.0)??;
        self.have = 0;
        for head in self.document.get_heads() {
            let place = script
                .place(&head)
                .ok_or("the document has a change that nobody has made")?;
            self.have = self.have.max(place + 1);
        }
        Ok(())
    }

    pub fn generate(&mut self, out: &mut Vec<u8>) -> Result<bool, String> {
        let message = guarded(|| {
            self.document
                .generate_sync_message(&mut self.state)
                .map(Message::encode)
        })
        .map_err(|panicked| panicked.0)?;
        if let Some(message) = &message {
            out.extend_from_slice(message);
        }
        Ok(message.is_some())
    }

    /// What is wrong with a document that should have the first `made` changes and no others.
    pub fn fault(&self, script: &Script, made: u32) -> Option<String> {
        if self.document.get_heads() != script.heads(made) {
            return Some("its heads are not the writer's".into());
        }
        let text = match self.document.get(ROOT, TEXT_KEY) {
            Ok(Some((_, text))) => self.document.text(&text).unwrap_or_default(),
            _ => String::new(),
        };
        if text != script.text(made) {
            return Some(format!(
                "its text is not the writer's ({} characters of {made})",
                text.chars().count()
            ));
        }
        let known = (0..made as usize)
            .filter(|place| {
                self.document
                    .get_change_by_hash(&script.hashes[*place])
                    .is_some()
            })
            .count();
        (known != made as usize).then(|| format!("it has {known} changes of {made}"))
    }
}
