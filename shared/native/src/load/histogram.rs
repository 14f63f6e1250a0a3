//! Durations counted in buckets that are 1/32 of a power of two wide: quantiles within 3 %.

const BITS: u32 = 5;
const BUCKETS: usize = (64 << BITS) as usize;

pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    most: u64,
}

impl Histogram {
    pub fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            total: 0,
            most: 0,
        }
    }

    pub fn record(&mut self, nanoseconds: u64) {
        self.counts[bucket(nanoseconds)] += 1;
        self.total += 1;
        self.most = self.most.max(nanoseconds);
    }

    /// The upper end of the bucket with the quantile (0 to 1), in nanoseconds; 0 without values.
    pub fn quantile(&self, quantile: f64) -> u64 {
        let rank = (quantile * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_end(index).min(self.most);
            }
        }
        self.most
    }
}

fn bucket(value: u64) -> usize {
    let exponent = value.max(1).ilog2();
    if exponent < BITS {
        return value as usize;
    }
    let mantissa = (value >> (exponent - BITS)) & ((1 << BITS) - 1);
    (((exponent - BITS + 1) << BITS) as usize) + mantissa as usize
}

fn upper_end(index: usize) -> u64 {
    let exponent = (index >> BITS) as u32;
    let mantissa = (index & ((1 << BITS) - 1)) as u64;
    if exponent == 0 {
        return mantissa;
    }
    let low = ((1 << BITS) + mantissa) << (exponent - 1);
    low.saturating_add((1 << (exponent - 1)) - 1)
}
