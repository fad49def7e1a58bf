//! Panics in the log, with the names of the functions on the stack.
//!
//! Names are looked up in the private copy of the module, on a thread of the container's own, and everything read for it is
//! let go again: nothing is done in the module, and nothing of it stays mapped.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};

/// A panic to be reported.
pub(crate) struct Trace {
    pub(crate) app: String,
    pub(crate) version: String,
    pub(crate) generation: u64,
    pub(crate) message: String,
    pub(crate) location: String,
    pub(crate) request: String,
    pub(crate) thread: String,
    pub(crate) file: PathBuf,
    pub(crate) extent: Range<usize>,
    pub(crate) addresses: Vec<usize>,
}

/// Writes the panic to the log, soon. When many panics wait already, at once and without names.
pub(crate) fn report(trace: Trace) {
    static QUEUE: OnceLock<Option<SyncSender<Trace>>> = OnceLock::new();
    let queue = QUEUE.get_or_init(|| {
        let (sender, receiver) = sync_channel::<Trace>(64);
        let run = move || {
            for trace in receiver {
                let frames = names(&trace.file, &trace.extent, &trace.addresses);
                write(&trace, &frames);
            }
        };
        std::thread::Builder::new().name("wharf-symbols".into()).spawn(run).ok().map(|_| sender)
    });
    let unsent = match queue {
        Some(queue) => match queue.try_send(trace) {
            Ok(()) => return,
            Err(TrySendError::Full(trace) | TrySendError::Disconnected(trace)) => trace,
        },
        None => trace,
    };
    let addresses: Vec<String> = unsent.addresses.iter().map(|a| format!("{a:#x}")).collect();
    write(&unsent, &addresses);
}

fn write(trace: &Trace, frames: &[String]) {
    let request = Some(trace.request.as_str()).filter(|id| !id.is_empty());
    tracing::error!(
        target: "wharf::app", app = %trace.app, version = %trace.version, generation = trace.generation, request,
        thread = %trace.thread, "panicked at {}: {}\n  stack: {}", trace.location, trace.message, frames.join("\n         ")
    );
}

/// The functions at these addresses, inlined ones included; only those of the module.
fn names(file: &Path, extent: &Range<usize>, addresses: &[usize]) -> Vec<String> {
    let loader = addr2line::Loader::new(file).ok();
    let mut names = Vec::new();
    for address in addresses.iter().filter(|a| extent.contains(a)) {
        // A return address is the instruction after the call.
        let offset = (address - extent.start) as u64 - 1;
        let before = names.len();
        if let Some(loader) = &loader
            && let Ok(mut frames) = loader.find_frames(offset)
        {
            while let Ok(Some(frame)) = frames.next() {
                let Some(function) = frame.function.as_ref().and_then(|f| f.demangle().ok().map(|n| n.into_owned()))
                else {
                    continue;
                };
                let place =
                    frame.location.and_then(|l| Some(format!(" at {}:{}", l.file?, l.line?))).unwrap_or_default();
                names.push(format!("{function}{place}"));
            }
        }
        if names.len() == before {
            let symbol = loader
                .as_ref()
                .and_then(|l| l.find_symbol(offset))
                // What a module exports are statics: without debug information one of them is the nearest symbol.
                .filter(|name| !name.starts_with("wharf_module_"))
                .map(|s| addr2line::demangle_auto(s.into(), None).into_owned());
            names.push(symbol.unwrap_or_else(|| format!("{offset:#x}")));
        }
    }
    names
}
