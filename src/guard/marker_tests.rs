//! The rules of the marker file, on real folders.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Error, Expected, FILE, check, record};

const ID: &str = "0123456789abcdef0123456789abcdef";

/// A folder that stands for a volume and goes with the test.
struct Volume(PathBuf);

impl Volume {
    fn new(marker: Option<&str>, data: bool) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("sqledge-marker-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("data")).expect("a folder");
        let volume = Self(path);
        if let Some(text) = marker {
            fs::write(volume.0.join(FILE), text).expect("a marker");
        }
        if data {
            fs::write(volume.0.join("data/master.mdf"), "pages").expect("a database");
        }
        volume
    }

    fn marker(&self) -> Option<String> {
        fs::read_to_string(self.0.join(FILE)).ok()
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn expected(adopt: bool) -> Expected<'static> {
    Expected {
        id: ID,
        claim: "orders-data",
        adopt,
    }
}

fn kind(error: &Error) -> &'static str {
    match error {
        Error::Foreign { .. } => "foreign",
        Error::Unmarked { .. } => "unmarked",
        Error::Emptied { .. } => "emptied",
        Error::Damaged { .. } => "damaged",
        Error::Io { .. } => "io",
    }
}

#[test]
fn every_row_of_the_table_holds() {
    let (empty, data) = (format!("{ID}\nempty\n"), format!("{ID}\ndata\n"));
    let (empty, data) = (empty.as_str(), data.as_str());
    let other = "ffff\ndata\n";
    // (file, master.mdf, adopt) -> file afterwards, or kind of refusal
    for (marker, has_data, adopt, outcome) in [
        (None, false, false, Ok(empty)),
        (None, false, true, Ok(empty)),
        (None, true, false, Err("unmarked")),
        (None, true, true, Ok(data)),
        (Some(other), true, false, Err("foreign")),
        (Some(other), true, true, Err("foreign")),
        (Some(other), false, false, Err("foreign")),
        (Some("ffff\nempty\n"), false, true, Err("foreign")),
        (Some(""), false, false, Err("damaged")),
        (Some("\ndata\n"), true, true, Err("damaged")),
        (Some(ID), true, false, Err("damaged")),
        (
            Some("0123456789abcdef0123456789abcdef\nfull\n"),
            true,
            false,
            Err("damaged"),
        ),
        (Some(empty), false, false, Ok(empty)),
        (Some(empty), true, false, Ok(data)),
        (Some(data), true, false, Ok(data)),
        (Some(data), true, true, Ok(data)),
        (Some(data), false, false, Err("emptied")),
        (Some(data), false, true, Err("emptied")),
        (
            Some("0123456789abcdef0123456789abcdef\ndata\nlater versions\n"),
            false,
            false,
            Err("emptied"),
        ),
    ] {
        let volume = Volume::new(marker, has_data);
        let row = format!("file {marker:?}, data {has_data}, adopt {adopt}");
        match (check(volume.path(), &expected(adopt)), outcome) {
            (Ok(()), Ok(after)) => assert_eq!(volume.marker().as_deref(), Some(after), "{row}"),
            (Err(error), Err(refusal)) => {
                assert_eq!(kind(&error), refusal, "{row}");
                assert!(error.to_string().contains("orders-data"), "{row}: {error}");
                assert_eq!(
                    volume.marker().as_deref(),
                    marker,
                    "{row}: a refused volume is left alone"
                );
            }
            (got, _) => panic!("{row}: {got:?}, not {outcome:?}"),
        }
    }
}

#[test]
fn a_marker_that_says_more_than_we_know_is_kept() {
    let text = format!("{ID}\ndata\nlater versions\n");
    let volume = Volume::new(Some(&text), true);
    check(volume.path(), &expected(false)).expect("ours");
    assert_eq!(volume.marker(), Some(text));
}

#[test]
fn a_volume_emptied_after_the_engine_first_answered_is_refused_at_the_next_start() {
    let volume = Volume::new(None, false);
    check(volume.path(), &expected(false)).expect("a new volume");
    fs::write(volume.path().join("data/master.mdf"), "pages").expect("the engine's first start");
    record(volume.path()).expect("a note");
    fs::remove_file(volume.path().join("data/master.mdf")).expect("the accident");
    let error = check(volume.path(), &expected(false)).expect_err("emptied");
    assert_eq!(kind(&error), "emptied");
}

#[test]
fn nothing_is_recorded_without_databases_or_on_a_volume_that_is_not_ours_to_mark() {
    for (marker, data) in [
        (Some("0123\nempty\n"), false),
        (None, true),
        (Some("damaged"), true),
        (Some("0123\ndata\n"), false),
    ] {
        let volume = Volume::new(marker, data);
        record(volume.path()).expect("nothing to do");
        assert_eq!(volume.marker().as_deref(), marker);
    }
}

#[test]
fn what_a_crash_left_half_written_is_written_again() {
    let volume = Volume::new(None, false);
    fs::write(volume.path().join(format!("{FILE}.new")), "0123").expect("half a file");
    check(volume.path(), &expected(false)).expect("a new volume");
    assert_eq!(volume.marker(), Some(format!("{ID}\nempty\n")));
    assert!(!volume.path().join(format!("{FILE}.new")).exists());
}

#[test]
fn a_volume_that_cannot_be_read_does_not_pass_for_an_empty_one() {
    // a file where the folder should be: looking into it fails with something other than "not found"
    let volume = Volume::new(None, false);
    fs::remove_dir(volume.path().join("data")).expect("an empty folder");
    fs::write(volume.path().join("data"), "").expect("a file");
    let error = check(volume.path(), &expected(true)).expect_err("unreadable");
    assert_eq!(kind(&error), "io");
    assert!(
        error.to_string().contains("orders-data") && error.to_string().contains("fsGroup"),
        "{error}"
    );
    assert_eq!(volume.marker(), None);
}

#[test]
fn a_missing_volume_is_an_error_that_names_the_claim() {
    let error = check(Path::new("/nonexistent/volume"), &expected(false)).expect_err("no volume");
    assert_eq!(kind(&error), "io");
    assert!(error.to_string().contains("orders-data"), "{error}");
}
