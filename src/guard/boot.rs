//! Time since the machine was started.
//!
//! The clock goes on while the machine is suspended: a guard that slept through its deadline must find it passed when it
//! wakes. Clocks of two machines are never compared, so the guard reads no other clock.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time since boot.
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).expect("time since boot is not negative");
    let nanoseconds = u32::try_from(time.tv_nsec).expect("a second has less than 2^32 nanoseconds");
    Duration::new(seconds, nanoseconds)
}
