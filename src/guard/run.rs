//! Process 1 of the engine's container: carries out what [`rules`] decide.
//!
//! The main thread waits for signals, for its deadline and for what its two helpers bring: the courier, who speaks with the
//! API server, and the prober, who speaks with the engine. It never waits for the network, a disk or the log while an engine
//! may run, so nothing keeps it from killing in time.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::alarm::{Alarm, Signals};
use super::api::{Answer, Api};
use super::arguments::Options;
use super::courier::Courier;
use super::engine::{self, End, Engine};
use super::heartbeat::Heart;
use super::journal::{Journal, last_words};
use super::lease_object::LeaseObject;
use super::prober::Prober;
use super::rules::{ACKNOWLEDGE, Action, Change, Guard, Input, Tenure};
use super::{boot, rules};
use crate::lease::Hold;
use crate::rules::Rules;

/// The longest wait, which is also how fresh the heartbeat is.
const NAP: Duration = Duration::from_secs(1);
/// Time limit of a request where nobody waits for its renewal.
const REQUEST: Duration = Duration::from_secs(3);
/// How long what is left of a stopped engine may take to end after its first process has.
const STRAGGLERS: Duration = Duration::from_secs(10);
/// How long killed processes are waited for; one that hangs in the kernel ends when the kernel lets it.
const KILLED: Duration = Duration::from_secs(10);
/// How often it is looked whether they have.
const CHECK: Duration = Duration::from_millis(10);
/// How long the volume may take to be written out after an orderly stop.
const SYNC: Duration = Duration::from_secs(15);
/// The same after a kill.
const SYNC_KILLED: Duration = Duration::from_secs(5);
/// How long the guard of an engine that has stopped waits for what the operator does about it.
const LINGER: Duration = Duration::from_secs(3);
/// How often it looks meanwhile.
const LINGER_LOOK: Duration = Duration::from_millis(200);
/// How long a successor takes from being named to reaching the kubelet of this node.
const ARRIVAL: Duration = Duration::from_secs(1);
/// How long the last sentences may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// An engine that ends so often before it has ever answered has something to say: its container ends with it, and the
/// instance's status repeats its last lines.
const FIRST_STARTS: u8 = 3;

/// Why the guard does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not end the engine by ending itself.
    #[error(
        "the guard must be process 1 of the engine's container and is process {0}: remove shareProcessNamespace from the pod, or set \
         spec.failover.guard to Disabled"
    )]
    NotProcess1(u32),
    /// Nothing to guard.
    #[error("the engine's command is missing: name it after --")]
    NoCommand,
    /// The kernel refused something.
    #[error("the guard cannot {what}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Guards until the end, and yields the container's exit code.
pub fn run(options: Options) -> Result<u8, Error> {
    if !engine::is_process_1() {
        return Err(Error::NotProcess1(std::process::id()));
    }
    let io = |what| move |source| Error::Io { what, source };
    let alarm = Alarm::new().map_err(io("make a timer"))?;
    // before anything is started: until then the kernel drops every signal to a process 1
    let signals = Signals::listen(&alarm.bell()).map_err(io("listen to signals"))?;
    let heart = Heart::start(&options.heartbeat).map_err(io("write its heartbeat (is the volume for it mounted?)"))?;
    let engine = Engine::new(&options.command, options.hidden).ok_or(Error::NoCommand)?;
    let object = LeaseObject::new(options.pod).map_err(io("draw a random number"))?;
    let journal = Journal::open();
    let api = Api::new(
        &options.server,
        &options.credentials,
        &options.namespace,
        &options.lease,
    );
    let place = Place {
        courier: Courier::start(api, alarm.bell()),
        prober: Prober::start(options.port, options.volume.clone(), journal.clone(), alarm.bell()),
        name: format!("{}/{}", options.namespace, options.lease),
        guard: Guard::new(boot::now()),
        main: None,
        remains: None,
        started: Duration::MAX,
        has_answered: false,
        last_end: None,
        code: 0,
        complaint: None,
        volume: options.volume,
        alarm,
        signals,
        heart,
        engine,
        object,
        journal,
    };
    Ok(place.stand())
}

/// Everything the guard has its hands on.
struct Place {
    guard: Guard,
    object: LeaseObject,
    alarm: Alarm,
    signals: Signals,
    heart: Heart,
    courier: Courier,
    prober: Prober,
    journal: Journal,
    engine: Engine,
    volume: PathBuf,
    /// The Lease, for people.
    name: String,
    /// The first process of the engine.
    main: Option<Pid>,
    /// It has ended, then; others may be left.
    remains: Option<Duration>,
    /// When the engine was started last.
    started: Duration,
    has_answered: bool,
    last_end: Option<End>,
    /// What the container ends with after an orderly stop.
    code: u8,
    /// What was last said of the Lease, so that it is not said again.
    complaint: Option<String>,
}

/// The container is to end with this code.
struct Over(u8);

impl Place {
    fn stand(mut self) -> u8 {
        loop {
            self.heart.beat();
            if let Err(Over(code)) = self.look_around() {
                self.journal.finish(LAST_WORDS);
                return code;
            }
            let latest = boot::now() + NAP;
            let wake = self.guard.wake_at(Rules::all()).map_or(latest, |due| due.min(latest));
            if let Err(error) = self.alarm.wait_until(wake) {
                self.journal.say(&format!("cannot wait: {error}"));
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn look_around(&mut self) -> Result<(), Over> {
        // first of all whether it is too late for everything else
        self.tell(Input::Tick)?;
        if self.signals.stop() && matches!(self.guard.tenure, Tenure::Waiting | Tenure::Holding) {
            self.journal.say("asked to stop");
            self.tell(Input::Terminate)?;
        }
        self.collect()?;
        if let Some(answer) = self.courier.answer() {
            let input = self.read(answer);
            self.tell(input)?;
        }
        let started = self.started;
        let findings: Vec<_> = self
            .prober
            .findings()
            .filter(|finding| finding.asked >= started)
            .collect();
        for finding in findings {
            if finding.answered && !self.has_answered {
                self.journal.say("the engine answers");
                self.has_answered = true;
            }
            self.tell(if finding.answered {
                Input::Answered
            } else {
                Input::Silent
            })?;
        }
        self.tell(Input::Tick)
    }

    /// Looks who has ended.
    fn collect(&mut self) -> Result<(), Over> {
        let main = self.main;
        let mut ended = None;
        let anybody = engine::reap(|pid, end| {
            if Some(pid) == main {
                ended = Some(end);
            }
        });
        if let Some(end) = ended {
            self.journal.say(&format!("the engine {end}"));
            self.main = None;
            self.last_end = Some(end);
            self.remains = Some(boot::now());
        }
        let Some(since) = self.remains else { return Ok(()) };
        if anybody {
            // what is left of a crash holds the volume's files open; what is left of an orderly stop may still write to them
            let patience = if self.guard.tenure == Tenure::Stopping {
                STRAGGLERS
            } else {
                Duration::ZERO
            };
            if boot::now() >= since + patience {
                engine::signal_all(Signal::KILL);
            }
            return Ok(());
        }
        self.remains = None;
        self.tell(Input::Exited)?;
        let gives_up = !self.has_answered && self.guard.ends >= FIRST_STARTS && self.guard.tenure == Tenure::Holding;
        if gives_up {
            self.journal.say(&format!(
                "the engine has ended {FIRST_STARTS} times and never answered: so does its container"
            ));
            self.code = self.last_end.map_or(1, End::exit_code).max(1);
            self.tell(Input::Terminate)?;
        }
        Ok(())
    }

    /// What an answer means.
    fn read(&mut self, answer: Answer) -> Input {
        let (input, complaint) = match answer {
            Answer::Lease(lease) => match self.object.receive(lease) {
                Ok(seen) => {
                    let complaint = (self.guard.tenure == Tenure::Waiting && seen.whose == crate::lease::Whose::Others)
                        .then(|| {
                            format!(
                                "waits for Lease {} to name this pod; it says {}",
                                self.name,
                                self.object.holder()
                            )
                        });
                    let wrote = self.guard.request.is_some_and(|request| request.change.is_some());
                    (if wrote { Input::Written } else { Input::Read(seen) }, complaint)
                }
                Err(error) => (
                    Input::Away,
                    Some(format!("what was read as Lease {} is none: {error}", self.name)),
                ),
            },
            Answer::Conflict => (Input::Conflict, None),
            Answer::Missing => (
                Input::Away,
                Some(format!(
                    "there is no Lease {}; the operator makes it anew: if it stays away, see whether the operator runs",
                    self.name
                )),
            ),
            Answer::Away(reason) => (
                Input::Away,
                Some(format!("no word about Lease {}: {reason}", self.name)),
            ),
        };
        if self.complaint != complaint {
            let line = complaint
                .clone()
                .unwrap_or_else(|| format!("Lease {} is in order", self.name));
            self.journal.say(&line);
            self.complaint = complaint;
        }
        input
    }

    fn tell(&mut self, input: Input) -> Result<(), Over> {
        let before = self.guard;
        let actions = self.guard.step(boot::now(), input, Rules::all());
        for action in actions {
            self.act(action, &before)?;
        }
        Ok(())
    }

    fn act(&mut self, action: Action, before: &Guard) -> Result<(), Over> {
        match action {
            Action::Read => self.courier.send(None, self.limit()),
            Action::Write(change) => match self.object.write(change) {
                Ok(lease) => {
                    let limit = if change == Change::Stopped {
                        ACKNOWLEDGE
                    } else {
                        self.limit()
                    };
                    self.courier.send(Some(lease), limit);
                }
                Err(error) => {
                    self.journal.say(&format!("cannot write Lease {}: {error}", self.name));
                    return self.tell(Input::Away);
                }
            },
            Action::Start => self.start(),
            Action::KillEngine => {
                engine::signal_all(Signal::KILL);
                self.journal.say(&format!(
                    "the engine did not answer {} times in a row: killed, to be started again",
                    rules::PROBES
                ));
            }
            Action::Forward => engine::signal_all(Signal::TERM),
            Action::Sync => {
                let heart = self.heart.clone();
                let synced = self
                    .end_all()
                    .and_then(|()| engine::sync(&self.volume, SYNC, || heart.beat()));
                if let Err(error) = synced {
                    self.journal.say(&format!("{error}: the stop is not acknowledged"));
                    return Err(Over(self.code.max(1)));
                }
            }
            Action::KillAll => return Err(self.kill_all(before)),
            Action::Exit => {
                self.journal.say("stopped");
                self.finish_write();
                return Err(Over(self.code));
            }
        }
        Ok(())
    }

    fn start(&mut self) {
        match self.engine.start() {
            Ok(pid) => {
                self.started = boot::now();
                self.main = Some(pid);
                self.prober.engine_started();
                self.journal
                    .say(&format!("holds Lease {}; the engine is started", self.name));
            }
            Err(error) => {
                self.journal.say(&format!("cannot start the engine: {error}"));
                self.last_end = Some(End::Code(127));
                // as if it had ended at once
                self.remains = Some(boot::now());
            }
        }
    }

    /// Nothing stands before the first line that could wait for anything.
    fn kill_all(&mut self, before: &Guard) -> Over {
        engine::signal_all(Signal::KILL);
        let sentence = self.why_killed(before);
        self.journal.say(&sentence);
        let deadline = boot::now() + KILLED;
        while engine::reap(|_, _| {}) && boot::now() < deadline {
            // a child that ends rings
            let _ = self.alarm.wait_until(deadline);
        }
        self.journal.say("everything has ended");
        if let Err(error) = engine::sync(&self.volume, SYNC_KILLED, || {}) {
            self.journal.say(&error);
        }
        last_words(&sentence, LAST_WORDS);
        Over(1)
    }

    /// The engine has ended in order. What somebody started beside it (`kubectl exec`) may write to the volume as well, and must not outlive the
    /// word that nothing does.
    fn end_all(&self) -> Result<(), String> {
        let deadline = boot::now() + KILLED;
        while !engine::is_alone() {
            if boot::now() >= deadline {
                return Err("a process that was started beside the engine cannot be ended".to_owned());
            }
            self.heart.beat();
            engine::signal_all(Signal::KILL);
            engine::reap(|_, _| {});
            // the end of what is no child rings no bell
            let _ = self.alarm.wait_until(boot::now() + CHECK);
        }
        Ok(())
    }

    fn why_killed(&self, before: &Guard) -> String {
        let now = boot::now();
        match before.deadline(Rules::all()) {
            Some(deadline) if now >= deadline => format!(
                "killed the engine: Lease {} could not be renewed for {:.1} s, and another pod may take the volume soon",
                self.name,
                (now.saturating_sub(before.last_ok)).as_secs_f64()
            ),
            _ => format!(
                "killed the engine: Lease {} is another's now ({})",
                self.name,
                self.object.holder()
            ),
        }
    }

    /// A write that is on its way when the guard ends is most of all the acknowledgement.
    fn finish_write(&mut self) {
        if self.guard.request.is_none() {
            return self.linger();
        }
        if let Some(Answer::Lease(lease)) = self.courier.wait(ACKNOWLEDGE)
            && self.object.receive(lease).is_ok()
        {
            self.linger();
        }
    }

    /// The engine has ended and that is acknowledged; with this process the kubelet would unmount the device. A successor on this node that comes
    /// after that waits up to 10 s until the kubelet has reported the volume in use again. One that goes elsewhere is not kept waiting: the
    /// operator seals the Lease at once.
    fn linger(&mut self) {
        if !self.object.is_stopped() {
            return;
        }
        let mut until = boot::now() + LINGER;
        let mut looks = true;
        while boot::now() < until {
            if looks {
                self.courier.send(None, LINGER_LOOK * 2);
                let answer = self.courier.wait(LINGER_LOOK * 4);
                looks = matches!(answer, Some(Answer::Lease(_)));
                if let Some(Answer::Lease(lease)) = answer {
                    // what cannot be read changes nothing here
                    let _ = self.object.receive(lease);
                }
                match self.object.hold() {
                    Some(Hold::Sealed(_)) => return,
                    Some(Hold::Stopped(_)) if looks => {}
                    // its successor is named, or with the object of this pod its token has gone
                    _ => (looks, until) = (false, until.min(boot::now() + ARRIVAL)),
                }
            }
            self.rest(if looks {
                until.min(boot::now() + LINGER_LOOK)
            } else {
                until
            });
        }
    }

    /// Rings that come meanwhile mean nothing any more.
    fn rest(&mut self, until: Duration) {
        while boot::now() < until {
            if self.alarm.wait_until(until).is_err() {
                return;
            }
        }
    }

    /// How long a request may take: no longer than until the next one is due.
    fn limit(&self) -> Duration {
        self.guard.orders.renewal.map_or(REQUEST, |renewal| renewal.every)
    }
}
