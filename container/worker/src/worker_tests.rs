//! A worker goes on with what another has begun.

use std::net::TcpListener;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use wharf_kernel::workers;

use super::*;

/// Two runtimes, of which the first stands still from now on.
fn two() -> (Runtime, Runtime) {
    let one = || Builder::new_current_thread().enable_all().build().unwrap();
    (one(), one())
}

/// This thread is worker `number` now.
fn is_worker(number: usize) {
    let spawn = |future| _ = tokio::spawn(future);
    workers::begin(workers::Here { number, spawn, spawn_watched: spawn });
}

/// What the future has come to after one poll.
fn poll_once<F: Future + Unpin>(runtime: &Runtime, future: &mut F) -> Poll<F::Output> {
    runtime.block_on(poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))))
}

#[test]
fn a_timer_ends_at_another_worker() {
    let (first, second) = two();
    is_worker(1);
    let mut timer = {
        let _inside = first.enter();
        Timer::after(Duration::from_millis(30))
    };
    assert!(poll_once(&first, &mut timer).is_pending());
    is_worker(2);
    second.block_on(timer);
}

#[test]
fn a_socket_is_read_at_another_worker() {
    let (first, second) = two();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    is_worker(1);
    let socket = first.block_on(begun_again(|| TcpStream::connect(address))).map(Socket::new);
    let (mut peer, mut text) = (listener.accept().unwrap().0, String::new());
    let mut reading = Box::pin(async {
        socket.unwrap().read_to_string(&mut text).await.unwrap();
    });
    assert!(poll_once(&first, &mut reading).is_pending());
    is_worker(2);
    std::io::Write::write_all(&mut peer, b"hello").unwrap();
    drop(peer);
    second.block_on(reading);
    assert_eq!(text, "hello");
}

#[test]
fn little_pieces_are_written_though_the_peer_waits_and_the_worker_changes() {
    const PIECES: u32 = 200_000;
    let (first, second) = two();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    is_worker(1);
    let socket = first.block_on(begun_again(|| TcpStream::connect(address))).map(Socket::new);
    let mut peer = listener.accept().unwrap().0;
    // Each in a write of its own, more than the system holds for a peer that does not read.
    let mut writing = Box::pin(async {
        let mut socket = socket.unwrap();
        for piece in 0..PIECES {
            socket.write_all(&[piece.to_le_bytes(); 20].concat()).await.unwrap();
        }
        socket.shutdown().await.unwrap();
    });
    assert!(poll_once(&first, &mut writing).is_pending());
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        std::io::Read::read_to_end(&mut peer, &mut all).unwrap();
        all
    });
    is_worker(2);
    second.block_on(writing);
    let all = reading.join().unwrap();
    let expected = (0..PIECES).flat_map(|piece| [piece.to_le_bytes(); 20].concat());
    assert!(all.iter().copied().eq(expected), "{} bytes", all.len());
}

#[test]
fn what_cannot_move_is_begun_again_once() {
    let (first, second) = two();
    let begun = AtomicUsize::new(0);
    is_worker(1);
    let mut waiting = Box::pin(begun_again(|| {
        begun.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(30))
    }));
    assert!(poll_once(&first, &mut waiting).is_pending());
    is_worker(2);
    second.block_on(waiting);
    assert_eq!(begun.load(Ordering::Relaxed), 2);
}
