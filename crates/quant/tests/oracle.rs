//! Agreement with candle-core's codecs, which are an independent reading of the same formats.

#![allow(clippy::unwrap_used)]

use candle_core::quantized::{GgmlDType, QTensor, ggml_file::qtensor_from_ggml};
use candle_core::{Device, Tensor};
use quant::{Format, Stored, quantize};

const BLOCKS: usize = 40;

fn oracle(format: Format) -> GgmlDType {
    match format {
        Format::F32 => GgmlDType::F32,
        Format::F16 => GgmlDType::F16,
        Format::Bf16 => GgmlDType::BF16,
        Format::Q4_0 => GgmlDType::Q4_0,
        Format::Q4_1 => GgmlDType::Q4_1,
        Format::Q5_0 => GgmlDType::Q5_0,
        Format::Q5_1 => GgmlDType::Q5_1,
        Format::Q8_0 => GgmlDType::Q8_0,
        Format::Q2K => GgmlDType::Q2K,
        Format::Q3K => GgmlDType::Q3K,
        Format::Q4K => GgmlDType::Q4K,
        Format::Q5K => GgmlDType::Q5K,
        Format::Q6K => GgmlDType::Q6K,
        planar => unreachable!("{planar} is no block format"),
    }
}

/// Where a block keeps its half-precision numbers.
fn half_offsets(format: Format) -> &'static [usize] {
    match format {
        Format::F32 | Format::F16 | Format::Bf16 => &[],
        Format::Q4_0 | Format::Q5_0 | Format::Q8_0 => &[0],
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
        Format::Q2K => &[80, 82],
        Format::Q3K => &[108],
        Format::Q6K => &[208],
        planar => unreachable!("{planar} is no block format"),
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    /// About -1 to 1.
    fn value(&mut self) -> f32 {
        self.next() as f32 / (1u64 << 30) as f32 - 1.0
    }
}

/// Blocks with every bit pattern but in the scales, which are finite.
fn random_blocks(format: Format, random: &mut Random) -> Vec<u8> {
    if format.block_len() == 1 {
        let values: Vec<f32> = (0..BLOCKS).map(|_| random.value()).collect();
        return quantize(format, &values).unwrap();
    }
    let mut bytes: Vec<u8> = (0..BLOCKS * format.block_bytes()).map(|_| random.next() as u8).collect();
    for block in bytes.chunks_mut(format.block_bytes()) {
        for at in half_offsets(format) {
            block[*at..at + 2].copy_from_slice(&half::f16::from_f32(random.value()).to_le_bytes());
        }
    }
    bytes
}

#[test]
fn every_format_decodes_to_the_same_values() {
    for format in Format::blocks() {
        let cols = BLOCKS * format.block_len();
        let bytes = random_blocks(format, &mut Random(7));
        let theirs = qtensor_from_ggml(oracle(format), &bytes, vec![cols], &Device::Cpu).unwrap();
        let theirs: Vec<f32> = theirs.dequantize(&Device::Cpu).unwrap().to_vec1().unwrap();
        let ours = Stored::new(1, cols, format, &bytes).unwrap().dequantize();
        assert_eq!(ours, theirs, "{format}");
    }
}

#[test]
fn the_encoders_write_the_same_bytes() {
    let mut random = Random(8);
    let mut values: Vec<f32> = (0..BLOCKS * 32).map(|_| random.value()).collect();
    values[32..64].fill(0.0);
    values[64..96].fill(0.25);
    for format in [Format::F16, Format::Bf16, Format::Q4_0, Format::Q4_1, Format::Q5_0, Format::Q5_1, Format::Q8_0] {
        let tensor = Tensor::from_slice(&values, values.len(), &Device::Cpu).unwrap();
        let theirs = QTensor::quantize(&tensor, oracle(format)).unwrap();
        let ours = quantize(format, &values).unwrap();
        assert_eq!(ours, theirs.data().unwrap().as_ref(), "{format}");
    }
}
