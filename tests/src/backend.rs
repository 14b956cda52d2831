//! Telemetry backends that a test starts and asks: processes, free ports, HTTP, PromQL.

use std::env;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::machine;

/// The program that `variable` names, or else `name` in `PATH`; `None` with a message otherwise.
pub fn program(variable: &str, name: &str) -> Result<Option<PathBuf>> {
    if let Some(path) = env::var_os(variable).map(PathBuf::from) {
        // Who names one wants the test; it must not be skipped.
        let program = path.canonicalize();
        return program
            .with_context(|| format!("{variable}={}", path.display()))
            .map(Some);
    }
    let found = machine::in_path(name);
    if found.is_none() {
        machine::skip(&format!("no {name} in PATH or {variable}"));
    }
    Ok(found)
}

/// Free a moment ago; the backends cannot say which one they took.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// A backend, killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts it and waits until it listens.
    pub fn start(command: &mut Command, port: u16) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let server = Self { child, port };
        machine::poll(
            &format!("{command:?} to listen"),
            Duration::from_secs(30),
            || Ok(TcpStream::connect(("127.0.0.1", port)).ok()),
        )?;
        Ok(server)
    }

    /// The series that a PromQL expression gives right now.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let path = format!("/api/v1/query?query={}", encoded(expression));
        let (_, body) = self.request("GET", &path)?;
        let answer: Value =
            serde_json::from_str(&body).with_context(|| format!("no JSON: {body}"))?;
        let series = answer["data"]["result"].as_array();
        series
            .cloned()
            .with_context(|| format!("no result: {answer}"))
    }

    /// Sends a request without a body; gives status and body of the answer.
    pub fn request(&self, method: &str, path: &str) -> Result<(u16, String)> {
        request(self.port, method, path, "")
    }
}

/// Sends a request with these header lines and without a body; gives status and body of the answer.
pub fn request(port: u16, method: &str, path: &str, headers: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    // HTTP/1.0: the body comes in one piece and ends with the connection.
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\n{headers}Content-Length: 0\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
    Ok((status.context("no status")?, body.to_owned()))
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value of the first series of that name with all of these labels in a scrape of memtrace.
pub fn scraped(port: u16, name: &str, labels: &[impl AsRef<str>]) -> Result<Option<f64>> {
    let (status, text) = request(port, "GET", "/metrics", "")?;
    ensure!(status == 200, "{status}: {text}");
    let series = format!("{name}{{");
    let mut lines = text.lines();
    let line = lines.find(|line| {
        line.starts_with(&series) && labels.iter().all(|label| line.contains(label.as_ref()))
    });
    line.map(|line| {
        let (_, value) = line.rsplit_once(' ').context("no value")?;
        Ok(value.parse()?)
    })
    .transpose()
}

/// As the value of a query parameter.
pub fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}
