//! What an application says by `tracing` or by a panic goes to the container's log, with the request it was said for.

use std::cell::Cell;
use std::ffi::c_void;
use std::fmt::{Debug, Write};
use std::sync::OnceLock;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use wharf_abi::{Header, Host, LogRecord, PanicReport, RawStr};

static HOST: OnceLock<Host> = OnceLock::new();

thread_local! {
    /// The id of the request that is being worked on. Const and without a destructor.
    static REQUEST_ID: Cell<RawStr> = const { Cell::new(RawStr::EMPTY) };
}

/// Runs `work`, on this thread, for the request with this id.
#[inline]
pub(crate) fn for_request<R>(id: &str, work: impl FnOnce() -> R) -> R {
    struct Reset(RawStr);
    impl Drop for Reset {
        fn drop(&mut self) {
            REQUEST_ID.set(self.0);
        }
    }
    let _reset = Reset(REQUEST_ID.replace(RawStr::new(id)));
    work()
}

/// The id of the request that is being worked on, on this thread; empty where there is none.
pub(crate) fn request_id() -> String {
    // SAFETY: set by `for_request` to a text that outlives its call.
    unsafe { REQUEST_ID.get().as_str() }.to_owned()
}

/// The container, once there is one.
pub(crate) fn host() -> Option<&'static Host> {
    HOST.get()
}

/// Sends log records and panics to `host` from now on. Called once, by `create`.
pub(crate) fn install(host: Host) {
    if HOST.set(host).is_err() {
        return;
    }
    // SAFETY: the host's functions may be called on any thread until `destroy` returns.
    let max = match unsafe { ((*host.vtable).max_level)(host.ctx) } {
        0 => LevelFilter::OFF,
        1 => LevelFilter::ERROR,
        2 => LevelFilter::WARN,
        3 => LevelFilter::INFO,
        4 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let subscriber = tracing_subscriber::registry().with(ToHost(host).with_filter(max));
    // An application that has set a subscriber of its own in a static constructor keeps it.
    let _ = tracing::subscriber::set_global_default(subscriber);
    let _ = tracing_log::LogTracer::init();
    std::panic::set_hook(Box::new(report_panic));
}

struct ToHost(Host);

/// The fields of an event or a span: the message apart, the others as text.
#[derive(Default, Clone)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            name => self.others.push((name, value.to_owned())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => _ = write!(self.message, "{value:?}"),
            // Set by the bridge from the `log` crate; the record has them in its own places.
            name if name.starts_with("log.") => {}
            name => self.others.push((name, format!("{value:?}"))),
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for ToHost {
    fn on_new_span(&self, attributes: &tracing::span::Attributes<'_>, id: &tracing::Id, cx: Context<'_, S>) {
        if let Some(span) = cx.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &tracing::Id, values: &tracing::span::Record<'_>, cx: Context<'_, S>) {
        if let Some(span) = cx.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        use tracing_log::NormalizeEvent;
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let mut fields = Fields::default();
        if let Some(scope) = cx.event_scope(event) {
            for span in scope.from_root() {
                if let Some(of_span) = span.extensions().get::<Fields>() {
                    fields.others.extend(of_span.others.iter().cloned());
                }
            }
        }
        event.record(&mut fields);
        let others: Vec<Header> = fields
            .others
            .iter()
            .map(|(name, value)| Header { name: RawStr::new(name), value: RawStr::new(value) })
            .collect();
        let record = LogRecord {
            level: match *metadata.level() {
                Level::ERROR => 1,
                Level::WARN => 2,
                Level::INFO => 3,
                Level::DEBUG => 4,
                Level::TRACE => 5,
            },
            target: RawStr::new(metadata.target()),
            message: RawStr::new(&fields.message),
            file: RawStr::new(metadata.file().unwrap_or_default()),
            line: metadata.line().unwrap_or(0),
            request_id: REQUEST_ID.get(),
            fields: others.as_ptr(),
            field_count: others.len(),
        };
        // SAFETY: the record and all it points to live during the call.
        unsafe { ((*self.0.vtable).log)(self.0.ctx, &raw const record) }
    }
}

/// The module's panic hook. It takes return addresses and leaves their names to the container: std's own symboliser would
/// map this library once more and keep the map for ever.
fn report_panic(info: &std::panic::PanicHookInfo<'_>) {
    let Some(host) = HOST.get() else { return };
    let message = info.payload_as_str().unwrap_or("(the payload is not text)");
    let (file, line) = info.location().map_or(("", 0), |l| (l.file(), l.line()));
    let thread = std::thread::current();
    let mut addresses = Addresses { count: 0, list: [0; 64] };
    // SAFETY: the callback keeps the contract of the unwinder, and the list outlives the call.
    unsafe { _Unwind_Backtrace(collect, (&raw mut addresses).cast()) };
    let report = PanicReport {
        message: RawStr::new(message),
        file: RawStr::new(file),
        line,
        request_id: REQUEST_ID.get(),
        thread: RawStr::new(thread.name().unwrap_or_default()),
        addresses: addresses.list.as_ptr(),
        address_count: addresses.count,
    };
    // SAFETY: the report and all it points to live during the call.
    unsafe { ((*host.vtable).panic)(host.ctx, &raw const report) }
}

struct Addresses {
    count: usize,
    list: [usize; 64],
}

// SAFETY: the unwinder that std itself links, with its types (Itanium C++ ABI: Exception handling, section 1.3, and the usual
// extension).
unsafe extern "C" {
    fn _Unwind_Backtrace(visit: extern "C" fn(*mut c_void, *mut c_void) -> i32, argument: *mut c_void) -> i32;
    fn _Unwind_GetIP(frame: *mut c_void) -> usize;
}

extern "C" fn collect(frame: *mut c_void, addresses: *mut c_void) -> i32 {
    // SAFETY: the pointer that `report_panic` passed, used by nobody else meanwhile.
    let addresses = unsafe { &mut *addresses.cast::<Addresses>() };
    if addresses.count == addresses.list.len() {
        // _URC_END_OF_STACK would do as well: anything but 0 ends the walk.
        return 5;
    }
    // SAFETY: the frame that the unwinder passed.
    addresses.list[addresses.count] = unsafe { _Unwind_GetIP(frame) };
    addresses.count += 1;
    0
}
