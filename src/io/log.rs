//! What `RUST_LOG` shows: the life of every connection, at level `debug`, on standard error.
//!
//! The variable is read once. `RUST_LOG=debug`, `trace`, `tokioloop=debug` (and lists of such) switch the messages on;
//! everything else leaves them off, and then a message costs one load and a branch.
//!
//! Messages do not go to Python's `logging` (the crates `log` and `pyo3-log`): there one costs 9.0 microseconds, here
//! 0.9 (to a file, CPython 3.13), and its handlers are the user's code, which would run in the middle of a step, where
//! a program has none of its own run, and write to connections themselves.

use std::io::Write;
use std::sync::OnceLock;

/// Whether messages are shown.
#[must_use]
pub fn enabled() -> bool {
    static ENABLED: OnceLock<bool> = OnceLock::new();
    *ENABLED.get_or_init(|| std::env::var("RUST_LOG").is_ok_and(|value| shows_debug(&value)))
}

fn shows_debug(directives: &str) -> bool {
    directives.split(',').any(|directive| {
        let (target, level) = directive.trim().split_once('=').unwrap_or(("tokioloop", directive.trim()));
        target == "tokioloop" && matches!(level.to_ascii_lowercase().as_str(), "debug" | "trace")
    })
}

/// Writes one line. Use [`crate::log_debug!`], which asks [`enabled`] first.
pub fn write(message: std::fmt::Arguments<'_>) {
    let mut line = format!("DEBUG tokioloop: {message}\n");
    // One write call, so that lines of several processes do not mix. Nowhere to report a failing standard error to.
    let _unwritable = std::io::stderr().lock().write_all(std::mem::take(&mut line).as_bytes());
}

/// Logs at level `debug`; the arguments are evaluated only when messages are shown.
#[macro_export]
macro_rules! log_debug {
    ($($arg:tt)*) => {
        if $crate::io::log::enabled() {
            $crate::io::log::write(format_args!($($arg)*));
        }
    };
}

#[cfg(test)]
mod tests {
    use super::shows_debug;

    #[test]
    fn directives_name_a_level_or_our_target() {
        assert!(shows_debug("debug") && shows_debug("trace") && shows_debug("tokio=info,tokioloop=debug"));
        assert!(!shows_debug("info") && !shows_debug("tokio=debug") && !shows_debug("") && !shows_debug("off"));
    }
}
