//! The formats by hand: blocks written byte by byte, and how far a value may move through its encoder.

#![allow(clippy::unwrap_used)]

use quant::{Format, QuantizeError, Stored, quantize};

/// 1.0, 0.5 and 2.0 in half precision, little-endian.
const ONE: [u8; 2] = [0x00, 0x3c];
const HALF: [u8; 2] = [0x00, 0x38];
const TWO: [u8; 2] = [0x00, 0x40];

/// A zeroed block with `patches` written over it.
fn block(format: Format, patches: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0; format.block_bytes()];
    for (at, patch) in patches {
        bytes[*at..at + patch.len()].copy_from_slice(patch);
    }
    bytes
}

#[test]
fn hand_written_blocks_decode_as_drawn() {
    type Case = (Format, Vec<u8>, &'static [(usize, f32)]);
    let cases: Vec<Case> = vec![
        (Format::F32, vec![0, 0, 0x20, 0xc1], &[(0, -10.0)]),
        (Format::F16, HALF.to_vec(), &[(0, 0.5)]),
        (Format::Bf16, vec![0x20, 0xc1], &[(0, -10.0)]),
        // Byte 0 holds codes 0 and 16.
        (Format::Q4_0, block(Format::Q4_0, &[(0, &TWO), (2, &[0xf1])]), &[(0, -14.0), (16, 14.0), (1, -16.0)]),
        (Format::Q4_1, block(Format::Q4_1, &[(0, &TWO), (2, &HALF), (4, &[0xf1])]), &[(0, 2.5), (16, 30.5), (1, 0.5)]),
        // Bit 17 of the word is the fifth bit of code 17.
        (
            Format::Q5_0,
            block(Format::Q5_0, &[(0, &ONE), (4, &[2]), (7, &[0x35])]),
            &[(1, -11.0), (17, 3.0), (0, -16.0)],
        ),
        (
            Format::Q5_1,
            block(Format::Q5_1, &[(0, &ONE), (2, &HALF), (6, &[2]), (9, &[0x35])]),
            &[(1, 5.5), (17, 19.5), (0, 0.5)],
        ),
        (Format::Q8_0, block(Format::Q8_0, &[(0, &HALF), (2, &[0x80]), (33, &[127])]), &[(0, -64.0), (31, 63.5)]),
        // Group 9 (scale 3, minimum 2) holds values 144 to 159; byte 48 + 17 of qs, bits 0..2, is value 145.
        (
            Format::Q2K,
            block(Format::Q2K, &[(9, &[0x23]), (80, &TWO), (82, &ONE), (16 + 32 + 17, &[0b11])]),
            &[(145, 16.0), (144, -2.0), (0, 0.0)],
        ),
        // Group 0 has scale 0b10_0101 = 37; value 5 has low bits 2 and its third bit clear, value 6 set.
        (
            Format::Q3K,
            block(Format::Q3K, &[(96, &[5]), (104, &[0b10]), (108, &ONE), (32 + 5, &[2, 2]), (6, &[1])]),
            &[(5, -10.0), (6, 10.0), (0, -20.0)],
        ),
        // Group 1 (scale 5, minimum 9) is the high nibbles of the first 32 bytes.
        (
            Format::Q4K,
            block(Format::Q4K, &[(0, &TWO), (2, &ONE), (5, &[5]), (9, &[9]), (16 + 3, &[0x7f])]),
            &[(32 + 3, 61.0), (32, -9.0), (3, 0.0)],
        ),
        (
            Format::Q5K,
            block(Format::Q5K, &[(0, &TWO), (2, &ONE), (5, &[5]), (9, &[9]), (48 + 3, &[0x7f]), (16 + 3, &[0b10])]),
            &[(32 + 3, 221.0), (32, -9.0), (3, 0.0)],
        ),
        // Value 128 + 96 + 1: high nibble of ql[64 + 32 + 1], bits 6..8 of qh[32 + 1]; group 14 has scale -2.
        (
            Format::Q6K,
            block(Format::Q6K, &[(97, &[0x50]), (128 + 33, &[0b1100_0000]), (192 + 14, &[0xfe]), (208, &HALF)]),
            &[(225, -21.0), (224, 32.0), (0, 0.0)],
        ),
    ];
    for (format, bytes, expected) in cases {
        let values = Stored::new(1, format.block_len(), format, &bytes).unwrap().dequantize();
        for (at, value) in expected {
            assert_eq!(values[*at], *value, "{format} at {at}");
        }
    }
}

#[test]
fn a_value_moves_at_most_half_a_step() {
    let values: Vec<f32> = (0..320).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    // The widest step of values in -1 to 1: a symmetric format reaches only one end exactly.
    for (format, step) in [
        (Format::F32, 0.0),
        (Format::F16, 1.0 / 1024.0),
        (Format::Bf16, 1.0 / 128.0),
        (Format::Q4_0, 2.0 * 1.0 / 8.0),
        (Format::Q4_1, 2.0 / 15.0),
        (Format::Q5_0, 2.0 * 1.0 / 16.0),
        (Format::Q5_1, 2.0 / 31.0),
        (Format::Q8_0, 1.0 / 127.0),
    ] {
        let bytes = quantize(format, &values).unwrap();
        let back = Stored::new(10, 32, format, &bytes).unwrap().dequantize();
        for (value, back) in values.iter().zip(back) {
            // A half scale is off by a 2048th.
            assert!((value - back).abs() <= step / 2.0 + 2.0 / 2048.0, "{format}: {value} became {back}");
        }
    }
}

#[test]
fn what_cannot_be_encoded_is_said() {
    assert_eq!(quantize(Format::Q4_1, &[]), Ok(vec![]));
    let partial = quantize(Format::Q4_1, &[0.0; 31]).unwrap_err();
    assert_eq!(partial.to_string(), "31 values are not whole blocks of Q4_1, which are 32 long");
    assert_eq!(quantize(Format::Q6K, &[0.0; 256]), Err(QuantizeError::NoEncoder(Format::Q6K)));
}

#[test]
fn a_blocks_parts_multiply_out_to_its_values() {
    let values: [f32; 32] = std::array::from_fn(|i| i as f32 / 3.0 - 4.0);
    let bytes = quantize(Format::Q4_1, &values).unwrap();
    let block = quant::q4_1::unpack(bytes[..].try_into().unwrap());
    let by_hand: Vec<f32> = block.codes.iter().map(|c| f32::from(*c) * block.scales[0] + block.offsets[0]).collect();
    assert_eq!(Stored::new(1, 32, Format::Q4_1, &bytes).unwrap().dequantize(), by_hand);
}
