//! Response: one request as its client sees it. Runs on the client's task: detokenizes, watches for stop strings,
//! counts. Knows the engine only as a channel of updates.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use contract::{Logprob, SamplingParams, TokenId};
use sched::End;
use text::{Detokenizer, StopStrings, TextModel};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::admission::Admitted;
use crate::inbox::{Message, Submission, Ticket, Update};
use crate::{Delta, Event, Finish, FinishReason, RequestError, StopMatch, Timing, TokenLogprob, Usage};

/// A running request. Dropping it aborts the request: its blocks are free within two steps.
pub struct Response {
    request: u64,
    updates: UnboundedReceiver<Update>,
    inbox: Sender<Message>,
    text: Arc<TextModel>,
    prompt: Vec<TokenId>,
    sampling: Arc<SamplingParams>,
    client_stop_tokens: Vec<TokenId>,
    include_stop: bool,
    choices: Vec<Choice>,
    /// Entries so far; `None` once they were handed out, or if nobody asked.
    prompt_logprobs: Option<Vec<Option<TokenLogprob>>>,
    usage: Usage,
    timing: Timing,
    submitted: Duration,
    has_failed: bool,
}

#[derive(Clone)]
struct Choice {
    detokenizer: Detokenizer,
    stops: StopStrings,
    has_finished: bool,
}

impl Response {
    /// The two ends of a request that was admitted.
    pub(crate) fn new(
        admitted: Admitted,
        ticket: Ticket,
        submitted: Duration,
        inbox: Sender<Message>,
    ) -> (Self, Submission) {
        let Admitted { request, text, sampling, client_stop_tokens, stop, include_stop, skip_special_tokens } =
            admitted;
        let (sender, updates) = unbounded_channel();
        let choice = Choice {
            detokenizer: Detokenizer::new(Arc::clone(&text.tokenizer), skip_special_tokens),
            stops: StopStrings::new(&stop, include_stop),
            has_finished: false,
        };
        let response = Self {
            request: request.request,
            updates,
            inbox,
            text,
            prompt: request.prompt.clone(),
            prompt_logprobs: sampling.prompt_logprobs.map(|_| vec![None]),
            sampling,
            client_stop_tokens,
            include_stop,
            choices: (0..request.sampling.len()).map(|_| choice.clone()).collect(),
            usage: Usage { prompt_tokens: request.prompt.len() as u32, ..Usage::default() },
            timing: Timing::default(),
            submitted,
            has_failed: false,
        };
        (response, Submission { request, updates: sender, ticket })
    }

    /// The next event; `None` after `Failed` and after each choice has finished. May be cancelled and called again.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As `next`, for a task that waits for several.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        while !self.has_ended() {
            let update = ready!(self.updates.poll_recv(cx));
            if let Some(event) = self.apply(update) {
                return Poll::Ready(Some(event));
            }
        }
        Poll::Ready(None)
    }

    /// As `next`, for a thread without an async runtime.
    pub fn blocking_next(&mut self) -> Option<Event> {
        while !self.has_ended() {
            let update = self.updates.blocking_recv();
            if let Some(event) = self.apply(update) {
                return Some(event);
            }
        }
        None
    }

    /// The prompt as the model sees it.
    pub fn prompt_tokens(&self) -> &[TokenId] {
        &self.prompt
    }

    /// The parameters of the first choice, with all stop tokens.
    pub fn params(&self) -> &SamplingParams {
        &self.sampling
    }

    /// Counts so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Times so far.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    fn has_ended(&self) -> bool {
        self.has_failed || self.choices.iter().all(|choice| choice.has_finished)
    }

    fn apply(&mut self, update: Option<Update>) -> Option<Event> {
        match update {
            Some(Update::Started { at, cached_tokens }) => {
                self.usage.cached_tokens = cached_tokens;
                self.timing.scheduled = Some(self.since(at));
                self.complete_prompt()
            }
            Some(Update::Prompt(logprobs)) => {
                let per_position = 1 + self.sampling.prompt_logprobs.unwrap_or(0) as usize;
                let entries = logprobs.chunks(per_position).map(|entry| self.logprob(entry));
                let entries: Vec<_> = entries.collect();
                self.prompt_logprobs.as_mut()?.extend(entries);
                self.complete_prompt()
            }
            Some(Update::Token { at, index, token, logprobs, end }) => self.token(at, index, token, &logprobs, end),
            Some(Update::Ended { at, index, end }) => {
                let finish = Finish { reason: reason(end), matched: None };
                self.choices[index as usize].has_finished = true;
                self.note_end(at);
                Some(Event::Delta(Delta { index, finish: Some(finish), ..Delta::default() }))
            }
            Some(Update::Failed(error)) => self.failed(error),
            None => self.failed(RequestError { message: "The engine has stopped.".to_owned() }),
        }
    }

    fn failed(&mut self, error: RequestError) -> Option<Event> {
        self.has_failed = true;
        Some(Event::Failed(error))
    }

    /// The prompt's log probabilities are handed out in one piece.
    fn complete_prompt(&mut self) -> Option<Event> {
        let is_complete = |entries: &mut Vec<_>| entries.len() == self.prompt.len();
        self.prompt_logprobs.take_if(is_complete).map(Event::Prompt)
    }

    fn token(
        &mut self,
        at: Duration,
        index: u32,
        token: TokenId,
        logprobs: &[Logprob],
        end: Option<End>,
    ) -> Option<Event> {
        let mut delta = Delta { index, tokens: vec![token], ..Delta::default() };
        if !logprobs.is_empty() {
            delta.logprobs.extend(self.logprob(logprobs));
        }
        let choice = self.choices.get_mut(index as usize).filter(|choice| !choice.has_finished)?;
        let is_silent = end == Some(End::Stop) && !self.include_stop;
        let stopped = choice.text(token, is_silent, end.is_some(), &mut delta.text);
        delta.finish = match (stopped, end) {
            (Some(stop), _) => Some(Finish { reason: FinishReason::Stop, matched: Some(StopMatch::String(stop)) }),
            (None, Some(end)) => Some(Finish { reason: reason(end), matched: self.matched(token, end) }),
            (None, None) => None,
        };
        self.usage.completion_tokens += 1;
        self.timing.first_token.get_or_insert(at.saturating_sub(self.submitted));
        if delta.finish.is_some() {
            self.choices[index as usize].has_finished = true;
            self.note_end(at);
        }
        if delta.finish.is_some() && end.is_none() {
            // An engine that is gone has nothing to abort.
            self.inbox.send(Message::AbortChoice { request: self.request, index }).ok();
        }
        Some(Event::Delta(delta))
    }

    fn note_end(&mut self, at: Duration) {
        if self.has_ended() {
            self.timing.finished = Some(self.since(at));
        }
    }

    fn since(&self, at: Duration) -> Duration {
        at.saturating_sub(self.submitted)
    }

    /// Which of the client's own stop tokens ended a choice; the model's end tokens are nobody's.
    fn matched(&self, token: TokenId, end: End) -> Option<StopMatch> {
        let is_client_stop = end == End::Stop && self.client_stop_tokens.contains(&token);
        is_client_stop.then_some(StopMatch::Token(token))
    }

    /// The token itself comes first, then the best ones.
    fn logprob(&self, entry: &[Logprob]) -> Option<TokenLogprob> {
        let (token, top) = entry.split_first()?;
        let top = top.iter().map(|entry| self.token_logprob(entry)).collect();
        Some(TokenLogprob { top, ..self.token_logprob(token) })
    }

    fn token_logprob(&self, entry: &Logprob) -> TokenLogprob {
        let tokenizer = &self.text.tokenizer;
        TokenLogprob {
            token: entry.token,
            text: tokenizer.token_text(entry.token),
            bytes: tokenizer.token_bytes(entry.token),
            logprob: entry.logprob,
            top: Vec::new(),
        }
    }
}

impl Drop for Response {
    fn drop(&mut self) {
        if !self.has_ended() {
            // An engine that is gone has nothing to abort.
            self.inbox.send(Message::Abort { request: self.request }).ok();
        }
    }
}

impl Choice {
    /// Appends what can be shown after `token`; a silent one ends the text without being part of it. Returns the stop
    /// string that was completed.
    fn text(&mut self, token: TokenId, is_silent: bool, is_last: bool, out: &mut String) -> Option<String> {
        let mut new = String::new();
        if !is_silent {
            self.detokenizer.push(token, &mut new);
        }
        if is_last {
            self.detokenizer.finish(&mut new);
        }
        let stopped = self.stops.push(&new, out);
        if is_last && stopped.is_none() {
            self.stops.finish(out);
        }
        stopped
    }
}

fn reason(end: End) -> FinishReason {
    match end {
        End::Stop => FinishReason::Stop,
        End::Length => FinishReason::Length,
    }
}
