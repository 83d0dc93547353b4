//! What goes into a step, and how sequences end.

use contract::{Outcome, RowId, SamplingParams, SchedulerOutput};
use sched::{End, Policy, Prices, Progress, StepBudget};

use crate::desk::{Ask, Desk, added, ask, capacity, work};

#[test]
fn a_prompt_is_prefilled_beside_a_decode_in_chunks_of_what_is_left() {
    let mut desk = Desk::new(capacity());
    desk.add(ask(0..5));
    desk.step(9);
    desk.budget.tokens = 4;
    desk.add(ask(100..107));
    assert_eq!(work(&desk.step(9)), [(0, 5, 1), (1, 0, 3)]);
    assert_eq!(work(&desk.step(9)), [(0, 6, 1), (1, 3, 3)]);
    assert_eq!(work(&desk.step(9)), [(0, 7, 1), (1, 6, 1)]);
    assert_eq!(work(&desk.step(9)), [(0, 8, 1), (1, 7, 1)]);
}

#[test]
fn a_late_prompt_is_cut_by_cost_and_an_early_one_leaves_tokens_to_decodes() {
    let prices = Prices { per_step: 10, per_token: 10, per_attended: 0 };
    for (what, cost, min_chunk, chunk) in [
        ("room for five tokens beside the decode", 70, 1, 5),
        ("no room", 0, 1, 1),
        ("no room, but a minimum", 0, 3, 3),
    ] {
        let mut desk = Desk::new(capacity());
        desk.add(ask(0..5));
        desk.step(9);
        desk.budget = StepBudget { tokens: 64, cost, prices, min_chunk };
        desk.add(ask(100..140));
        assert_eq!(work(&desk.step(9)), [(0, 5, 1), (1, 0, chunk)], "{what}");
    }
}

#[test]
fn the_next_token_is_scheduled_before_the_last_one_is_known() {
    let mut desk = Desk::new(capacity());
    desk.add(Ask { max_tokens: 3, ..ask(0..4) });
    let (first, second, third) = (desk.plan(), desk.plan(), desk.plan());
    assert_eq!((work(&first), work(&second), work(&third)), (vec![(0, 0, 4)], vec![(0, 4, 1)], vec![(0, 5, 1)]));
    assert!(desk.plan().work.is_empty(), "the token in flight is the last one");
    desk.done(&first, 1);
    desk.done(&second, 2);
    let ended = desk.done(&third, 3);
    assert!(matches!(ended[..], [Progress::Token { token: 3, end: Some(End::Length), .. }]), "{ended:?}");
    assert!(!desk.scheduler.has_work());
}

#[test]
fn the_overshoot_after_a_stop_is_ignored_and_the_row_dropped() {
    let mut desk = Desk::new(capacity());
    let sampling = SamplingParams { stop_token_ids: vec![7], ..Default::default() };
    let id = desk.add(Ask { sampling, ..ask(0..4) });
    let (first, overshoot) = (desk.plan(), desk.plan());
    let ended = desk.done(&first, 7);
    assert!(matches!(ended[..], [Progress::Token { id: of, end: Some(End::Stop), .. }] if of == id), "{ended:?}");
    desk.add(ask(50..53));
    let next = desk.plan();
    assert_eq!((next.drop.clone(), added(&next)), (vec![RowId(0)], vec![(0, 0)]), "the row has a new tenant");
    assert_eq!(desk.done(&overshoot, 8), [], "which gets nothing of what the old one sampled");
    assert_eq!(desk.done(&next, 8).len(), 1);
}

#[test]
fn ends_come_in_time() {
    let stops = |min_tokens| SamplingParams { stop_token_ids: vec![7], min_tokens, ..Default::default() };
    for (what, prompt_len, max_tokens, sampling, tokens, last) in [
        ("one token", 4, 1, SamplingParams::default(), 1, End::Length),
        ("the model's length", 62, 8, SamplingParams::default(), 2, End::Length),
        ("a stop", 4, 5, stops(0), 1, End::Stop),
        ("a stop that is too early twice", 4, 5, stops(2), 3, End::Stop),
        ("stop and length at once", 4, 1, stops(0), 1, End::Stop),
    ] {
        let mut desk = Desk::new(capacity());
        desk.add(Ask { max_tokens, sampling, ..ask(0..prompt_len) });
        let mut came = Vec::new();
        while desk.scheduler.has_work() {
            let plan = desk.plan();
            came.extend(desk.done(&plan, 7));
        }
        let ends: Vec<_> =
            came.iter().map(|event| matches!(event, Progress::Token { end: Some(end), .. } if *end == last)).collect();
        let expected: Vec<_> = (1..=tokens).map(|token| token == tokens).collect();
        assert_eq!(ends, expected, "{what}: {came:?}");
    }
}

#[test]
fn no_output_is_an_answer_too() {
    let mut desk = Desk::new(capacity());
    let id = desk.add(Ask { max_tokens: 0, ..ask(0..64) });
    let plan = desk.plan();
    assert!(desk.plan().work.is_empty(), "nothing follows");
    assert_eq!(desk.done(&plan, 1), [Progress::Ended { id, end: End::Length }]);
}

#[test]
fn prompt_logprobs_are_computed_for_every_position_once_and_within_the_logit_rows() {
    let mut capacity = capacity();
    capacity.max_logit_rows = 3;
    let sampling = SamplingParams { prompt_logprobs: Some(0), ..Default::default() };
    let mut desk = Desk::new(capacity);
    desk.add(Ask { max_tokens: 1, ..ask(0..8) });
    desk.step(9);
    desk.add(Ask { sampling, ..ask(0..8) });
    let mut chunks = Vec::new();
    for _ in 0..3 {
        let plan = desk.plan();
        chunks.extend(work(&plan).into_iter().map(|(_, start, len)| (start, len)));
        assert!(plan.work[0].want.prompt_logprobs);
        desk.done(&plan, 9);
    }
    assert_eq!(chunks, [(0, 3), (3, 3), (6, 2)], "the cached prefix is not read");
    assert!(!desk.plan().work[0].want.prompt_logprobs);
}

#[test]
fn ranks_decide_who_starts() {
    let mut capacity = capacity();
    capacity.max_rows = 1;
    for (policy, first) in [(Policy::Fcfs, 1), (Policy::Priority, 3)] {
        let mut desk = Desk::with_policy(capacity.clone(), policy);
        for priority in [1, 1, -1] {
            desk.add(Ask { priority, ..ask([3; 3]) });
        }
        desk.plan();
        assert!(matches!(desk.progress[..], [Progress::Started { id, .. }] if id.request == first), "{policy}");
    }
}

#[test]
fn many_rows_are_cheap() {
    let mut capacity = capacity();
    (capacity.max_rows, capacity.max_tokens, capacity.max_logit_rows) = (256, 4096, 256);
    (capacity.pools[0].blocks, capacity.max_model_len) = (40_000, 1024);
    let mut desk = Desk::new(capacity);
    for request in 0..256 {
        desk.add(Ask { max_tokens: 500, ..ask([request; 16]) });
    }
    desk.step(9);
    let mut plan = SchedulerOutput::default();
    let (began, steps) = (std::time::Instant::now(), 100);
    for _ in 0..steps {
        desk.scheduler.schedule(&desk.budget, &mut plan, &mut desk.progress);
        assert_eq!(plan.work.len(), 256);
        let out = Desk::result(&plan, 9, Outcome::Ok);
        desk.progress.clear();
        desk.scheduler.update(&out, &mut desk.progress);
    }
    println!("{} us a step of 256 rows", began.elapsed().as_micros() / steps);
}
