//! The range of every parameter, checked by name.

use contract::TokenId;

use crate::{EngineConfig, GenerateRequest, SubmitError};

/// Choices of one request, whatever the configuration says.
const MAX_N: u32 = 64;
const MAX_BIASES: usize = 1024;

/// Refuses the first parameter that is out of range.
pub(super) fn check(request: &GenerateRequest, config: &EngineConfig, vocab_size: usize) -> Result<(), SubmitError> {
    let sampling = &request.sampling;
    let max_n = config.max_n.clamp(1, MAX_N);
    if !(1..=max_n).contains(&request.n) {
        return Err(refuse("n", format!("n is {}; it must be between 1 and {max_n}.", request.n)));
    }
    for (param, value, low, high) in [
        ("temperature", sampling.temperature, 0.0, f32::MAX),
        ("top_p", sampling.top_p, f32::MIN_POSITIVE, 1.0),
        ("min_p", sampling.min_p, 0.0, 1.0),
        ("repetition_penalty", sampling.repetition_penalty, f32::MIN_POSITIVE, f32::MAX),
        ("presence_penalty", sampling.presence_penalty, -2.0, 2.0),
        ("frequency_penalty", sampling.frequency_penalty, -2.0, 2.0),
    ] {
        if !(low..=high).contains(&value) {
            return Err(refuse(param, format!("{param} is {value}; {}", range(low, high))));
        }
    }
    for (param, count) in [("logprobs", sampling.logprobs), ("prompt_logprobs", sampling.prompt_logprobs)] {
        let most = (config.max_logprobs as usize).min(vocab_size);
        if count.is_some_and(|count| count as usize > most) {
            return Err(refuse(param, format!("{param} must be at most {most}.")));
        }
    }
    check_biases(&sampling.logit_bias, vocab_size)?;
    check_tokens("allowed_token_ids", &sampling.allowed_token_ids, vocab_size)?;
    check_tokens("stop_token_ids", &sampling.stop_token_ids, vocab_size)?;
    for word in &sampling.bad_words {
        check_tokens("bad_words", word, vocab_size)?;
    }
    for (param, words) in [("stop", &request.stop), ("bad_words", &request.bad_words)] {
        if words.iter().any(String::is_empty) {
            return Err(refuse(param, format!("{param} has an empty string, which is everywhere.")));
        }
    }
    Ok(())
}

fn range(low: f32, high: f32) -> String {
    match (low == f32::MIN_POSITIVE, high == f32::MAX) {
        (true, true) => "it must be a finite number above 0.".to_owned(),
        (false, true) => format!("it must be a finite number of at least {low}."),
        (true, false) => format!("it must be above 0 and at most {high}."),
        (false, false) => format!("it must be between {low} and {high}."),
    }
}

fn check_biases(biases: &[(TokenId, f32)], vocab_size: usize) -> Result<(), SubmitError> {
    if biases.len() > MAX_BIASES {
        let message = format!("logit_bias has {} entries; {MAX_BIASES} are allowed.", biases.len());
        return Err(refuse("logit_bias", message));
    }
    for &(token, bias) in biases {
        check_tokens("logit_bias", &[token], vocab_size)?;
        if !(-100.0..=100.0).contains(&bias) {
            return Err(refuse("logit_bias", format!("The bias of token {token} is {bias}; {}", range(-100.0, 100.0))));
        }
    }
    let mut tokens: Vec<TokenId> = biases.iter().map(|&(token, _)| token).collect();
    tokens.sort_unstable();
    match tokens.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(refuse("logit_bias", format!("Token {} has two biases.", pair[0]))),
        None => Ok(()),
    }
}

/// Every token is in the vocabulary.
pub(super) fn check_tokens(param: &'static str, tokens: &[TokenId], vocab_size: usize) -> Result<(), SubmitError> {
    match tokens.iter().find(|&&token| token as usize >= vocab_size) {
        Some(token) => {
            Err(refuse(param, format!("{param} has token {token}; the vocabulary has {vocab_size} tokens.")))
        }
        None => Ok(()),
    }
}

fn refuse(param: &'static str, message: String) -> SubmitError {
    SubmitError::Invalid { param, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Prompt, SamplingParams};

    fn refused(change: impl FnOnce(&mut GenerateRequest)) -> Option<&'static str> {
        let mut request = GenerateRequest::new(Prompt::Tokens(vec![1]));
        change(&mut request);
        match check(&request, &EngineConfig::default(), 50) {
            Ok(()) => None,
            Err(SubmitError::Invalid { param, .. }) => Some(param),
            Err(other) => panic!("unexpected {other}"),
        }
    }

    type Change = fn(&mut SamplingParams);

    #[test]
    fn numbers_out_of_range_are_refused_by_name() {
        let cases: [(&str, Change); 14] = [
            ("temperature", |s| s.temperature = -0.1),
            ("temperature", |s| s.temperature = f32::NAN),
            ("temperature", |s| s.temperature = f32::INFINITY),
            ("top_p", |s| s.top_p = 0.0),
            ("top_p", |s| s.top_p = 1.1),
            ("min_p", |s| s.min_p = -0.1),
            ("repetition_penalty", |s| s.repetition_penalty = 0.0),
            ("presence_penalty", |s| s.presence_penalty = 2.1),
            ("frequency_penalty", |s| s.frequency_penalty = -2.1),
            ("logprobs", |s| s.logprobs = Some(21)),
            ("prompt_logprobs", |s| s.prompt_logprobs = Some(21)),
            ("allowed_token_ids", |s| s.allowed_token_ids = vec![50]),
            ("stop_token_ids", |s| s.stop_token_ids = vec![49, 50]),
            ("bad_words", |s| s.bad_words = vec![vec![50]]),
        ];
        for (param, change) in cases {
            assert_eq!(refused(|request| change(&mut request.sampling)), Some(param));
        }
    }

    #[test]
    fn edges_of_the_ranges_are_allowed() {
        let cases: [Change; 5] = [
            |s| s.temperature = 0.0,
            |s| s.top_p = 1.0,
            |s| (s.presence_penalty, s.frequency_penalty) = (-2.0, 2.0),
            |s| s.logprobs = Some(20),
            |s| s.logit_bias = vec![(49, 100.0), (0, -100.0)],
        ];
        for change in cases {
            assert_eq!(refused(|request| change(&mut request.sampling)), None);
        }
    }

    #[test]
    fn biases_name_each_token_once_within_the_vocabulary() {
        for biases in [vec![(50, 1.0)], vec![(1, 100.1)], vec![(1, f32::NAN)], vec![(1, 0.0), (2, 0.0), (1, 1.0)]] {
            assert_eq!(refused(|request| request.sampling.logit_bias = biases), Some("logit_bias"));
        }
        let many = (0..1025).map(|token| (token, 0.0)).collect();
        assert_eq!(refused(|request| request.sampling.logit_bias = many), Some("logit_bias"));
    }

    #[test]
    fn counts_and_words() {
        for n in [0, 17, u32::MAX] {
            assert_eq!(refused(|request| request.n = n), Some("n"));
        }
        assert_eq!(refused(|request| request.stop = vec![String::new()]), Some("stop"));
        assert_eq!(refused(|request| request.bad_words = vec![String::new()]), Some("bad_words"));
    }
}
