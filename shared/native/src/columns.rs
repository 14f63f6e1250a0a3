//! Looks into run-length columns without expanding them.
//!
//! A run of a few bytes can claim 2^60 rows, and the crate walks or allocates every one of them:
//! so rows are counted here first (`test_row_bomb_*`).

use std::borrow::Cow;
use std::io::Read;

use flate2::bufread::DeflateDecoder;

use crate::account::Cost;
use crate::error::{reason, Refusal};
use crate::reader::Reader;

const DEFLATE_BIT: u32 = 0b1000;

/// A character takes a byte and a row, its deletion another row but no byte, since long runs of
/// deletions are a few bytes.
pub const ROWS_PER_BYTE: u64 = 3;

/// The low three bits of a column's specification.
mod kind {
    pub const GROUP: u32 = 0;
    pub const DELTA: u32 = 3;
    pub const BOOLEAN: u32 = 4;
    pub const STRING: u32 = 5;
    pub const VALUE: u32 = 7;
}

/// What the chunks of one call may cost; shared by all of them.
#[derive(Clone, Debug)]
pub struct Budget {
    inflated_bytes: u64,
    rows: u64,
    most_rows: u64,
}

impl Budget {
    /// `most_rows` holds whatever is paid.
    pub fn new(inflated_bytes: u64, rows: u64, most_rows: u64) -> Self {
        Self {
            inflated_bytes,
            rows,
            most_rows,
        }
    }

    /// Bytes that really exist pay for rows.
    pub fn pay_rows(&mut self, bytes: usize) {
        let rows = ROWS_PER_BYTE.saturating_mul(bytes as u64);
        self.rows = self.rows.saturating_add(rows);
    }

    fn spend_rows(&mut self, rows: u64) -> Result<(), Refusal> {
        let allowed = self.rows.min(self.most_rows);
        if rows > allowed {
            let detail = format!("{rows} rows claimed, {allowed} allowed");
            return Err(Refusal::new(reason::ROWS, detail));
        }
        self.rows -= rows;
        self.most_rows -= rows;
        Ok(())
    }

    /// Inflate raw DEFLATE data within what is left of the budget.
    pub fn inflate(&mut self, data: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut inflated = Vec::new();
        DeflateDecoder::new(data)
            .take(self.inflated_bytes.saturating_add(1))
            .read_to_end(&mut inflated)
            .map_err(|error| Refusal::malformed(format!("inflating: {error}")))?;
        self.inflated_bytes = self
            .inflated_bytes
            .checked_sub(inflated.len() as u64)
            .ok_or_else(|| Refusal::new(reason::TOO_LARGE, "compressed data inflates too far"))?;
        Ok(inflated)
    }
}

/// One column's specification and its bytes as stored.
#[derive(Clone, Copy, Debug)]
pub struct Column<'a> {
    spec: u32,
    data: &'a [u8],
}

/// Specifications and lengths of the columns that follow.
pub struct Layout(Vec<(u32, u64)>);

impl Layout {
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Refusal> {
        let count = reader.count(2, usize::MAX)?;
        let mut columns = Vec::with_capacity(count);
        for _ in 0..count {
            let spec = u32::try_from(reader.unsigned()?)
                .map_err(|_| Refusal::malformed("a column specification exceeds 32 bits"))?;
            columns.push((spec, reader.unsigned()?));
        }
        Ok(Self(columns))
    }

    pub fn columns<'a>(&self, reader: &mut Reader<'a>) -> Result<Vec<Column<'a>>, Refusal> {
        self.0
            .iter()
            .map(|(spec, length)| {
                Ok(Column {
                    spec: *spec,
                    data: reader.take(*length)?,
                })
            })
            .collect()
    }
}

impl<'a> Column<'a> {
    /// The specification without the bit that says whether the data is compressed.
    pub fn plain_spec(&self) -> u32 {
        self.spec & !DEFLATE_BIT
    }

    pub fn is_compressed(&self) -> bool {
        self.spec & DEFLATE_BIT != 0
    }

    pub fn runs(&self) -> Runs<'a> {
        Runs {
            reader: Reader::new(self.data),
            kind: self.spec & 0b111,
            literal: 0,
        }
    }
}

/// Spend the rows that columns claim; inflate those that are compressed. The bytes of `cost` are
/// those that were inflated.
pub fn spend_columns(columns: &[Column<'_>], budget: &mut Budget) -> Result<Cost, Refusal> {
    let mut cost = Cost::default();
    for column in columns {
        let data = if column.is_compressed() {
            let inflated = budget.inflate(column.data)?;
            budget.pay_rows(inflated.len());
            cost.bytes += inflated.len() as u64;
            Cow::Owned(inflated)
        } else {
            Cow::Borrowed(column.data)
        };
        let plain = Column {
            spec: column.plain_spec(),
            data: &data,
        };
        cost.rows = cost.rows.max(claimed_rows(&plain)?);
    }
    budget.spend_rows(cost.rows)?;
    Ok(cost)
}

/// Rows of a column; for a group column, which counts the members of lists, its sum if larger.
fn claimed_rows(column: &Column<'_>) -> Result<u64, Refusal> {
    let kind = column.spec & 0b111;
    if kind == kind::VALUE {
        return Ok(0);
    }
    let mut rows = 0u64;
    let mut members = 0u64;
    for run in column.runs() {
        let run = run?;
        rows = rows.saturating_add(run.count);
        if let (kind::GROUP, Some(value)) = (kind, run.value) {
            members = members.saturating_add(run.count.saturating_mul(value));
        }
    }
    Ok(rows.max(members))
}

/// So many rows in a row with the same value; None is null, or a value that isn't an integer.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub count: u64,
    pub value: Option<u64>,
}

/// The runs of one uncompressed column; a literal gives one run per value.
pub struct Runs<'a> {
    reader: Reader<'a>,
    kind: u32,
    literal: u64,
}

impl Runs<'_> {
    fn value(&mut self) -> Result<Option<u64>, Refusal> {
        match self.kind {
            kind::DELTA => self.reader.signed().map(|_| None),
            kind::STRING => self.reader.prefixed().map(|_| None),
            _ => self.reader.unsigned().map(Some),
        }
    }

    fn run(&mut self) -> Result<Run, Refusal> {
        if self.kind == kind::BOOLEAN {
            let count = self.reader.unsigned()?;
            return Ok(Run { count, value: None });
        }
        if self.literal == 0 {
            match self.reader.signed()? {
                0 => {
                    let count = self.reader.unsigned()?;
                    return Ok(Run { count, value: None });
                }
                count if count > 0 => {
                    let value = self.value()?;
                    return Ok(Run {
                        count: count.unsigned_abs(),
                        value,
                    });
                }
                count => self.literal = count.unsigned_abs(),
            }
        }
        self.literal -= 1;
        let value = self.value()?;
        Ok(Run { count: 1, value })
    }
}

impl Iterator for Runs<'_> {
    type Item = Result<Run, Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.literal == 0 && self.reader.is_empty() {
            return None;
        }
        let run = self.run();
        if run.is_err() {
            self.literal = 0;
            self.reader = Reader::new(&[]);
        }
        Some(run)
    }
}
