//! One samod repo under the driver's command: a client, or only a directory that it opens.

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt};
use samod::storage::TokioFilesystemStorage;
use samod::{
    BackoffConfig, DialerEvent, DialerHandle, DocHandle, DocumentId, PeerId, Repo, SearchState, Url,
};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::Failure;
use crate::document::Document;
use crate::edits::{Wanted, document_of};
use crate::signal::Signal;
use crate::socket::{Line, SocketDialer};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    url: Option<String>,
    peer_id: Option<String>,
    storage: Option<PathBuf>,
    retry_ms: u64,
    offline: bool,
}

pub struct Peer {
    repo: Repo,
    line: Arc<Line>,
    dialer: Option<DialerHandle>,
    welcomes: Arc<AtomicUsize>,
    signal: Signal,
    documents: Mutex<HashMap<DocumentId, Arc<Document>>>,
}

/// A command to a peer, named and shaped as in tests/js/peer.mjs.
#[derive(Deserialize)]
#[serde(
    tag = "command",
    content = "args",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Command {
    Connection {},
    WaitConnected {
        welcomes: usize,
    },
    WaitDisconnected {},
    Drop {},
    GoOffline {},
    GoOnline {},
    Create {
        value: Json,
    },
    Find {
        document_id: String,
        #[serde(default)]
        patient: bool,
    },
    Get {
        document_id: String,
    },
    Change {
        document_id: String,
        edits: Vec<Json>,
    },
    TypeText {
        document_id: String,
        path: Vec<Json>,
        text: String,
    },
    StartTyping {
        document_id: String,
        path: Json,
        label: String,
        interval_ms: f64,
    },
    WaitTyped {
        document_id: String,
        count: usize,
    },
    StopTyping {
        document_id: String,
    },
    Wait {
        document_id: String,
        #[serde(flatten)]
        wanted: Wanted,
    },
    WaitSaved {
        document_id: String,
    },
    Acknowledged {
        document_id: String,
    },
    Broadcast {
        document_id: String,
        message: Json,
    },
    Ephemerals {
        document_id: String,
        at_least: usize,
    },
}

impl Peer {
    pub async fn start(options: Options) -> Result<Self, Failure> {
        let mut builder = Repo::build_tokio();
        if let Some(peer_id) = options.peer_id {
            builder = builder.with_peer_id(PeerId::from(peer_id));
        }
        let repo = match options.storage {
            Some(folder) => {
                let storage = TokioFilesystemStorage::new(folder);
                builder.with_storage(storage).load().await
            }
            None => builder.load().await,
        };
        let mut peer = Self {
            repo,
            line: Line::new(options.offline),
            dialer: None,
            welcomes: Arc::default(),
            signal: Signal::new(),
            documents: Mutex::default(),
        };
        if let Some(url) = options.url {
            peer.dial(Url::parse(&url)?, Duration::from_millis(options.retry_ms))?;
        }
        Ok(peer)
    }

    pub fn peer_id(&self) -> String {
        self.repo.peer_id().to_string()
    }

    /// Stops after all that is to be stored has been stored.
    pub async fn close(&self) -> Result<Json, Failure> {
        let documents: Vec<_> = self.all_documents().drain().collect();
        for (_, document) in documents {
            document.stop_typing().await?;
        }
        if let Some(dialer) = &self.dialer {
            dialer.close();
        }
        self.repo.stop().await;
        Ok(Json::Null)
    }

    pub async fn run(&self, command: Command, limit: Duration) -> Result<Json, Failure> {
        match command {
            Command::Connection {} => Ok(self.connection()),
            Command::WaitConnected { welcomes } => {
                let is_there = || self.is_connected() && self.welcomes() >= welcomes;
                self.wait_connection("connection", is_there, limit).await
            }
            Command::WaitDisconnected {} => {
                let is_gone = || !self.is_connected();
                self.wait_connection("disconnection", is_gone, limit).await
            }
            Command::Drop {} => {
                self.line.cut();
                Ok(Json::Null)
            }
            Command::GoOffline {} => {
                self.line.hold();
                Ok(Json::Null)
            }
            Command::GoOnline {} => {
                self.line.release();
                Ok(Json::Null)
            }
            Command::Create { value } => {
                let handle = self.repo.create(document_of(&value)?).await?;
                self.keep(handle).report()
            }
            Command::Find {
                document_id,
                patient,
            } => self.find(&document_id, patient, limit).await,
            Command::Get { document_id } => self.document(&document_id)?.report(),
            Command::Change { document_id, edits } => self.document(&document_id)?.change(&edits),
            Command::TypeText {
                document_id,
                path,
                text,
            } => self.document(&document_id)?.type_text(&path, &text),
            Command::StartTyping {
                document_id,
                path,
                label,
                interval_ms,
            } => {
                let interval = Duration::from_secs_f64(interval_ms / 1000.0);
                let document = self.document(&document_id)?;
                document.start_typing(&path, label, interval);
                Ok(Json::Null)
            }
            Command::WaitTyped { document_id, count } => {
                self.document(&document_id)?.wait_typed(count, limit).await
            }
            Command::StopTyping { document_id } => self.document(&document_id)?.stop_typing().await,
            Command::Wait {
                document_id,
                wanted,
            } => self.document(&document_id)?.wait(&wanted, limit).await,
            Command::WaitSaved { document_id } => {
                let connection = || self.dialer.as_ref()?.connection_id();
                let document = self.document(&document_id)?;
                document.wait_saved(connection, limit).await
            }
            Command::Acknowledged { document_id } => self.document(&document_id)?.acknowledged(),
            Command::Broadcast {
                document_id,
                message,
            } => self.document(&document_id)?.broadcast(&message),
            Command::Ephemerals {
                document_id,
                at_least,
            } => {
                let document = self.document(&document_id)?;
                document.ephemerals(at_least, limit).await
            }
        }
    }

    fn dial(&mut self, url: Url, retry: Duration) -> Result<(), Failure> {
        let backoff = BackoffConfig {
            initial_delay: retry,
            max_delay: retry,
            max_retries: None,
        };
        let dialer = self.repo.dial(
            backoff,
            Arc::new(SocketDialer {
                url,
                line: self.line.clone(),
            }),
        )?;
        let (handle, line) = (dialer.clone(), self.line.clone());
        let (welcomes, signal) = (self.welcomes.clone(), self.signal.clone());
        tokio::spawn(async move {
            let mut events = handle.events();
            line.is_watched();
            while let Some(event) = events.next().await {
                if let DialerEvent::Connected { .. } = event {
                    welcomes.fetch_add(1, Ordering::SeqCst);
                }
                signal.bump();
            }
        });
        self.dialer = Some(dialer);
        Ok(())
    }

    /// Asks for a document; patiently: also after everybody has said that he doesn't have it.
    async fn find(
        &self,
        document_id: &str,
        patient: bool,
        limit: Duration,
    ) -> Result<Json, Failure> {
        let document_id = DocumentId::from_str(document_id)?;
        let finding = async {
            if patient {
                let (now, later) = self.repo.search(document_id)?;
                Ok(found(now, later).await)
            } else {
                self.repo.find(document_id).await
            }
        };
        match tokio::time::timeout(limit, finding).await {
            Ok(Ok(Some(handle))) => self.keep(handle).report(),
            Ok(Ok(None)) => Ok(json!({"state": "unavailable"})),
            Ok(Err(stopped)) => Err(stopped.into()),
            Err(_) => Ok(json!({"state": "timeout"})),
        }
    }

    fn keep(&self, handle: DocHandle) -> Arc<Document> {
        self.all_documents()
            .entry(handle.document_id().clone())
            .or_insert_with(|| Arc::new(Document::new(handle, self.signal.clone())))
            .clone()
    }

    fn document(&self, document_id: &str) -> Result<Arc<Document>, Failure> {
        let document_id = DocumentId::from_str(document_id)?;
        let documents = self.all_documents();
        let document = documents.get(&document_id).cloned();
        document.ok_or_else(|| format!("{} has no document {document_id}", self.peer_id()).into())
    }

    fn all_documents(&self) -> std::sync::MutexGuard<'_, HashMap<DocumentId, Arc<Document>>> {
        self.documents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn is_connected(&self) -> bool {
        self.dialer.as_ref().is_some_and(DialerHandle::is_connected)
    }

    fn welcomes(&self) -> usize {
        self.welcomes.load(Ordering::SeqCst)
    }

    fn connection(&self) -> Json {
        let server = self.dialer.as_ref().and_then(DialerHandle::peer_info);
        json!({
            "connected": server.is_some(),
            "welcomes": self.welcomes(),
            "peerId": self.peer_id(),
            "serverPeerId": server.map(|it| it.peer_id.to_string()),
        })
    }

    async fn wait_connection(
        &self,
        what: &str,
        is_so: impl Fn() -> bool,
        limit: Duration,
    ) -> Result<Json, Failure> {
        let check = || is_so().then(|| self.connection());
        let seen = || self.connection().to_string();
        self.signal.until(limit, what, check, seen).await
    }
}

async fn found(
    now: SearchState,
    mut later: impl Stream<Item = SearchState> + Unpin,
) -> Option<DocHandle> {
    let mut state = now;
    loop {
        if let SearchState::Found(handle) = state {
            return Some(handle);
        }
        state = later.next().await?;
    }
}
