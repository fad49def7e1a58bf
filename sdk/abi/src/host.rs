//! What the container gives to a module.

use abi_stable::StableAbi;
use abi_stable::std_types::RString;

use crate::message::Header;
use crate::{FfiCache, FfiDataSource, FfiHttpClient, RawStr, ResourcesVTable};

/// A log record of an application, valid for the call.
#[repr(C)]
#[derive(StableAbi)]
pub struct LogRecord {
    /// 1 error, 2 warn, 3 info, 4 debug, 5 trace.
    pub level: u8,
    /// Target, usually the module path.
    pub target: RawStr,
    /// The message.
    pub message: RawStr,
    /// Source file, empty when not known.
    pub file: RawStr,
    /// Line, 0 when not known.
    pub line: u32,
    /// Request id, empty outside a request.
    pub request_id: RawStr,
    /// The other fields as text.
    pub fields: *const Header,
    /// How many there are.
    pub field_count: usize,
}

/// A panic of an application, valid for the call.
#[repr(C)]
#[derive(StableAbi)]
pub struct PanicReport {
    /// The message.
    pub message: RawStr,
    /// Source file.
    pub file: RawStr,
    /// Line.
    pub line: u32,
    /// Request id, empty outside a request.
    pub request_id: RawStr,
    /// Name of the thread.
    pub thread: RawStr,
    /// Return addresses, innermost first. The container symbolises them; the module never does.
    pub addresses: *const usize,
    /// How many there are.
    pub address_count: usize,
}

/// The container's functions. Grows at its end, with the ABI's minor version.
#[repr(C)]
#[derive(StableAbi)]
pub struct HostVTable {
    /// Writes a log record. Any thread.
    pub log: unsafe extern "C" fn(ctx: *const (), record: *const LogRecord),
    /// The most verbose level that is written, as in [`LogRecord::level`]; 0 for none. Any thread.
    pub max_level: unsafe extern "C" fn(ctx: *const ()) -> u8,
    /// Reports a panic. Any thread.
    pub panic: unsafe extern "C" fn(ctx: *const (), report: *const PanicReport),
    /// The resources of the application. Any thread.
    pub resources: *const ResourcesVTable,
}

// SAFETY: functions, and a pointer to more of them.
unsafe impl Sync for HostVTable {}

/// The container, as one generation of a module sees it. Valid until `destroy` returns.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct Host {
    /// For the functions.
    pub ctx: *const (),
    /// The functions.
    pub vtable: *const HostVTable,
}

// SAFETY: the functions may be called on any thread, with this context.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

impl Host {
    fn resources(&self) -> &'static ResourcesVTable {
        // SAFETY: valid until `destroy` returns, and static in the container.
        unsafe { &*(*self.vtable).resources }
    }

    /// The data source with this name.
    ///
    /// # Errors
    /// Why there is none.
    pub fn data_source(&self, name: &str) -> Result<FfiDataSource, RString> {
        // SAFETY: the context belongs to the functions; the text lives for the call.
        unsafe { (self.resources().data_source)(self.ctx, RawStr::new(name)) }.into_result()
    }

    /// The cache with this name.
    ///
    /// # Errors
    /// Why there is none.
    pub fn cache(&self, name: &str) -> Result<FfiCache, RString> {
        // SAFETY: as in `data_source`.
        unsafe { (self.resources().cache)(self.ctx, RawStr::new(name)) }.into_result()
    }

    /// The HTTP client with this name.
    ///
    /// # Errors
    /// Why there is none.
    pub fn http_client(&self, name: &str) -> Result<FfiHttpClient, RString> {
        // SAFETY: as in `data_source`.
        unsafe { (self.resources().http_client)(self.ctx, RawStr::new(name)) }.into_result()
    }

    /// The settings of a resource as JSON.
    ///
    /// # Errors
    /// Why they are not given.
    pub fn resource_settings(&self, name: &str) -> Result<RString, RString> {
        // SAFETY: as in `data_source`.
        unsafe { (self.resources().settings)(self.ctx, RawStr::new(name)) }.into_result()
    }
}
