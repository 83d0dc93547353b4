//! `tokenmill run`: a chat in the terminal.

use std::io::IsTerminal;

use anyhow::Result;
use engine::{ChatPrompt, EngineHandle, Event, FinishReason, GenerateRequest, Prompt, Response};
use rustyline::error::ReadlineError;
use serde_json::{Value, json};

use crate::args::RunArgs;
use crate::assemble::assemble;
use crate::say::{print, say};

const HELP: &str = "/clear starts over, /exit leaves; Ctrl-C stops an answer, Ctrl-D leaves";

/// Chats until the input ends. With `--prompt`, or when the input is no terminal, prints answers and nothing else.
pub fn run(args: &RunArgs) -> Result<()> {
    let assembled = assemble(&args.model, 1)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut chat = Chat::new(assembled.engine.clone(), args);
    if let Some(prompt) = &args.prompt {
        return runtime.block_on(chat.say(prompt));
    }
    if !std::io::stdin().is_terminal() {
        return std::io::stdin().lines().try_for_each(|line| runtime.block_on(chat.say(&line?)));
    }
    eprintln!("{} on {}; {HELP}", assembled.files.name, assembled.device);
    let mut editor = rustyline::DefaultEditor::new()?;
    loop {
        match editor.readline("> ") {
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) if line.trim() == "/exit" => return Ok(()),
            Ok(line) if line.trim() == "/clear" => chat.clear(),
            Ok(line) if line.starts_with('/') => eprintln!("{HELP}"),
            Ok(line) => {
                editor.add_history_entry(&line)?;
                if let Err(error) = runtime.block_on(chat.say(&line)) {
                    eprintln!("tokenmill: {error:#}");
                }
            }
            Err(ReadlineError::Interrupted) => eprintln!("{HELP}"),
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The conversation so far, and how to go on.
struct Chat<'a> {
    engine: EngineHandle,
    args: &'a RunArgs,
    messages: Vec<Value>,
}

impl<'a> Chat<'a> {
    fn new(engine: EngineHandle, args: &'a RunArgs) -> Self {
        let mut chat = Self { engine, args, messages: Vec::new() };
        chat.clear();
        chat
    }

    fn clear(&mut self) {
        self.messages.clear();
        self.messages.extend(self.args.system.iter().map(|text| json!({"role": "system", "content": text})));
    }

    /// Streams one answer to standard output and remembers it, even if Ctrl-C cut it short.
    async fn say(&mut self, text: &str) -> Result<()> {
        self.messages.push(json!({"role": "user", "content": text}));
        let answer = match self.engine.submit(self.request()) {
            Ok(response) => stream(response).await,
            Err(error) => Err(error.into()),
        };
        if answer.is_err() {
            self.messages.pop();
        }
        self.messages.push(json!({"role": "assistant", "content": answer?}));
        Ok(())
    }

    fn request(&self) -> GenerateRequest {
        let prompt =
            ChatPrompt { messages: self.messages.clone(), add_generation_prompt: true, ..ChatPrompt::default() };
        let mut request = GenerateRequest::new(Prompt::Chat(prompt));
        request.max_tokens = Some(self.args.max_tokens);
        request.sampling.temperature = self.args.temperature;
        request.sampling.seed = self.args.model.seed.unwrap_or_else(rand_seed);
        request
    }
}

fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

async fn stream(mut response: Response) -> Result<String> {
    let mut answer = String::new();
    loop {
        let event = tokio::select! {
            event = response.next() => event,
            _ = tokio::signal::ctrl_c() => None,
        };
        match event {
            Some(Event::Delta(delta)) => {
                answer.push_str(&delta.text);
                print(&delta.text);
                if delta.finish.is_some_and(|finish| finish.reason == FinishReason::Length) {
                    eprint!(" [cut at --max-tokens or the context]");
                }
            }
            Some(Event::Prompt(_)) => {}
            Some(Event::Failed(error)) => return Err(error.into()),
            None => break,
        }
    }
    say("");
    Ok(answer)
}
