//! Chat templates: a model's own Jinja program that turns a conversation into a prompt.
//!
//! Templates come with models, so they are programs of strangers: compiled once, run with limits on instructions and
//! output, and able to reach nothing but the conversation. What users wrote goes in under the [`Guard`].

use std::borrow::Cow;
use std::sync::Arc;

use minijinja::{Environment, ErrorKind, Value as Jinja};
use serde_json::{Map, Value, json};

use crate::guard::{self, Guard};
use crate::messages::{self, ContentForm};
use crate::{TextError, jinja};

/// A conversation, in the shape that templates expect.
#[derive(Clone, Copy, Debug)]
pub struct ChatInput<'a> {
    pub messages: &'a [Value],
    pub tools: &'a [Value],
    /// Ends the prompt with the beginning of the assistant's answer.
    pub add_generation_prompt: bool,
    /// Ends the prompt within the last message, which the model then continues.
    pub continue_final_message: bool,
    /// Extra variables of the template.
    pub kwargs: &'a Map<String, Value>,
}

/// A rendered prompt. It remembers which of its text may become control tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    text: String,
    is_marked: bool,
}

impl Rendered {
    /// The prompt as text.
    pub fn text(&self) -> Cow<'_, str> {
        if self.is_marked { guard::reveal(&self.text) } else { Cow::Borrowed(&self.text) }
    }

    /// Bytes of the prompt, or a few more.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub(crate) fn marked(&self) -> &str {
        &self.text
    }

    pub(crate) fn is_marked(&self) -> bool {
        self.is_marked
    }
}

/// Compiled once and shared.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
    guard: Arc<Guard>,
    content: ContentForm,
}

/// Ends the last message while it is rendered to be continued.
const CONTINUE_HERE: char = '\u{fdd3}';

impl ChatTemplate {
    /// Compiles `source` and finds out, by trying, whether it takes message content as text or as parts.
    pub fn new(source: &str, bos_token: &str, eos_token: &str) -> Result<Self, TextError> {
        let mut template = Self {
            environment: jinja::environment(source)?,
            bos_token: bos_token.to_owned(),
            eos_token: eos_token.to_owned(),
            guard: Arc::default(),
            content: ContentForm::Text,
        };
        template.content = template.probe_content();
        Ok(template)
    }

    /// Keeps user text from becoming control tokens; see [`crate::Tokenizer::guard`].
    pub fn guarded(self, guard: Arc<Guard>) -> Self {
        Self { guard, ..self }
    }

    /// Renders the prompt of a conversation.
    pub fn render(&self, input: &ChatInput<'_>) -> Result<Rendered, TextError> {
        let mut messages = messages::prepare(input.messages, self.content)?;
        if input.continue_final_message {
            check_continue(input)?;
            messages::append_to_last(&mut messages, &format!("{CONTINUE_HERE} "))?;
        }
        let mut strings = Strings { guard: &self.guard, is_marked: false };
        let context = self.context(input, &messages, &mut strings);
        let mut text = self.run(context)?;
        if input.continue_final_message {
            cut_at_end_of_message(&mut text)?;
        }
        Ok(Rendered { text, is_marked: strings.is_marked })
    }

    fn context(&self, input: &ChatInput<'_>, messages: &[Value], strings: &mut Strings<'_>) -> Jinja {
        let mut variables: Vec<(Jinja, Jinja)> =
            input.kwargs.iter().map(|(name, value)| (Jinja::from(name.as_str()), strings.value(value))).collect();
        let tools = if input.tools.is_empty() { Jinja::from(()) } else { strings.array(input.tools) };
        let own = [
            ("messages", strings.array(messages)),
            ("tools", tools),
            ("documents", Jinja::from(())),
            ("add_generation_prompt", Jinja::from(input.add_generation_prompt)),
            ("bos_token", Jinja::from(self.bos_token.as_str())),
            ("eos_token", Jinja::from(self.eos_token.as_str())),
        ];
        variables.extend(own.into_iter().map(|(name, value)| (Jinja::from(name), value)));
        Jinja::from_pairs(variables)
    }

    fn run(&self, context: Jinja) -> Result<String, TextError> {
        let template = self.environment.get_template(jinja::TEMPLATE).expect("it was added when the template was made");
        let mut out = jinja::Output::default();
        match template.render_captured_to(context, &mut out) {
            Ok(_) => Ok(out.into_text()),
            Err(_) if out.overflowed() => Err(TextError::TemplateOutput { limit: jinja::MAX_OUTPUT }),
            Err(error) if error.kind() == ErrorKind::OutOfFuel => Err(TextError::TemplateFuel { fuel: jinja::FUEL }),
            Err(error) => Err(jinja::raised(&error).unwrap_or_else(|| TextError::Template(error.to_string()))),
        }
    }

    /// A template takes parts if it shows a part's text but not the part as a structure.
    fn probe_content(&self) -> ContentForm {
        const PROBE: &str = "probe-7d1f";
        let shows = |content: Value| {
            let messages = [json!({"role": "user", "content": content})];
            let kwargs = Map::new();
            let input = ChatInput {
                messages: &[],
                tools: &[],
                add_generation_prompt: false,
                continue_final_message: false,
                kwargs: &kwargs,
            };
            let mut strings = Strings { guard: &self.guard, is_marked: false };
            let text = self.run(self.context(&input, &messages, &mut strings)).unwrap_or_default();
            text.contains(PROBE) && !text.contains("'text'") && !text.contains("\"text\"")
        };
        let parts = shows(json!([{"type": "text", "text": PROBE}]));
        match (shows(json!(PROBE)), parts) {
            (false, true) => ContentForm::Parts,
            (true, true) => ContentForm::Either,
            _ => ContentForm::Text,
        }
    }
}

fn check_continue(input: &ChatInput<'_>) -> Result<(), TextError> {
    if input.add_generation_prompt {
        let reason = "it cannot be combined with add_generation_prompt, which begins a new message";
        return Err(TextError::Continue(reason.to_owned()));
    }
    Ok(())
}

/// Cuts after the text of the message to continue. Where the template trimmed the message's end, so does the cut.
fn cut_at_end_of_message(text: &mut String) -> Result<(), TextError> {
    let reason = "the chat template does not show the last message's text";
    let end = text.rfind(CONTINUE_HERE).ok_or_else(|| TextError::Continue(reason.to_owned()))?;
    let was_trimmed = !text[end + CONTINUE_HERE.len_utf8()..].starts_with(' ');
    text.truncate(end);
    if was_trimmed {
        text.truncate(text.trim_end().len());
    }
    Ok(())
}

/// JSON to template values, with every string under the guard.
struct Strings<'a> {
    guard: &'a Guard,
    is_marked: bool,
}

impl Strings<'_> {
    fn value(&mut self, json: &Value) -> Jinja {
        match json {
            Value::Null => Jinja::from(()),
            Value::Bool(value) => Jinja::from(*value),
            Value::Number(number) => self.number(number),
            Value::String(text) => self.string(text),
            Value::Array(items) => self.array(items),
            Value::Object(object) => Jinja::from_pairs(
                object.iter().map(|(key, value)| (self.string(key), self.value(value))).collect::<Vec<_>>(),
            ),
        }
    }

    fn array(&mut self, items: &[Value]) -> Jinja {
        Jinja::from(items.iter().map(|item| self.value(item)).collect::<Vec<Jinja>>())
    }

    fn string(&mut self, text: &str) -> Jinja {
        let protected = self.guard.protect(text);
        self.is_marked |= matches!(protected, Cow::Owned(_));
        Jinja::from(protected.as_ref())
    }

    fn number(&self, number: &serde_json::Number) -> Jinja {
        match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Jinja::from(value),
            (None, Some(value)) => Jinja::from(value),
            _ => Jinja::from(number.as_f64().unwrap_or(f64::NAN)),
        }
    }
}
