//! Values by counting: each is a hash of its place. Any thread can make any part.

use std::sync::Mutex;
use std::thread;

use quant::bf16;

use super::values::{Shape, Values};

/// What a thread makes at a time; even, since two values share a hash.
const PART: usize = 1 << 18;
/// A sum of four random bytes lies around this,
const CENTRE: i32 = 2 * 255;
/// with this standard deviation: 2 sqrt((256^2 - 1) / 12).
const DEVIATION: f32 = 147.801;
/// How far a norm's gains lie from one, at most.
const GAIN_REACH: f32 = 0.1;

/// The tensor's values as bf16, in the file's order.
pub(super) fn encoded(seed: u64, shape: &Shape) -> Vec<u8> {
    let key = key(seed, &shape.name);
    let table = table(shape.values);
    let mut bytes = vec![0; 2 * shape.elements()];
    let workers = thread::available_parallelism().map_or(1, usize::from).min(bytes.len().div_ceil(2 * PART));
    let parts = Mutex::new(bytes.chunks_mut(2 * PART).enumerate());
    let work = || {
        while let Some((idx, part)) = take(&parts) {
            fill(key, idx * PART, &table, part);
        }
    };
    thread::scope(|scope| {
        (1..workers).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    bytes
}

fn take<T>(parts: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    parts.lock().expect("no worker panics while it holds the list").next()
}

/// Makes the values from `first` on.
fn fill(key: u64, first: usize, table: &[[u8; bf16::BYTES]], out: &mut [u8]) {
    for (idx, pair) in out.chunks_mut(4).enumerate() {
        let hash = mix(key.wrapping_add((first / 2 + idx) as u64));
        for (half, value) in pair.chunks_exact_mut(2).enumerate() {
            let sum: usize = ((hash >> (32 * half)) as u32).to_le_bytes().into_iter().map(usize::from).sum();
            value.copy_from_slice(&table[sum]);
        }
    }
}

/// Every value that there is, by the sum of four random bytes: close to a normal distribution.
fn table(values: Values) -> Vec<[u8; bf16::BYTES]> {
    let value = |sum: i32| {
        let from_centre = (sum - CENTRE) as f32;
        match values {
            Values::Spread(deviation) => from_centre * (deviation / DEVIATION),
            Values::Gain => 1.0 + from_centre * (GAIN_REACH / CENTRE as f32),
        }
    };
    let values: Vec<f32> = (0..=2 * CENTRE).map(value).collect();
    bf16::encode(&values).as_chunks().0.to_vec()
}

/// Where the tensor's counter starts.
fn key(seed: u64, name: &str) -> u64 {
    name.bytes().fold(mix(seed), |key, byte| mix(key ^ u64::from(byte)))
}

/// SplitMix64 (Steele, Lea and Flood 2014): one step from `counter`.
fn mix(counter: u64) -> u64 {
    let mut x = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(name: &str, len: usize, values: Values, seed: u64) -> Vec<f32> {
        let shape = Shape { name: name.to_owned(), rows: 1, cols: len, values };
        let bytes = encoded(seed, &shape);
        let mut values = vec![0.0; len];
        bf16::decode(&bytes, &mut values);
        values
    }

    #[test]
    fn they_spread_as_asked() {
        for deviation in [0.02, 1.0] {
            let values = values("x", 1 << 16, Values::Spread(deviation), 0);
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            let square = values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32;
            assert!(mean.abs() < 0.02 * deviation, "{mean}");
            assert!((square.sqrt() / deviation - 1.0).abs() < 0.01, "{square}");
        }
        assert!(values("x", 1 << 12, Values::Gain, 0).iter().all(|gain| (0.9..=1.1).contains(gain)));
    }

    #[test]
    fn a_value_depends_on_seed_name_and_place_alone() {
        let spread = Values::Spread(1.0);
        let longest = values("a", 2 * PART + 3, spread, 1);
        for len in [0, 1, 2, 3, PART - 1, PART, PART + 1] {
            assert_eq!(values("a", len, spread, 1), longest[..len]);
        }
        assert_ne!(values("b", 8, spread, 1), longest[..8]);
        assert_ne!(values("a", 8, spread, 2), longest[..8]);
        assert_ne!(longest[..8], longest[PART..PART + 8], "parts do not repeat");
    }
}
