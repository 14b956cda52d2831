//! Answers connections that are bounded in number and in time.
//!
//! Owns who has to go when there are too many: nobody waits for a turn, so that a probe of liveness is
//! answered however many others are slow. Serves TCP and the socket of the API alike.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, serve::Listener};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::oneshot,
    time::sleep,
};

/// Connections at the same time over TCP.
const MOST: usize = 64;
/// The headers of a request come within this time.
const HEADERS: Duration = Duration::from_secs(5);
/// A connection ends after this time. A scraper that keeps it alive comes again.
const LONGEST: Duration = Duration::from_secs(30);
/// Of the headers of one request.
const MOST_HEADER_BYTES: usize = 16 << 10;

/// Answers for as long as it is polled.
pub async fn serve(listener: TcpListener, router: Router) {
    let peer = |_: &_, address: &SocketAddr| network(address.ip());
    serve_peers(listener, router, MOST, peer).await;
}

/// The same on any listener, `most` connections at a time; `peer` tells who is at the other end.
pub async fn serve_peers<L: Listener, P>(
    mut listener: L,
    router: Router,
    most: usize,
    peer: impl Fn(&L::Io, &L::Addr) -> P,
) where
    P: Copy + Eq + Hash + Send + 'static,
{
    let seats = Arc::new(Seats::new(most));
    loop {
        // Past errors such as a lack of file descriptors.
        let (stream, address) = listener.accept().await;
        let (seat, evicted) = Seats::take(&seats, peer(&stream, &address));
        let router = router.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = answer(stream, router) => {}
                _ = evicted => {}
                () = sleep(LONGEST) => {}
            }
            drop(seat);
        });
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let mut http = auto::Builder::new(TokioExecutor::new()).http1_only();
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(MOST_HEADER_BYTES);
    let service = TowerToHyperService::new(router);
    let served = http.serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        log::debug!("a connection over HTTP ended: {error}");
    }
}

/// The connections there are, the oldest first.
#[derive(Debug)]
struct Seats<P> {
    most: usize,
    taken: Mutex<Taken<P>>,
}

#[derive(Debug)]
struct Taken<P> {
    last: u64,
    by_age: BTreeMap<u64, (P, oneshot::Sender<()>)>,
}

impl<P: Copy + Eq + Hash> Taken<P> {
    /// The oldest connection of the peer that has most.
    fn crowding(&self) -> Option<u64> {
        let mut of_peer: HashMap<P, usize> = HashMap::new();
        for (peer, _) in self.by_age.values() {
            *of_peer.entry(*peer).or_default() += 1;
        }
        let most = of_peer.values().copied().max()?;
        let crowds = |peer: &P| of_peer.get(peer) == Some(&most);
        let mut ages = self.by_age.iter();
        ages.find(|(_, (peer, _))| crowds(peer))
            .map(|(age, _)| *age)
    }
}

impl<P: Copy + Eq + Hash> Seats<P> {
    fn new(most: usize) -> Self {
        let (last, by_age) = (0, BTreeMap::new());
        Self {
            most,
            taken: Mutex::new(Taken { last, by_age }),
        }
    }

    /// A seat, and what tells that it is needed for another.
    fn take(seats: &Arc<Self>, peer: P) -> (Seat<P>, oneshot::Receiver<()>) {
        let (evict, evicted) = oneshot::channel();
        let mut taken = seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.by_age.len() >= seats.most
            && let Some(age) = taken.crowding()
            && let Some((_, evict)) = taken.by_age.remove(&age)
        {
            // One that has ended needs not be told.
            let _ = evict.send(());
        }
        taken.last += 1;
        let age = taken.last;
        taken.by_age.insert(age, (peer, evict));
        drop(taken);
        let seats = Arc::clone(seats);
        (Seat { seats, age }, evicted)
    }
}

/// Whoever has one address of IPv6 has 2⁶⁴.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
        address => address,
    }
}

/// A connection's; dropping it gives it back.
#[derive(Debug)]
struct Seat<P> {
    seats: Arc<Seats<P>>,
    age: u64,
}

impl<P> Drop for Seat<P> {
    fn drop(&mut self) {
        let taken = self.seats.taken.lock();
        let mut taken = taken.unwrap_or_else(PoisonError::into_inner);
        taken.by_age.remove(&self.age);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{SocketAddr, TcpStream},
        time::Instant,
    };

    use super::*;
    use crate::export::{
        otlp::ResourceContext,
        prometheus::{Endpoint, Health},
    };

    fn endpoint() -> Endpoint {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let health = Health::new(Duration::from_secs(1));
        Endpoint::start(address, ResourceContext::default(), health).unwrap()
    }

    fn connect(endpoint: &Endpoint, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(endpoint.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(bytes).unwrap();
        stream
    }

    /// Longer than the probes of Kubernetes wait.
    fn assert_is_alive(endpoint: &Endpoint) {
        let mut probe = connect(endpoint, b"GET /healthz HTTP/1.0\r\n\r\n");
        probe
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        let mut answer = String::new();
        probe.read_to_string(&mut answer).expect("no answer");
        assert!(answer.contains(" 200 OK"), "{answer}");
    }

    #[test]
    fn slow_connections_do_not_silence_the_probe_of_liveness() {
        let endpoint = endpoint();
        let mut slow = Vec::new();
        for _ in 0..3 {
            for begun in [&b"GET /metrics HTTP/1.1\r\nHost: a"[..], b"", b"\r\n"] {
                slow.extend((0..40).map(|_| connect(&endpoint, begun)));
                assert_is_alive(&endpoint);
            }
        }
        // Nobody answers these in time.
        let whole = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
        slow.extend((0..40).map(|_| connect(&endpoint, whole)));
        assert_is_alive(&endpoint);
    }

    #[test]
    fn headers_that_drip_end_the_connection() {
        let endpoint = endpoint();
        let mut slow = connect(&endpoint, b"GET /healthz HTTP/1.1\r\nHost: a");
        let begun = Instant::now();
        slow.set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let ended = loop {
            match slow.read(&mut [0; 512]) {
                Ok(0) => break begun.elapsed(),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    break begun.elapsed();
                }
                Err(_) => {}
            }
            let _ = slow.write_all(b"a");
            assert!(begun.elapsed() < HEADERS * 2, "it goes on");
        };
        assert!(ended > HEADERS / 2, "{ended:?}");
    }

    #[test]
    fn the_oldest_of_the_busiest_peer_goes() {
        let seats = Arc::new(Seats::new(MOST));
        let (scraper, busy) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let (first, mut scrape) = Seats::take(&seats, scraper);
        let mut others: Vec<_> = (0..MOST + 5).map(|_| Seats::take(&seats, busy)).collect();
        let ended = others
            .iter_mut()
            .map(|(_, evicted)| evicted.try_recv().is_ok());
        let ended: Vec<bool> = ended.collect();
        assert_eq!(ended.iter().filter(|ended| **ended).count(), 6);
        assert!(ended[..6].iter().all(|ended| *ended));
        assert!(scrape.try_recv().is_err(), "it did not crowd");
        drop((first, others));
        assert!(seats.taken.lock().unwrap().by_age.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::2:3"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.2"), of("10.0.0.1"));
    }
}
