//! A module in this process, from the opened library to the proof that it is gone.

use std::ffi::CStr;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use abi_stable::abi_stability::abi_checking::{CheckingGlobals, check_layout_compatibility_with_globals};
use abi_stable::library::{AbiHeaderRef, LibHeader};
use abi_stable::std_types::RResult;
use serde::{Deserialize, Serialize};
use wharf_abi::{CreateArgs, Failure, FailureKind, ModuleRef, Parameter, RawStr};
use wharf_kernel::launch::{Plan, Retirement, Servlet};
use wharf_kernel::options::Constraint;
use wharf_kernel::refusal::{Code, Refusal};
use wharf_kernel::resource::BoundResources;
use wharf_kernel::workers::Workers;

use crate::descriptors;
use crate::heap::Heap;
use crate::host::HostContext;
use crate::interpose;
use crate::library::{Library, mapped};
use crate::signals;

const KEPT: &str = "the dynamic linker (NODELETE, or another library that uses it)";
const ROOT_SYMBOL: &CStr = c"wharf_module_root_v1";

/// The module's own pointer to its application. Its functions may be called on any thread.
#[derive(Clone, Copy)]
pub(crate) struct InstancePtr(pub(crate) *const ());

// SAFETY: see above; the pointer itself is plain data.
unsafe impl Send for InstancePtr {}
// SAFETY: as above.
unsafe impl Sync for InstancePtr {}

/// What a module made of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Made {
    /// Its servlets.
    pub servlets: Vec<Servlet>,
    /// What the application is made of, its TOML file merged in: JSON; empty where it does not say.
    pub description: String,
    /// The security constraints that it declares.
    pub constraints: Vec<Constraint>,
}

/// A load or a start that failed, with what of the module is mapped and has to be unloaded.
pub(crate) struct Failed {
    pub(crate) refusal: Refusal,
    pub(crate) loaded: Option<Box<Loaded>>,
}

/// A module that is mapped. Dropping it leaves it mapped: only [`Loaded::unload`] lets it go.
pub(crate) struct Loaded {
    library: Option<Library>,
    /// Set when the library was closed and the dynamic linker kept it.
    kept: bool,
    heap: Option<Heap>,
    host: Arc<HostContext>,
    module: Option<ModuleRef>,
    instance: Option<InstancePtr>,
    started: bool,
    /// A call of `stop` or `destroy` that has not returned yet.
    pending: Option<(&'static str, JoinHandle<Option<String>>)>,
    extent: Range<usize>,
    notes: Vec<String>,
    destructors: Arc<AtomicU64>,
    /// What its threads had taken of the processors when that was asked for last.
    thread_time: Duration,
}

/// Runs `call` on a thread of its own and waits for it so long. The thread is gone when this returns `Ok`.
pub(crate) fn on_short_lived_thread<T: Send + 'static>(
    name: String,
    timeout: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Option<JoinHandle<T>>> {
    let (sender, done) = mpsc::channel::<()>();
    let run = move || {
        let _end = sender;
        call()
    };
    // 15 bytes is what the kernel keeps of a thread's name.
    let Ok(handle) = std::thread::Builder::new().name(name).spawn(run) else { return Err(None) };
    // Nothing is ever sent: the channel closes when the call has returned or panicked.
    match done.recv_timeout(timeout) {
        Err(mpsc::RecvTimeoutError::Timeout) => Err(Some(handle)),
        _ => handle.join().map_err(|_| None),
    }
}

/// The constraints that an application declares. What can't be read is refused: it would guard nothing.
fn constraints(json: &str) -> Result<Vec<Constraint>, Refusal> {
    if json.is_empty() {
        return Ok(Vec::new());
    }
    let wrong = |e| Refusal::new(Code::BadMapping, format!("its security constraints can't be read: {e}"));
    serde_json::from_str(json).map_err(wrong)
}

impl Loaded {
    /// Opens the private copy at `file`. What of it stays mapped after a refusal is given back too, to be unloaded.
    ///
    /// # Safety
    /// See [`Library::open`].
    pub(crate) unsafe fn open(
        file: &Path,
        plan: &Plan,
        version: String,
        resources: Option<Arc<dyn BoundResources>>,
        trial: bool,
    ) -> Result<Self, Failed> {
        let heap = Heap::new();
        let host = Arc::new(HostContext {
            app: plan.id.to_string(),
            version,
            generation: plan.generation,
            file: file.to_owned(),
            extent: std::sync::OnceLock::new(),
            resources,
            works: Arc::default(),
            trial,
            panics: AtomicU64::new(0),
        });
        // SAFETY: the caller's promise.
        let library = match heap.during(|| unsafe { Library::open(file) }) {
            Ok(library) => library,
            Err(message) => {
                // SAFETY: nothing that could have allocated from it is there.
                unsafe { heap.destroy() };
                return Err(Failed { refusal: Refusal::new(Code::LoadFailed, message), loaded: None });
            }
        };
        let extent = library.extent();
        let _ = host.extent.set(extent.clone());
        let mut this = Self {
            library: Some(library),
            kept: false,
            heap: Some(heap),
            host,
            module: None,
            instance: None,
            started: false,
            pending: None,
            extent,
            notes: Vec::new(),
            destructors: Arc::default(),
            thread_time: Duration::ZERO,
        };
        match this.root() {
            Ok(module) => {
                this.module = Some(module);
                Ok(this)
            }
            Err(refusal) => Err(Failed { refusal, loaded: Some(Box::new(this)) }),
        }
    }

    /// Compares the layouts and takes the root module.
    fn root(&self) -> Result<ModuleRef, Refusal> {
        let (Some(library), Some(heap)) = (&self.library, &self.heap) else {
            return Err(Refusal::new(Code::NoRootModule, "the library is closed"));
        };
        let missing = |what: String| Refusal::new(Code::NoRootModule, what);
        let symbol = library.symbol(ROOT_SYMBOL).ok_or_else(|| missing(format!("no symbol {ROOT_SYMBOL:?}")))?;
        // SAFETY: the symbol is a `LibHeader`, which starts with an `AbiHeader`: a magic text and a version, checked next.
        let header: AbiHeaderRef = unsafe { std::mem::transmute(symbol) };
        let header: &'static LibHeader =
            header.upgrade().map_err(|e| Refusal::new(Code::LayoutMismatch, format!("abi_stable: {e}")))?;
        let Some(found) = header.layout() else {
            return Err(Refusal::new(Code::LayoutMismatch, "the module was built without layout information"));
        };
        // Fresh globals: abi_stable's own keep pointers into libraries that are long gone.
        let globals = CheckingGlobals::new();
        let check = |expected, found| {
            // The text is made here and now: the error points into the library.
            check_layout_compatibility_with_globals(expected, found, &globals).map_err(|e| {
                let text = difference(&e.to_string());
                Refusal::new(
                    Code::LayoutMismatch,
                    format!("expected is this container's, found is the module's\n{text}"),
                )
            })
        };
        check(<ModuleRef as abi_stable::StableAbi>::LAYOUT, found)?;
        heap.during(|| {
            // SAFETY: the layout has just been checked.
            unsafe { header.init_root_module_with_unchecked_layout::<ModuleRef>() }.map_err(|e| missing(e.to_string()))
        })
    }

    /// Makes and starts the application. Blocks as long as its start takes.
    pub(crate) fn start(&mut self, plan: &Plan, trial: bool) -> Result<Made, Refusal> {
        let (Some(module), Some(heap)) = (self.module, &self.heap) else {
            return Err(Refusal::new(Code::NoRootModule, "nothing is loaded"));
        };
        let init: Vec<Parameter> = plan
            .init
            .iter()
            .map(|(name, value)| Parameter { name: RawStr::new(name), value: RawStr::new(value) })
            .collect();
        let folder = plan.folder.as_ref().map(|f| f.to_string_lossy().into_owned()).unwrap_or_default();
        let temp_root = self.host.file.parent().map(|f| f.to_string_lossy().into_owned()).unwrap_or_default();
        let web = plan.options.web.to_json();
        let args = CreateArgs {
            app: RawStr::new(&self.host.app),
            context_path: RawStr::new(plan.id.path.as_str()),
            version: RawStr::new(plan.id.version.as_str()),
            folder: RawStr::new(&folder),
            temp_root: RawStr::new(&temp_root),
            generation: plan.generation,
            init: init.as_ptr(),
            init_count: init.len(),
            runtime_threads: plan.runtime_threads as u32,
            blocking_threads: plan.blocking_threads as u32,
            trial,
            web: RawStr::new(&web),
        };
        // SAFETY: the module's function, with a host that outlives the instance and arguments valid for the call.
        let created = heap.during(|| unsafe { module.create()(self.host.as_host(), &raw const args) });
        let instance = match created {
            RResult::ROk(instance) => instance,
            RResult::RErr(failure) => return Err(refused(failure)),
        };
        self.instance = Some(InstancePtr(instance.ptr));
        let servlets: Vec<Servlet> = instance
            .servlets
            .iter()
            .map(|s| Servlet {
                name: s.name.to_string(),
                patterns: s.patterns.iter().map(ToString::to_string).collect(),
            })
            .collect();
        let description = instance.description.to_string();
        let constraints = constraints(&instance.constraints)?;
        let made = Made { servlets, description, constraints };
        if trial {
            crate::trial::made(&made);
        }
        // SAFETY: an instance of this module.
        match unsafe { module.start()(instance.ptr) } {
            RResult::ROk(()) => {
                self.started = true;
                // A start leaves much behind that an idle application has no use for.
                if let Some(heap) = &self.heap {
                    heap.settle();
                }
                if let Some(library) = &self.library {
                    library.rest();
                }
                Ok(made)
            }
            RResult::RErr(failure) => Err(refused(failure)),
        }
    }

    /// The functions and the instance, for the endpoint. `None` before the start.
    pub(crate) fn service(&self) -> Option<(ModuleRef, InstancePtr)> {
        Some((self.module?, self.instance?))
    }

    /// Bytes in live blocks of its heap.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.heap.as_ref().map_or(0, Heap::live_bytes)
    }

    /// Processor time that threads that it started took since the last call.
    pub(crate) fn take_own_time(&mut self) -> Duration {
        let time = interpose::thread_time(&self.extent);
        time.saturating_sub(std::mem::replace(&mut self.thread_time, time))
    }

    /// What it may use of the container.
    pub(crate) fn resources(&self) -> Option<Arc<dyn BoundResources>> {
        self.host.resources.clone()
    }

    /// Panics so far.
    pub(crate) fn panics(&self) -> u64 {
        self.host.panics.load(Ordering::Relaxed)
    }

    /// Tells it that it will have to stop. Called on short-lived threads, and on the one that retires it.
    pub(crate) fn draining(&self) {
        if let (Some(module), Some(instance), true, None) = (self.module, self.instance, self.started, &self.pending) {
            // SAFETY: an instance of this module, started and not stopped.
            unsafe { module.draining()(instance.0) }
        }
    }

    /// Calls `stop`, then `destroy`, each on a thread of its own. `Err` names the one that does not come back.
    fn stop_and_destroy(&mut self, timeout: Duration) -> Result<(), String> {
        if let Some((name, handle)) = self.pending.take() {
            if !handle.is_finished() {
                self.pending = Some((name, handle));
                return Err(format!("its {name}, which has not returned"));
            }
            self.finish(name, handle.join().unwrap_or_default());
        }
        let (Some(module), Some(instance)) = (self.module, self.instance) else { return Ok(()) };
        if self.started {
            let call = move || {
                let instance = instance;
                // SAFETY: an instance of this module, started and not yet stopped.
                match unsafe { module.stop()(instance.0) } {
                    RResult::ROk(()) => None,
                    RResult::RErr(failure) => Some(failure.message.to_string()),
                }
            };
            self.call("stop", timeout, call)?;
        }
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let call = move || {
            let instance = instance;
            // SAFETY: an instance of this module; the last call for it.
            unsafe { module.destroy()(instance.0, millis) };
            None
        };
        self.call("destroy", timeout + timeout / 2, call)
    }

    fn call(
        &mut self,
        name: &'static str,
        timeout: Duration,
        call: impl FnOnce() -> Option<String> + Send + 'static,
    ) -> Result<(), String> {
        match on_short_lived_thread(format!("{name}-{}", self.host.generation), timeout, call) {
            Ok(message) => {
                self.finish(name, message);
                Ok(())
            }
            Err(Some(handle)) => {
                self.pending = Some((name, handle));
                Err(format!("its {name}, which has not returned in {timeout:?}"))
            }
            Err(None) => Err(format!("its {name}, for which no thread could be started")),
        }
    }

    fn finish(&mut self, name: &str, message: Option<String>) {
        if let Some(message) = message {
            self.notes.push(format!("{name} failed: {message}"));
        }
        match name {
            "stop" => self.started = false,
            _ => self.instance = None,
        }
    }

    /// Lets the module go. Where something holds it, it stays mapped, and this may be called again.
    ///
    /// Nobody must be calling into it or hold anything of it: the gate of its generation is idle.
    pub(crate) fn unload(&mut self, workers: &dyn Workers, timeout: Duration) -> Retirement {
        let held = |this: &Self, held_by| Retirement { held_by, notes: this.notes.clone(), ..Retirement::default() };
        if self.library.is_none() {
            if self.kept && mapped(&self.host.file).is_some() {
                return held(self, vec![KEPT.into()]);
            }
            return Retirement { unmapped: true, ..Retirement::default() };
        }
        if let Err(what) = self.stop_and_destroy(timeout) {
            return held(self, vec![what]);
        }
        let threads = self.wait_for_threads(timeout);
        if !threads.is_empty() {
            return held(self, threads);
        }
        if let Some(resources) = &self.host.resources {
            self.notes.extend(resources.retire());
        }
        // Each may still be woken, by a call into the module.
        match self.host.works.load(Ordering::Acquire) {
            0 => {}
            1 => return held(self, vec!["1 statement that it never let go".into()]),
            n => return held(self, vec![format!("{n} statements that it never let go")]),
        }
        let stuck = self.run_destructors(workers, timeout);
        if !stuck.is_empty() {
            return held(self, stuck);
        }
        interpose::delete_keys(&self.extent);
        // A destructor may have started one more thread.
        let threads = interpose::threads_in(&self.extent);
        if !threads.is_empty() {
            return held(self, threads);
        }
        let (Some(library), Some(heap)) = (self.library.take(), self.heap.take()) else {
            return held(self, vec!["it is being unloaded already".into()]);
        };
        let file = library.path().to_owned();
        // SAFETY: its threads are gone and nobody calls it.
        let (left_bytes, left_blocks) = unsafe { heap.survey() };
        self.module = None;
        let left_descriptors = descriptors::close_left(&self.extent);
        let handlers = signals::remove_handlers(&self.extent);
        if handlers > 0 {
            self.notes.push(format!("it left {handlers} signal handlers, now removed"));
        }
        // SAFETY: nothing uses it any more: no lease, no thread, no destructor, no key.
        let unmapped = unsafe { library.close() };
        let mut retirement = Retirement {
            left_bytes,
            left_blocks,
            left_descriptors,
            destructors_run: self.destructors.load(Ordering::Relaxed),
            unmapped,
            notes: std::mem::take(&mut self.notes),
            ..Retirement::default()
        };
        if unmapped {
            // SAFETY: the code that knew its blocks is gone.
            unsafe { heap.destroy() };
            crate::resident::give_back();
            interpose::forget_times(&self.extent);
            let _ = std::fs::remove_file(file);
        } else {
            // Closed, so that nothing more can be done; its heap stays, for its data may still be used.
            self.kept = true;
            retirement.held_by.push(KEPT.into());
        }
        retirement
    }

    fn wait_for_threads(&self, timeout: Duration) -> Vec<String> {
        let end = Instant::now() + timeout;
        let mut pause = Duration::from_micros(200);
        loop {
            let threads = interpose::threads_in(&self.extent);
            if threads.is_empty() || Instant::now() >= end {
                return threads;
            }
            // The end of a detached thread is no event that another thread could wait for.
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    /// Runs what waits for the module on every worker. Returns what stood in the way.
    fn run_destructors(&self, workers: &dyn Workers, timeout: Duration) -> Vec<String> {
        // This thread, too: whoever calls may have entered it, for a health check say.
        self.destructors.fetch_add(interpose::run_destructors(&self.extent), Ordering::Relaxed);
        let (sender, done) = mpsc::channel::<String>();
        let (extent, count) = (self.extent.clone(), self.destructors.clone());
        let task = move || {
            count.fetch_add(interpose::run_destructors(&extent), Ordering::Relaxed);
        };
        workers.on_each(Arc::new(task), Arc::new(move |name: &str| _ = sender.send(name.to_owned())));
        let end = Instant::now() + timeout;
        let mut waiting = workers.names();
        while !waiting.is_empty() {
            let Ok(name) = done.recv_timeout(end.saturating_duration_since(Instant::now())) else { break };
            waiting.retain(|w| *w != name);
        }
        waiting.into_iter().map(|w| format!("worker '{w}', which does not come back from a poll")).collect()
    }
}

/// The end of abi_stable's report, which names what differs; what comes before are whole layouts.
fn difference(report: &str) -> String {
    let errors = report.rfind("\nError:").map_or(report, |at| &report[at..]);
    let lines: Vec<&str> = errors.lines().map(str::trim).filter(|l| !l.is_empty()).take(24).collect();
    lines.join(" ")
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if self.library.is_some() || self.kept {
            // What is still mapped may still call the container: its functions' context stays, too.
            std::mem::forget(self.host.clone());
        }
    }
}

fn refused(failure: Failure) -> Refusal {
    let code = match failure.kind {
        FailureKind::Error => Code::StartFailed,
        FailureKind::Panic => Code::StartPanicked,
        FailureKind::Mapping => Code::BadMapping,
    };
    Refusal::new(code, failure.message.to_string())
}
