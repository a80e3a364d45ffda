//! Breadth-first search over all states of a model, with the shortest way to what must never be, and the question whether something good can
//! always still happen.
//!
//! Not stateright: its `eventually` is judged on paths that end and says of itself that it misses cycles, which is what a livelock is. Here
//! "something always happens next" means that from every reachable state, without any further fault, a good state is within reach; that
//! needs the edges backwards.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A system that can be explored.
pub trait System {
    /// Its states.
    type State: Copy + Eq + Hash;
    /// What leads from one to the next.
    type Step: Copy;

    /// Where it begins.
    fn start(&self) -> Vec<Self::State>;
    /// Every next state. The flag says whether it is a fault (or a human's act), which nobody may rely on.
    fn next(&self, state: &Self::State, out: &mut Vec<(Self::Step, bool, Self::State)>);
    /// What must never be.
    fn is_broken(&self, state: &Self::State) -> Option<&'static str>;
    /// What must always be within reach.
    fn is_good(&self, state: &Self::State) -> bool;
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome<S, T> {
    /// States seen.
    pub states: usize,
    /// The bound ended the search before its end.
    pub cut: bool,
    /// What was violated and the shortest way there.
    pub violation: Option<Violation<S, T>>,
}

/// A counterexample.
#[derive(Debug)]
pub struct Violation<S, T> {
    /// Which property.
    pub property: &'static str,
    /// The way.
    pub steps: Vec<T>,
    /// Where it ends.
    pub state: S,
}

/// A state that has no way to anything good violates this.
pub const PROGRESS: &str = "something always happens next";

/// Explores all states, or the first `bound` of them.
pub fn explore<M: System>(model: &M, bound: usize) -> Outcome<M::State, M::Step> {
    let mut graph = Graph::<M> {
        numbers: HashMap::default(),
        states: Vec::new(),
        origins: Vec::new(),
    };
    let mut edges: Vec<(u32, u32)> = Vec::new();
    for state in model.start() {
        graph.number(state, None);
    }
    let mut next = Vec::new();
    let mut current = 0;
    while current < graph.states.len() {
        if graph.states.len() > bound {
            return graph.outcome(true, None);
        }
        let state = graph.states[current];
        if let Some(property) = model.is_broken(&state) {
            return graph.outcome(false, Some((property, current)));
        }
        let from = u32::try_from(current).expect("the bound is below");
        next.clear();
        model.next(&state, &mut next);
        for (step, fault, state) in next.drain(..) {
            let to = graph.number(state, Some((from, step)));
            if !fault {
                edges.push((to, from));
            }
        }
        current += 1;
    }
    let stuck = first_without_hope(model, &graph.states, &edges);
    graph.outcome(false, stuck.map(|stuck| (PROGRESS, stuck)))
}

/// The first state from which no good one can be reached; `edges` lead backwards.
fn first_without_hope<M: System>(model: &M, states: &[M::State], edges: &[(u32, u32)]) -> Option<usize> {
    let mut offsets = vec![0_u32; states.len() + 1];
    for (to, _) in edges {
        offsets[*to as usize + 1] += 1;
    }
    for i in 1..offsets.len() {
        offsets[i] += offsets[i - 1];
    }
    let mut sources = vec![0_u32; edges.len()];
    let mut filled = offsets.clone();
    for (to, from) in edges {
        let slot = &mut filled[*to as usize];
        sources[*slot as usize] = *from;
        *slot += 1;
    }
    let mut hope: Vec<bool> = states.iter().map(|state| model.is_good(state)).collect();
    let mut queue: Vec<usize> = (0..states.len()).filter(|i| hope[*i]).collect();
    while let Some(to) = queue.pop() {
        for from in &sources[offsets[to] as usize..offsets[to + 1] as usize] {
            let from = *from as usize;
            if !hope[from] {
                hope[from] = true;
                queue.push(from);
            }
        }
    }
    hope.iter().position(|hope| !hope)
}

struct Graph<M: System> {
    numbers: Table<M::State, u32>,
    states: Vec<M::State>,
    origins: Vec<Option<(u32, M::Step)>>,
}

impl<M: System> Graph<M> {
    fn number(&mut self, state: M::State, origin: Option<(u32, M::Step)>) -> u32 {
        let new = u32::try_from(self.states.len()).expect("the bound is below");
        let number = *self.numbers.entry(state).or_insert(new);
        if number == new {
            self.states.push(state);
            self.origins.push(origin);
        }
        number
    }

    fn outcome(self, cut: bool, found: Option<(&'static str, usize)>) -> Outcome<M::State, M::Step> {
        let violation = found.map(|(property, end)| {
            let mut steps = Vec::new();
            let mut at = end;
            while let Some((before, step)) = self.origins[at] {
                steps.push(step);
                at = before as usize;
            }
            steps.reverse();
            Violation {
                property,
                steps,
                state: self.states[end],
            }
        });
        Outcome {
            states: self.states.len(),
            cut,
            violation,
        }
    }
}

/// A map whose keys are ours.
pub type Table<K, V> = HashMap<K, V, BuildHasherDefault<Mixer>>;

/// Multiply and rotate: the keys are ours, and the standard hasher takes most of the time.
#[derive(Default)]
pub struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.mix(u64::from(*byte));
        }
    }
    fn write_u8(&mut self, word: u8) {
        self.mix(word.into());
    }
    fn write_u32(&mut self, word: u32) {
        self.mix(word.into());
    }
    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }
    fn write_usize(&mut self, word: usize) {
        self.mix(word as u64);
    }
    fn write_isize(&mut self, word: isize) {
        self.mix(word.cast_unsigned() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts up to 4 and back to 0 from 3; 9 is a dead end that only a fault leads to.
    struct Ring;

    impl System for Ring {
        type State = u8;
        type Step = char;
        fn start(&self) -> Vec<u8> {
            vec![0]
        }
        fn next(&self, state: &u8, out: &mut Vec<(char, bool, u8)>) {
            match state {
                0..=2 => out.push(('+', false, state + 1)),
                3 => out.extend([('0', false, 0), ('!', true, 9)]),
                _ => {}
            }
        }
        fn is_broken(&self, state: &u8) -> Option<&'static str> {
            (*state == 7).then_some("seven")
        }
        fn is_good(&self, state: &u8) -> bool {
            *state == 2
        }
    }

    #[test]
    fn a_dead_end_is_found_with_the_shortest_way_there() {
        let outcome = explore(&Ring, 100);
        let violation = outcome.violation.expect("one");
        assert_eq!((violation.property, violation.state), (PROGRESS, 9));
        assert_eq!(violation.steps, ['+', '+', '+', '!']);
        assert_eq!(outcome.states, 5);
    }

    #[test]
    fn a_bound_is_said_to_have_cut_the_search() {
        assert!(explore(&Ring, 3).cut);
    }
}
