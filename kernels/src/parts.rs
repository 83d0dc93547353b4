//! What backends ask of a weight's parts before they pack them.

use quant::Stored;
use tensor::{LoadError, Role};

/// What a backend's kernels take.
pub(super) struct Limits {
    /// Inputs come in multiples of this.
    pub cols: usize,
    /// And the outputs of a gate, and of what it gates.
    pub glu_rows: usize,
    /// Whose kernels they are, and what else to try.
    pub name: &'static str,
    pub hint: &'static str,
}

impl Limits {
    /// The columns that all `parts` have.
    ///
    /// # Errors
    /// If they do not belong together, are not what they say, or are no shape for the kernels.
    pub fn check(&self, parts: &[Stored<'_>], role: Role) -> Result<usize, LoadError> {
        let cols = parts.first().ok_or_else(|| LoadError::Shape("a weight has at least one part".to_owned()))?.cols;
        if cols == 0 || !cols.is_multiple_of(self.cols) {
            return Err(LoadError::Unsupported(format!(
                "the {} kernels take inputs in multiples of {}, not {cols}{}",
                self.name, self.cols, self.hint
            )));
        }
        if let Some(other) = parts.iter().find(|part| part.cols != cols) {
            return Err(LoadError::Shape(format!("fused parts have {cols} and {} columns", other.cols)));
        }
        parts.iter().try_for_each(Stored::check).map_err(|error| LoadError::Shape(error.to_string()))?;
        let is_pair = parts.len() == 2 && parts[0].rows == parts[1].rows && parts[0].rows.is_multiple_of(self.glu_rows);
        if role == Role::Glu && !is_pair {
            return Err(LoadError::Shape(format!(
                "a gate and an up part of equal rows in multiples of {} are wanted",
                self.glu_rows
            )));
        }
        let is_stack =
            parts.iter().all(|part| part.rows == parts[0].rows) && parts[0].rows.is_multiple_of(self.glu_rows);
        let whole = role != Role::ExpertsGlu || parts.len().is_multiple_of(2);
        if matches!(role, Role::Experts | Role::ExpertsGlu) && !(is_stack && whole) {
            return Err(LoadError::Shape(format!(
                "experts of equal rows in multiples of {} are wanted",
                self.glu_rows
            )));
        }
        Ok(cols)
    }
}

#[cfg(test)]
mod tests {
    use quant::Format;

    use super::*;

    #[test]
    fn parts_must_belong_together() {
        let limits = Limits { cols: 8, glu_rows: 4, name: "best", hint: "; use others" };
        let bytes = [0u8; 256];
        let part = |rows: usize, cols: usize| Stored::new(rows, cols, Format::F32, &bytes[..rows * cols * 4]).unwrap();
        let short = Stored { rows: 5, ..part(4, 8) };
        for (parts, role, message) in [
            (vec![], Role::Column, "at least one part"),
            (vec![part(2, 0)], Role::Column, "multiples of 8, not 0; use others"),
            (vec![part(2, 12)], Role::Column, "the best kernels take inputs in multiples of 8, not 12"),
            (vec![part(2, 8), part(2, 16)], Role::Column, "fused parts have 8 and 16 columns"),
            (vec![short], Role::Column, "take 160 bytes, but there are 128"),
            (vec![part(4, 8)], Role::Glu, "in multiples of 4"),
            (vec![part(4, 8), part(8, 8)], Role::Glu, "in multiples of 4"),
            (vec![part(6, 8), part(6, 8)], Role::Glu, "in multiples of 4"),
            (vec![part(4, 8), part(8, 8)], Role::Experts, "experts of equal rows in multiples of 4"),
            (vec![part(6, 8)], Role::Experts, "experts of equal rows in multiples of 4"),
            (vec![part(4, 8)], Role::ExpertsGlu, "experts of equal rows in multiples of 4"),
        ] {
            let error = limits.check(&parts, role).expect_err(message).to_string();
            assert!(error.contains(message), "{error}");
        }
        assert_eq!(limits.check(&[part(4, 8), part(4, 8)], Role::Glu).unwrap(), 8);
        assert_eq!(limits.check(&[part(3, 8), part(1, 8)], Role::Column).unwrap(), 8);
    }
}
