//! Why the kernel did not take a program, in one line.

use std::{borrow::Cow, io};

use aya::programs::ProgramError;

use super::catalog::Hook;

/// The error with its causes, and what it means for this kind of hook.
pub fn reason(error: &ProgramError, hook: &Hook) -> String {
    let text = text(error);
    if on_function(hook) && refused_by_policy(error) {
        return text + " (this kernel lets no BPF program attach to its functions)";
    }
    text
}

fn on_function(hook: &Hook) -> bool {
    matches!(hook, Hook::FEntry(_) | Hook::SyscallFExit(_))
}

/// Refused without a word of the verifier: not the program's fault.
fn refused_by_policy(error: &ProgramError) -> bool {
    matches!(
        error,
        ProgramError::LoadError { io_error, verifier_log }
            if io_error.kind() == io::ErrorKind::PermissionDenied && verifier_log.to_string().is_empty()
    )
}

/// The error with its causes; of a verifier log only the end, which names the fault.
fn text(error: &ProgramError) -> String {
    if let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    {
        let log = verifier_log.to_string();
        let mut lines: Vec<&str> = log.lines().rev().take(4).collect();
        if lines.is_empty() {
            return format!("the kernel refused the program: {io_error}");
        }
        lines.reverse();
        return format!(
            "the kernel refused the program: {io_error}: {}",
            lines.join(" / ")
        );
    }
    let mut text = Cow::from(error.to_string());
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}").into();
        }
        cause = error.source();
    }
    text.into_owned()
}
