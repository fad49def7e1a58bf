//! The thread model of the bare servers: one current-thread runtime for each processor, each with its own listener on one port.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

use crate::Result;

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// Serves on a free port until all listeners have ended, and says where: `listening on SCHEME://ADDRESS`.
///
/// # Errors
/// Those of the system, and of `serve`.
pub fn listen_on_all<F>(scheme: &str, serve: impl Fn(TcpListener) -> F + Sync) -> Result<()>
where
    F: Future<Output = std::io::Result<()>>,
{
    let first = listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..std::thread::available_parallelism()?.get() {
        listeners.push(listen(address)?);
    }
    println!("listening on {scheme}://{address}");
    let run = |listener| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(serve(listener))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = listeners.into_iter().map(|listener| scope.spawn(|| run(listener))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<std::io::Result<()>>()
    })?;
    Ok(())
}
