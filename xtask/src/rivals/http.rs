//! One GET from a server on this host. Must not be used for anything else.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const PATIENCE: Duration = Duration::from_secs(10);
const MOST_BYTES: u64 = 64 << 20;

/// The body of a 200.
pub fn get(port: u16, path: &str) -> Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let cannot = || format!("cannot get {path} from port {port}");
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(cannot)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // Version 1.0: the body ends with the connection, in one piece.
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream
        .take(MOST_BYTES)
        .read_to_end(&mut answer)
        .with_context(cannot)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").with_context(cannot)?;
    let status = head.lines().next().unwrap_or_default();
    if status.split_whitespace().nth(1) != Some("200") {
        bail!("{path} of port {port}: {status}");
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn answer(words: &'static str) -> Result<String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let server = thread::spawn(move || -> std::io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut reader = std::io::BufReader::new(stream.try_clone()?);
            let mut line = String::new();
            while reader.read_line(&mut line)? > 2 {
                line.clear();
            }
            stream.write_all(words.as_bytes())
        });
        let got = get(port, "/metrics");
        server.join().expect("the server panicked")?;
        got
    }

    #[test]
    fn only_a_200_has_a_body() -> Result<()> {
        assert_eq!(answer("HTTP/1.0 200 OK\r\nA: b\r\n\r\nx 1\n")?, "x 1\n");
        assert!(answer("HTTP/1.0 503 Busy\r\n\r\nx 1\n").is_err());
        assert!(answer("").is_err());
        Ok(())
    }
}
