//! Planar formats: elements whose scales lie beside them.

#![allow(clippy::unwrap_used)]

use quant::{Format, OwnedScales, Scales, Stored, fp8_e4m3, int4, quantize};

/// The magnitude of an element, from the definition: sums of powers of two.
fn magnitude(code: u8) -> Option<f64> {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7));
    match (exponent, code & 7) {
        (15, 7) => None,
        (0, _) => Some(mantissa / 8.0 * 2f64.powi(-6)),
        _ => Some((1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7)),
    }
}

#[test]
fn every_fp8_element_is_what_the_definition_says() {
    for code in 0..=255u8 {
        let value = fp8_e4m3::decode_one(code);
        match magnitude(code) {
            None => assert!(value.is_nan(), "{code:#x}"),
            Some(magnitude) => {
                assert_eq!(f64::from(value.abs()), magnitude, "{code:#x}");
                assert_eq!(value.is_sign_negative(), code >= 128, "{code:#x}");
                assert_eq!(fp8_e4m3::encode_one(value), code, "{code:#x} comes back");
            }
        }
    }
    for (code, value) in [(0x00, 0.0), (0x01, 0.001953125), (0x08, 0.015625), (0x38, 1.0), (0xc4, -3.0), (0x7e, 448.0)]
    {
        assert_eq!(fp8_e4m3::decode_one(code), value, "{code:#x}");
    }
}

#[test]
fn fp8_rounds_to_the_nearest_and_ties_to_even() {
    for code in 0..0x7eu8 {
        let (low, high) = (fp8_e4m3::decode_one(code), fp8_e4m3::decode_one(code + 1));
        let middle = (low + high) / 2.0;
        let even = code + (code & 1);
        let cases = [(middle, even), (middle.next_down(), code), (middle.next_up(), code + 1)];
        for (value, expected) in cases {
            assert_eq!(fp8_e4m3::encode_one(value), expected, "{value} between {low} and {high}");
            assert_eq!(fp8_e4m3::encode_one(-value), expected | 0x80, "-{value}");
        }
    }
    for (value, code) in [(449.0, 0x7e), (f32::INFINITY, 0x7e), (f32::NEG_INFINITY, 0xfe), (f32::NAN, 0x7f), (1e-30, 0)]
    {
        assert_eq!(fp8_e4m3::encode_one(value), code, "{value}");
    }
}

#[test]
fn int4_codes_lie_low_nibble_first() {
    let values = Stored::new(1, 4, Format::Int4, &[0x80, 0xf1]).unwrap().dequantize();
    assert_eq!(values, [-8.0, 0.0, -7.0, 7.0]);
    assert_eq!(quantize(Format::Int4, &values).unwrap(), [0x80, 0xf1]);
    assert_eq!(quantize(Format::Int4, &[-99.0, 99.0]).unwrap(), [0xf0]);
}

/// `[rows, cols]` of 1, 2, 3, ... as INT8.
fn counting(rows: usize, cols: usize) -> Vec<u8> {
    (0..rows * cols).map(|idx| idx as u8 + 1).collect()
}

#[test]
fn each_element_meets_the_scale_of_its_place() {
    let grid = [1.0, 10.0, 100.0, 1000.0];
    let cases: [(usize, usize, &[f32], [f32; 6]); 5] = [
        (2, 3, &grid[..1], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        (1, 3, &grid[..2], [1.0, 2.0, 3.0, 40.0, 50.0, 60.0]),
        (1, 2, &grid, [1.0, 2.0, 30.0, 400.0, 500.0, 6000.0]),
        (128, 128, &grid[..1], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        (2, 2, &grid[..2], [1.0, 2.0, 30.0, 4.0, 5.0, 60.0]),
    ];
    let bytes = counting(2, 3);
    for (rows_per, cols_per, values, expected) in cases {
        let scales = OwnedScales::new(rows_per, cols_per, values.to_vec());
        let stored = Stored::new(2, 3, Format::Int8, &bytes).unwrap().with_scales(scales.borrow()).unwrap();
        assert_eq!(stored.dequantize(), expected, "one scale for {rows_per} x {cols_per}");
        let mut row = [0.0; 3];
        stored.dequantize_row(1, &mut row);
        assert_eq!(row, expected[3..], "row 1 of {rows_per} x {cols_per}");
        for (idx, expected) in expected.iter().enumerate() {
            let (scale, zero) = stored.scale_and_zero(idx / 3, idx % 3);
            assert_eq!((idx as f32 + 1.0) * scale, *expected);
            assert_eq!(zero, 0.0);
        }
    }
}

#[test]
fn int4_has_zeros_and_an_order_of_columns() {
    // Codes 0 to 3 in both rows; groups of two columns.
    let bytes = [0x10, 0x32, 0x10, 0x32];
    let (values, zeros) = ([1.0, 10.0, 100.0, 1000.0], [0, 2, 1, 15]);
    let plain = Scales { rows_per: 1, cols_per: 2, values: &values, zeros: None, group_of: None };
    let cases: [(Scales<'_>, [f32; 8]); 3] = [
        (plain, [-8.0, -7.0, -60.0, -50.0, -800.0, -700.0, -6000.0, -5000.0]),
        (Scales { zeros: Some(&zeros), ..plain }, [0.0, 1.0, 0.0, 10.0, -100.0, 0.0, -13000.0, -12000.0]),
        (
            Scales { zeros: Some(&zeros), group_of: Some(&[1, 0, 0, 1]), ..plain },
            [-20.0, 1.0, 2.0, 10.0, -15000.0, 0.0, 100.0, -12000.0],
        ),
    ];
    for (scales, expected) in cases {
        let stored = Stored::new(2, 4, Format::Int4, &bytes).unwrap().with_scales(scales).unwrap();
        assert_eq!(stored.dequantize(), expected);
    }
}

#[test]
fn scales_of_another_matrix_are_refused() {
    let (bytes, values) = ([0; 16], [1.0; 4]);
    let plain = Scales { rows_per: 1, cols_per: 4, values: &values, zeros: None, group_of: None };
    let zeros = Some(&[8u8, 8, 8, 16][..]);
    let cases: [(Format, Scales<'_>, &str); 9] = [
        (Format::F32, plain, "F32 carries its scales within"),
        (Format::Int8, Scales { rows_per: 0, ..plain }, "for 0 rows and 4 columns"),
        (Format::Int8, Scales { cols_per: 0, ..plain }, "for 1 rows and 0 columns"),
        (Format::Int8, Scales { cols_per: 3, ..plain }, "wants 4 x 2 scales, but there are 4"),
        (Format::Fp8E4m3, Scales { zeros, ..plain }, "FP8_E4M3 has no zero points"),
        (Format::Int4, Scales { zeros: Some(&[8]), ..plain }, "wants 4 x 1 zero points, but there are 1"),
        (Format::Int4, Scales { zeros, ..plain }, "a zero point is 16"),
        (Format::Int4, Scales { group_of: Some(&[0]), ..plain }, "4 columns want a group each, but 1 are named"),
        (Format::Int4, Scales { group_of: Some(&[0, 0, 0, 1]), ..plain }, "in group 1, but there are 1 groups"),
    ];
    for (format, scales, message) in cases {
        let bytes = &bytes[..Stored::byte_len(4, 4, format).unwrap().min(16)];
        let stored = Stored { rows: 4, cols: 4, format, bytes, scales: Some(scales) };
        let error = match Stored::new(4, 4, format, bytes) {
            Ok(plain) => {
                assert_eq!(plain.with_scales(scales).map(drop), stored.check());
                stored.check().expect_err(message)
            }
            Err(_) => scales.check(4, 4, format).expect_err(message).into(),
        };
        assert!(error.to_string().contains(message), "{error}");
    }
    assert_eq!(
        Stored::new(1, 3, Format::Int4, &[0]).unwrap_err().to_string(),
        "3 columns are not whole blocks of INT4, which are 2 long"
    );
}

#[test]
fn quantizing_moves_a_value_by_half_a_step_of_its_group() {
    let values: Vec<f32> = (0..512).map(|i| ((i * 37 % 101) as f32 - 30.0) / 50.0 * (1 + i / 128) as f32).collect();
    let (bytes, scales) = fp8_e4m3::quantize_rows(&values, 128);
    let back = Stored::new(4, 128, Format::Fp8E4m3, &bytes).unwrap().with_scales(scales.borrow()).unwrap().dequantize();
    for (idx, (value, back)) in values.iter().zip(back).enumerate() {
        let scale = scales.values[idx / 128];
        assert!((value - back).abs() <= (value.abs() / 16.0).max(scale / 1024.0) * 1.0001, "{value} became {back}");
    }
    for group in [32, 128] {
        let (bytes, scales) = int4::quantize_groups(&values, 128, group);
        let back =
            Stored::new(4, 128, Format::Int4, &bytes).unwrap().with_scales(scales.borrow()).unwrap().dequantize();
        for (idx, (value, back)) in values.iter().zip(back).enumerate() {
            let scale = scales.values[idx / group];
            assert!((value - back).abs() <= scale * 1.0001, "{value} became {back} in steps of {scale}");
            assert!(*value != 0.0 || back == 0.0, "0 stays 0");
        }
    }
}

#[test]
fn quantizing_takes_any_values() {
    for values in [[0.0; 32], [1.0; 32], [-1e-45; 32], [f32::MAX; 32]] {
        for (format, (bytes, scales)) in [
            (Format::Fp8E4m3, fp8_e4m3::quantize_rows(&values, 32)),
            (Format::Int4, int4::quantize_groups(&values, 32, 32)),
        ] {
            let stored = Stored::new(1, 32, format, &bytes).unwrap().with_scales(scales.borrow()).unwrap();
            for back in stored.dequantize() {
                assert!((back - values[0]).abs() <= values[0].abs() / 16.0 + 1e-44, "{} became {back}", values[0]);
            }
        }
    }
    let (bytes, scales) = fp8_e4m3::quantize_rows(&[], 32);
    assert!(bytes.is_empty() && scales.values.is_empty());
}
