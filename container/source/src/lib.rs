//! Applications from an object store: what is there is brought into the deploy folder, where the deployer finds it. So a fleet of
//! containers follows one bucket; each admits, starts and retires for itself.
//!
//! Only files directly below the prefix are followed. What somebody else has put into the deploy folder is left alone.
#![forbid(unsafe_code)]

mod follow;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, RetryConfig};
use wharf_kernel::settings::Source;

use follow::Follow;

/// So long the start of the container waits for the first look.
const FIRST: Duration = Duration::from_secs(30);

/// Looks at the store again and again, on a thread of its own, until it is stopped.
pub struct Follower {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Begins to follow. Returns after the first look, however it went: what is in the deploy folder is good without it.
    ///
    /// # Errors
    /// When the settings, with their secrets put in, can't be used.
    pub fn start(source: &Source, deploy_dir: PathBuf, state_dir: &std::path::Path) -> Result<Self, String> {
        let (store, prefix) = store(source).map_err(|what| format!("deploy.source: {what}"))?;
        let follow = Follow::new(store, prefix, deploy_dir, state_dir.join("source.json"));
        let interval = source.interval;
        let (stop, stopped) = mpsc::channel::<()>();
        let (looked, first) = mpsc::channel::<()>();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime.inspect_err(|e| tracing::error!("deploy.source is not followed: {e}")) else {
                return;
            };
            let mut follow = follow;
            loop {
                runtime.block_on(follow.look());
                let _ = looked.send(());
                if !matches!(stopped.recv_timeout(interval), Err(RecvTimeoutError::Timeout)) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("wharf-source".into()).spawn(run).map_err(|e| e.to_string())?;
        if first.recv_timeout(FIRST).is_err() {
            tracing::warn!("deploy.source has not answered within {FIRST:?}: what is in the deploy folder is served");
        }
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A look that waits for the network is not waited for.
        let _ = self.thread.take();
    }
}

fn store(source: &Source) -> Result<(Arc<dyn ObjectStore>, Path), String> {
    let text = |e: object_store::Error| e.to_string();
    if let Some(folder) = source.url.strip_prefix("file://") {
        return Ok((Arc::new(LocalFileSystem::new_with_prefix(folder).map_err(text)?), Path::default()));
    }
    let rest = source.url.strip_prefix("s3://").unwrap_or_default();
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    // The next look is the next attempt, after a moment's hiccup at the latest.
    let retry = RetryConfig { max_retries: 2, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
    if let Some(endpoint) = &source.endpoint {
        builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
    }
    if let Some(region) = &source.region {
        builder = builder.with_region(region);
    }
    if let (Some(key), Some(secret)) = (&source.access_key, &source.secret_key) {
        builder = builder.with_access_key_id(key).with_secret_access_key(secret);
    }
    Ok((Arc::new(builder.build().map_err(text)?), Path::from(prefix)))
}
