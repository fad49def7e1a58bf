//! Sessions: what the container keeps for one client of the application from request to request.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wharf_abi::{FfiSession, SessionFacts, SessionRefused, SessionValue};

use crate::local_sessions::LocalSession;
use crate::session_listener::{SessionListeners, told};
use crate::{Error, ServletContext};

/// A session (`HttpSession` of Servlet 6.1, chapter 7).
///
/// The container owns it, so it outlives a redeploy of the application. Its values are kept as JSON with the name of their
/// type; a new version of the application reads what an old one wrote by the rules of serde (`#[serde(default)]` for a new
/// field). A value that can't be read any more is dropped, and the log says so. All requests of one session see one state.
///
/// ```
/// use wharf_sdk::{App, Error, Request, TestClient, get};
///
/// async fn count(request: Request) -> Result<String, Error> {
///     let session = request.session().await?;
///     let visits = session.get::<u32>("visits")?.unwrap_or(0) + 1;
///     session.set("visits", &visits)?;
///     Ok(visits.to_string())
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let client = TestClient::new(App::new().servlet("count", "/", get(count))).start().await.unwrap();
/// assert_eq!(client.get("/").send().await.text().await, "1");
/// assert_eq!(client.get("/").send().await.text().await, "2");
/// # });
/// ```
#[derive(Clone)]
pub struct Session {
    handle: Handle,
    context: Arc<ServletContext>,
}

#[derive(Clone)]
pub(crate) enum Handle {
    Crossed(Arc<FfiSession>),
    Local(LocalSession),
}

/// The name of a value together with its type.
///
/// ```
/// use wharf_sdk::SessionKey;
///
/// const CART: SessionKey<Vec<u32>> = SessionKey::new("cart");
/// ```
pub struct SessionKey<T> {
    name: &'static str,
    of: PhantomData<fn() -> T>,
}

impl<T> SessionKey<T> {
    /// The key with this name.
    pub const fn new(name: &'static str) -> Self {
        Self { name, of: PhantomData }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

pub(crate) fn error(refused: SessionRefused) -> Error {
    let status = StatusCode::from_u16(refused.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Error::new(status, refused.message.into_string())
}

fn ended() -> Error {
    Error::internal("the session was invalidated or has expired")
}

impl Session {
    pub(crate) fn new(handle: Handle, context: Arc<ServletContext>) -> Self {
        Self { handle, context }
    }

    /// Tells the listeners of a session that has just begun.
    pub(crate) fn opened(self) -> Self {
        if self.is_new() && self.get_raw(ANNOUNCED).is_none() && self.listeners().is_some() {
            // Of several calls for one request only the first is the beginning.
            if self.set_raw(ANNOUNCED, "()", "null").is_ok_and(|before| before.is_none()) {
                self.each(|listener| listener.session_created(&self));
            }
        }
        self
    }

    fn facts(&self) -> SessionFacts {
        match &self.handle {
            Handle::Crossed(ffi) => ffi.facts(),
            Handle::Local(local) => local.facts(),
        }
    }

    fn get_raw(&self, name: &str) -> Option<SessionValue> {
        match &self.handle {
            Handle::Crossed(ffi) => ffi.get(name),
            Handle::Local(local) => local.get(name),
        }
    }

    fn set_raw(&self, name: &str, type_name: &str, json: &str) -> Result<Option<SessionValue>, Error> {
        match &self.handle {
            Handle::Crossed(ffi) => ffi.set(name, type_name, json),
            Handle::Local(local) => local.set(name, type_name, json),
        }
        .map_err(error)
    }

    fn remove_raw(&self, name: &str) -> Result<Option<SessionValue>, Error> {
        match &self.handle {
            Handle::Crossed(ffi) => ffi.remove(name),
            Handle::Local(local) => local.remove(name),
        }
        .map_err(error)
    }

    fn listeners(&self) -> Option<Arc<SessionListeners>> {
        self.context.attribute::<SessionListeners>()
    }

    fn each(&self, tell: impl Fn(&dyn crate::SessionListener)) {
        if let Some(listeners) = self.listeners() {
            listeners.0.iter().for_each(|listener| told(|| tell(&**listener)));
        }
    }

    /// Its id. A secret: whoever knows it is the client.
    pub fn id(&self) -> String {
        self.facts().id.into_string()
    }

    /// Whether the client does not know of it yet (section 7.2).
    pub fn is_new(&self) -> bool {
        self.facts().is_new
    }

    /// Whether it has been neither invalidated nor found expired.
    pub fn is_valid(&self) -> bool {
        self.facts().is_valid
    }

    /// When it began.
    pub fn creation_time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.facts().created_ms)
    }

    /// When the client last sent a request for it, before the present one (section 7.6).
    pub fn last_accessed_time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.facts().last_accessed_ms)
    }

    /// Without a request for so long it ends; `None`: never (section 7.5).
    pub fn max_inactive_interval(&self) -> Option<Duration> {
        Some(self.facts().max_inactive_ms).filter(|ms| *ms != u64::MAX).map(Duration::from_millis)
    }

    /// Sets [`Session::max_inactive_interval`] of this session alone. Zero is as `None`: never.
    pub fn set_max_inactive_interval(&self, interval: Option<Duration>) {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let ms = interval.filter(|d| !d.is_zero()).map_or(u64::MAX, millis);
        match &self.handle {
            Handle::Crossed(ffi) => ffi.set_max_inactive(ms),
            Handle::Local(local) => local.set_max_inactive(ms),
        }
    }

    /// Names of its values, in their order.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = match &self.handle {
            Handle::Crossed(ffi) => ffi.names().into_iter().map(Into::into).collect(),
            Handle::Local(local) => local.names(),
        };
        names.retain(|name| name != ANNOUNCED && name != crate::csrf::VALUE);
        names
    }

    /// A value. One that does not fit the type is removed, with a warning in the log, and is `None`.
    ///
    /// # Errors
    /// 500 when the session has ended.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.get_raw(name) else {
            return if self.is_valid() { Ok(None) } else { Err(ended()) };
        };
        match serde_json::from_str(&value.json) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                let (was, is) = (value.type_name.as_str(), std::any::type_name::<T>());
                tracing::warn!(
                    target: "wharf_sdk",
                    "the session value '{name}' was dropped: written as {was}, it can't be read as {is}: {error}"
                );
                self.remove(name)?;
                Ok(None)
            }
        }
    }

    /// Sets a value.
    ///
    /// # Errors
    /// 507 when the session would be larger than `session.max_session_bytes`, 503 when all sessions together would be larger
    /// than `session.max_bytes`, 500 when the session has ended or the value can't be written as JSON.
    pub fn set<T: Serialize + ?Sized>(&self, name: &str, value: &T) -> Result<(), Error> {
        let json = serde_json::to_string(value)?;
        let before = self.set_raw(name, std::any::type_name::<T>(), &json)?;
        self.each(|listener| match before {
            None => listener.attribute_added(self, name),
            Some(_) => listener.attribute_replaced(self, name),
        });
        Ok(())
    }

    /// Removes a value. True when there was one.
    ///
    /// # Errors
    /// 500 when the session has ended.
    pub fn remove(&self, name: &str) -> Result<bool, Error> {
        let removed = self.remove_raw(name)?.is_some();
        if removed {
            self.each(|listener| listener.attribute_removed(self, name));
        }
        Ok(removed)
    }

    /// The value of a key, as [`Session::get`].
    ///
    /// # Errors
    /// As [`Session::get`].
    pub fn value<T: DeserializeOwned>(&self, key: &SessionKey<T>) -> Result<Option<T>, Error> {
        self.get(key.name)
    }

    /// Sets the value of a key, as [`Session::set`].
    ///
    /// # Errors
    /// As [`Session::set`].
    pub fn put<T: Serialize>(&self, key: &SessionKey<T>, value: &T) -> Result<(), Error> {
        self.set(key.name, value)
    }

    /// Ends it: its values are gone, and the client is told to forget its id.
    ///
    /// # Errors
    /// 500 when it had ended before.
    pub fn invalidate(&self) -> Result<(), Error> {
        if !self.is_valid() {
            return Err(ended());
        }
        self.destroyed();
        let done = match &self.handle {
            Handle::Crossed(ffi) => ffi.invalidate(),
            Handle::Local(local) => local.invalidate(),
        };
        if done { Ok(()) } else { Err(ended()) }
    }

    /// Gives it a new id and keeps its values: to be called when somebody logs in, so that an id which another has planted
    /// opens nothing (`HttpServletRequest.changeSessionId`). Returns the new one.
    ///
    /// # Errors
    /// 500 when it has ended.
    pub fn change_id(&self) -> Result<String, Error> {
        let before = match &self.handle {
            Handle::Crossed(ffi) => ffi.rotate().map(Into::into),
            Handle::Local(local) => local.rotate(),
        };
        let before: String = before.map_err(error)?;
        self.each(|listener| listener.session_id_changed(self, &before));
        Ok(self.id())
    }

    /// Tells the listeners, the last first, that it is about to end.
    pub(crate) fn destroyed(&self) {
        if let Some(listeners) = self.listeners() {
            listeners.0.iter().rev().for_each(|listener| told(|| listener.session_destroyed(self)));
        }
    }
}

/// Marks a session whose listeners know of it. No name that an application would choose.
const ANNOUNCED: &str = "\u{1}announced";

impl fmt::Debug for Session {
    /// Without the id, which is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("new", &self.is_new()).field("valid", &self.is_valid()).finish_non_exhaustive()
    }
}
