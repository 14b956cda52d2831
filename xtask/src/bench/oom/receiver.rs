//! A backend that takes OTLP over HTTP, notes when each request was there, and says 200.
//! Must not decode what it gets.

use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};

use super::priority;
use crate::bench::clock;

const LOGS: &str = "/v1/logs";
/// memtrace sends at most 1 MiB of events at once; metrics of some hundred cgroups fit too.
const MOST_BODY_BYTES: usize = 64 << 20;
const MOST_HEAD_BYTES: u64 = 64 << 10;
/// An empty protobuf message: everything was accepted.
const ACCEPTED: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";

/// A request to `/v1/logs`.
#[derive(Debug)]
pub struct Arrival {
    /// `CLOCK_BOOTTIME` when its last byte had been read.
    pub at_ns: u64,
    pub body: Vec<u8>,
}

/// Listens on a free port of the loopback device until dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    arrivals: mpsc::Receiver<Arrival>,
    ended: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Receiver {
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        let address = listener.local_addr()?;
        let (sender, arrivals) = mpsc::channel();
        let ended = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&ended);
        let listener = thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let stream = match stream {
                    Ok(stream) => stream,
                    Err(error) => return eprintln!("xtask: OTLP receiver: {error}"),
                };
                let sender = sender.clone();
                // Ends with the connection.
                thread::spawn(move || {
                    // Told by `Latency::read_at_once`.
                    let _ = priority::raise();
                    if let Err(error) = serve(&stream, &sender) {
                        eprintln!("xtask: OTLP receiver: {error}");
                    }
                });
            }
        });
        Ok(Self {
            address,
            arrivals,
            ended,
            listener: Some(listener),
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has come since the last call.
    pub fn arrived(&self) -> impl Iterator<Item = Arrival> {
        self.arrivals.try_iter()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes it from `accept`.
        if TcpStream::connect(self.address).is_ok()
            && let Some(listener) = self.listener.take()
        {
            let _ = listener.join();
        }
    }
}

fn serve(mut stream: &TcpStream, arrivals: &Sender<Arrival>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::new(stream);
    while let Some((path, body)) = request(&mut input)? {
        let at_ns = clock::boot_time_ns()?;
        if path == LOGS {
            // Nobody asks any more when the measurement is over.
            let _ = arrivals.send(Arrival { at_ns, body });
        }
        stream.write_all(ACCEPTED)?;
    }
    Ok(())
}

/// Path and body of the next request; `None` when the sender has hung up.
fn request(input: &mut impl BufRead) -> io::Result<Option<(String, Vec<u8>)>> {
    let malformed = |what: &str| Error::new(ErrorKind::InvalidData, what.to_owned());
    let mut head = input.take(MOST_HEAD_BYTES);
    let mut line = String::new();
    match head.read_line(&mut line) {
        Ok(0) => return Ok(None),
        // A tracer that was killed.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
        read => read?,
    };
    let path = line.split(' ').nth(1).ok_or_else(|| malformed("no path"))?;
    let path = path.to_owned();
    let mut length = None;
    loop {
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Err(malformed("the head has no end"));
        }
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok();
        }
    }
    let length: usize = length.ok_or_else(|| malformed("no content-length"))?;
    if length > MOST_BODY_BYTES {
        return Err(malformed("the body is too long"));
    }
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    Ok(Some((path, body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_one_connection_follow_each_other() {
        let mut input: &[u8] = b"POST /v1/logs HTTP/1.1\r\nHost: h\r\ncontent-length: 3\r\n\r\nabc\
            POST /v1/metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
        let mut next = || request(&mut input).unwrap();
        assert_eq!(next(), Some(("/v1/logs".to_owned(), b"abc".to_vec())));
        assert_eq!(next(), Some(("/v1/metrics".to_owned(), Vec::new())));
        assert_eq!(next(), None);
    }

    #[test]
    fn a_request_without_a_length_or_an_end_is_an_error() {
        for text in [
            "POST /v1/logs HTTP/1.1\r\n\r\n",
            "POST /v1/logs HTTP/1.1\r\nContent-Length: 3\r\n",
            "POST /v1/logs HTTP/1.1\r\nContent-Length: 3\r\n\r\na",
            "POST\r\n\r\n",
        ] {
            assert!(request(&mut text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_arrival_is_noted_and_answered() {
        let receiver = Receiver::start().unwrap();
        let before = clock::boot_time_ns().unwrap();
        let mut stream = TcpStream::connect(receiver.address).unwrap();
        stream
            .write_all(b"POST /v1/logs HTTP/1.1\r\nContent-Length: 2\r\n\r\nid")
            .unwrap();
        let mut answer = vec![0; ACCEPTED.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, ACCEPTED);
        let arrivals: Vec<Arrival> = receiver.arrived().collect();
        assert_eq!(arrivals.len(), 1);
        assert_eq!(arrivals[0].body, b"id");
        assert!(arrivals[0].at_ns >= before);
    }
}
