//! `/tokenize` and `/detokenize`, in vLLM's form.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use engine::{ChatPrompt, TokenId};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::{body, messages, params};

enum Source {
    Text { text: String, add_special_tokens: bool },
    Chat(ChatPrompt),
}

pub(super) async fn tokenize(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, ApiError> {
    let body = body::read(request, &app.config).await?;
    let mut fields = Fields::parse(&body, app.config.limits.max_json_depth)?;
    app.model(fields.take("model")?)?;
    let source = source(&mut fields)?;
    let with_strings = fields.flag("return_token_strs", false)?;
    app.check_leftovers(fields, &[], &[])?;
    let worker = Arc::clone(&app);
    let (tokens, strings) = app.work(body.len(), move || encode(&worker, &source, with_strings)).await??;
    let max_model_len = app.engine.max_model_len();
    Ok(Json(json!({
        "count": tokens.len(), "max_model_len": max_model_len, "tokens": tokens, "token_strs": strings,
    })))
}

pub(super) async fn detokenize(State(app): State<Arc<App>>, request: Request) -> Result<Json<Value>, ApiError> {
    let body = body::read(request, &app.config).await?;
    let mut fields = Fields::parse(&body, app.config.limits.max_json_depth)?;
    app.model(fields.take("model")?)?;
    let tokens: Vec<TokenId> = fields.required("tokens")?;
    for &token in &tokens {
        params::check_token("tokens", token, app.engine.vocab_size())?;
    }
    app.check_leftovers(fields, &[], &[])?;
    let worker = Arc::clone(&app);
    let prompt = app.work(body.len(), move || worker.engine.tokenizer().decode(&tokens, false)).await?;
    Ok(Json(json!({"prompt": prompt})))
}

fn source(fields: &mut Fields<'_>) -> Result<Source, ApiError> {
    let add_special_tokens = fields.take("add_special_tokens")?;
    if let Some(text) = fields.take("prompt")? {
        return Ok(Source::Text { text, add_special_tokens: add_special_tokens.unwrap_or(true) });
    }
    let continue_final_message = fields.flag("continue_final_message", false)?;
    Ok(Source::Chat(ChatPrompt {
        messages: messages::take(fields)?,
        tools: Vec::new(),
        add_generation_prompt: fields.flag("add_generation_prompt", !continue_final_message)?,
        continue_final_message,
        kwargs: fields.take("chat_template_kwargs")?.unwrap_or_default(),
    }))
}

type Encoded = (Vec<TokenId>, Option<Vec<String>>);

fn encode(app: &App, source: &Source, with_strings: bool) -> Result<Encoded, ApiError> {
    let tokenizer = app.engine.tokenizer();
    let tokens = match source {
        Source::Text { text, add_special_tokens } => {
            tokenizer.encode(text, *add_special_tokens).map_err(|error| ApiError::invalid_value("prompt", error))?
        }
        Source::Chat(prompt) => app.engine.render_chat(prompt).map_err(|error| app.refuse(error, "messages"))?,
    };
    let strings = with_strings.then(|| tokens.iter().map(|&token| tokenizer.token_text(token)).collect());
    Ok((tokens, strings))
}
