//! The ledger: an account per open request. Every request ends exactly once, because an account is consumed by the way
//! it ends: [`Account::fail`] takes it by value, the last [`Ledger::end_choice`] removes it. Knows no scheduler.

use std::collections::BTreeMap;

use sched::SequenceId;
use tokio::sync::mpsc::UnboundedSender;

use crate::RequestError;
use crate::inbox::{Ticket, Update};

/// All requests that have not ended.
#[derive(Default)]
pub(crate) struct Ledger {
    accounts: BTreeMap<u64, Account>,
}

/// One request that has not ended.
pub(crate) struct Account {
    pub leader: SequenceId,
    pub prompt_tokens: u32,
    /// Bit `i`: choice `i` has not ended.
    open: u64,
    updates: UnboundedSender<Update>,
    /// Held until the request starts.
    ticket: Option<Ticket>,
}

impl Account {
    pub fn new(
        leader: SequenceId,
        prompt_tokens: u32,
        choices: usize,
        updates: UnboundedSender<Update>,
        ticket: Ticket,
    ) -> Self {
        assert!((1..=64).contains(&choices), "a request has 1 to 64 choices");
        let open = u64::MAX >> (64 - choices);
        Self { leader, prompt_tokens, open, updates, ticket: Some(ticket) }
    }

    /// Leaves the queue.
    pub fn start(&mut self) {
        self.ticket = None;
    }

    /// Tells the client. One that is gone has said so in the inbox, which is where its request ends: whether it left or had all
    /// it wanted is not for the engine to guess.
    pub fn tell(&self, update: Update) {
        self.updates.send(update).ok();
    }

    /// The choices that have not ended.
    pub fn open_choices(&self) -> impl Iterator<Item = SequenceId> + use<> {
        let (leader, open) = (self.leader, self.open);
        (0..64).filter(move |index| open >> index & 1 == 1).map(move |index| SequenceId { index, ..leader })
    }

    /// The request ends here.
    pub fn fail(self, error: RequestError) {
        self.tell(Update::Failed(error));
    }
}

impl Ledger {
    pub fn open(&mut self, account: Account) {
        let known = self.accounts.insert(account.leader.request, account);
        assert!(known.is_none(), "request numbers are unique");
    }

    pub fn account(&mut self, request: u64) -> Option<&mut Account> {
        self.accounts.get_mut(&request)
    }

    /// Takes a request out to end it.
    pub fn take(&mut self, request: u64) -> Option<Account> {
        self.accounts.remove(&request)
    }

    pub fn take_first(&mut self) -> Option<Account> {
        self.accounts.pop_first().map(|(_, account)| account)
    }

    /// One choice has ended; `true` if it was open and the last, and the request with it.
    pub fn end_choice(&mut self, request: u64, index: u32) -> bool {
        let Some(account) = self.accounts.get_mut(&request) else { return false };
        account.open &= !(1 << index);
        let ended = account.open == 0;
        if ended {
            self.accounts.remove(&request);
        }
        ended
    }

    pub fn len(&self) -> usize {
        self.accounts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::Queue;
    use tokio::sync::mpsc::unbounded_channel;

    #[test]
    fn a_request_ends_with_its_last_choice_and_only_once() {
        for choices in [1, 2, 64] {
            let (updates, _client) = unbounded_channel();
            let ticket = Queue::new(1).enter().expect("the queue is empty");
            let leader = SequenceId { rank: 0, request: 7, index: 0 };
            let mut ledger = Ledger::default();
            ledger.open(Account::new(leader, 1, choices, updates, ticket));
            for index in 0..choices as u32 {
                let last = index + 1 == choices as u32;
                assert_eq!(ledger.end_choice(7, index), last, "choice {index} of {choices}");
                assert!(!ledger.end_choice(7, index) || !last);
            }
            assert_eq!(ledger.len(), 0);
            assert!(ledger.take(7).is_none());
        }
    }
}
