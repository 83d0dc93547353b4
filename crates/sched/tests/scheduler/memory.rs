//! Who holds which blocks: sharing, preemption, aborts and the executor's failures.

use contract::{Outcome, RowId};
use sched::{Policy, Progress, SequenceId, Why};

use crate::desk::{Ask, Desk, added, ask, capacity, work};

#[test]
fn a_known_prompt_is_not_computed_again_except_for_its_last_tokens() {
    for (len, computed) in [(3, 0), (4, 0), (5, 4), (8, 4), (9, 8)] {
        let mut desk = Desk::new(capacity());
        let first = desk.add(Ask { max_tokens: 1, ..ask(0..len) });
        desk.step(9);
        desk.add(ask(0..len));
        let plan = desk.plan();
        assert_eq!(added(&plan), [(0, computed)], "{len} tokens");
        assert_eq!(desk.progress, [Progress::Started { id: SequenceId { request: 2, ..first }, cached: computed }]);
    }
}

#[test]
fn nothing_is_known_of_a_prompt_before_its_logits_were_finite() {
    let mut desk = Desk::new(capacity());
    desk.budget.tokens = 8;
    desk.add(Ask { max_tokens: 1, ..ask(0..12) });
    desk.step(9);
    let last = desk.plan();
    desk.scheduler.update(&Desk::result(&last, 9, Outcome::NonFinite), &mut desk.progress);
    assert!(matches!(desk.progress[..], [.., Progress::Failed { why: Why::NonFinite, .. }]), "{:?}", desk.progress);
    desk.add(ask(0..12));
    assert_eq!(added(&desk.plan()), [(0, 0)]);
}

#[test]
fn choices_wait_for_the_first_and_share_its_full_blocks() {
    let mut desk = Desk::new(capacity());
    let leader = desk.add(Ask { n: 3, ..ask(0..10) });
    let first = desk.plan();
    let second = desk.plan();
    assert_eq!((added(&first), added(&second)), (vec![(0, 0)], vec![]), "the others wait");
    desk.done(&first, 5);
    let third = desk.plan();
    assert_eq!(added(&third), [(1, 8), (2, 8)]);
    assert_eq!(third.add[0].blocks.of(&third.blocks), third.add[1].blocks.of(&third.blocks));
    assert_eq!(desk.scheduler.kv_usage().1, 3 + 1 + 1, "two shared blocks and one of its own for each");
    desk.scheduler.abort(leader);
    desk.scheduler.audit().expect("the followers keep the blocks");
}

#[test]
fn choices_do_not_wait_for_a_first_one_that_is_gone() {
    let mut desk = Desk::new(capacity());
    let leader = desk.add(Ask { n: 2, ..ask(0..10) });
    desk.plan();
    desk.scheduler.abort(leader);
    assert_eq!(desk.plan().add.len(), 1);
    for id in [leader, SequenceId { index: 1, ..leader }, SequenceId { index: 9, ..leader }] {
        desk.scheduler.abort(id);
    }
    assert_eq!((desk.scheduler.num_running(), desk.scheduler.num_waiting()), (0, 0));
}

#[test]
fn the_worst_rank_is_preempted_and_computes_everything_again() {
    for (policy, priorities, victim) in [(Policy::Fcfs, [0, 5], 1), (Policy::Priority, [5, 0], 0)] {
        let mut capacity = capacity();
        capacity.pools[0].blocks = 1 + 4;
        let mut desk = Desk::with_policy(capacity, policy);
        let ids = priorities.map(|priority| desk.add(Ask { priority, max_tokens: 9, ..ask([priority as u32; 7]) }));
        desk.step(9);
        desk.step(9);
        let plan = desk.step(9);
        assert_eq!((plan.drop.len(), plan.work.len()), (1, 1), "{policy}: one makes room for the other");
        assert_eq!(desk.scheduler.counters().preemptions, 1);
        let mut finished = Vec::new();
        while desk.scheduler.has_work() {
            let plan = desk.plan();
            let ends = desk.done(&plan, 9);
            finished.extend(ends.iter().filter_map(|event| match event {
                Progress::Token { id, end: Some(_), .. } => Some(*id),
                _ => None,
            }));
        }
        assert_eq!(finished, [ids[1 - victim], ids[victim]], "{policy}");
    }
}

#[test]
fn nobody_starts_on_memory_that_is_promised() {
    let mut capacity = capacity();
    capacity.pools[0].blocks = 1 + 5;
    let mut desk = Desk::new(capacity);
    desk.budget.tokens = 4;
    desk.add(ask(0..16));
    desk.step(9);
    desk.budget.tokens = 64;
    desk.add(ask(100..108));
    assert_eq!(work(&desk.step(9)), [(0, 4, 12)], "two blocks are free now, and one when the first prompt is done");
}

#[test]
fn an_abort_in_flight_frees_everything_at_once() {
    let mut desk = Desk::new(capacity());
    let id = desk.add(ask(0..9));
    let (first, second) = (desk.plan(), desk.plan());
    desk.scheduler.abort(id);
    assert_eq!(desk.scheduler.kv_usage().1, 0);
    assert_eq!((desk.done(&first, 1), desk.done(&second, 1)), (vec![], vec![]));
    desk.add(ask(0..9));
    let plan = desk.plan();
    assert_eq!((plan.drop.clone(), added(&plan)), (vec![RowId(0)], vec![(0, 0)]));
}

#[test]
fn a_refused_step_fails_its_own_sequences_and_nobody_else() {
    let mut desk = Desk::new(capacity());
    let done = desk.add(Ask { max_tokens: 1, ..ask(0..4) });
    desk.step(9);
    desk.budget.tokens = 1;
    let (hit, spared) = (desk.add(ask(20..24)), desk.add(ask(40..44)));
    let plan = desk.plan();
    assert_eq!(plan.drop, [RowId(0)]);
    desk.progress.clear();
    desk.scheduler.refused(&plan, &mut desk.progress);
    assert_eq!(desk.progress, [Progress::Failed { id: hit, why: Why::Refused }]);
    assert!(done < hit && hit < spared);
    let next = desk.plan();
    assert_eq!((next.drop.clone(), added(&next)), (vec![RowId(0)], vec![(0, 0)]), "what was refused is said again");
}

#[test]
fn after_a_loss_everything_is_replayed_in_a_new_epoch() {
    let mut desk = Desk::new(capacity());
    desk.add(ask(0..9));
    desk.step(5);
    desk.plan();
    desk.scheduler.lost(&mut desk.progress);
    desk.scheduler.audit().expect("the books are right");
    let replay = desk.plan();
    assert_eq!((replay.epoch, added(&replay)), (1, vec![(0, 0)]), "no prefix outlives the device's memory");
    assert_eq!(replay.add[0].tokens.of(&replay.tokens), [0, 1, 2, 3, 4, 5, 6, 7, 8, 5], "output so far included");
    assert_eq!((replay.add[0].prompt_len, replay.drop.len()), (9, 0));
}

#[test]
fn a_sequence_that_kills_the_device_again_and_again_is_failed() {
    let mut desk = Desk::new(capacity());
    let id = desk.add(ask(0..9));
    for loss in 1..=3 {
        desk.plan();
        desk.plan();
        desk.progress.clear();
        desk.scheduler.lost(&mut desk.progress);
        assert_eq!(desk.progress.contains(&Progress::Failed { id, why: Why::Lost }), loss == 3, "loss {loss}");
    }
    assert!(!desk.scheduler.has_work());
}
