//! Waiting for a condition with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::error::{Error, Result};

/// How often is looked. A look is a run of kubectl, which on two cores is dear enough not to do it more often.
const PAUSE: Duration = Duration::from_millis(200);

/// What a look at the world found.
pub enum Seen<T> {
    /// What was waited for.
    There(T),
    /// Not yet, and what is there instead.
    NotYet(String),
}

impl<T> From<Option<T>> for Seen<T> {
    fn from(found: Option<T>) -> Self {
        found.map_or_else(|| Self::NotYet(String::new()), Self::There)
    }
}

impl From<bool> for Seen<()> {
    fn from(holds: bool) -> Self {
        holds.then_some(()).into()
    }
}

/// Looks until something is there. A look that fails counts as "not yet": the API server may be busy with the same fault.
pub fn until<T, S: Into<Seen<T>>>(seconds: u64, what: &str, mut look: impl FnMut() -> Result<S>) -> Result<T> {
    let (limit, began) = (Duration::from_secs(seconds), Instant::now());
    let mut last = None;
    loop {
        match look().map(Into::into) {
            Ok(Seen::There(found)) => return Ok(found),
            Ok(Seen::NotYet(instead)) => last = Some(instead).filter(|words| !words.is_empty()).or(last),
            Err(error) => last = Some(error.to_string()),
        }
        if began.elapsed() >= limit {
            return Err(Error::Timeout {
                what: what.to_owned(),
                limit,
                last,
            });
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_stays_false_is_an_error_that_says_what_was_seen_instead() {
        let error = until::<(), _>(0, "rain", || Ok(Seen::NotYet("sunshine".to_owned())))
            .unwrap_err()
            .to_string();
        assert_eq!(error, "not within 0 s: rain (last seen: sunshine)");
    }

    #[test]
    fn a_look_that_fails_is_repeated() {
        let mut looks = 0;
        let found = until(5, "the third look", || {
            looks += 1;
            if looks < 3 {
                Err(Error::Broken("no answer".to_owned()))
            } else {
                Ok(Some(looks))
            }
        });
        assert_eq!(found.unwrap(), 3);
    }
}
