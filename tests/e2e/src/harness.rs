//! Runs tests that share one cluster, in the order in which they are written, with the words and exit codes of `cargo test`.
//!
//! A test gets a namespace of its own. Tests that leave nodes, storage and the operator alone run a few at a time, because most
//! of their time is waiting; the others one by one, and after each of them, passed or not, nodes, network and storage are put
//! right again. After a failure the account of the cluster stands below the sentence that failed.

use std::{
    env,
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
    time::Instant,
};

use crate::{
    error::{Error, Result},
    instance::Instance,
    lab::Lab,
    operator,
    programs::Programs,
};

/// A test.
pub struct Test {
    /// A sentence, with underscores.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&Stage) -> Result<()>,
    /// Whether it leaves nodes, storage and the operator alone.
    pub together: bool,
}

/// What a test works with.
pub struct Stage<'a> {
    /// The cluster, with the operator installed.
    pub lab: &'a Lab,
    /// The test's namespace.
    pub namespace: String,
    notes: Mutex<String>,
}

/// How many of the tests that leave each other alone run at once: with more of them two cores are what they wait for.
const AT_ONCE: usize = 3;

impl<'a> Stage<'a> {
    /// An instance in the test's namespace; it does not exist yet.
    pub fn instance(&self, name: &str) -> Instance<'a> {
        Instance::named(self.lab, &self.namespace, name)
    }

    /// Tells something worth knowing of a test that passes.
    pub fn note(&self, text: &str) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(notes, "    {text}");
    }
}

/// Which tests to run, in the words of libtest.
#[derive(Default)]
struct Selection {
    ignored: bool,
    list: bool,
    exact: bool,
    skip: Vec<String>,
    only: Vec<String>,
}

impl Selection {
    fn of(words: impl IntoIterator<Item = String>) -> Self {
        let mut selection = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--ignored" | "--include-ignored" => selection.ignored = true,
                "--list" => selection.list = true,
                "--exact" => selection.exact = true,
                "--skip" => selection.skip.extend(words.next()),
                // how libtest would run and print does not matter here
                option if option.starts_with('-') => {}
                _ => selection.only.push(word),
            }
        }
        selection
    }

    fn takes(&self, name: &str) -> bool {
        let fits = |pattern: &String| {
            if self.exact {
                name == pattern
            } else {
                name.contains(pattern.as_str())
            }
        };
        (self.only.is_empty() || self.only.iter().any(fits)) && !self.skip.iter().any(fits)
    }
}

/// Runs the tests that the command line selects. `E2E_KEEP=1` uses a cluster that is up and leaves it up; `E2E_NAME` gives it another name, so
/// that two runs can stand side by side.
pub fn main(name: &str, tests: &[Test]) -> ExitCode {
    let chosen_name = env::var("E2E_NAME").ok();
    let name = chosen_name.as_deref().unwrap_or(name);
    let selection = Selection::of(env::args().skip(1));
    let chosen: Vec<&Test> = tests.iter().filter(|test| selection.takes(test.name)).collect();
    if selection.list {
        for test in &chosen {
            println!("{}: test", test.name);
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    if !selection.ignored {
        for test in &chosen {
            println!(
                "test {} ... ignored, needs root and a cluster: make test-e2e",
                test.name
            );
        }
        println!(
            "\ntest result: ok. 0 passed; 0 failed; {} ignored; 0 measured; 0 filtered out\n",
            chosen.len()
        );
        return ExitCode::SUCCESS;
    }
    let began = Instant::now();
    let keep = env::var_os("E2E_KEEP").is_some();
    let lab = match set_up(name, keep) {
        Ok(lab) => lab,
        Err(error) => {
            println!("test setting_up ... FAILED\n{error}\n\ntest result: FAILED. 0 passed; 1 failed; 0 ignored");
            return ExitCode::FAILURE;
        }
    };
    println!(
        "the cluster is up with the operator in {:.1} s",
        began.elapsed().as_secs_f32()
    );
    let (together, alone): (Vec<&Test>, Vec<&Test>) = chosen.iter().partition(|test| test.together);
    let mut failed = run_together(&lab, &together);
    failed.extend(alone.iter().filter(|test| !run(&lab, test)).map(|test| test.name));
    if keep || (!failed.is_empty() && env::var_os("CI").is_none()) {
        println!("\nthe testbed `{name}` is left standing; end it with `testbed --name {name} down`");
    } else if let Err(error) = lab.down() {
        println!("the testbed `{name}` cannot be ended: {error}");
    }
    let (word, passed) = (
        if failed.is_empty() { "ok" } else { "FAILED" },
        chosen.len() - failed.len(),
    );
    for name in &failed {
        println!("    {name}");
    }
    println!(
        "\ntest result: {word}. {passed} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.1}s\n",
        failed.len(),
        tests.len() - chosen.len(),
        began.elapsed().as_secs_f32()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn set_up(name: &str, keep: bool) -> Result<Lab> {
    let programs = Programs::from_environment()?;
    let lab = match Lab::open(name, programs.clone()) {
        Ok(lab) if keep && lab.kubectl(&["get", "nodes"]).is_ok() => lab,
        _ => Lab::up(name, programs)?,
    };
    operator::install_with_helm(&lab, &[])?;
    Ok(lab)
}

/// Runs tests a few at a time; yields those that failed.
fn run_together(lab: &Lab, tests: &[&Test]) -> Vec<&'static str> {
    let (queue, failed) = (Mutex::new(tests.iter()), Mutex::new(Vec::new()));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next().copied();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(test) = next() {
                    if !run(lab, test) {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push(test.name);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn run(lab: &Lab, test: &Test) -> bool {
    let began = Instant::now();
    let namespace = format!("t{:08x}", short_hash(test.name));
    let stage = Stage {
        lab,
        namespace: namespace.clone(),
        notes: Mutex::default(),
    };
    let made = lab.kubectl(&["create", "namespace", &namespace]).map(drop);
    let outcome = made.and_then(|()| {
        catch_unwind(AssertUnwindSafe(|| (test.run)(&stage))).unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(Error::Broken(said.unwrap_or_else(|| "the test panicked".to_owned())))
        })
    });
    // before anything is put right: it is the account of what went wrong
    let account = outcome
        .as_ref()
        .err()
        .map(|error| format!("{error}\n{}", lab.describe(&namespace)));
    let took = began.elapsed();
    let restored = if test.together { Ok(()) } else { lab.restore() }.and_then(|()| tidy(lab, &namespace));
    let passed = outcome.is_ok() && restored.is_ok();
    let mut words = stage.notes.into_inner().unwrap_or_else(PoisonError::into_inner);
    words.push_str(&account.unwrap_or_default());
    if let Err(error) = &restored {
        let _ = writeln!(words, "the cluster cannot be put right after the test: {error}");
    }
    // in one piece, because another test may print at the same time
    print!(
        "test {} ... {} ({:.1} s, and {:.1} s to tidy up)\n{words}",
        test.name,
        if passed { "ok" } else { "FAILED" },
        took.as_secs_f32(),
        began.elapsed().saturating_sub(took).as_secs_f32()
    );
    passed
}

/// Instances first, so that the operator takes leave of them in order; the rest goes with the namespace while the next test runs.
fn tidy(lab: &Lab, namespace: &str) -> Result<()> {
    lab.kubectl(&[
        "delete",
        "sqledge",
        "--all",
        "--namespace",
        namespace,
        "--wait=false",
        "--ignore-not-found",
    ])?;
    lab.kubectl(&["delete", "namespace", namespace, "--wait=false"])?;
    Ok(())
}

/// FNV-1a: names of namespaces are short, and those of tests are not.
fn short_hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(words: &str) -> Selection {
        Selection::of(words.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_words_of_libtest_select_tests() {
        let chosen = selection("--ignored --test-threads=1 --nocapture --skip long_ node");
        assert!(chosen.ignored && chosen.takes("a_node_is_lost"));
        assert!(!chosen.takes("long_node") && !chosen.takes("a_pod_is_deleted"));
        assert!(!selection("--exact node").takes("a_node_is_lost"));
        assert!(!selection("").ignored);
    }
}
