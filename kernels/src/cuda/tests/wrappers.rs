//! The functions of `ptx.cuh`, one by one, against what the emulator makes of them (`wrappers.txt`). On a card this is the first look
//! at whether its instructions do what the emulator says: TOKENMILL_WRAPPERS_OUT names a file for its own answers, in the same form.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::*;

const EXPECTED: &str = include_str!("wrappers.txt");
const HEADER: &str = include_str!("../../../cuda/include/ptx.cuh");
const KERNELS: &str = include_str!("../../../cuda/conformance/wrappers.cu");
const LANES: usize = 32;

/// One kernel of `wrappers.cu`; words are per lane.
struct Wrapper {
    kernel: &'static str,
    inputs: fn(&mut Random) -> Vec<u32>,
    outputs: usize,
    /// How far results may lie from the emulator's, as f32; 0 where every bit counts.
    tolerance: f32,
}

#[rustfmt::skip]
const WRAPPERS: &[Wrapper] = &[
    Wrapper { kernel: "wrapper_cp_async16", inputs: four_words, outputs: 4, tolerance: 0.0 },
    Wrapper { kernel: "wrapper_cp_async_wait", inputs: four_words, outputs: 4, tolerance: 0.0 },
    Wrapper { kernel: "wrapper_ldmatrix_x4", inputs: four_words, outputs: 4, tolerance: 0.0 },
    Wrapper { kernel: "wrapper_ldmatrix_x4_trans", inputs: four_words, outputs: 4, tolerance: 0.0 },
    // Tensor cores add in an order and with a rounding of their own.
    Wrapper { kernel: "wrapper_mma_m16n8k16_bf16", inputs: bf16_fragments, outputs: 4, tolerance: 1e-5 },
    Wrapper { kernel: "wrapper_mma_m16n8k16_f16", inputs: f16_fragments, outputs: 4, tolerance: 1e-5 },
    Wrapper { kernel: "wrapper_mma_m16n8k32_e4m3", inputs: e4m3_fragments, outputs: 4, tolerance: 1e-2 },
    Wrapper { kernel: "wrapper_f16x2_of_e4m3x2", inputs: four_words, outputs: 4, tolerance: 0.0 },
    Wrapper { kernel: "wrapper_lop3", inputs: three_words, outputs: 4, tolerance: 0.0 },
];

/// Functions that have no kernel of their own, and why.
/// `after_former_kernel` makes every kernel of its file wait; the launches of all tests ask whether each thread did.
const ELSEWHERE: &[&str] = &["shared_address", "bit_cast_", "cp_async_commit", "after_former_kernel"];

fn words(random: &mut Random, count: usize) -> Vec<u32> {
    (0..count).map(|_| random.next_u64() as u32).collect()
}

fn four_words(random: &mut Random) -> Vec<u32> {
    words(random, 4)
}

fn three_words(random: &mut Random) -> Vec<u32> {
    words(random, 3)
}

/// Six words as `word` makes them, and four f32.
fn fragments(random: &mut Random, mut word: impl FnMut(&mut Random) -> u32) -> Vec<u32> {
    let mut words: Vec<u32> = (0..6).map(|_| word(random)).collect();
    words.extend((0..4).map(|_| random.uniform().to_bits()));
    words
}

fn bf16_fragments(random: &mut Random) -> Vec<u32> {
    let half = |random: &mut Random| u32::from(bf16::from_f32(random.uniform()).to_bits());
    fragments(random, |random| half(random) | half(random) << 16)
}

fn f16_fragments(random: &mut Random) -> Vec<u32> {
    let half = |random: &mut Random| u32::from(f16::from_f32(random.uniform()).to_bits());
    fragments(random, |random| half(random) | half(random) << 16)
}

/// Numbers below 2.
fn e4m3_fragments(random: &mut Random) -> Vec<u32> {
    fragments(random, |random| random.next_u64() as u32 & 0xbfbf_bfbf)
}

fn run_wrapper(b: &mut Cuda, wrapper: &Wrapper) -> Vec<u32> {
    let mut random = Random::new(0x5EED);
    let inputs: Vec<u32> = (0..LANES).flat_map(|_| (wrapper.inputs)(&mut random)).collect();
    let (from, to) = (b.resident(&inputs).unwrap(), b.resident(&vec![0u32; LANES * wrapper.outputs]).unwrap());
    b.launch(wrapper.kernel, [1, 1, 1], LANES, 0, &[from.address(), to.address()]);
    let mut values = Vec::new();
    b.read(&to, &mut values).unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// The largest difference as f32; infinite where bits differ that may not.
fn difference(found: &[u32], expected: &[u32], tolerance: f32) -> f32 {
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected).filter(|(found, expected)| found != expected);
    pairs.fold(0.0, |worst: f32, (found, expected)| {
        let apart = (f32::from_bits(*found) - f32::from_bits(*expected)).abs();
        if tolerance > 0.0 && apart <= f32::MAX { worst.max(apart) } else { f32::INFINITY }
    })
}

fn line(kernel: &str, words: &[u32]) -> String {
    let mut line = kernel.to_owned();
    words.iter().for_each(|word| write!(line, " {word:08x}").unwrap());
    line + "\n"
}

fn expected() -> BTreeMap<&'static str, Vec<u32>> {
    let words = |rest: &str| rest.split(' ').map(|word| u32::from_str_radix(word, 16).unwrap()).collect();
    EXPECTED.lines().filter_map(|line| line.split_once(' ')).map(|(kernel, rest)| (kernel, words(rest))).collect()
}

#[test]
fn wrappers_do_what_the_emulator_says() {
    let Some(mut b) = gpu("wrappers_do_what_the_emulator_says") else { return };
    let (expected, mut said, mut wrong) = (expected(), String::new(), Vec::new());
    for wrapper in WRAPPERS {
        let found = run_wrapper(&mut b, wrapper);
        said += &line(wrapper.kernel, &found);
        let apart = expected.get(wrapper.kernel).map_or(f32::INFINITY, |e| difference(&found, e, wrapper.tolerance));
        println!("{}: {apart} from the emulator", wrapper.kernel);
        if apart > wrapper.tolerance {
            wrong.push(wrapper.kernel);
        }
    }
    if let Some(path) = std::env::var_os("TOKENMILL_WRAPPERS_OUT") {
        std::fs::write(path, said).unwrap();
    }
    assert!(wrong.is_empty(), "these differ: {wrong:?}");
}

#[test]
fn every_wrapper_is_there() {
    let names = HEADER.lines().filter(|line| line.starts_with("__device__ __forceinline__")).map(|line| {
        let head = line.split('(').next().unwrap();
        head.rsplit([' ', '*', '&']).next().unwrap()
    });
    for name in names.filter(|name| !ELSEWHERE.contains(name)) {
        assert!(
            KERNELS.contains(&format!("{name}(")) || KERNELS.contains(&format!("{name}<")),
            "{name} is in no kernel"
        );
    }
    for wrapper in WRAPPERS {
        assert!(KERNELS.contains(&format!("{}(", wrapper.kernel)), "{} is not there", wrapper.kernel);
    }
}
