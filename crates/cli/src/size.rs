//! Sizes in bytes as people write them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes: `1048576`, `512MiB`, `2GB`, `1.5GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 9] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("b", 1),
];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let (number, unit) = UNITS
            .iter()
            .find_map(|&(suffix, unit)| lower.strip_suffix(suffix).map(|number| (number, unit)))
            .unwrap_or((&lower, 1));
        let value: f64 = number.trim().parse().map_err(|_| format!("{text:?} is no size; write 512MiB or 2GB"))?;
        let bytes = value * unit as f64;
        if !(0.0..=1e18).contains(&bytes) {
            return Err(format!("{text:?} is out of range"));
        }
        Ok(Self(bytes as u64))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0 as f64;
        match self.0 {
            0..1_024 => write!(f, "{} B", self.0),
            1_024..1_048_576 => write!(f, "{:.1} KiB", value / 1_024.0),
            1_048_576..1_073_741_824 => write!(f, "{:.1} MiB", value / 1_048_576.0),
            _ => write!(f, "{:.2} GiB", value / 1_073_741_824.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ByteSize;

    #[test]
    fn sizes_parse_as_people_write_them() {
        for (text, bytes) in
            [("1048576", 1 << 20), ("512MiB", 512 << 20), ("2gb", 2_000_000_000), ("1.5 GiB", 3 << 29), ("7b", 7)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_text_in_the_message() {
        for text in ["", "MiB", "-1", "nan", "1e40GB", "twelve"] {
            assert!(text.parse::<ByteSize>().unwrap_err().contains(&format!("{text:?}")), "{text}");
        }
    }
}
