//! The Jinja dialect of chat templates: what Hugging Face's renderer adds to Jinja, in a box with limits.

mod functions;
mod generation;
mod json;
mod python;
mod strftime;

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, UndefinedBehavior};

use crate::TextError;

/// Name of the one template in an environment.
pub(crate) const TEMPLATE: &str = "chat_template";
/// Instructions of one rendering. A long conversation takes some hundreds per message.
pub(crate) const FUEL: u64 = 20_000_000;
/// Bytes of one rendering.
pub(crate) const MAX_OUTPUT: usize = 64 << 20;

/// An environment that holds the compiled `source`.
pub(crate) fn environment(source: &str) -> Result<Environment<'static>, TextError> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.map_err(syntax_error)?);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(100);
    environment.set_debug(false);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(python::format);
    functions::add(&mut environment);
    environment.add_template_owned(TEMPLATE, generation::without_tags(source)).map_err(syntax_error)?;
    Ok(environment)
}

fn syntax_error(error: Error) -> TextError {
    TextError::TemplateSyntax(error.to_string())
}

/// The sentence of a template's own `raise_exception`, if that is what ended it.
pub(crate) fn raised(error: &Error) -> Option<TextError> {
    functions::raised(error).map(TextError::TemplateRaised)
}

/// What a template has written, up to the limit.
#[derive(Debug, Default)]
pub(crate) struct Output {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl Output {
    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed
    }

    pub(crate) fn into_text(self) -> String {
        String::from_utf8(self.bytes).expect("templates write text")
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT {
            self.overflowed = true;
            return Err(io::Error::other("the output limit is reached"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
