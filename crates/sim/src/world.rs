//! One seed's world: clients on one side, the simulated executor on the other, and between them the real engine core,
//! whose books are checked after every step. Time is a counter.

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::driver::{Activity, EngineCore, Message, Queue, Submission};
use sched::{Chains, Layout, NewRequest};
use tokio::sync::mpsc::unbounded_channel;

use crate::chaos::Journal;
use crate::client::Client;
use crate::executor::SimExecutor;
use crate::oracle::Oracle;
use crate::rng::mix;
use crate::scenario::{Planned, Scenario, Whim};
use crate::{Options, Report};

/// Turns in a row that may compute nothing: the last result is collected, then the engine is idle.
const MAX_EMPTY_TURNS: u32 = 3;

pub(crate) struct World {
    core: EngineCore,
    layout: Layout,
    oracle: Oracle,
    journal: Arc<Mutex<Journal>>,
    queue: Queue,
    /// Not arrived yet, the last first.
    future: Vec<Planned>,
    clients: Vec<(Client, u64, Whim)>,
    max_tokens: u32,
    /// Turns that all of this may take.
    patience: u64,
    options: Options,
    trace: u64,
}

impl World {
    pub fn new(seed: u64, depth: u32, options: Options) -> Self {
        let Scenario { sim, engine, mut requests } = Scenario::draw(seed, depth);
        let layout = Layout::new(&sim.capacity).expect("drawn capacities are valid");
        let oracle = Oracle {
            num_groups: sim.capacity.groups.len(),
            vocab_size: sim.vocab_size,
            max_model_len: sim.capacity.max_model_len,
        };
        let max_tokens = sim.capacity.max_tokens.min(engine.max_num_batched_tokens);
        let patience = patience(&requests);
        let executor = SimExecutor::new(sim);
        let journal = executor.journal();
        let core = EngineCore::new(engine, Box::new(executor)).expect("drawn capacities are valid");
        requests.reverse();
        let queue = Queue::new(requests.len() as u32);
        Self {
            core,
            layout,
            oracle,
            journal,
            queue,
            future: requests,
            clients: Vec::new(),
            max_tokens,
            patience,
            options,
            trace: 0,
        }
    }

    /// Until everybody has an answer. `turn` is left at the turn that failed.
    pub fn run(mut self, turn: &Cell<u64>) -> Result<Report, String> {
        let mut empty_turns = 0;
        loop {
            let now = turn.get();
            let messages = self.messages(now);
            let steps = self.core.stats().steps;
            let activity = self.core.step(messages, Duration::from_micros(now)).map_err(|fatal| fatal.0)?;
            let has_computed = self.core.stats().steps > steps;
            self.observe(now, has_computed)?;
            self.check_books(has_computed)?;
            if activity == Activity::Idle && self.future.is_empty() && !self.has_whims(now) {
                return self.finish();
            }
            empty_turns = if has_computed || activity == Activity::Idle { 0 } else { empty_turns + 1 };
            let losses = self.core.stats().executor_losses as u32;
            if empty_turns > MAX_EMPTY_TURNS + losses + 6 {
                return Err("the engine is busy and computes nothing".to_owned());
            }
            if now > self.patience {
                return Err(format!("not done after {now} turns"));
            }
            turn.set(now + 1);
        }
    }

    fn messages(&mut self, now: u64) -> Vec<Message> {
        let mut messages = Vec::new();
        while self.future.last().is_some_and(|planned| planned.arrival <= now) {
            let planned = self.future.pop().expect("there is a last one");
            messages.push(self.arrive(planned, now));
        }
        for (request, (client, arrival, whim)) in self.clients.iter_mut().enumerate() {
            let request = request as u64;
            match *whim {
                Whim::Abort { after } if *arrival + after == now => {
                    client.abort();
                    messages.push(Message::Abort { request });
                }
                Whim::Vanish { after } if *arrival + after == now => client.vanish(),
                Whim::AbortChoice { after, index } if *arrival + after == now => {
                    client.abort_choice(index);
                    messages.push(Message::AbortChoice { request, index });
                }
                _ => {}
            }
        }
        messages
    }

    fn arrive(&mut self, planned: Planned, now: u64) -> Message {
        let Planned { priority, prompt, max_tokens, salt, sampling, whim, .. } = planned;
        let (sender, updates) = unbounded_channel();
        let answers = sampling.iter().map(|params| self.oracle.answer(&prompt, max_tokens, params)).collect();
        let client = Client::new(sampling[0].seed, prompt.len() as u32, updates, answers);
        let mut chains = Chains::new(&self.layout, &salt);
        chains.extend(&prompt);
        let request = self.clients.len() as u64;
        self.clients.push((client, now, whim));
        let request = NewRequest { request, priority, prompt, chains, max_tokens, sampling, adapter: None };
        let ticket = self.queue.enter().expect("the queue holds all requests");
        Message::Submit(Box::new(Submission { request, updates: sender, ticket }))
    }

    fn has_whims(&self, now: u64) -> bool {
        let when = |&(_, arrival, whim): &(_, u64, Whim)| match whim {
            Whim::None => 0,
            Whim::Abort { after } | Whim::Vanish { after } | Whim::AbortChoice { after, .. } => arrival + after,
        };
        self.clients.iter().map(when).any(|when| when > now)
    }

    fn observe(&mut self, now: u64, has_computed: bool) -> Result<(), String> {
        for (request, (client, ..)) in self.clients.iter_mut().enumerate() {
            client.listen().map_err(|error| format!("request {request}: {error}"))?;
        }
        if has_computed {
            let plan = self.core.plan();
            self.trace = mix(self.trace ^ now);
            for work in &plan.work {
                let what = u64::from(work.row.0) << 48 | u64::from(work.start) << 24 | u64::from(work.len);
                self.trace = mix(self.trace ^ what);
            }
            for &(group, block) in &plan.blocks {
                self.trace = mix(self.trace ^ (u64::from(group.0) << 32 | u64::from(block.0)));
            }
            if self.options.trace {
                eprintln!("{now}: {plan:?}");
            }
        }
        Ok(())
    }

    fn check_books(&self, has_computed: bool) -> Result<(), String> {
        self.core.scheduler().audit()?;
        let tokens = self.core.plan().num_tokens();
        if has_computed && tokens > self.max_tokens {
            return Err(format!("{tokens} tokens exceed the budget of {}", self.max_tokens));
        }
        let open = self.clients.iter().filter(|(client, ..)| !client.has_ended()).count();
        if open > self.core.num_open() {
            return Err(format!("{open} clients wait for {} open requests", self.core.num_open()));
        }
        Ok(())
    }

    fn finish(self) -> Result<Report, String> {
        let stats = self.core.stats();
        let left = (self.core.num_open(), stats.running, stats.waiting, stats.kv_blocks_used, self.queue.len());
        if left != (0, 0, 0, 0, 0) {
            return Err(format!("(open, running, waiting, blocks, queued) are left: {left:?}"));
        }
        let journal = self.journal.lock().expect("nothing panics while it holds the journal");
        let mut trace_hash = self.trace;
        for (request, (client, ..)) in self.clients.iter().enumerate() {
            client.check(&journal).map_err(|error| format!("request {request}: {error}"))?;
            trace_hash = mix(trace_hash ^ client.trace);
        }
        let count = |is: fn(&Client) -> bool| self.clients.iter().filter(|(client, ..)| is(client)).count() as u64;
        Ok(Report {
            requests: self.clients.len() as u64,
            steps: stats.steps,
            generated_tokens: stats.generation_tokens,
            preemptions: stats.preemptions,
            prefix_hits: stats.prefix_cache_hits,
            losses: stats.executor_losses,
            failed_requests: count(Client::has_failed),
            aborted_requests: count(Client::was_aborted),
            trace_hash,
        })
    }
}

/// Each turn moves the best sequence on by a token at least, and every token may be computed again after each of a few
/// losses.
fn patience(requests: &[Planned]) -> u64 {
    let tokens = |planned: &Planned| {
        (planned.prompt.len() as u64 + u64::from(planned.max_tokens) + 4) * planned.sampling.len() as u64
    };
    let last = requests.iter().map(|planned| planned.arrival).max().unwrap_or(0);
    last + 100 + 10 * requests.iter().map(tokens).sum::<u64>()
}
