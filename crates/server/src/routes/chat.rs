//! `/v1/chat/completions`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use engine::{ChatPrompt, GenerateRequest, Prompt};
use serde_json::{Map, Value};

use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::generation::Generation;
use crate::params::{self, Delivery};
use crate::shape::chat::{ChatOptions, ChatShape};
use crate::shape::{Answer, Head};
use crate::{body, fold, messages, sse};

/// Accepted without effect.
const IGNORED: &[&str] = &[
    "include_reasoning",
    "metadata",
    "moderation",
    "parallel_tool_calls",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
    "verbosity",
];

/// Refused, because ignoring them would answer another question than the one asked.
const REFUSED: &[(&str, &str)] = &[
    ("audio", "is not available: this server answers with text"),
    ("chat_template", "is not available: the model's own template is used"),
    ("function_call", "is not supported yet"),
    ("functions", "is not supported yet"),
    ("structured_outputs", "is not supported yet"),
    ("tools", "is not supported yet"),
    ("web_search_options", "is not available on this server"),
];

struct Call {
    model: String,
    request: GenerateRequest,
    delivery: Delivery,
    echo: String,
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    app.check_open()?;
    let body = body::read(request, &app.config).await?;
    let Call { model, request, delivery, echo } = parse(&app, caller, &body)?;
    let (n, with_logprobs) = (request.n, request.sampling.logprobs.is_some());
    let responses = app.submit(vec![request], body.len(), "messages").await?;
    let prompt_token_ids = delivery.return_token_ids.then(|| responses[0].prompt_tokens().to_vec());
    let shape = ChatShape::new(ChatOptions { n, echo, with_logprobs, prompt_token_ids });
    let head = Head::new("chatcmpl-", model, &app.fingerprint);
    let answer = Answer::new(head, shape, Generation::new(responses, &app.metrics));
    if delivery.stream {
        return Ok(sse::respond(answer, delivery.include_usage, app.config.timeouts.keep_alive));
    }
    fold::respond(answer).await
}

fn parse(app: &App, caller: Caller, body: &[u8]) -> Result<Call, ApiError> {
    let mut fields = Fields::parse(body, app.config.limits.max_json_depth)?;
    let fields = &mut fields;
    let model = app.model(fields.take("model")?)?;
    let messages = messages::take(fields)?;
    let mut request = params::request(fields, app.bounds())?;
    let delivery = params::delivery(fields)?;
    request.max_tokens = max_tokens(fields)?;
    request.sampling.logprobs = logprobs(fields, app.config.limits.max_top_logprobs)?;
    request.cache_salt = caller.salt(request.cache_salt);
    refuse_prompt_logprobs_in_streams(&request, delivery)?;
    refuse_unless_text(fields)?;
    let prompt = prompt(fields, messages)?;
    let echo = echo(fields, &prompt)?;
    request.prompt = Prompt::Chat(prompt);
    app.check_leftovers(std::mem::take(fields), IGNORED, REFUSED)?;
    Ok(Call { model, request, delivery, echo })
}

/// The newer name wins.
fn max_tokens(fields: &mut Fields<'_>) -> Result<Option<u32>, ApiError> {
    let older = fields.integer("max_tokens", 1..=u32::MAX.into())?;
    let newer = fields.integer("max_completion_tokens", 1..=u32::MAX.into())?;
    Ok(newer.or(older).map(|max_tokens| max_tokens as u32))
}

fn logprobs(fields: &mut Fields<'_>, max_top: u32) -> Result<Option<u32>, ApiError> {
    let wanted = fields.flag("logprobs", false)?;
    let top = fields.integer("top_logprobs", 0..=max_top.into())?;
    match (wanted, top) {
        (true, top) => Ok(Some(top.unwrap_or(0) as u32)),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(ApiError::invalid_value("top_logprobs", "it needs 'logprobs' to be true")),
    }
}

pub(super) fn refuse_prompt_logprobs_in_streams(request: &GenerateRequest, delivery: Delivery) -> Result<(), ApiError> {
    if delivery.stream && request.sampling.prompt_logprobs.is_some() {
        return Err(ApiError::invalid_value("prompt_logprobs", "it is not available when 'stream' is true"));
    }
    Ok(())
}

/// Three fields have a value that asks for nothing special; any other is refused.
fn refuse_unless_text(fields: &mut Fields<'_>) -> Result<(), ApiError> {
    if let Some(mut format) = fields.object("response_format")? {
        let kind: String = format.required("type")?;
        if kind != "text" {
            return Err(ApiError::unsupported("response_format", "of another type than 'text' is not supported yet"));
        }
    }
    if let Some(raw) = fields.raw("tool_choice")
        && raw.get() != "\"none\""
    {
        return Err(ApiError::unsupported("tool_choice", "other than 'none' is not supported yet"));
    }
    let modalities: Vec<String> = fields.take("modalities")?.unwrap_or_default();
    if modalities.iter().any(|modality| modality != "text") {
        return Err(ApiError::unsupported("modalities", "other than 'text' are not available"));
    }
    Ok(())
}

fn prompt(fields: &mut Fields<'_>, messages: Vec<Value>) -> Result<ChatPrompt, ApiError> {
    let mut kwargs: Map<String, Value> = fields.take("chat_template_kwargs")?.unwrap_or_default();
    if let Some(effort) = fields.take::<String>("reasoning_effort")? {
        kwargs.entry("reasoning_effort").or_insert(effort.into());
    }
    let continue_final_message = fields.flag("continue_final_message", false)?;
    let add_generation_prompt = fields.flag("add_generation_prompt", !continue_final_message)?;
    if continue_final_message && add_generation_prompt {
        let reason = "it cannot be true together with 'add_generation_prompt'";
        return Err(ApiError::invalid_value("continue_final_message", reason));
    }
    Ok(ChatPrompt { messages, tools: Vec::new(), add_generation_prompt, continue_final_message, kwargs })
}

/// With `echo`, an answer repeats the assistant's message that it continues.
fn echo(fields: &mut Fields<'_>, prompt: &ChatPrompt) -> Result<String, ApiError> {
    if !fields.flag("echo", false)? {
        return Ok(String::new());
    }
    let last = prompt.messages.last().filter(|message| message["role"] == "assistant");
    Ok(last.map(messages::text).unwrap_or_default())
}
