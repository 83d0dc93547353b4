//! Which modules a list of `targets` or `ignore` means: whole names, `re:` patterns from a name's start, or a class.

use fancy_regex::Regex;

use crate::Problem;

/// The class of every layer that multiplies by a matrix. Names of modules tell nothing else about classes.
const LINEAR: &str = "Linear";

#[derive(Debug, Default)]
pub(super) struct Targets {
    names: Vec<String>,
    patterns: Vec<Regex>,
    linear: bool,
}

impl Targets {
    pub fn read(written: &[String]) -> Result<Self, Problem> {
        let mut targets = Self::default();
        for target in written {
            match target.strip_prefix("re:") {
                Some(pattern) => targets.patterns.push(compile(pattern)?),
                None if target == LINEAR => targets.linear = true,
                None => targets.names.push(target.clone()),
            }
        }
        Ok(targets)
    }

    /// Whether `module` itself is meant. A pattern that takes too long means nothing.
    pub fn names(&self, module: &str) -> bool {
        let matches = |pattern: &Regex| pattern.is_match(module).unwrap_or(false);
        self.names.iter().any(|name| name == module) || self.patterns.iter().any(matches)
    }

    /// Whether every linear layer is meant.
    pub fn linear(&self) -> bool {
        self.linear
    }
}

fn compile(pattern: &str) -> Result<Regex, Problem> {
    Regex::new(&format!("^(?:{pattern})"))
        .map_err(|error| Problem::Config(format!("its quantization_config has the pattern {pattern:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole_and_patterns_start_where_a_name_does() {
        let written = ["lm_head", "re:.*gate$", "re:^(?!.*self_attn).*proj", "Linear"].map(str::to_owned);
        let targets = Targets::read(&written).expect("all can be read");
        for (module, meant) in [
            ("lm_head", true),
            ("model.lm_head", false),
            ("lm_head.x", false),
            ("model.layers.0.mlp.gate", true),
            ("model.layers.0.mlp.gate_proj", true),
            ("model.layers.0.self_attn.q_proj", false),
        ] {
            assert_eq!(targets.names(module), meant, "{module}");
        }
        assert!(targets.linear() && !Targets::default().linear());
    }

    #[test]
    fn a_pattern_that_is_none_is_refused_and_an_endless_one_ends() {
        let error = Targets::read(&["re:(".to_owned()]).map(drop).expect_err("no pattern").to_string();
        assert!(error.contains("has the pattern \"(\""), "{error}");
        let endless = Targets::read(&["re:(a*)*(a*)*(?!b)\\1c".to_owned()]).expect("a pattern");
        assert!(!endless.names(&"a".repeat(200)));
    }
}
