//! What both backends promise, claimed once and run on each.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn options() -> DriverOptions {
    DriverOptions {
        connections_max: 64,
        receive_bytes: 4_096,
        receive_buffers: 64,
        gather_completions: 4_096,
        send_buffer_bytes: None,
        sqpoll: false,
    }
}

/// A driver and what it told, taken apart by kind.
struct Bench {
    driver: Box<dyn Driver>,
    wakeup: Arc<Wakeup>,
    address: SocketAddr,
    accepted: Vec<Connection>,
    connected: Vec<(Connection, io::Result<()>)>,
    received: HashMap<Connection, Vec<u8>>,
    held: Vec<u16>,
    hold: bool,
    sent: Vec<(Connection, Vec<u8>)>,
    closed: Vec<(Connection, Option<io::Error>)>,
}

impl Bench {
    fn new(backend: BackendChoice, options: &DriverOptions) -> Self {
        let wakeup = Arc::new(Wakeup::new().unwrap());
        let (mut driver, _) = open(backend, options, wakeup.clone()).unwrap();
        let address = driver.listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
        Self {
            driver,
            wakeup,
            address,
            accepted: Vec::new(),
            connected: Vec::new(),
            received: HashMap::new(),
            held: Vec::new(),
            hold: false,
            sent: Vec::new(),
            closed: Vec::new(),
        }
    }

    fn turn(&mut self, limit: Duration) {
        let mut completions = Vec::new();
        self.driver.wait(Some(limit), &mut completions).unwrap();
        for completion in completions {
            match completion {
                Completion::Accepted { connection, .. } => {
                    self.received.remove(&connection);
                    self.accepted.push(connection);
                }
                Completion::Connected { connection, result } => self.connected.push((connection, result)),
                Completion::Received {
                    connection,
                    buffer,
                    length,
                } => {
                    // SAFETY: this test holds the buffer until it releases it below.
                    let bytes = unsafe { self.driver.pool().bytes(buffer)[HEADROOM..][..length as usize].to_vec() };
                    assert!(length > 0);
                    self.received.entry(connection).or_default().extend(bytes);
                    self.held.push(buffer);
                }
                Completion::Sent { connection, bytes } => {
                    assert!(bytes.is_empty());
                    self.sent.push((connection, bytes));
                }
                Completion::Closed { connection, error } => self.closed.push((connection, error)),
            }
        }
        if !self.hold {
            self.held.drain(..).for_each(|buffer| self.driver.release(buffer));
        }
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        while !done(self) {
            assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
            self.turn(Duration::from_millis(200));
        }
    }

    /// All that the kernel has for us now: turns until one brings nothing.
    fn settle(&mut self) {
        for _ in 0..10 {
            self.turn(Duration::from_millis(10));
        }
    }

    fn accept_one(&mut self) -> (TcpStream, Connection) {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        let before = self.accepted.len();
        self.until("accepted", |bench| bench.accepted.len() > before);
        (stream, *self.accepted.last().unwrap())
    }

    fn received(&self, connection: Connection) -> &[u8] {
        self.received.get(&connection).map_or(&[], Vec::as_slice)
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 + index / 251) as u8).collect()
}

macro_rules! on_both_backends {
    ($($name:ident;)+) => {
        mod uring {
            $(#[test] fn $name() { super::$name(super::BackendChoice::Uring); })+
        }
        mod mio {
            $(#[test] fn $name() { super::$name(super::BackendChoice::Mio); })+
        }
    };
}

on_both_backends! {
    bytes_written_in_pieces_arrive_in_order_and_are_echoed;
    a_send_larger_than_the_sockets_buffers_reaches_a_slow_reader_whole;
    bytes_beyond_the_last_buffer_wait_and_arrive_in_order_after_a_release;
    a_reset_connection_is_closed_exactly_once;
    a_peers_orderly_end_comes_after_its_last_bytes;
    closing_with_a_send_outstanding_drops_it_and_closes_once;
    bytes_sent_just_before_a_close_still_go_out;
    a_connection_that_does_not_receive_loses_nothing_when_it_goes_on;
    a_group_that_is_starved_does_not_starve_the_other;
    a_wake_up_from_another_thread_ends_a_wait;
    a_wake_up_that_a_poll_took_still_ends_the_next_wait;
    a_refused_connect_is_told_and_frees_the_number;
    a_number_is_given_again_only_after_its_closed;
    hundreds_of_connections_are_served;
    connections_beyond_the_maximum_are_closed_at_once;
    a_stopped_listener_accepts_no_more_and_keeps_its_connections;
    two_drivers_connect_to_each_other;
    an_idle_wait_lasts_to_its_limit_and_costs_few_system_calls;
}

fn bytes_written_in_pieces_arrive_in_order_and_are_echoed(backend: BackendChoice) {
    let mut bench = Bench::new(backend, &options());
    let (mut stream, connection) = bench.accept_one();
    let bytes = pattern(1_000);
    for piece in bytes.chunks(37) {
        stream.write_all(piece).unwrap();
        let want = bench.received(connection).len() + piece.len();
        bench.until("the piece came", |bench| bench.received(connection).len() == want);
    }
    assert_eq!(bench.received(connection), bytes);
    bench.driver.send(connection, bytes.clone());
    bench.until("the echo went", |bench| bench.sent.len() == 1);
    let mut echo = vec![0; bytes.len()];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(echo, bytes);
    assert!(bench.sent[0].1.capacity() >= 1_000, "the send's buffer must come back");
}

fn a_send_larger_than_the_sockets_buffers_reaches_a_slow_reader_whole(backend: BackendChoice) {
    let mut bench = Bench::new(backend, &options());
    let (mut stream, connection) = bench.accept_one();
    let bytes = pattern(8 << 20);
    bench.driver.send(connection, bytes.clone());
    bench.settle();
    assert!(
        bench.sent.is_empty(),
        "8 MiB can't be with the kernel while nobody reads"
    );
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; 8 << 20];
        for piece in got.chunks_mut(50_000) {
            stream.read_exact(piece).unwrap();
        }
        (got, stream)
    });
    bench.until("all was sent", |bench| bench.sent.len() == 1);
    let (got, _stream) = reader.join().unwrap();
    assert!(got == bytes, "bytes were lost or mixed up");
    assert!(bench.closed.is_empty());
}

fn bytes_beyond_the_last_buffer_wait_and_arrive_in_order_after_a_release(backend: BackendChoice) {
    let tiny = DriverOptions {
        receive_bytes: 64,
        receive_buffers: 2,
        ..options()
    };
    let mut bench = Bench::new(backend, &tiny);
    let (mut stream, connection) = bench.accept_one();
    let (mut other, second) = bench.accept_one();
    bench.hold = true;
    let bytes = pattern(10_000);
    stream.write_all(&bytes).unwrap();
    bench.until("the pool is empty", |bench| bench.held.len() == 2);
    other.write_all(&bytes).unwrap();
    bench.settle();
    assert_eq!(bench.held.len(), 2);
    assert!(bench.closed.is_empty(), "a lack of buffers must not end a connection");
    bench.hold = false;
    bench.until("all came", |bench| {
        bench.received(connection).len() == bytes.len() && bench.received(second).len() == bytes.len()
    });
    assert!(bench.received(connection) == bytes && bench.received(second) == bytes);
}

fn a_reset_connection_is_closed_exactly_once(backend: BackendChoice) {
    let mut bench = Bench::new(backend, &options());
    let (stream, connection) = bench.accept_one();
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
    bench.until("closed", |bench| !bench.closed.is_empty());
    bench.driver.close(connection);
    bench.driver.send(connection, vec![1]);
    bench.settle();
    assert_eq!(bench.closed.len(), 1);
    let (closed, error) = &bench.closed[0];
    assert_eq!(*closed, connection);
    assert_eq!(error.as_ref().unwrap().kind(), io::ErrorKind::ConnectionReset);
    assert!(bench.sent.is_empty());
}

fn a_peers_orderly_end_comes_after_its_last_bytes(backend: BackendChoice) {
    let mut bench = Bench::new(backend, &options());
    let (mut stream, connection) = bench.accept_one();
    let bytes = pattern(100_000);
    stream.write_all(&bytes).unwrap();
    drop(stream);
    bench.until("closed", |bench| !bench.closed.is_empty());
    assert!(
        bench.received(connection) == bytes,
        "the last bytes must come before Closed"
    );
    assert!(bench.closed[0].1.is_none());
}

fn closing_with_a_send_outstanding_drops_it_and_closes_once(backend: BackendChoice) {
    let mut bench = Bench::new(backend, &options());
    let (mut stream, connection) = bench.accept_one();
    bench.driver.send(connection, pattern(8 << 20));
    bench.settle();
    bench.driver.close(connection);
    bench.until("closed", |bench| !bench.closed.is_empty());
    bench.settle();
    assert_eq!(bench.closed.len(), 1);
    assert!(bench.sent.is_empty(), "a send that was cut short was not sent");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(!rest.is_empty() && rest.len() < 8 << 20);
    assert!(rest == pattern(8 << 20)[..rest.len()]);
}

fn bytes_sent_just_before_a_close_still_go_out(backend: BackendChoice) {
    let mut bench = Bench::new(backend, &options());
    let (mut stream, connection) = bench.accept_one();
    bench.driver.send(connection, pattern(500));
    bench.driver.close(connection);
    bench.until("closed", |bench| !bench.closed.is_empty());
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, pattern(500), "the last word before a close must reach the peer");
}

fn a_connection_that_does_not_receive_loses_nothing_when_it_goes_on(backend: BackendChoice) {
    let mut bench = Bench::new(backend, &options());
    let (mut stream, connection) = bench.accept_one();
    let bytes = pattern(60_000);
    for (round, piece) in bytes.chunks(10_000).enumerate() {
        bench.driver.set_receiving(connection, false);
        if round % 2 == 0 {
            bench.settle();
        }
        let before = bench.received(connection).len();
        stream.write_all(piece).unwrap();
        if round % 2 == 0 {
            bench.settle();
            assert_eq!(
                bench.received(connection).len(),
                before,
                "nothing may come while receiving is off"
            );
        }
        bench.driver.set_receiving(connection, true);
        let want = (round + 1) * 10_000;
        bench.until("the piece came", |bench| bench.received(connection).len() == want);
    }
    assert!(bench.received(connection) == bytes);
}

fn a_group_that_is_starved_does_not_starve_the_other(backend: BackendChoice) {
    let tiny = DriverOptions {
        receive_bytes: 64,
        receive_buffers: 2,
        ..options()
    };
    let mut bench = Bench::new(backend, &tiny);
    let (mut flooder, first) = bench.accept_one();
    let (mut bank, second) = bench.accept_one();
    bench.driver.set_group(second, BufferGroup::Replies);
    bench.settle();
    bench.hold = true;
    flooder.write_all(&pattern(1_000)).unwrap();
    bench.until("the pool is empty", |bench| bench.held.len() == 2);
    bank.write_all(&pattern(100)).unwrap();
    bench.until("the bank is heard", |bench| bench.received(second).len() == 100);
    assert!(
        bench.held[2..].iter().all(|&buffer| buffer >= 2),
        "the bank's bytes lie in its own group"
    );
    assert_eq!(bench.received(first).len(), 128);
    // A connection that waits for a buffer goes on in the other group when it is moved there.
    bench
        .held
        .drain(2..)
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|buffer| bench.driver.release(buffer));
    bench.driver.set_group(first, BufferGroup::Replies);
    bench.until("the flooder goes on", |bench| bench.received(first).len() > 128);
    bench.hold = false;
    bench.until("all came", |bench| bench.received(first).len() == 1_000);
    assert_eq!(bench.received(first), pattern(1_000));
}

fn a_wake_up_from_another_thread_ends_a_wait(backend: BackendChoice) {
    let mut bench = Bench::new(backend, &options());
    for _ in 0..3 {
        bench.wakeup.arm();
        let wakeup = bench.wakeup.clone();
        let waker = std::thread::spawn(move || wakeup.wake());
        let (began, mut completions) = (Instant::now(), Vec::new());
        bench.driver.wait(Some(PATIENCE), &mut completions).unwrap();
        assert!(began.elapsed() < PATIENCE / 2 && completions.is_empty());
        waker.join().unwrap();
        bench.wakeup.disarm();
    }
}

fn a_wake_up_that_a_poll_took_still_ends_the_next_wait(backend: BackendChoice) {
    let mut bench = Bench::new(backend, &options());
    // Sleeps once, so that the wake-up is among what the driver watches.
    bench.turn(Duration::from_millis(1));
    bench.wakeup.arm();
    bench.wakeup.wake();
    let (began, mut completions) = (Instant::now(), Vec::new());
    bench.driver.poll(&mut completions).unwrap();
    bench.driver.wait(Some(PATIENCE), &mut completions).unwrap();
    assert!(began.elapsed() < PATIENCE / 2, "the wake-up was lost");
    bench.wakeup.disarm();
    let began = Instant::now();
    bench
        .driver
        .wait(Some(Duration::from_millis(20)), &mut completions)
        .unwrap();
    assert!(
        began.elapsed() >= Duration::from_millis(20),
        "one wake-up must not end two waits"
    );
}

fn a_refused_connect_is_told_and_frees_the_number(backend: BackendChoice) {
    let one = DriverOptions {
        connections_max: 1,
        ..options()
    };
    let mut bench = Bench::new(backend, &one);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for _ in 0..3 {
        bench.connected.clear();
        let connection = bench.driver.connect(gone).unwrap();
        assert!(bench.driver.connect(gone).is_err(), "no second connection is free");
        bench.until("told", |bench| !bench.connected.is_empty());
        let (told, result) = &bench.connected[0];
        assert_eq!(*told, connection);
        assert_eq!(result.as_ref().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        bench.turn(Duration::ZERO);
    }
    assert!(bench.closed.is_empty(), "a connection that never was is not closed");
}

fn a_number_is_given_again_only_after_its_closed(backend: BackendChoice) {
    let one = DriverOptions {
        connections_max: 1,
        ..options()
    };
    let mut bench = Bench::new(backend, &one);
    for round in 1..=20 {
        let (mut stream, connection) = bench.accept_one();
        assert_eq!(connection, Connection(0));
        assert_eq!(bench.accepted.len(), round);
        stream.write_all(&pattern(round)).unwrap();
        bench.until("it came", |bench| bench.received(connection).len() == round);
        assert_eq!(
            bench.received(connection),
            pattern(round),
            "bytes of an earlier connection must not show"
        );
        if round % 2 == 0 {
            drop(stream);
        } else {
            bench.driver.close(connection);
        }
        bench.until("closed", |bench| bench.closed.len() == round);
        bench.turn(Duration::ZERO);
    }
}

fn hundreds_of_connections_are_served(backend: BackendChoice) {
    // Both ends are ours, and other tests run beside this one: 600 where the process may have that many files.
    let count = (files_max() / 4).min(600);
    let many = DriverOptions {
        connections_max: count,
        receive_buffers: 128,
        ..options()
    };
    let count = count as usize;
    let mut bench = Bench::new(backend, &many);
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(TcpStream::connect(bench.address).unwrap());
    }
    bench.until("all are accepted", |bench| bench.accepted.len() == count);
    for (index, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&(index as u32).to_le_bytes()).unwrap();
    }
    bench.until("all are heard", |bench| {
        bench.received.values().map(Vec::len).sum::<usize>() == 4 * count
    });
    for connection in bench.accepted.clone() {
        let bytes = bench.received(connection).to_vec();
        bench.driver.send(connection, bytes);
    }
    bench.until("all are answered", |bench| bench.sent.len() == count);
    for (index, stream) in streams.iter_mut().enumerate() {
        let mut echo = [0; 4];
        stream.read_exact(&mut echo).unwrap();
        assert_eq!(u32::from_le_bytes(echo), index as u32);
    }
    drop(streams);
    bench.until("all are closed", |bench| bench.closed.len() == count);
}

/// Raises the limit of open files as far as the process may, and says what it is.
fn files_max() -> u32 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: reads and writes one `rlimit`.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
    }
    u32::try_from(limit.rlim_max).unwrap_or(u32::MAX)
}

fn connections_beyond_the_maximum_are_closed_at_once(backend: BackendChoice) {
    let one = DriverOptions {
        connections_max: 1,
        ..options()
    };
    let mut bench = Bench::new(backend, &one);
    let (_first, _) = bench.accept_one();
    let mut second = TcpStream::connect(bench.address).unwrap();
    let reader = std::thread::spawn(move || second.read(&mut [0; 1]));
    bench.until("the second was turned away", |_| reader.is_finished());
    assert!(matches!(reader.join().unwrap(), Ok(0) | Err(_)));
    assert_eq!(bench.accepted.len(), 1);
    assert!(bench.closed.is_empty());
}

fn a_stopped_listener_accepts_no_more_and_keeps_its_connections(backend: BackendChoice) {
    let mut bench = Bench::new(backend, &options());
    let (mut stream, connection) = bench.accept_one();
    bench.driver.stop_listening();
    bench.settle();
    assert!(TcpStream::connect(bench.address).is_err());
    stream.write_all(b"still here").unwrap();
    bench.until("it came", |bench| bench.received(connection) == b"still here");
    assert_eq!(bench.accepted.len(), 1);
}

fn two_drivers_connect_to_each_other(backend: BackendChoice) {
    let mut here = Bench::new(backend, &options());
    let mut there = Bench::new(backend, &options());
    let connection = there.driver.connect(here.address).unwrap();
    there.until("connected", |bench| !bench.connected.is_empty());
    assert!(there.connected[0].1.is_ok());
    here.until("accepted", |bench| !bench.accepted.is_empty());
    there.driver.send(connection, pattern(300));
    there.turn(Duration::ZERO);
    let accepted = here.accepted[0];
    here.until("heard", |bench| bench.received(accepted).len() == 300);
    here.driver.close(accepted);
    here.until("closed here", |bench| bench.closed.len() == 1);
    there.until("closed there", |bench| bench.closed.len() == 1);
    assert_eq!(there.closed[0].0, connection);
}

fn an_idle_wait_lasts_to_its_limit_and_costs_few_system_calls(backend: BackendChoice) {
    let mut bench = Bench::new(backend, &options());
    let (_stream, _) = bench.accept_one();
    bench.settle();
    let (calls, began) = (bench.driver.system_calls(), Instant::now());
    bench.turn(Duration::from_millis(50));
    assert!(began.elapsed() >= Duration::from_millis(50));
    assert!(bench.driver.system_calls() - calls <= 2);
    assert_eq!(bench.closed.len(), 0);
}

#[test]
fn more_connections_than_files_are_cut_to_what_the_process_may_have() {
    let absurd = DriverOptions {
        connections_max: u32::MAX,
        ..options()
    };
    let mut bench = Bench::new(BackendChoice::Uring, &absurd);
    bench.accept_one();
}

#[test]
fn the_kernels_polling_thread_serves_as_well() {
    let polled = DriverOptions {
        sqpoll: true,
        ..options()
    };
    let mut bench = Bench::new(BackendChoice::Uring, &polled);
    let (mut stream, connection) = bench.accept_one();
    stream.write_all(&pattern(5_000)).unwrap();
    bench.until("it came", |bench| bench.received(connection).len() == 5_000);
    bench.driver.send(connection, pattern(5_000));
    bench.until("it went", |bench| bench.sent.len() == 1);
    let mut echo = vec![0; 5_000];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(echo, pattern(5_000));
    stream.shutdown(Shutdown::Both).unwrap();
    bench.until("closed", |bench| bench.closed.len() == 1);
}
