//! What is measured, and the Python class `LoadFigures` that tells it.

use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::client::Shared;
use super::histogram::Histogram;

pub struct Measured {
    clock: Instant,
    latencies: Histogram,
    delivered: u64,
    pub made: u64,
    pub frames_in: u64,
    pub bytes_in: u64,
    pub frames_out: u64,
    /// Those that were there when it began.
    duplicates: u64,
    pub late: Duration,
}

/// What has been measured since the last `begin`.
#[pyclass(module = "amsync._automerge", frozen, get_all)]
pub struct LoadFigures {
    made: u64,
    delivered: u64,
    duplicates: u64,
    frames_in: u64,
    bytes_in: u64,
    frames_out: u64,
    late_seconds: f64,
    p50_seconds: f64,
    p90_seconds: f64,
    p99_seconds: f64,
    max_seconds: f64,
}

impl Measured {
    pub fn new() -> Self {
        Self {
            clock: Instant::now(),
            latencies: Histogram::new(),
            delivered: 0,
            made: 0,
            frames_in: 0,
            bytes_in: 0,
            frames_out: 0,
            duplicates: 0,
            late: Duration::ZERO,
        }
    }

    /// Begin anew; so many duplicates have been counted by the clients so far.
    pub fn begin(&mut self, duplicates: u64) {
        *self = Self {
            clock: self.clock,
            duplicates,
            ..Self::new()
        };
    }

    /// Nanoseconds on the clock that changes are stamped with.
    pub fn now(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    pub fn figures(&self, duplicates: u64) -> LoadFigures {
        let quantile = |quantile| self.latencies.quantile(quantile) as f64 / 1e9;
        LoadFigures {
            made: self.made,
            delivered: self.delivered,
            duplicates: duplicates - self.duplicates,
            frames_in: self.frames_in,
            bytes_in: self.bytes_in,
            frames_out: self.frames_out,
            late_seconds: self.late.as_secs_f64(),
            p50_seconds: quantile(0.5),
            p90_seconds: quantile(0.9),
            p99_seconds: quantile(0.99),
            max_seconds: quantile(1.0),
        }
    }

    /// Count the changes at these places as delivered at a time.
    pub fn count(&mut self, shared: &Shared, before: u32, after: u32, at: u64) {
        let history = shared.script.history;
        for place in before.max(history)..after.max(history) {
            let sent = shared.sent_at[(place - history) as usize];
            self.latencies.record(at.saturating_sub(sent));
            self.delivered += 1;
        }
    }
}
