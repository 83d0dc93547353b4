//! What a seed means: a device, a configuration, and requests with their clients' whims.

use std::sync::Arc;

use contract::{Group, Kind, KvCapacity, Pool, PoolId, SamplingParams, TokenId};
use engine::{EngineConfig, Policy};
use sched::{Layout, Prices};

use crate::chaos::Chaos;
use crate::executor::SimConfig;
use crate::model::Tag;
use crate::rng::Rng;

pub(crate) struct Scenario {
    pub sim: SimConfig,
    pub engine: EngineConfig,
    pub requests: Vec<Planned>,
}

/// One request, and when what happens to it.
pub(crate) struct Planned {
    pub arrival: u64,
    pub priority: i32,
    pub prompt: Vec<TokenId>,
    pub max_tokens: u32,
    pub salt: Vec<u8>,
    pub sampling: Vec<Arc<SamplingParams>>,
    pub whim: Whim,
}

/// What a client does before its answer is complete; `after` counts steps since its arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whim {
    None,
    Abort {
        after: u64,
    },
    /// Stops listening, and says nothing.
    Vanish {
        after: u64,
    },
    AbortChoice {
        after: u64,
        index: u32,
    },
}

impl Scenario {
    pub fn draw(seed: u64, depth: u32) -> Self {
        let mut rng = Rng::new(seed);
        let max_model_len = rng.range(2, 96);
        let capacity = draw_capacity(&mut rng, max_model_len, depth);
        let layout = Layout::new(&capacity).expect("drawn capacities are valid");
        let vocab_size = rng.pick(&[3, 20, 1000]);
        let sim = SimConfig {
            capacity,
            vocab_size,
            prices: draw_prices(&mut rng),
            delay: std::time::Duration::ZERO,
            chaos: draw_chaos(&mut rng),
            tagged: true,
        };
        let engine = EngineConfig {
            max_num_seqs: rng.range(1, 8),
            max_num_batched_tokens: rng.pick(&[1, 2, 5, 16, 64, 512]),
            policy: rng.pick(&[Policy::Fcfs, Policy::Priority]),
            target_step: std::time::Duration::from_micros(rng.pick(&[1, 100, 1000, 100_000])),
            ..EngineConfig::default()
        };
        let requests = Drawer::new(&mut rng, &layout, max_model_len, vocab_size).requests();
        Self { sim, engine, requests }
    }
}

/// Pools are often absurdly small: just large enough for something to run.
fn draw_capacity(rng: &mut Rng, max_model_len: u32, depth: u32) -> KvCapacity {
    let num_groups = rng.pick(&[1, 1, 1, 2]);
    let num_pools = rng.range(1, num_groups);
    let groups: Vec<Group> = (0..num_groups)
        .map(|group| Group {
            pool: PoolId(group % num_pools),
            block_size: rng.pick(&[1, 2, 3, 4, 8, 16]),
            kind: Kind::Full,
        })
        .collect();
    let longest: u32 = groups.iter().map(|group| max_model_len.div_ceil(group.block_size)).sum();
    let blocks = match rng.range(0, 4) {
        0 => num_groups + rng.range(0, longest),
        1 => longest + rng.range(0, 3),
        2 => longest + rng.range(0, longest),
        _ => longest * rng.range(1, 5),
    };
    KvCapacity {
        pools: vec![Pool { blocks: blocks + 1, host_blocks: 0, block_bytes: 1 }; num_pools as usize],
        groups,
        max_rows: rng.range(1, 8),
        max_tokens: rng.range(1, 128),
        max_logit_rows: rng.range(1, 16),
        max_drafts: 0,
        max_model_len,
        depth,
    }
}

fn draw_prices(rng: &mut Rng) -> Prices {
    Prices { per_step: rng.pick(&[0, 10, 1000]), per_token: rng.pick(&[0, 1, 50]), per_attended: rng.pick(&[0, 0, 1]) }
}

fn draw_chaos(rng: &mut Rng) -> Chaos {
    let seed = rng.next();
    match rng.range(0, 3) {
        0 => Chaos { seed, refused: rng.range(0, 50), lost: rng.range(0, 30), at_most: 6 },
        _ => Chaos::default(),
    }
}

/// Draws requests that share prefixes.
struct Drawer<'a> {
    rng: &'a mut Rng,
    max_kv_tokens: u32,
    max_model_len: u32,
    vocab_size: u32,
    prefixes: Vec<Vec<TokenId>>,
    has_poison: bool,
}

impl<'a> Drawer<'a> {
    fn new(rng: &'a mut Rng, layout: &Layout, max_model_len: u32, vocab_size: u32) -> Self {
        let tokens = |rng: &mut Rng| (0..64).map(|_| rng.range(0, vocab_size - 1)).collect();
        let prefixes = (0..3).map(|_| tokens(rng)).collect();
        let has_poison = rng.chance(300);
        Self { rng, max_kv_tokens: layout.max_kv_tokens(), max_model_len, vocab_size, prefixes, has_poison }
    }

    fn requests(mut self) -> Vec<Planned> {
        let count = self.rng.range(1, 24);
        let pace = self.rng.pick(&[0, 2, 20]);
        let mut arrival = 0;
        let mut requests = Vec::new();
        for serial in 0..count {
            arrival += u64::from(self.rng.range(0, pace));
            requests.push(self.request(serial as u8, arrival));
        }
        requests
    }

    fn request(&mut self, serial: u8, arrival: u64) -> Planned {
        let prompt = self.prompt();
        let prompt_len = prompt.len() as u32;
        // The token sampled last needs no KV.
        let room = (self.max_model_len - prompt_len).min(self.max_kv_tokens + 1 - prompt_len);
        let max_tokens = self.rng.pick(&[4, 24, 60]);
        let max_tokens = self.rng.range(0, max_tokens).min(room);
        let tenant = self.rng.range(0, 2);
        let poison_at = (self.has_poison && self.rng.chance(200)).then(|| self.rng.range(0, 40) as u8);
        let n = if self.rng.chance(200) { self.rng.range(2, 4) } else { 1 };
        let sampling = self.sampling(Tag { tenant, poison_at }.seed(serial), max_tokens);
        let choice = |index: u32| {
            let prompt_logprobs = sampling.prompt_logprobs.filter(|_| index == 0);
            Arc::new(SamplingParams { seed: sampling.seed + u64::from(index), prompt_logprobs, ..sampling.clone() })
        };
        Planned {
            arrival,
            priority: self.rng.range(0, 2) as i32 - 1,
            prompt,
            max_tokens,
            salt: tenant.to_le_bytes().to_vec(),
            sampling: (0..n).map(choice).collect(),
            whim: self.whim(n),
        }
    }

    fn prompt(&mut self) -> Vec<TokenId> {
        let longest = self.max_kv_tokens.min(self.max_model_len);
        let shared = self.rng.range(0, 48).min(longest) as usize;
        let prefix = self.rng.range(0, 2) as usize;
        let mut prompt = self.prefixes[prefix][..shared].to_vec();
        let own = self.rng.range(0, 12).min(longest - shared as u32).max(u32::from(shared == 0));
        prompt.extend((0..own).map(|_| self.rng.range(0, self.vocab_size - 1)));
        prompt
    }

    fn sampling(&mut self, seed: u64, max_tokens: u32) -> SamplingParams {
        let num_stops = if self.rng.chance(400) { self.rng.range(1, 3) } else { 0 };
        SamplingParams {
            temperature: self.rng.pick(&[0.0, 1.0]),
            seed,
            stop_token_ids: (0..num_stops).map(|_| self.rng.range(0, self.vocab_size - 1)).collect(),
            min_tokens: self.rng.pick(&[0, 0, 0, 5]).min(max_tokens),
            logprobs: self.rng.chance(200).then_some(2),
            prompt_logprobs: self.rng.chance(150).then_some(1),
            ..SamplingParams::default()
        }
    }

    fn whim(&mut self, n: u32) -> Whim {
        let after = u64::from(self.rng.range(0, 30));
        match self.rng.range(0, 19) {
            0 | 1 => Whim::Abort { after },
            2 => Whim::Vanish { after },
            3 | 4 => Whim::AbortChoice { after, index: self.rng.range(0, n - 1) },
            _ => Whim::None,
        }
    }
}
