//! The errors of everything that talks to the outside. Pure modules have none: "not yet" and "not allowed" are values there.
//! Display is one sentence without generated names or timestamps, because it may end up in a condition.

/// What a call to the API server can end in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or the connection broke.
    #[error("failed to {verb} {kind}: {}", chain(.source))]
    Api {
        /// What was attempted: `get`, `apply`, `delete`, ...
        verb: &'static str,
        /// The kind it was attempted on.
        kind: String,
        /// What the client library says.
        source: Box<kube::Error>,
    },
    /// No answer within the time that one place grants every call.
    #[error("failed to {verb} {kind}: no answer from the API server within {seconds} s")]
    Timeout {
        /// What was attempted.
        verb: &'static str,
        /// The kind it was attempted on.
        kind: String,
        /// The time granted.
        seconds: u64,
    },
    /// A stored object does not fit the type that it is read as.
    #[error("failed to {verb} {kind} {name}, which cannot be read ({error}); correct or delete it")]
    Unreadable {
        /// What was attempted.
        verb: &'static str,
        /// The kind.
        kind: String,
        /// Its name.
        name: String,
        /// The path of the field, and what is wrong with it.
        error: String,
    },
    /// The configuration of the process is unusable.
    #[error("{0}")]
    Settings(String),
    /// The kernel gave no random bytes for a password or an identity.
    #[error(transparent)]
    Random(#[from] crate::password::NoRandomness),
    /// A patch could not be built; a programming error that must not take the process down.
    #[error("failed to build a patch for {kind}: {source}")]
    Patch {
        /// The kind it was meant for.
        kind: String,
        /// What serde says.
        source: serde_json::Error,
    },
    /// The health and metrics endpoint could not be opened or died.
    #[error("failed to serve {address}: {source}")]
    Serve {
        /// The address of the listener.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Shorthand for results of this crate's I/O modules.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The reason used as condition reason, event reason and metric label: a closed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(s) if s.is_conflict() => "Conflict",
                kube::Error::Api(s) if s.is_forbidden() => "Forbidden",
                kube::Error::Api(s) if s.is_invalid() => "Invalid",
                kube::Error::Api(s) if s.is_not_found() => "NotFound",
                kube::Error::Api(_) => "ApiRefused",
                _ => "ApiUnreachable",
            },
            Self::Timeout { .. } => "ApiTimeout",
            Self::Unreadable { .. } => "Unreadable",
            Self::Settings(_) => "Settings",
            Self::Random(_) => "NoRandomness",
            Self::Patch { .. } => "Patch",
            Self::Serve { .. } => "Serve",
        }
    }

    /// True where the object was not what the caller had judged: look again, nothing is wrong.
    ///
    /// A JSON patch whose `test` fails is answered 422, a stale resourceVersion or UID 409 (measured on 1.34.4). A 422 to anything but a
    /// patch means that the object itself is refused, and it would be refused again.
    pub fn is_moved(&self) -> bool {
        let patched = matches!(
            self,
            Self::Api {
                verb: "patch" | "patch the status of",
                ..
            }
        );
        self.api_status()
            .is_some_and(|s| s.is_conflict() || s.is_not_found() || (patched && s.is_invalid()))
    }

    /// The API server's words (or those of a webhook), where the request was understood and refused for what it asks: it would be refused again.
    ///
    /// A 422 without a cause is a JSON patch whose `test` failed, see [`Error::is_moved`].
    pub fn refusal(&self) -> Option<&str> {
        let status = self.api_status()?;
        let has_cause = status
            .details
            .as_ref()
            .is_some_and(|details| !details.causes.is_empty());
        let is_final = match status.code {
            // not logged in, gone, too slow, changed meanwhile, too many
            401 | 404 | 408 | 409 | 410 | 429 => false,
            422 => has_cause,
            code => (400..500).contains(&code),
        };
        is_final.then_some(status.message.as_str())
    }

    /// The API server's own words, where it answered at all.
    pub fn api_status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api { source, .. } => match &**source {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }
}

/// "timed out" and "connection refused" stand only in the sources of a transport error.
fn chain(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return status.message.clone();
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn answered(status: Value) -> Error {
        let status: kube::core::Status = serde_json::from_value(status).expect("a status");
        Error::Api {
            verb: "patch",
            kind: "PersistentVolumeClaim".into(),
            source: Box::new(kube::Error::Api(status.boxed())),
        }
    }

    #[test]
    fn what_is_refused_for_what_it_asks_is_told_from_what_has_moved() {
        let cause = json!({"causes": [{"message": "is immutable", "field": "spec"}]});
        let table = [
            (
                json!({"reason": "Forbidden", "code": 403, "message": "quota"}),
                Some("quota"),
            ),
            (
                json!({"reason": "Invalid", "code": 422, "message": "immutable", "details": cause}),
                Some("immutable"),
            ),
            (
                json!({"reason": "Invalid", "code": 422, "message": "test failed"}),
                None,
            ),
            (
                json!({"reason": "Invalid", "code": 422, "details": {"kind": "x"}}),
                None,
            ),
            (
                json!({"reason": "BadRequest", "code": 400, "message": "a webhook's"}),
                Some("a webhook's"),
            ),
            (
                json!({"reason": "TooManyRequests", "code": 429, "message": "later"}),
                None,
            ),
            (json!({"reason": "Conflict", "code": 409, "message": "moved"}), None),
            (json!({"reason": "NotFound", "code": 404, "message": "gone"}), None),
            (
                json!({"reason": "InternalError", "code": 500, "message": "broken"}),
                None,
            ),
        ];
        for (status, words) in table {
            assert_eq!(answered(status.clone()).refusal(), words, "{status}");
        }
        let silent = Error::Timeout {
            verb: "patch",
            kind: "PersistentVolumeClaim".into(),
            seconds: 5,
        };
        assert_eq!(silent.refusal(), None);
    }
}
