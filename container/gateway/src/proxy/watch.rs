//! What goes on beside the requests: active checks, look-ups of names, the end of idle connections.

use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Request};
use tokio::sync::watch;
use wharf_kernel::Body;
use wharf_kernel::options::{Health, Protocol, ProxyOptions};

use super::connect::Opened;
use super::member::Member;
use super::target::Place;

/// Looks after a backend until `stop`.
pub(crate) async fn look_after(
    member: Arc<Member>,
    options: Arc<ProxyOptions>,
    app: String,
    mut stop: watch::Receiver<bool>,
) {
    let checks = async {
        let Some(health) = &options.health else { return std::future::pending().await };
        loop {
            let result = check(&member, health, options.protocol).await;
            let (good, needed) = if result.is_ok() { (true, health.healthy) } else { (false, health.unhealthy) };
            if member.state.checked(good, needed) {
                let backend = &member.connector.target;
                match result {
                    Ok(()) => tracing::info!(app, %backend, "healthy again"),
                    Err(why) => {
                        tracing::warn!(app, %backend, "unhealthy: GET {}: {why}", health.path);
                        member.sweep(true);
                    }
                }
            }
            tokio::time::sleep(health.interval).await;
        }
    };
    let names = async {
        if !matches!(member.connector.target.place, Place::Name(..)) {
            return std::future::pending().await;
        }
        loop {
            if let Err(error) = member.connector.look_up().await {
                tracing::warn!(app, backend = %member.connector.target, "the name can't be looked up: {error}");
            }
            tokio::time::sleep(options.dns_interval).await;
        }
    };
    let idle = async {
        loop {
            tokio::time::sleep(options.keep_alive.max(Duration::from_secs(1))).await;
            member.sweep(false);
        }
    };
    tokio::select! {
        () = checks => {}
        () = names => {}
        () = idle => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// One check, on a connection of its own.
pub(crate) async fn check(member: &Member, health: &Health, protocol: Protocol) -> Result<(), String> {
    let asked = async {
        let target = &member.connector.target;
        let path = format!("{}{}", target.base, health.path);
        let host = target.host.clone();
        let scheme = if target.secure { "https" } else { "http" };
        let uri = match protocol {
            Protocol::H1 => path,
            Protocol::H2 => format!("{scheme}://{}{path}", host.to_str().unwrap_or("localhost")),
        };
        let mut request = Request::get(uri).body(Body::empty()).map_err(|e| e.to_string())?;
        if protocol == Protocol::H1 {
            request.headers_mut().insert(HOST, host);
        }
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("wharf-health-check"));
        let response = match member.connector.open().await.map_err(|e| e.to_string())? {
            Opened::H1(mut sender) => sender.send_request(request).await,
            Opened::H2(mut sender) => sender.send_request(request).await,
        };
        let status = response.map_err(|e| e.to_string())?.status();
        if status.is_success() { Ok(()) } else { Err(format!("status {status}")) }
    };
    tokio::time::timeout(health.timeout, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer in {:?}", health.timeout)))
}
