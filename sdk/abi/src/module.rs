//! What a module gives to the container: the root module that abi_stable checks.

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::package_version_strings;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RResult, RString, RVec};

use crate::{Begun, FfiRequest, FfiSession, Host, RawStr, WakerHead};

/// A name and a value, valid for the call.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct Parameter {
    /// Name.
    pub name: RawStr,
    /// Value.
    pub value: RawStr,
}

/// What `create` is told, valid for the call.
#[repr(C)]
#[derive(StableAbi)]
pub struct CreateArgs {
    /// Name for logs and threads: `/shop##2`.
    pub app: RawStr,
    /// Context path.
    pub context_path: RawStr,
    /// Version from the file name, empty without one.
    pub version: RawStr,
    /// Folder with the application's own files, empty without one.
    pub folder: RawStr,
    /// Folder in which its folder for temporary files belongs: emptied when a container starts.
    pub temp_root: RawStr,
    /// Generation.
    pub generation: u64,
    /// Init parameters.
    pub init: *const Parameter,
    /// How many there are.
    pub init_count: usize,
    /// Threads of the module's runtime.
    pub runtime_threads: u32,
    /// At most this many threads for blocking work.
    pub blocking_threads: u32,
    /// True in the trial load, in a process of its own.
    pub trial: bool,
    /// What the application's TOML file adds to its builder (the counterpart of web.xml): JSON, empty for nothing.
    pub web: RawStr,
}

/// Why a call failed.
#[repr(u8)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// It returned an error.
    Error,
    /// It panicked.
    Panic,
    /// The servlet mappings are not valid.
    Mapping,
}

/// A failed call, for people to read.
#[repr(C)]
#[derive(StableAbi)]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// The message.
    pub message: RString,
}

/// A servlet that the application declares.
#[repr(C)]
#[derive(StableAbi)]
pub struct ServletDecl {
    /// Servlet name.
    pub name: RString,
    /// URL patterns.
    pub patterns: RVec<RString>,
}

/// A created application.
#[repr(C)]
#[derive(StableAbi)]
pub struct Instance {
    /// For the functions of [`Module`].
    pub ptr: *const (),
    /// Its servlets; empty when it takes the whole context (a mounted router).
    pub servlets: RVec<ServletDecl>,
    /// What it is made of (servlets, filters, error pages), builder and TOML file merged, for people to read: JSON, empty
    /// for a mounted router.
    pub description: RString,
    /// Its security constraints, as `[[constraints]]` of a TOML file says them: JSON, empty for none.
    pub constraints: RString,
}

// SAFETY: the functions of `Module` that take it may be called on any thread.
unsafe impl Send for Instance {}

/// The functions of a module, in the order in which they are called.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ModuleRef)))]
#[sabi(missing_field(panic))]
pub struct Module {
    /// Makes the application: builder, runtime, logging. `args` is valid for the call, `host` until `destroy` returns.
    pub create: unsafe extern "C" fn(host: Host, args: *const CreateArgs) -> RResult<Instance, Failure>,
    /// Starts it: context listeners in order, then each servlet's init. Blocks.
    pub start: unsafe extern "C" fn(instance: *const ()) -> RResult<(), Failure>,
    /// Answers a request, or begins to. Does not block, and may be called on any thread. The waker, which is valid for the call, is woken
    /// when what is given then should be polled.
    pub service: unsafe extern "C" fn(instance: *const (), request: FfiRequest, waker: *const WakerHead) -> Begun,
    /// Tells it that it will have to stop, so that what lives long in it ends. Does not block; may be called more than once,
    /// from `start` to `stop`.
    pub draining: unsafe extern "C" fn(instance: *const ()),
    /// Tells its session listeners that these sessions have expired. Blocks. Called with a lease held, on a thread that ends
    /// soon after.
    pub sessions_expired: unsafe extern "C" fn(instance: *const (), sessions: RVec<FfiSession>),
    /// Stops it: each servlet's destroy, then the context listeners in reverse order. Blocks.
    pub stop: unsafe extern "C" fn(instance: *const ()) -> RResult<(), Failure>,
    /// Shuts its runtime down, waiting at most so long for its threads, and frees it. Blocks. Called once, last: when
    /// every future and every body that `service` gave has been dropped.
    #[sabi(last_prefix_field)]
    pub destroy: unsafe extern "C" fn(instance: *const (), timeout_ms: u64),
}

impl RootModule for ModuleRef {
    abi_stable::declare_root_module_statics! {ModuleRef}

    const BASE_NAME: &'static str = "wharf_module";
    const NAME: &'static str = "wharf module";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}
