//! The run: one fault after another, watched by the judges all the time.
//!
//! One thread does everything, a few looks a second; a fault is an entry in `open` from its beginning until everything serves again.

mod causes;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    thread,
    time::{Duration, Instant},
};

use e2e::{Error, Lab, Result, engines};
use oracle::log::Moment;

use crate::{
    act::{self, Start, Undo},
    archive::Archive,
    fleet::{self, Member, Nodes},
    kind::Kind,
    plan::{Begins, Plan, Planned},
    report::{Event, Held, round},
    storage::Storage,
};

/// Between two looks at files and processes.
const PAUSE: Duration = Duration::from_millis(300);
/// Between two questions to the API server.
const LOOK: Duration = Duration::from_millis(1500);
/// Between two looks at the longer logs.
const LOGS: Duration = Duration::from_secs(5);
/// From the end of the last cause until everything must serve.
const RECOVERY: Duration = Duration::from_secs(300);
/// The same with causes that have still to end: one that cannot be ended would be waited for in vain.
const WHOLE: Duration = Duration::from_secs(600);
/// Reasons for which only a human or the node itself can free a database.
const HOLDING: [&str; 6] = [
    "DriverClassUnknown",
    "TooManyNodesSilent",
    "FenceMissing",
    "DetachMayBeRefused",
    "NoFailoverPossible",
    "ReleaseNotProvable",
];

/// A fault that is not over.
struct Open {
    planned: Planned,
    event: Event,
    began: Instant,
    moment: Moment,
    hit: Vec<usize>,
    pods: BTreeMap<usize, String>,
    nodes: Vec<String>,
    undo: Undo,
    undone: bool,
    /// Since when each database has had a reason to hold.
    holding: BTreeMap<usize, Instant>,
}

/// All that a run knows.
pub struct Run<'a> {
    lab: &'a Lab,
    namespace: String,
    /// The databases.
    pub fleet: Vec<Member<'a>>,
    open: Vec<Open>,
    nodes: Nodes,
    looked: Option<Instant>,
    read: Option<Instant>,
    storage: Storage,
    archive: Archive,
    began: Instant,
    doubles: BTreeSet<String>,
    /// Faults and databases about which a human has done something.
    helped: BTreeSet<(usize, String)>,
    /// How many faults were done, each counted for every database it hit.
    pub done: usize,
    /// Faults that are over, or were not applicable.
    pub events: Vec<Event>,
    /// Databases that were held.
    pub holds: Vec<Held>,
    /// What should not have been.
    pub findings: Vec<String>,
}

/// Tells the reader.
pub fn say(text: &str) {
    // a reader who has seen enough is no failure
    let _ = writeln!(io::stdout(), "{text}");
}

impl<'a> Run<'a> {
    /// With databases that serve.
    pub fn of(lab: &'a Lab, namespace: &str, fleet: Vec<Member<'a>>) -> Result<Self> {
        let folder = lab.bed().state_dir().join("log/containers");
        Ok(Self {
            lab,
            namespace: namespace.to_owned(),
            fleet,
            open: Vec::new(),
            nodes: Nodes::new(),
            looked: None,
            read: None,
            storage: Storage::of(lab.bed().storage_log()),
            archive: Archive::into(folder, &[namespace, e2e::operator::NAMESPACE])?,
            began: Instant::now(),
            doubles: BTreeSet::new(),
            helped: BTreeSet::new(),
            done: 0,
            events: Vec::new(),
            holds: Vec::new(),
            findings: Vec::new(),
        })
    }

    fn seconds(&self) -> f64 {
        round(self.began.elapsed().as_secs_f64())
    }

    fn find(&mut self, what: &str) {
        let mut open: Vec<String> = self
            .open
            .iter()
            .map(|it| format!("#{} {}", it.planned.number, it.planned.kind))
            .collect();
        if open.is_empty() {
            open.extend(
                self.events
                    .last()
                    .map(|last| format!("after #{} {}", last.number, last.kind)),
            );
        }
        let text = format!("{:.0} s, {}: {what}", self.seconds(), open.join(" + "));
        say(&format!("  !!!! {text}"));
        self.findings.push(text);
    }

    /// Does faults until so many were done, or the time is over.
    pub fn faults(&mut self, plan: Plan, wanted: usize, limit: Duration) -> Result<()> {
        for planned in plan {
            match planned.begins {
                Begins::Whole => self.settle()?,
                Begins::After(seconds) => self.pass(Duration::from_secs(seconds))?,
            }
            if self.done >= wanted || self.began.elapsed() >= limit {
                break;
            }
            self.done += self.begin(planned)?;
        }
        self.settle()
    }

    /// Yields for how many faults it counts.
    fn begin(&mut self, planned: Planned) -> Result<usize> {
        let busy: BTreeSet<String> = self
            .open
            .iter()
            .filter(|it| !it.undone)
            .flat_map(|it| it.nodes.clone())
            .collect();
        if !self.api_is_away() {
            self.look();
        }
        let (instant, moment, at_seconds) = (Instant::now(), Moment::now(), self.seconds());
        let started = act::begin(self.lab, planned, &self.fleet, &busy)?;
        let (done, what) = match &started {
            Start::Begun(begun) => (true, begun.what.clone()),
            Start::NotApplicable(why) => (false, why.clone()),
        };
        let Planned { number, kind, .. } = planned;
        let mut event = Event {
            number,
            kind,
            what,
            at_seconds,
            settled_at_seconds: None,
            done,
            overlapped: !self.open.is_empty(),
            outages_seconds: BTreeMap::new(),
            moved: Vec::new(),
        };
        let Start::Begun(begun) = started else {
            say(&format!(
                "{at_seconds:7.1} s  #{number} {kind}: not applicable: {}",
                event.what
            ));
            self.events.push(event);
            return Ok(0);
        };
        let names: Vec<&str> = begun.hit.iter().map(|at| self.fleet[*at].name()).collect();
        say(&format!(
            "{at_seconds:7.1} s  #{number} {kind}: {} [{}]",
            event.what,
            names.join(" ")
        ));
        for open in &mut self.open {
            open.event.overlapped = true;
        }
        event.overlapped = !self.open.is_empty();
        let pods = begun
            .hit
            .iter()
            .map(|at| (*at, self.fleet[*at].state.pod.clone()))
            .collect();
        let counts = begun.hit.len().max(1);
        self.open.push(Open {
            planned,
            event,
            began: instant,
            moment,
            hit: begun.hit,
            pods,
            nodes: begun.nodes,
            undo: begun.undo,
            undone: false,
            holding: BTreeMap::new(),
        });
        // a status from before the fault says nothing about after it
        self.looked = None;
        Ok(counts)
    }

    fn api_is_away(&self) -> bool {
        self.open
            .iter()
            .any(|it| it.planned.kind == Kind::ApiDown && !it.undone)
    }

    fn pass(&mut self, time: Duration) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < time {
            self.tick()?;
        }
        Ok(())
    }

    /// One look at everything that is due, and the end of causes that have lasted long enough.
    fn tick(&mut self) -> Result<()> {
        thread::sleep(PAUSE);
        for member in &mut self.fleet {
            member.rows.read()?;
        }
        for double in engines::doubles(&engines::running(self.lab.bed().layout().name())) {
            if self.doubles.insert(double.clone()) {
                self.find(&format!("two engines: {double}"));
            }
        }
        let due = |last: Option<Instant>, every| last.is_none_or(|last: Instant| last.elapsed() >= every);
        if due(self.looked, LOOK) && !self.api_is_away() {
            self.look();
        }
        if due(self.read, LOGS) {
            self.read_logs()?;
        }
        self.end_causes()
    }

    fn look(&mut self) {
        // a cluster that is being hurt may not answer; then what it said last stands, and it is asked again
        if let Ok(nodes) = fleet::look(self.lab, &self.namespace, &mut self.fleet) {
            self.nodes = nodes;
        }
        self.looked = Some(Instant::now());
        let fleet = &self.fleet;
        for open in &mut self.open {
            for at in open.hit.clone() {
                if HOLDING.contains(&fleet[at].state.reason.as_str()) {
                    open.holding.entry(at).or_insert_with(Instant::now);
                } else {
                    open.holding.remove(&at);
                }
            }
        }
    }

    fn read_logs(&mut self) -> Result<()> {
        for wrong in self.storage.read()?.into_iter().take(5) {
            self.find(&wrong);
        }
        self.archive.copy(self.lab)?;
        for panic in self.archive.panics() {
            self.find(&panic);
        }
        self.read = Some(Instant::now());
        Ok(())
    }

    /// Waits until everything serves, and closes all faults.
    pub fn settle(&mut self) -> Result<()> {
        let settled = self.await_whole();
        if settled.is_err() {
            // what did not come to its end stands in the result as such
            let open = std::mem::take(&mut self.open);
            self.events.extend(open.into_iter().map(|open| open.event));
            return settled;
        }
        self.read_logs()?;
        self.close();
        Ok(())
    }

    fn await_whole(&mut self) -> Result<()> {
        let asked = Instant::now();
        let mut since = asked;
        loop {
            self.tick()?;
            let stays = self.open.iter().find(|it| !it.undone).map(|it| it.planned.kind);
            if stays.is_some() && asked.elapsed() < WHOLE {
                since = Instant::now();
                continue;
            }
            let trouble = stays
                .map(|kind| format!("{kind} cannot be ended"))
                .or_else(|| self.trouble());
            let Some(trouble) = trouble else { return Ok(()) };
            if since.elapsed() >= causes::HELP {
                self.help()?;
            }
            if since.elapsed() >= RECOVERY || asked.elapsed() >= WHOLE {
                self.find(&format!("not everything serves again: {trouble}"));
                return Err(Error::Timeout {
                    what: "everything serves again".to_owned(),
                    limit: RECOVERY,
                    last: Some(trouble),
                });
            }
        }
    }

    /// Why not everything is whole; `None` if it is.
    pub fn trouble(&self) -> Option<String> {
        let fresh = self.looked.is_some_and(|looked| looked.elapsed() < LOOK * 2);
        if !fresh {
            return Some("the cluster was not asked yet".to_owned());
        }
        let nodes = self
            .nodes
            .iter()
            .filter(|(_, open)| !**open)
            .map(|(name, _)| format!("node {name} is not ready"));
        let members = self
            .fleet
            .iter()
            .filter_map(|it| it.trouble().map(|trouble| format!("{}: {trouble}", it.name())));
        let all: Vec<String> = nodes.chain(members).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    fn close(&mut self) {
        let now = Moment::now();
        let (mut hit, mut needless) = (BTreeSet::new(), Vec::new());
        for mut open in std::mem::take(&mut self.open) {
            open.event.settled_at_seconds = Some(self.seconds());
            for at in &open.hit {
                let member = &self.fleet[*at];
                let gap = round(member.rows.longest_gap(&open.moment, &now));
                open.event.outages_seconds.insert(member.name().to_owned(), gap);
                if open.pods.get(at).is_some_and(|before| *before != member.state.pod) {
                    open.event.moved.push(member.name().to_owned());
                }
                hit.insert(*at);
            }
            let Event {
                outages_seconds,
                moved,
                number,
                kind,
                ..
            } = &open.event;
            say(&format!(
                "{:7.1} s  #{number} over: {outages_seconds:?} moved {moved:?}",
                self.seconds()
            ));
            if kind.moves_nothing() && !moved.is_empty() && !open.event.overlapped {
                needless.push(format!(
                    "#{number} {kind}: {moved:?} got another pod, although nothing had to move"
                ));
            }
            self.events.push(open.event);
        }
        for sentence in needless {
            self.find(&sentence);
        }
        for at in hit {
            let name = self.fleet[at].name().to_owned();
            let verdict = match self.fleet[at].clients.judge() {
                Ok(verdict) => verdict,
                Err(error) => {
                    self.find(&format!("the rows of {name} cannot be read back now: {error}"));
                    continue;
                }
            };
            // rows that came after the log was read are no surprise, so `unexpected` is left to the end
            let wrong = [
                ("lost", verdict.lost.len()),
                ("stored twice", verdict.duplicates.len()),
                ("out of order", verdict.out_of_order.len()),
                ("acknowledged by an old engine", verdict.by_old_engine.len()),
            ];
            for (what, count) in wrong.into_iter().filter(|(_, count)| *count > 0) {
                self.find(&format!("{count} rows of {name} are {what}"));
            }
        }
    }

    /// The storage host's log to its end.
    pub fn storage(&mut self) -> Result<&Storage> {
        self.read_logs()?;
        Ok(&self.storage)
    }

    /// How many pairs of engines ran at the same time on one node.
    pub fn doubles(&self) -> usize {
        self.doubles.len()
    }
}
