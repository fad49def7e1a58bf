//! What the container gives to a module.

use abi_stable::StableAbi;

use crate::RawStr;
use crate::message::Header;

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
}

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
