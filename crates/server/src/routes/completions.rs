//! `/v1/completions`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use engine::{GenerateRequest, Prompt};
use serde_json::value::RawValue;

use super::chat::refuse_prompt_logprobs_in_streams;
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::fields::{Fields, elements, given, read};
use crate::generation::Generation;
use crate::params::{self, Delivery};
use crate::shape::completion::{CompletionOptions, CompletionShape, PromptText};
use crate::shape::{Answer, Head};
use crate::{body, fold, sse};

/// Accepted without effect.
const IGNORED: &[&str] = &["user", "metadata", "store", "service_tier"];

/// Refused, because ignoring them would answer another question than the one asked.
const REFUSED: &[(&str, &str)] = &[
    ("response_format", "is not supported yet"),
    ("structured_outputs", "is not supported yet"),
    ("suffix", "is not available: this model does not fill in the middle"),
];

/// Output tokens where the request names no number, as in the original.
const DEFAULT_MAX_TOKENS: u32 = 16;

struct Call {
    model: String,
    prompts: Vec<Prompt>,
    request: GenerateRequest,
    delivery: Delivery,
    options: CompletionOptions,
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    app.check_open()?;
    let body = body::read(request, &app.config).await?;
    let Call { model, prompts, request, delivery, options } = parse(&app, caller, &body)?;
    let requests = prompts.iter().map(|prompt| GenerateRequest { prompt: prompt.clone(), ..request.clone() });
    let responses = app.submit(requests.collect(), body.len(), "prompt").await?;
    let texts = prompts.into_iter().zip(&responses).map(|(prompt, response)| text(&app, &options, prompt, response));
    let texts = texts.collect();
    let shape = CompletionShape::new(options, texts);
    let head = Head::new("cmpl-", model, &app.fingerprint);
    let answer = Answer::new(head, shape, Generation::new(responses, &app.metrics));
    if delivery.stream {
        return Ok(sse::respond(answer, delivery.include_usage, app.config.timeouts.keep_alive));
    }
    fold::respond(answer).await
}

/// What the answer may have to repeat of a prompt, and no more than that.
fn text(app: &App, options: &CompletionOptions, prompt: Prompt, response: &engine::Response) -> PromptText {
    let tokens = response.prompt_tokens();
    let text = match prompt {
        Prompt::Text(text) if options.echo => text,
        _ if options.echo => app.engine.tokenizer().decode(tokens, false),
        _ => String::new(),
    };
    let first_token = tokens.first().map(|&token| app.engine.tokenizer().token_text(token)).unwrap_or_default();
    let tokens = if options.with_token_ids { tokens.to_vec() } else { Vec::new() };
    PromptText { text, tokens, first_token }
}

fn parse(app: &App, caller: Caller, body: &[u8]) -> Result<Call, ApiError> {
    let mut fields = Fields::parse(body, app.config.limits.max_json_depth)?;
    let fields = &mut fields;
    let model = app.model(fields.take("model")?)?;
    let prompts = prompts(fields, app)?;
    let mut request = params::request(fields, app.bounds())?;
    let delivery = params::delivery(fields)?;
    let echo = fields.flag("echo", false)?;
    request.max_tokens = Some(max_tokens(fields, echo)?);
    let options = options(fields, app, &mut request, delivery, echo)?;
    request.cache_salt = caller.salt(request.cache_salt);
    if fields.raw("suffix").is_some_and(|raw| raw.get() != "\"\"") {
        return Err(ApiError::unsupported("suffix", "is not available: this model does not fill in the middle"));
    }
    app.check_leftovers(std::mem::take(fields), IGNORED, REFUSED)?;
    Ok(Call { model, prompts, request, delivery, options })
}

/// None at all only makes sense where the prompt itself is the answer.
fn max_tokens(fields: &mut Fields<'_>, echo: bool) -> Result<u32, ApiError> {
    let least = if echo { 0 } else { 1 };
    let max_tokens = fields.integer("max_tokens", least..=u32::MAX.into())?;
    Ok(max_tokens.map_or(DEFAULT_MAX_TOKENS, |max_tokens| max_tokens as u32))
}

/// Reads the fields that shape the answer, and makes the request generate what they need.
fn options(
    fields: &mut Fields<'_>,
    app: &App,
    request: &mut GenerateRequest,
    delivery: Delivery,
    echo: bool,
) -> Result<CompletionOptions, ApiError> {
    let limits = &app.config.limits;
    refuse_prompt_logprobs_in_streams(request, delivery)?;
    let logprobs = fields.integer("logprobs", 0..=limits.max_top_logprobs.into())?.map(|top| top as u32);
    let best_of = fields.integer("best_of", 1..=limits.max_n.into())?.map_or(request.n, |best_of| best_of as u32);
    if best_of < request.n {
        return Err(ApiError::invalid_value("best_of", format!("{best_of} is less than 'n', which is {}", request.n)));
    }
    if best_of > request.n && delivery.stream {
        return Err(ApiError::invalid_value("best_of", "the best of several cannot be streamed"));
    }
    let options = CompletionOptions {
        n: request.n,
        generated: best_of,
        echo,
        with_logprobs: logprobs.is_some(),
        with_prompt_logprobs: request.sampling.prompt_logprobs.is_some(),
        with_token_ids: delivery.return_token_ids,
    };
    request.n = best_of;
    request.sampling.logprobs = logprobs.or((best_of > options.n).then_some(0));
    if echo && logprobs.is_some() {
        request.sampling.prompt_logprobs = request.sampling.prompt_logprobs.max(logprobs);
    }
    Ok(options)
}

/// A string, a list of strings, a list of token ids, or a list of such lists.
fn prompts(fields: &mut Fields<'_>, app: &App) -> Result<Vec<Prompt>, ApiError> {
    const NAME: &str = "prompt";
    let raw = fields.raw(NAME).ok_or_else(|| ApiError::missing(NAME))?;
    match given(raw) {
        "a string" => Ok(vec![Prompt::Text(read(NAME, raw)?)]),
        "an array" => match first_inside(raw) {
            b']' => Err(ApiError::invalid_value(NAME, "it is empty")),
            b'"' | b'[' => several(NAME, raw, app),
            _ => Ok(vec![tokens(NAME, raw, app)?]),
        },
        other => Err(ApiError::invalid_type(NAME, "a string, token ids, or an array of either", other)),
    }
}

/// The first character inside an array.
fn first_inside(raw: &RawValue) -> u8 {
    raw.get().as_bytes()[1..].trim_ascii_start()[0]
}

fn several(param: &str, raw: &RawValue, app: &App) -> Result<Vec<Prompt>, ApiError> {
    let items = elements(param, raw)?;
    let most = app.config.limits.max_prompts;
    if items.len() > most {
        let reason = format!("it has {} prompts, and this server allows {most}", items.len());
        return Err(ApiError::invalid_value(param, reason));
    }
    let prompt = |(path, raw): (String, &RawValue)| match given(raw) {
        "an array" => tokens(&path, raw, app),
        _ => read(&path, raw).map(Prompt::Text),
    };
    items.into_iter().map(prompt).collect()
}

fn tokens(param: &str, raw: &RawValue, app: &App) -> Result<Prompt, ApiError> {
    let tokens: Vec<u32> = read(param, raw)?;
    for &token in &tokens {
        params::check_token(param, token, app.engine.vocab_size())?;
    }
    Ok(Prompt::Tokens(tokens))
}
