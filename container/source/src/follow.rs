//! One look: what is new is brought, what is gone is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use serde::{Deserialize, Serialize};

/// What was brought: names, and by what a change shows.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Brought(BTreeMap<String, String>);

/// See the module.
pub(crate) struct Follow {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    deploy_dir: PathBuf,
    state: PathBuf,
    brought: Brought,
    /// What was said last, so that it is said once.
    trouble: Option<String>,
}

/// A change of an object shows by this.
fn mark(object: &ObjectMeta) -> String {
    let time = object.last_modified.to_rfc3339();
    format!("{} {time} {}", object.e_tag.as_deref().unwrap_or_default(), object.size)
}

/// Whether the deployer would look at a file of this name: no hidden one, no folder, no way out.
fn is_wanted(name: &str) -> bool {
    let (stem, suffix) = name.rsplit_once('.').unwrap_or((name, ""));
    !name.starts_with('.') && !name.contains('/') && !stem.is_empty() && matches!(suffix, "so" | "toml")
}

/// What is behind an error: the store's own words tell the time that each attempt took, so that no two are alike.
fn why(error: &object_store::Error) -> String {
    let mut error: &dyn std::error::Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

impl Follow {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, prefix: Path, deploy_dir: PathBuf, state: PathBuf) -> Self {
        let brought = fs::read(&state).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { store, prefix, deploy_dir, state, brought, trouble: None }
    }

    /// Looks once. Trouble is said, and changes nothing.
    pub(crate) async fn look(&mut self) {
        let trouble = self.attempt().await.err();
        if trouble != self.trouble {
            match &trouble {
                Some(what) => tracing::error!("deploy.source: {what}; what is in the deploy folder stays"),
                None => tracing::info!("deploy.source answers again"),
            }
            self.trouble = trouble;
        }
    }

    /// The name of a file that is directly below the prefix.
    fn name(&self, object: &ObjectMeta) -> Option<String> {
        let mut parts = object.location.prefix_match(&self.prefix)?;
        let name = parts.next()?.as_ref().to_owned();
        parts.next().is_none().then_some(name)
    }

    async fn attempt(&mut self) -> Result<(), String> {
        let listed: Vec<ObjectMeta> = self
            .store
            .list(Some(&self.prefix))
            .try_collect()
            .await
            .map_err(|e| format!("it can't be listed: {}", why(&e)))?;
        let mut there = BTreeSet::new();
        let mut changed = Vec::new();
        for object in listed {
            let Some(name) = self.name(&object).filter(|name| is_wanted(name)) else { continue };
            there.insert(name.clone());
            if self.brought.0.get(&name) != Some(&mark(&object)) || !self.deploy_dir.join(&name).exists() {
                changed.push((name, object));
            }
        }
        // Side-car files first: a module is started by what its own says.
        changed.sort_by_key(|(name, _)| (name.ends_with(".so"), name.clone()));
        for (name, object) in changed {
            self.bring(&name, &object).await.map_err(|what| format!("{name}: {what}"))?;
        }
        let gone: Vec<String> = self.brought.0.keys().filter(|name| !there.contains(*name)).cloned().collect();
        for name in gone {
            match fs::remove_file(self.deploy_dir.join(&name)) {
                Ok(()) => tracing::info!(file = name, "removed, as it is from deploy.source"),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(format!("{name}: {e}")),
            }
            self.brought.0.remove(&name);
            self.remember()?;
        }
        Ok(())
    }

    /// Brings a file, whole, by one rename.
    async fn bring(&mut self, name: &str, object: &ObjectMeta) -> Result<(), String> {
        let text = |e: io::Error| e.to_string();
        let found = self.store.get(&object.location).await.map_err(|e| why(&e))?;
        let mark = mark(&found.meta);
        fs::create_dir_all(&self.deploy_dir).map_err(text)?;
        let mut file = tempfile::Builder::new()
            .prefix(".source-")
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(&self.deploy_dir)
            .map_err(text)?;
        let size = found.meta.size;
        let mut chunks = found.into_stream();
        let mut written = 0;
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|e| why(&e))?;
            file.write_all(&chunk).map_err(text)?;
            written += chunk.len() as u64;
        }
        if written != size {
            return Err(format!("{written} bytes came, of {size}"));
        }
        file.persist(self.deploy_dir.join(name)).map_err(|e| e.to_string())?;
        tracing::info!(file = name, bytes = size, "brought from deploy.source");
        self.brought.0.insert(name.to_owned(), mark);
        self.remember()
    }

    fn remember(&self) -> Result<(), String> {
        let text = serde_json::to_vec(&self.brought).map_err(|e| e.to_string())?;
        let folder = self.state.parent().unwrap_or(&self.state);
        let write = || {
            fs::create_dir_all(folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(&text)?;
            file.persist(&self.state).map_err(|e| e.error)
        };
        write().map(|_| ()).map_err(|e| format!("{}: {e}", self.state.display()))
    }
}

#[cfg(test)]
mod tests {
    use object_store::PutPayload;
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn names_that_are_followed() {
        for (name, wanted) in [
            ("shop.so", true),
            ("shop##2.toml", true),
            (".hidden.so", false),
            (".so", false),
            ("a/b.so", false),
            ("notes.txt", false),
            ("so", false),
        ] {
            assert_eq!(is_wanted(name), wanted, "{name}");
        }
    }

    #[tokio::test]
    async fn the_folder_follows_the_store_and_nothing_else_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let (deploy, state) = (folder.path().join("deploy"), folder.path().join("state/source.json"));
        let store = Arc::new(InMemory::new());
        let put = async |name: &str, text: &'static str| {
            store.put(&Path::parse(name).unwrap(), PutPayload::from_static(text.as_bytes())).await.unwrap();
        };
        let follow = || Follow::new(store.clone(), Path::from("prod"), deploy.clone(), state.clone());
        let names = || {
            let names = fs::read_dir(&deploy).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
            names.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
        };
        put("prod/a.so", "1").await;
        put("prod/a.toml", "x").await;
        put("prod/b##2.so", "2").await;
        put("prod/deeper/b.so", "no").await;
        put("other/c.so", "no").await;
        let mut following = follow();
        following.look().await;
        assert_eq!((names().as_str(), following.trouble.as_deref()), ("a.so a.toml b##2.so", None));
        // What others have put there stays; a change comes; what is the same is not written again.
        fs::write(deploy.join("own.so"), "own").unwrap();
        let toml = || fs::metadata(deploy.join("a.toml")).unwrap().modified().unwrap();
        let before = toml();
        put("prod/a.so", "22").await;
        let mut following = follow();
        following.look().await;
        assert_eq!((fs::read_to_string(deploy.join("a.so")).unwrap().as_str(), toml()), ("22", before));
        // What was removed by hand is brought again; what is gone from the store goes.
        fs::remove_file(deploy.join("a.toml")).unwrap();
        store.delete(&Path::from("prod/a.so")).await.unwrap();
        following.look().await;
        assert_eq!(names(), "a.toml b##2.so own.so");
    }
}
