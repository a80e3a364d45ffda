//! The real guard inside the model. Its states are numbered, so that a world stays small, and each of its steps is taken only once.
//!
//! Time is relative: the present is always the same moment, and a tick moves everything the guard remembers into the past.

use std::cell::RefCell;
use std::time::Duration;

use sqledge_operator::guard::rules::{Action, Engine, Guard, Input, Tenure};
use sqledge_operator::rules::Rules;

use crate::checker::Table;

/// The present.
const NOW: Duration = Duration::from_secs(1_000_000);

/// The numbered guards.
pub struct Guards {
    rules: Rules,
    tick: Duration,
    horizon: Duration,
    book: RefCell<Book>,
}

#[derive(Default)]
struct Book {
    guards: Vec<Guard>,
    numbers: Table<Guard, u32>,
    steps: Table<(u32, Input), (u32, Vec<Action>)>,
    ticks: Table<u32, u32>,
}

impl Guards {
    /// None yet.
    pub fn new(rules: Rules, tick: Duration, horizon: u8) -> Self {
        let mut book = Book::default();
        // number 0 is no guard
        book.guards.push(Guard::new(NOW));
        Self {
            rules,
            tick,
            horizon: tick * u32::from(horizon),
            book: RefCell::new(book),
        }
    }

    /// One whose container has just started.
    pub fn fresh(&self) -> u32 {
        self.number(Guard::new(NOW))
    }

    /// The guard of that number.
    pub fn get(&self, number: u32) -> Guard {
        self.book.borrow().guards[number as usize]
    }

    /// Whether it has something to do now.
    pub fn is_due(&self, number: u32) -> bool {
        self.get(number).wake_at(self.rules).is_some_and(|at| at <= NOW)
    }

    /// Whether its request was sent a tick ago or earlier.
    pub fn waits_long(&self, number: u32) -> bool {
        self.get(number)
            .request
            .is_some_and(|request| request.sent + self.tick <= NOW)
    }

    /// One step of it.
    pub fn step(&self, number: u32, input: Input) -> (u32, Vec<Action>) {
        if let Some(known) = self.book.borrow().steps.get(&(number, input)) {
            return known.clone();
        }
        let mut guard = self.get(number);
        let actions = guard.step(NOW, input, self.rules);
        let result = (self.number(guard), actions);
        self.book.borrow_mut().steps.insert((number, input), result.clone());
        result
    }

    /// A tick has passed.
    pub fn tick(&self, number: u32) -> u32 {
        if number == 0 {
            return 0;
        }
        if let Some(known) = self.book.borrow().ticks.get(&number) {
            return *known;
        }
        let mut guard = self.get(number);
        let earlier = |at: Duration| at.saturating_sub(self.tick);
        guard.next_request = earlier(guard.next_request);
        guard.last_ok = earlier(guard.last_ok);
        if let Some(request) = &mut guard.request {
            request.sent = earlier(request.sent);
        }
        match &mut guard.engine {
            Engine::Pausing { until } => *until = earlier(*until),
            Engine::Dying { since } => *since = earlier(*since),
            Engine::None | Engine::Starting | Engine::Answering { .. } => {}
        }
        if let Tenure::Acknowledging { until } = &mut guard.tenure {
            *until = earlier(*until);
        }
        let after = self.number(guard);
        self.book.borrow_mut().ticks.insert(number, after);
        after
    }

    fn number(&self, guard: Guard) -> u32 {
        let guard = self.simplified(guard);
        let mut book = self.book.borrow_mut();
        if let Some(known) = book.numbers.get(&guard) {
            return *known;
        }
        let number = u32::try_from(book.guards.len()).expect("few guards");
        book.guards.push(guard);
        book.numbers.insert(guard, number);
        number
    }

    /// Forgets what makes no difference within the bounds of a model: how many epochs there were, whole hours, parts of a tick.
    fn simplified(&self, mut guard: Guard) -> Guard {
        if guard.tenure == Tenure::Ended {
            return Guard {
                tenure: Tenure::Ended,
                ..Guard::new(NOW)
            };
        }
        let floor = NOW.saturating_sub(self.horizon);
        let whole = |at: Duration| {
            let ahead = at.saturating_sub(NOW).as_nanos().div_ceil(self.tick.as_nanos());
            NOW + self.tick * u32::try_from(ahead).expect("near")
        };
        guard.epoch = 0;
        guard.ends = 0;
        guard.last_sign = NOW;
        guard.next_request = whole(guard.next_request);
        guard.last_ok = guard.last_ok.max(floor);
        if guard.stops_after.is_none() {
            guard.last_ok = NOW;
        }
        if let Some(request) = &mut guard.request {
            request.sent = request.sent.max(floor);
        }
        match &mut guard.engine {
            Engine::Pausing { until } => *until = whole(*until),
            Engine::Dying { since } => *since = (*since).max(floor),
            Engine::Answering { since, .. } => *since = NOW,
            Engine::None | Engine::Starting => {}
        }
        if let Tenure::Acknowledging { until } = &mut guard.tenure {
            *until = whole(*until);
        }
        guard
    }
}
