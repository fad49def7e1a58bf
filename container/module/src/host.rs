//! The container's functions for one generation: its log and its panics.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tracing::Level;
use tracing::level_filters::LevelFilter;
use wharf_abi::{Host, HostVTable, LogRecord, PanicReport, RawStr};
use wharf_kernel::resource::BoundResources;

use crate::symbolise::{self, Trace};

/// What the functions know of the generation they are called by. Lives until it is unloaded.
pub(crate) struct HostContext {
    /// `/shop##2`.
    pub(crate) app: String,
    /// Version of the package.
    pub(crate) version: String,
    /// Generation.
    pub(crate) generation: u64,
    /// The private copy, to look symbols up in.
    pub(crate) file: PathBuf,
    /// Where it is mapped.
    pub(crate) extent: OnceLock<Range<usize>>,
    /// What the application may use; nothing in a trial.
    pub(crate) resources: Option<Arc<dyn BoundResources>>,
    /// Statements and the like that the module has in its hands.
    pub(crate) works: Arc<AtomicU64>,
    /// True in the trial load.
    pub(crate) trial: bool,
    /// Panics so far.
    pub(crate) panics: AtomicU64,
}

static VTABLE: HostVTable = HostVTable { log, max_level, panic, resources: &raw const crate::resource::RESOURCES };

impl HostContext {
    /// For `create`. Valid as long as `self` stays where it is.
    pub(crate) fn as_host(&self) -> Host {
        Host { ctx: std::ptr::from_ref(self).cast(), vtable: &raw const VTABLE }
    }
}

unsafe extern "C" fn max_level(_: *const ()) -> u8 {
    match LevelFilter::current().into_level() {
        None => 0,
        Some(Level::ERROR) => 1,
        Some(Level::WARN) => 2,
        Some(Level::INFO) => 3,
        Some(Level::DEBUG) => 4,
        Some(Level::TRACE) => 5,
    }
}

unsafe extern "C" fn log(ctx: *const (), record: *const LogRecord) {
    // SAFETY: `ctx` is what `as_host` gave, still alive; the record is valid for the call.
    let (this, record) = unsafe { (&*ctx.cast::<HostContext>(), &*record) };
    // SAFETY: texts of the record, valid for the call and UTF-8.
    let text = |t: RawStr| unsafe { t.as_str() };
    let fields = if record.field_count == 0 {
        &[][..]
    } else {
        // SAFETY: pointer and count belong together, valid for the call.
        unsafe { std::slice::from_raw_parts(record.fields, record.field_count) }
    };
    let mut message = text(record.message).to_owned();
    for field in fields {
        message.push_str(if message.is_empty() { "" } else { " " });
        message.push_str(text(field.name));
        message.push('=');
        message.push_str(text(field.value));
    }
    let request = Some(text(record.request_id)).filter(|id| !id.is_empty());
    macro_rules! write {
        ($level:expr) => {
            tracing::event!(
                target: "wharf::app", $level, app = %this.app, version = %this.version, generation = this.generation,
                request, from = text(record.target), "{message}"
            )
        };
    }
    match record.level {
        1 => write!(Level::ERROR),
        2 => write!(Level::WARN),
        3 => write!(Level::INFO),
        4 => write!(Level::DEBUG),
        _ => write!(Level::TRACE),
    }
}

unsafe extern "C" fn panic(ctx: *const (), report: *const PanicReport) {
    // SAFETY: as in `log`.
    let (this, report) = unsafe { (&*ctx.cast::<HostContext>(), &*report) };
    this.panics.fetch_add(1, Ordering::Relaxed);
    // SAFETY: texts of the report, valid for the call and UTF-8.
    let text = |t: RawStr| unsafe { t.as_str() }.to_owned();
    let addresses = if report.address_count == 0 {
        Vec::new()
    } else {
        // SAFETY: pointer and count belong together, valid for the call.
        unsafe { std::slice::from_raw_parts(report.addresses, report.address_count) }.to_vec()
    };
    symbolise::report(Trace {
        app: this.app.clone(),
        version: this.version.clone(),
        generation: this.generation,
        message: text(report.message),
        location: format!("{}:{}", text(report.file), report.line),
        request: text(report.request_id),
        thread: text(report.thread),
        file: this.file.clone(),
        extent: this.extent.get().cloned().unwrap_or(0..0),
        addresses,
    });
}
