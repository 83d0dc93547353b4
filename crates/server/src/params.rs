//! The sampling fields that chat and text completions share, read into the engine's own words.

use std::collections::BTreeMap;

use engine::{GenerateRequest, Prompt, SamplingParams, TokenId};

use crate::config::RequestLimits;
use crate::error::ApiError;
use crate::fields::{Fields, read};
use crate::ids::Seeds;

/// What bounds the numbers of a request.
#[derive(Clone, Copy)]
pub(crate) struct Bounds<'a> {
    pub limits: &'a RequestLimits,
    pub vocab_size: usize,
    /// For a request that brings none.
    pub seeds: &'a Seeds,
}

/// How the answer travels.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delivery {
    pub stream: bool,
    pub include_usage: bool,
    pub return_token_ids: bool,
}

/// Reads all shared fields into a request without a prompt or logprobs, which the two routes spell differently.
pub(crate) fn request(fields: &mut Fields<'_>, bounds: Bounds<'_>) -> Result<GenerateRequest, ApiError> {
    let limits = bounds.limits;
    Ok(GenerateRequest {
        n: fields.integer("n", 1..=limits.max_n.into())?.unwrap_or(1) as u32,
        sampling: sampling(fields, bounds)?,
        ignore_eos: fields.flag("ignore_eos", false)?,
        bad_words: bad_words(fields, limits)?,
        stop: stop(fields, limits)?,
        include_stop_str_in_output: fields.flag("include_stop_str_in_output", false)?,
        skip_special_tokens: fields.flag("skip_special_tokens", true)?,
        priority: fields.integer("priority", i32::MIN.into()..=i32::MAX.into())?.unwrap_or(0) as i32,
        cache_salt: fields.take("cache_salt")?,
        ..GenerateRequest::new(Prompt::Tokens(Vec::new()))
    })
}

pub(crate) fn delivery(fields: &mut Fields<'_>) -> Result<Delivery, ApiError> {
    let stream = fields.flag("stream", false)?;
    let include_usage = match fields.object("stream_options")? {
        Some(_) if !stream => {
            return Err(ApiError::invalid_value("stream_options", "it is only allowed when 'stream' is true"));
        }
        Some(mut options) => options.flag("include_usage", false)?,
        None => false,
    };
    Ok(Delivery { stream, include_usage, return_token_ids: fields.flag("return_token_ids", false)? })
}

fn sampling(fields: &mut Fields<'_>, bounds: Bounds<'_>) -> Result<SamplingParams, ApiError> {
    let default = SamplingParams::default();
    let most = f64::from(f32::MAX);
    Ok(SamplingParams {
        temperature: fields.number("temperature", 0.0..=2.0)?.unwrap_or(default.temperature),
        top_k: fields.integer("top_k", -1..=i32::MAX.into())?.map_or(default.top_k, |top_k| top_k.max(0) as u32),
        top_p: positive(fields, "top_p", 1.0)?.unwrap_or(default.top_p),
        min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(default.min_p),
        repetition_penalty: positive(fields, "repetition_penalty", most)?.unwrap_or(default.repetition_penalty),
        presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(default.presence_penalty),
        frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(default.frequency_penalty),
        logit_bias: logit_bias(fields, bounds)?,
        allowed_token_ids: allowed_token_ids(fields, bounds)?,
        bad_words: Vec::new(),
        min_tokens: fields.integer("min_tokens", 0..=i32::MAX.into())?.unwrap_or(0) as u32,
        stop_token_ids: token_ids(fields, "stop_token_ids", bounds)?.unwrap_or_default(),
        seed: fields.integer("seed", i64::MIN..=i64::MAX)?.map_or_else(|| bounds.seeds.draw(), |seed| seed as u64),
        logprobs: None,
        prompt_logprobs: prompt_logprobs(fields, bounds.limits)?,
    })
}

/// A number above zero that is still above zero as the engine keeps it.
fn positive(fields: &mut Fields<'_>, name: &str, most: f64) -> Result<Option<f32>, ApiError> {
    let value = fields.number(name, 0.0..=most)?;
    if value == Some(0.0) {
        return Err(ApiError::invalid_value(name, "it must be greater than 0"));
    }
    Ok(value)
}

fn prompt_logprobs(fields: &mut Fields<'_>, limits: &RequestLimits) -> Result<Option<u32>, ApiError> {
    let top = fields.integer("prompt_logprobs", 0..=limits.max_top_logprobs.into())?;
    Ok(top.map(|top| top as u32))
}

fn logit_bias(fields: &mut Fields<'_>, bounds: Bounds<'_>) -> Result<Vec<(TokenId, f32)>, ApiError> {
    const NAME: &str = "logit_bias";
    let Some(given) = fields.take::<BTreeMap<String, f64>>(NAME)? else { return Ok(Vec::new()) };
    check_count(NAME, given.len(), bounds.limits.max_token_entries)?;
    let mut biases = BTreeMap::new();
    for (token, bias) in given {
        let param = format!("{NAME}.{}", crate::error::excerpt(&token));
        let token = token.parse().map_err(|_| ApiError::invalid_value(&param, "the key is not a token id"))?;
        check_token(&param, token, bounds.vocab_size)?;
        if !(-100.0..=100.0).contains(&bias) {
            return Err(ApiError::invalid_value(&param, format!("{bias} is outside -100 to 100")));
        }
        biases.insert(token, bias as f32);
    }
    Ok(biases.into_iter().collect())
}

fn allowed_token_ids(fields: &mut Fields<'_>, bounds: Bounds<'_>) -> Result<Vec<TokenId>, ApiError> {
    const NAME: &str = "allowed_token_ids";
    let Some(mut tokens) = read_tokens(fields, NAME, bounds.vocab_size)? else { return Ok(Vec::new()) };
    if tokens.is_empty() {
        return Err(ApiError::invalid_value(NAME, "an empty list allows no token at all"));
    }
    tokens.sort_unstable();
    tokens.dedup();
    Ok(tokens)
}

fn token_ids(fields: &mut Fields<'_>, name: &str, bounds: Bounds<'_>) -> Result<Option<Vec<TokenId>>, ApiError> {
    let tokens = read_tokens(fields, name, bounds.vocab_size)?;
    check_count(name, tokens.as_ref().map_or(0, Vec::len), bounds.limits.max_token_entries)?;
    Ok(tokens)
}

fn read_tokens(fields: &mut Fields<'_>, name: &str, vocab_size: usize) -> Result<Option<Vec<TokenId>>, ApiError> {
    let tokens = fields.take::<Vec<u32>>(name)?;
    for &token in tokens.iter().flatten() {
        check_token(name, token, vocab_size)?;
    }
    Ok(tokens)
}

pub(crate) fn check_token(param: &str, token: TokenId, vocab_size: usize) -> Result<(), ApiError> {
    if (token as usize) < vocab_size {
        return Ok(());
    }
    Err(ApiError::invalid_value(param, format!("token {token} is outside the vocabulary of {vocab_size}")))
}

fn check_count(param: &str, count: usize, most: usize) -> Result<(), ApiError> {
    if count <= most {
        return Ok(());
    }
    Err(ApiError::invalid_value(param, format!("it has {count} entries, and this server allows {most}")))
}

fn bad_words(fields: &mut Fields<'_>, limits: &RequestLimits) -> Result<Vec<String>, ApiError> {
    const NAME: &str = "bad_words";
    let words: Vec<String> = fields.take(NAME)?.unwrap_or_default();
    check_count(NAME, words.len(), limits.max_token_entries)?;
    check_strings(NAME, &words, limits)?;
    Ok(words)
}

/// One string or a list of them.
fn stop(fields: &mut Fields<'_>, limits: &RequestLimits) -> Result<Vec<String>, ApiError> {
    const NAME: &str = "stop";
    let stops = match fields.raw(NAME) {
        None => return Ok(Vec::new()),
        Some(raw) if raw.get().starts_with('"') => vec![read(NAME, raw)?],
        Some(raw) => read(NAME, raw)?,
    };
    check_count(NAME, stops.len(), limits.max_stop_strings)?;
    check_strings(NAME, &stops, limits)?;
    Ok(stops)
}

fn check_strings(param: &str, strings: &[String], limits: &RequestLimits) -> Result<(), ApiError> {
    if strings.iter().any(String::is_empty) {
        return Err(ApiError::invalid_value(param, "a string in it is empty"));
    }
    let most = limits.max_stop_bytes;
    if strings.iter().any(|string| string.len() > most) {
        return Err(ApiError::invalid_value(param, format!("a string in it is longer than {most} bytes")));
    }
    Ok(())
}
