//! The Python class `LoadGenerator`: clients, what they send when, and what is measured of it.
//!
//! All work is done in the calls that wait, in the caller's thread and with the GIL released:
//! between two of them nothing is read or sent.

use std::collections::HashMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use pyo3::exceptions::{PyConnectionError, PyOSError, PyValueError};
use pyo3::prelude::*;

use super::client::{answer, Client, Kind, Opened, Phase, Shared};
use super::measured::{LoadFigures, Measured};
use super::real::Real;
use super::script::LoadDocument;
use super::session::Session;
use super::socket::Socket;

/// So often Ctrl-C is looked for.
const LOOK_UP: Duration = Duration::from_millis(100);
const READ_BYTES: usize = 256 * 1024;
/// The rest is counted, not kept.
const MOST_FAULTS: usize = 50;

struct Schedule {
    client: usize,
    opened: usize,
    due: Instant,
    interval: Duration,
    batch: u32,
    left: u32,
}

/// Where one of the server's processes takes clients.
struct Door {
    address: SocketAddr,
    host: String,
    path: String,
}

/// Many clients of one server.
#[pyclass(module = "amsync._automerge")]
pub struct LoadGenerator {
    poll: Poll,
    events: Events,
    scratch: Vec<u8>,
    doors: Vec<Door>,
    prefix: String,
    clients: Vec<Client>,
    documents: Vec<Shared>,
    schedules: Vec<Schedule>,
    measured: Measured,
    faults: Vec<String>,
    fault_count: u64,
    /// Where `is_settled` has last found something to wait for.
    cursor: usize,
}

impl LoadGenerator {
    fn fault(&mut self, text: String) {
        self.fault_count += 1;
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(text);
        }
    }

    fn client(&mut self, index: usize) -> PyResult<&mut Client> {
        self.clients
            .get_mut(index)
            .ok_or_else(|| PyValueError::new_err(format!("there is no client {index}")))
    }

    fn connect_one(&mut self) -> std::io::Result<()> {
        let index = self.clients.len();
        let door = &self.doors[index % self.doors.len()];
        let mut socket = Socket::connect(door.address, &door.host, &door.path)?;
        self.poll.registry().register(
            &mut socket.stream,
            Token(index),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let peer_id = format!("{}-{index}", self.prefix);
        self.clients.push(Client::new(socket, peer_id));
        Ok(())
    }

    /// Serve all sockets until `is_done`, at the longest until `end`; returns whether it was done.
    fn serve(
        &mut self,
        py: Python<'_>,
        end: Instant,
        is_done: fn(&mut Self) -> bool,
    ) -> PyResult<bool> {
        loop {
            let look_up = (Instant::now() + LOOK_UP).min(end);
            let done = py.detach(|| self.turns(look_up, is_done));
            if done.map_err(|error| PyOSError::new_err(error.to_string()))? {
                return Ok(true);
            }
            py.check_signals()?;
            if Instant::now() >= end {
                return Ok(false);
            }
        }
    }

    fn turns(&mut self, end: Instant, is_done: fn(&mut Self) -> bool) -> std::io::Result<bool> {
        loop {
            if is_done(self) {
                return Ok(true);
            }
            let next = self.send_due();
            let now = Instant::now();
            if now >= end {
                return Ok(false);
            }
            let until = next.map_or(end, |next| next.min(end));
            let timeout = until.saturating_duration_since(now);
            match self.poll.poll(&mut self.events, Some(timeout)) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(false),
                outcome => outcome?,
            }
            let tokens: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
            for token in tokens {
                self.attend(token);
            }
        }
    }

    /// Make and send all changes whose time has come; returns when the next one is due.
    fn send_due(&mut self) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut schedules = std::mem::take(&mut self.schedules);
        schedules.retain_mut(|schedule| {
            let mut now = Instant::now();
            while schedule.left > 0 && schedule.due <= now {
                self.measured.late = self.measured.late.max(now - schedule.due);
                let count = schedule.batch.min(schedule.left);
                schedule.left -= count;
                schedule.due += schedule.interval;
                self.make(schedule.client, schedule.opened, count);
                now = Instant::now();
            }
            if schedule.left > 0 {
                next = Some(next.map_or(schedule.due, |next| next.min(schedule.due)));
            }
            schedule.left > 0
        });
        schedules.append(&mut self.schedules);
        self.schedules = schedules;
        next
    }

    fn make(&mut self, client: usize, opened: usize, count: u32) {
        let Some(document) = self.clients[client]
            .opened
            .get(opened)
            .map(|it| it.document)
        else {
            return;
        };
        let shared = &mut self.documents[document];
        let at = self.measured.now();
        let first = (shared.made - shared.script.history) as usize;
        shared.sent_at[first..first + count as usize].fill(at);
        shared.made += count;
        self.measured.made += u64::from(count);
        let made = shared.made;
        if let Kind::Light(session) = &mut self.clients[client].opened[opened].kind {
            session.have = made;
        }
        self.speak(client, opened);
    }

    /// Send what one session owes the server.
    fn speak(&mut self, index: usize, opened: usize) {
        let client = &mut self.clients[index];
        let (Some(socket), Phase::Joined) = (&mut client.socket, &client.phase) else {
            return;
        };
        let opened = &mut client.opened[opened];
        let script = &self.documents[opened.document].script;
        let outcome = answer(opened, script, &mut |parts| socket.send(parts)).and_then(|sent| {
            self.measured.frames_out += u64::from(sent);
            socket.flush()
        });
        if let Err(problem) = outcome {
            self.drop_client(index, &problem);
        }
    }

    fn attend(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(mut socket) = client.socket.take() else {
            return;
        };
        let measured = &mut self.measured;
        let documents = &self.documents;
        let outcome = socket.flush().and_then(|()| {
            let bytes = socket.receive(&mut self.scratch, |outbox, frame| {
                client.take(documents, measured, outbox, frame)
            })?;
            measured.bytes_in += bytes as u64;
            socket.flush()
        });
        client.socket = Some(socket);
        if let Err(problem) = outcome {
            self.drop_client(index, &problem);
        }
    }

    fn drop_client(&mut self, index: usize, problem: &str) {
        let client = &mut self.clients[index];
        client.phase = Phase::Closed;
        client.socket = None;
        self.fault(format!("client {index}: {problem}"));
    }

    /// Whether a client has not got all there is, or the server not all of what it has.
    fn is_behind(&self, index: usize) -> bool {
        let client = &self.clients[index];
        match client.phase {
            Phase::Closed => false,
            Phase::Joining => true,
            Phase::Joined => client.opened.iter().any(|opened| {
                let shared = &self.documents[opened.document];
                let (have, theirs) = opened.progress(&shared.script);
                have != shared.made || theirs != Some(shared.made)
            }),
        }
    }

    fn is_settled(&mut self) -> bool {
        if !self.schedules.is_empty() {
            return false;
        }
        if self.fault_count > 0 {
            return true;
        }
        let count = self.clients.len();
        // Most often the one that was behind still is.
        for step in 0..count {
            let index = (self.cursor + step) % count;
            if self.is_behind(index) {
                self.cursor = index;
                return false;
            }
        }
        true
    }
}

#[pymethods]
impl LoadGenerator {
    #[new]
    fn new(doors: Vec<(String, u16, String)>, prefix: String) -> PyResult<Self> {
        let io = |error: std::io::Error| PyOSError::new_err(error.to_string());
        if doors.is_empty() {
            return Err(PyValueError::new_err("there is nowhere to connect to"));
        }
        let find = |(host, port, path): (String, u16, String)| {
            let address = (host.as_str(), port)
                .to_socket_addrs()
                .map_err(io)?
                .next()
                .ok_or_else(|| PyOSError::new_err(format!("{host} has no address")))?;
            Ok(Door {
                address,
                host: format!("{host}:{port}"),
                path,
            })
        };
        Ok(Self {
            doors: doors.into_iter().map(find).collect::<PyResult<_>>()?,
            poll: Poll::new().map_err(io)?,
            events: Events::with_capacity(1024),
            scratch: vec![0; READ_BYTES],
            prefix,
            clients: Vec::new(),
            documents: Vec::new(),
            schedules: Vec::new(),
            measured: Measured::new(),
            faults: Vec::new(),
            fault_count: 0,
            cursor: 0,
        })
    }

    /// Make a document known; returns its number.
    fn add(&mut self, document: &LoadDocument) -> usize {
        let script = document.script.clone();
        self.documents.push(Shared {
            made: script.history,
            sent_at: vec![0; (script.len() - script.history) as usize],
            script,
        });
        self.documents.len() - 1
    }

    fn connect(&mut self, py: Python<'_>) -> PyResult<usize> {
        py.detach(|| self.connect_one())
            .map_err(|error| PyConnectionError::new_err(error.to_string()))?;
        Ok(self.clients.len() - 1)
    }

    #[pyo3(signature = (client, document, *, has_it=false, real=false))]
    fn open(&mut self, client: usize, document: usize, has_it: bool, real: bool) -> PyResult<()> {
        let shared = self
            .documents
            .get(document)
            .ok_or_else(|| PyValueError::new_err(format!("there is no document {document}")))?;
        let script = shared.script.clone();
        let made = shared.made;
        let kind = match (real, has_it) {
            (true, true) => {
                return Err(PyValueError::new_err("a real client begins with nothing"));
            }
            (true, false) => Kind::Real(Box::new(Real::new())),
            (false, _) => Kind::Light(Session::new(if has_it { made } else { 0 })),
        };
        let index = client;
        let client = self.client(index)?;
        let mut opened = Opened::new(document, kind);
        opened.address(&client.peer_id, &client.server_id, &script);
        let place = client.opened.len();
        if client
            .places
            .insert(script.document_id.clone(), place)
            .is_some()
        {
            return Err(PyValueError::new_err("the client has opened it already"));
        }
        client.opened.push(opened);
        self.speak(index, place);
        Ok(())
    }

    /// Let a client that has the document make `count` changes, `batch` in each message.
    #[pyo3(signature = (client, document, count, interval_seconds, *, wait_seconds=0.0, batch=1))]
    fn write(
        &mut self,
        client: usize,
        document: usize,
        count: u32,
        interval_seconds: f64,
        wait_seconds: f64,
        batch: u32,
    ) -> PyResult<()> {
        let seconds = |seconds: f64| {
            Duration::try_from_secs_f64(seconds)
                .map_err(|error| PyValueError::new_err(error.to_string()))
        };
        let interval = seconds(interval_seconds)?;
        let due = Instant::now() + seconds(wait_seconds)?;
        let id = match self.documents.get(document) {
            Some(shared) if shared.made + count <= shared.script.len() && batch > 0 => {
                shared.script.document_id.clone()
            }
            _ => return Err(PyValueError::new_err("so many changes were not prepared")),
        };
        let place = self.client(client)?.places.get(&id).copied();
        let opened =
            place.ok_or_else(|| PyValueError::new_err("the client has not opened the document"))?;
        self.schedules.push(Schedule {
            client,
            opened,
            due,
            interval,
            batch,
            left: count,
        });
        Ok(())
    }

    /// Close a client's socket; what it has opened counts no more.
    fn close(&mut self, py: Python<'_>, client: usize) -> PyResult<()> {
        let client = self.client(client)?;
        if let Some(mut socket) = client.socket.take() {
            py.detach(|| socket.say_goodbye());
        }
        client.phase = Phase::Closed;
        client.opened = Vec::new();
        client.places = HashMap::new();
        Ok(())
    }

    fn run(&mut self, py: Python<'_>, seconds: f64) -> PyResult<()> {
        let seconds = Duration::try_from_secs_f64(seconds)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        self.serve(py, Instant::now() + seconds, |_| false)?;
        Ok(())
    }

    fn wait_settled(&mut self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        let end = Instant::now() + Duration::from_secs_f64(seconds.clamp(0.0, 1e6));
        self.serve(py, end, Self::is_settled)
    }

    /// Begin to measure anew.
    fn begin(&mut self) {
        let duplicates = self.duplicates();
        self.measured.begin(duplicates);
    }

    fn figures(&self) -> LoadFigures {
        self.measured.figures(self.duplicates())
    }

    /// What has gone wrong so far, at most 50 things.
    fn faults(&self) -> Vec<String> {
        self.faults.clone()
    }

    /// What each open client lacks, has too much or has wrong; nothing if all is right.
    fn check(&self, py: Python<'_>) -> Vec<String> {
        py.detach(|| {
            let mut wrong = Vec::new();
            for (index, client) in self.clients.iter().enumerate() {
                if client.phase == Phase::Joining {
                    wrong.push(format!("client {index}: the server has not let it join"));
                }
                for opened in &client.opened {
                    let shared = &self.documents[opened.document];
                    if let Some(problem) = opened.fault(shared) {
                        wrong.push(format!("client {index}: {problem}"));
                    }
                }
            }
            wrong
        })
    }
}

impl LoadGenerator {
    fn duplicates(&self) -> u64 {
        let opened = self.clients.iter().flat_map(|client| &client.opened);
        opened.map(Opened::duplicates).sum()
    }
}
