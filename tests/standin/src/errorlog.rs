//! The log, on standard output, in the engine's format. Clock times are in the zone that `TZ` names, if it is known.

use std::io::Write;

use jiff::Zoned;

/// Writes one line from `source`, such as `Server` or `Logon`. A log that nobody reads any more stops nothing.
pub fn line(source: &str, text: &str) {
    let time = Zoned::now().strftime("%Y-%m-%d %H:%M:%S%.2f");
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{time} {source:<11} {text}");
    let _ = out.flush();
}

/// Writes an error with its number, on two lines as the engine does.
pub fn error(source: &str, number: i32, severity: u8, text: &str) {
    line(source, &format!("Error: {number}, Severity: {severity}, State: 1."));
    line(source, text);
}
