//! The API server's audit log: who asked for what, when, and what was answered.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

/// One answered request, or the start of a long-running one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// Joins the lines about one request.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// `ResponseComplete`, `ResponseStarted` (watches) or `Panic`.
    pub stage: String,
    /// The path with its query.
    #[serde(rename = "requestURI")]
    pub uri: String,
    /// get, list, watch, create, update, patch, delete, ...
    pub verb: String,
    /// Who.
    pub user: User,
    /// The client's own name for itself.
    #[serde(default)]
    pub user_agent: String,
    /// From where.
    #[serde(default, rename = "sourceIPs")]
    pub source_ips: Vec<String>,
    /// On which object; absent for paths that are no resource.
    #[serde(default)]
    pub object_ref: Option<ObjectRef>,
    /// The answer.
    #[serde(default)]
    pub response_status: Option<ResponseStatus>,
    /// The body of a write.
    #[serde(default)]
    pub request_object: Option<Value>,
    /// When the request came in, RFC 3339 in UTC with microseconds: comparable as text.
    pub request_received_timestamp: String,
    /// When this stage was reached, in the same form.
    pub stage_timestamp: String,
}

/// Who asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct User {
    /// The user's name, such as `system:serviceaccount:NAMESPACE:NAME`.
    #[serde(default)]
    pub username: String,
    /// The user's groups.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// Which object.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    /// Plural, such as `pods`.
    pub resource: String,
    /// Such as `status` or `eviction`.
    pub subresource: String,
    /// Empty for cluster-wide kinds.
    pub namespace: String,
    /// Empty for lists, and for creations under a generated name.
    pub name: String,
    /// Empty for the core group.
    pub api_group: String,
    /// Such as `v1`.
    pub api_version: String,
}

/// How it was answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ResponseStatus {
    /// The HTTP status.
    pub code: u16,
    /// The word for an error, such as `Conflict`.
    pub reason: String,
    /// The sentence for it.
    pub message: String,
}

/// Reads a log. A line that is still being written ends it.
pub fn read(log: &Path) -> Result<Vec<AuditEvent>> {
    read_from(log, 0)
}

/// Reads a log from the beginning of a line on, so that what came before need not be read again.
pub fn read_from(log: &Path, offset: u64) -> Result<Vec<AuditEvent>> {
    let mut text = String::new();
    let mut read = || {
        let mut file = fs::File::open(log)?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_to_string(&mut text)
    };
    read().map_err(Error::file("read", log))?;
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str(line).map_err(Error::malformed("a line of the audit log")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_keeps_its_body_and_an_unfinished_line_is_left_out() {
        let file = std::env::temp_dir().join(format!("testbed-audit-{}", std::process::id()));
        let line = r#"{"kind":"Event","auditID":"a","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/x/pods?force=true",
            "verb":"patch","user":{"username":"u","groups":["g"]},"sourceIPs":["10.241.0.2"],"userAgent":"test",
            "objectRef":{"resource":"pods","namespace":"x","name":"p","apiVersion":"v1"},"responseStatus":{"code":409,"reason":"Conflict"},
            "requestObject":{"spec":{}},"requestReceivedTimestamp":"2026-01-01T00:00:00.000001Z","stageTimestamp":"2026-01-01T00:00:00.000002Z"}"#
            .replace('\n', " ");
        fs::write(&file, format!("{line}\n{{\"kind\":\"Ev")).unwrap();
        let events = read(&file).unwrap();
        let later = read_from(&file, u64::try_from(line.len()).unwrap() + 1).unwrap();
        fs::remove_file(&file).unwrap();
        assert!(later.is_empty(), "{later:?}");
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].response_status.as_ref().unwrap().code, 409);
        assert!(events[0].request_object.is_some());
        assert_eq!(events[0].object_ref.as_ref().unwrap().resource, "pods");
    }
}
