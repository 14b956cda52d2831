//! Runs external programs and turns their failure into an error that names the command line.
//! Must not decide what to run.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Prints a progress line.
pub fn progress(line: impl AsRef<str>) {
    eprintln!("xtask: {}", line.as_ref());
}

/// The command line as a person would type it.
pub fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&quoted(argument));
    }
    line
}

/// Runs to the end with this process's terminal; anything but success is an error.
pub fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs to the end and returns what the program printed on stdout; stderr stays on the terminal.
pub fn stdout(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| cannot_start(command))?;
    if !output.status.success() {
        bail!("`{}` failed ({})", shown(command), output.status);
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed something that is not UTF-8", shown(command)))
}

/// Runs without showing anything, and tells the output only when the program fails.
pub fn quiet(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| cannot_start(command))?;
    if !output.status.success() {
        bail!(
            "`{}` failed ({})\n{}{}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// The full path of a program, looked up like a shell does.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Whether this process may do what only root may.
pub fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// A command that runs `program` as root: directly, or through sudo keeping the named variables.
pub fn as_root(program: &OsStr, keep: &[&str]) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let sudo = find_program("sudo").with_context(|| {
        format!(
            "{} needs root and there is no sudo; run this as root",
            program.to_string_lossy()
        )
    })?;
    let mut command = Command::new(sudo);
    if !keep.is_empty() {
        command.arg(format!("--preserve-env={}", keep.join(",")));
    }
    command.arg("--").arg(program);
    Ok(command)
}

fn cannot_start(command: &Command) -> String {
    format!(
        "cannot start `{}`; is {} installed?",
        shown(command),
        command.get_program().to_string_lossy()
    )
}

fn quoted(argument: &OsStr) -> String {
    let text = argument.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_shown_ready_to_paste() {
        let mut command = Command::new("cargo");
        command.args(["test", "a b", "it's", ""]);
        assert_eq!(shown(&command), r"cargo test 'a b' 'it'\''s' ''");
    }
}
