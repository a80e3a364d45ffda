//! What wakes the guard's main thread: a moment of the boot clock, a signal, or another thread of ours.

use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGQUIT, SIGTERM};

/// Wakes the one thread that waits, for a moment in time or because somebody rang.
#[derive(Debug)]
pub struct Alarm {
    timer: OwnedFd,
    ear: UnixStream,
    bell: Bell,
}

/// Wakes the thread that waits at the [`Alarm`].
#[derive(Clone, Debug)]
pub struct Bell(Arc<UnixStream>);

impl Bell {
    /// Never blocks: a bell that still rings needs no second stroke.
    pub fn ring(&self) {
        let _ = (&*self.0).write(&[1]);
    }
}

impl Alarm {
    /// Takes a timer and a pair of sockets from the kernel.
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let (ear, bell) = UnixStream::pair()?;
        ear.set_nonblocking(true)?;
        bell.set_nonblocking(true)?;
        Ok(Self {
            timer,
            ear,
            bell: Bell(Arc::new(bell)),
        })
    }

    /// What other threads ring.
    pub fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// Waits until that moment, a ring or a signal, whatever is first.
    pub fn wait_until(&self, moment: Duration) -> io::Result<()> {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        // a zero would switch the timer off
        let moment = moment.max(Duration::from_nanos(1));
        let value = Timespec {
            tv_sec: i64::try_from(moment.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: moment.subsec_nanos().into(),
        };
        let setting = Itimerspec {
            it_interval: zero,
            it_value: value,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting)?;
        let mut sources = [
            PollFd::new(&self.timer, PollFlags::IN),
            PollFd::new(&self.ear, PollFlags::IN),
        ];
        match poll(&mut sources, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut strokes = [0; 64];
        while (&self.ear).read(&mut strokes).is_ok_and(|count| count > 0) {}
        Ok(())
    }
}

/// What the kernel tells process 1 of a container.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    stop: Arc<AtomicBool>,
}

impl Signals {
    /// From now on each signal that matters rings the bell.
    ///
    /// Only SIGTERM is passed on, whichever of the three arrived: container engines stop with the signal that an image
    /// names, and the engine writes a core dump on SIGQUIT. Signals that are not listed here do nothing to a process 1.
    pub fn listen(bell: &Bell) -> io::Result<Self> {
        let signals = Self::default();
        for signal in [SIGTERM, SIGINT, SIGQUIT] {
            // the flag first: whoever is woken looks at it
            signal_hook::flag::register(signal, Arc::clone(&signals.stop))?;
            signal_hook::low_level::pipe::register(signal, bell.0.try_clone()?)?;
        }
        signal_hook::low_level::pipe::register(SIGCHLD, bell.0.try_clone()?)?;
        Ok(signals)
    }

    /// Whether somebody asked for an end.
    pub fn stop(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::boot::now;
    use super::Alarm;

    #[test]
    fn a_wait_ends_at_its_moment_and_not_before() {
        let alarm = Alarm::new().expect("an alarm");
        let moment = now() + Duration::from_millis(30);
        alarm.wait_until(moment).expect("waited");
        assert!(now() >= moment);
        // a moment that has passed is not waited for, and neither is the moment of boot itself
        alarm.wait_until(moment).expect("waited");
        alarm.wait_until(Duration::ZERO).expect("waited");
    }

    #[test]
    fn a_ring_ends_a_wait_and_is_heard_once() {
        let alarm = Alarm::new().expect("an alarm");
        let bell = alarm.bell();
        // more often than the socket holds: a bell never blocks
        std::thread::spawn(move || (0..100_000).for_each(|_| bell.ring()))
            .join()
            .expect("rung");
        alarm.wait_until(now() + Duration::from_secs(600)).expect("waited");
        let moment = now() + Duration::from_millis(10);
        alarm.wait_until(moment).expect("waited");
        assert!(now() >= moment, "an old ring was heard again");
    }
}
