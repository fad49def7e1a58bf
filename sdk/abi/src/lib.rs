//! The border between the container and its modules: `#[repr(C)]` types that both sides agree on, and the few shims that
//! carry a future, a body or a waker across.
//!
//! Both sides are Rust, but not the same Rust: another compiler, other versions of every crate, another tokio. So nothing
//! here has the layout of a type that isn't ours, no panic crosses, and whatever is handed over carries its own way to be
//! let go: neither side frees the other's memory.

mod body;
mod bytes;
mod cache;
mod client;
mod descriptor;
mod future;
mod heap;
mod host;
mod message;
mod module;
mod resource;
mod session;
mod sign;
mod sql;
mod tls;
mod upgrade;
mod user;
mod waker;
mod work;

pub use body::{FfiBody, FfiBodyVTable, Frame, PollFrame, Trailer};
pub use bytes::{FfiBytes, RawStr};
pub use cache::{CacheAnswer, CacheOrder, FfiCache, FfiCacheVTable, FfiCacheWork};
pub use client::{
    ClientAnswer, FfiClientRequest, FfiClientResponse, FfiClientWork, FfiHttpClient, FfiHttpClientVTable,
};
pub use descriptor::{DESCRIPTOR_MAGIC, DESCRIPTOR_SECTION, concat, total_len};
pub use future::{Begun, FfiFuture, FfiFutureVTable, Outcome, contain};
pub use heap::{HEAP_SYMBOL, HeapApi, HeapFn};
pub use host::{Host, HostVTable, LogRecord, PanicReport};
pub use message::{Address, FfiRequest, FfiResponse, FfiResponseBody, Header, RequestHead};
pub use module::{CreateArgs, Failure, FailureKind, Instance, Module, ModuleRef, Parameter, ServletDecl};
pub use resource::ResourcesVTable;
pub use session::{
    FfiOpening, FfiOpeningVTable, FfiSession, FfiSessionVTable, Opened, RequestSessionsVTable, RequestedSession,
    SessionFacts, SessionRefused, SessionValue,
};
pub use sign::{FfiSignWork, SignField, SignOrder, SignRefused, Signed, SignedUser};
pub use sql::{
    FfiDataSource, FfiDataSourceVTable, FfiDone, FfiMigration, FfiRows, FfiSqlError, FfiSqlValue, FfiSqlWork,
    FfiStatement, FfiTransaction, FfiTransactionVTable, SqlAnswer,
};
pub use tls::{TlsHead, TlsView};
pub use upgrade::{Duplex, FfiStream, FfiStreamVTable, FfiUpgrade, FfiUpgradeVTable, PollIo, Upgrade, UpgradeOutcome};
pub use user::{UserHead, UserView};
pub use waker::WakerHead;
pub use work::{Answer, FfiWork, FfiWorkVTable, PollAnswer};

/// Changes when a module built before can no longer run.
pub const ABI_MAJOR: u32 = 1;
/// Changes when something is added: a module built against a newer minor version than the container's is refused.
pub const ABI_MINOR: u32 = 0;
