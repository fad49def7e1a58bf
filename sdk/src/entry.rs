//! The module's side of the border: the functions that the container calls.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use abi_stable::library::RootModuleResult;
use abi_stable::prefix_type::WithMetadata;
use abi_stable::std_types::{RResult, RString, RVec};
use tokio::runtime::{self, EnterGuard, Runtime};
use wharf_abi::{
    Begun, CreateArgs, Failure, FailureKind, FfiFuture, FfiRequest, FfiResponse, FfiSession, Host, Instance, Module,
    ModuleRef, RawStr, ServletDecl, WakerHead,
};
use wharf_mapping::ShortText;

use crate::application::{Application, BoxFuture, MappingError, contain};
use crate::facts::LocalContext;
use crate::log::for_request;
use crate::session::Handle;
use crate::slots::Slots;
use crate::{Response, ServletContext, Session, ffi, log};

/// What [`export!`](crate::export) makes of an application's function.
pub trait Entry: 'static {
    /// Makes the application.
    ///
    /// # Errors
    /// As [`IntoApplication`](crate::IntoApplication).
    fn build(context: &ServletContext) -> Result<Arc<dyn Application>, MappingError>;
}

/// The root module for `E`.
pub fn root<E: Entry>() -> RootModuleResult {
    struct Root<E>(E);
    impl<E: Entry> Root<E> {
        const MODULE: &'static WithMetadata<Module> = &WithMetadata::new(Module {
            create: create::<E>,
            start,
            service,
            draining,
            sessions_expired,
            stop,
            destroy,
        });
    }
    // SAFETY: the reference is what the header says it is: a `ModuleRef`.
    RootModuleResult::ROk(unsafe { ModuleRef(Root::<E>::MODULE.static_as_prefix()).0.cast() })
}

/// The application, with its runtime. Shared by the requests in flight.
struct Running {
    runtime: Runtime,
    app: Arc<dyn Application>,
    context: Arc<ServletContext>,
    /// The context again, each time behind a reference count of its own, so that requests on several processors do not wait for each other.
    contexts: Slots<LocalContext>,
    /// That of no other instance that this module makes.
    number: usize,
}

impl Running {
    /// What the container calls is inside the runtime: applications spawn tasks and set timers.
    ///
    /// A thread that has answered one request stays inside: it runs nothing else of this module, and what is left of it goes with the module's
    /// other thread-locals. To go in and out takes two steps of a reference count each time.
    fn enter(&self) -> Option<EnterGuard<'_>> {
        thread_local! {
            /// The instance inside whose runtime this thread stays. Const and without a destructor.
            static INSIDE: Cell<usize> = const { Cell::new(0) };
        }
        match INSIDE.get() {
            number if number == self.number => None,
            0 if runtime::Handle::try_current().is_err() => {
                std::mem::forget(self.runtime.enter());
                INSIDE.set(self.number);
                None
            }
            _ => Some(self.runtime.enter()),
        }
    }
}

fn failure(kind: FailureKind, message: impl Into<RString>) -> Failure {
    Failure { kind, message: message.into() }
}

/// Runs `f`; a panic, which the hook has reported, becomes a failure.
fn guarded<T>(f: impl FnOnce() -> Result<T, Failure>) -> RResult<T, Failure> {
    contain(f).unwrap_or_else(|| Err(failure(FailureKind::Panic, "see the log for the message and the place"))).into()
}

/// Says an error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

unsafe extern "C" fn create<E: Entry>(host: Host, args: *const CreateArgs) -> RResult<Instance, Failure> {
    guarded(|| {
        log::install(host);
        // SAFETY: the container's arguments are valid for the call.
        let args = unsafe { &*args };
        // SAFETY: the texts are UTF-8 and valid for the call.
        let text = |t: RawStr| unsafe { t.as_str() };
        let mut builder = ServletContext::builder()
            .app(text(args.app))
            .context_path(text(args.context_path))
            .version(text(args.version))
            .generation(args.generation)
            .folder(Some(text(args.folder)).filter(|f| !f.is_empty()).map(Into::into))
            .temp_root(Some(text(args.temp_root)).filter(|f| !f.is_empty()).map(Into::into))
            .trial(args.trial)
            .web(text(args.web))
            .map_err(|e| failure(FailureKind::Mapping, e.to_string()))?;
        if args.init_count > 0 {
            // SAFETY: pointer and count belong together, valid for the call.
            for parameter in unsafe { std::slice::from_raw_parts(args.init, args.init_count) } {
                builder = builder.init(text(parameter.name), text(parameter.value));
            }
        }
        let context = builder.build();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads((args.runtime_threads as usize).max(1))
            .max_blocking_threads((args.blocking_threads as usize).max(1))
            .thread_name(context.app())
            .enable_all()
            .build()
            .map_err(|e| failure(FailureKind::Error, format!("its runtime could not be made: {e}")))?;
        crate::blocking::limit((args.blocking_threads as usize).max(1));
        let app = {
            let _inside = runtime.enter();
            E::build(&context).map_err(|e| match &e {
                MappingError::Pattern(text) => failure(FailureKind::Mapping, text.as_str()),
                MappingError::Build(error) => failure(FailureKind::Error, chain(&**error)),
            })?
        };
        let servlets = app.servlets().into_iter().map(|s| ServletDecl {
            name: s.name.into(),
            patterns: s.patterns.into_iter().map(RString::from).collect(),
        });
        let servlets = servlets.collect();
        let description = app.description().into();
        let constraints = app.constraints().into();
        let contexts = Slots::new(|| Arc::new(context.clone()));
        static INSTANCES: AtomicUsize = AtomicUsize::new(0);
        let number = INSTANCES.fetch_add(1, Ordering::Relaxed) + 1;
        let ptr = Box::into_raw(Box::new(Running { runtime, app, context, contexts, number })).cast_const().cast();
        Ok(Instance { ptr, servlets, description, constraints })
    })
}

/// # Safety
/// `instance` must be what `create` gave, and not destroyed for `'a`.
unsafe fn running<'a>(instance: *const ()) -> &'a Running {
    // SAFETY: the caller's promise.
    unsafe { &*instance.cast::<Running>() }
}

unsafe extern "C" fn start(instance: *const ()) -> RResult<(), Failure> {
    guarded(|| {
        // SAFETY: the container calls it between `create` and `destroy`.
        let this = unsafe { running(instance) };
        let started = this.runtime.block_on(this.app.start(this.context.clone()));
        started.map_err(|e| failure(FailureKind::Error, chain(&*e)))
    })
}

unsafe extern "C" fn draining(instance: *const ()) {
    contain(|| {
        // SAFETY: the container calls it between `create` and `destroy`.
        let this = unsafe { running(instance) };
        let _inside = this.runtime.enter();
        this.context.begin_draining();
    });
}

unsafe extern "C" fn stop(instance: *const ()) -> RResult<(), Failure> {
    guarded(|| {
        // SAFETY: the container calls it between `create` and `destroy`.
        let this = unsafe { running(instance) };
        let stopped = this.runtime.block_on(this.app.stop());
        stopped.map_err(|e| failure(FailureKind::Error, chain(&*e)))
    })
}

unsafe extern "C" fn destroy(instance: *const (), timeout_ms: u64) {
    contain(|| {
        // SAFETY: the box made by `create`; this is the last call for it.
        let this = unsafe { Box::from_raw(instance.cast::<Running>().cast_mut()) };
        let Running { runtime, app, context, .. } = *this;
        {
            let _inside = runtime.enter();
            context.clear_attributes();
            drop(app);
        }
        runtime.shutdown_timeout(Duration::from_millis(timeout_ms));
    });
}

unsafe extern "C" fn sessions_expired(instance: *const (), sessions: RVec<FfiSession>) {
    contain(|| {
        // SAFETY: the container has a lease, so it is not destroyed.
        let this = unsafe { running(instance) };
        let _inside = this.runtime.enter();
        for session in sessions {
            Session::new(Handle::Crossed(Arc::new(session)), this.context.clone()).destroyed();
        }
    });
}

unsafe extern "C" fn service(instance: *const (), request: FfiRequest, waker: *const WakerHead) -> Begun {
    // SAFETY: as long as `'static` in practice: the container keeps a lease as long as it has the future or a body, and calls
    // `destroy` only when all leases are back (see `Module::destroy`).
    let this: &'static Running = unsafe { running(instance) };
    let id = request.text(|h| h.id).into();
    // SAFETY: the waker of this call.
    unsafe { Begun::by(waker, |cx| Answer { future: None, this, id }.begin(request, cx)) }
}

/// A request being answered: polled, and dropped, inside the module's runtime.
struct Answer {
    /// `None` before it has begun, and when it is over.
    future: Option<BoxFuture<'static, Response>>,
    this: &'static Running,
    id: ShortText,
}

impl Answer {
    /// Polls it once.
    fn begin(mut self, request: FfiRequest, cx: &mut Context<'_>) -> Begun {
        let Self { future, this, id } = &mut self;
        let polled = {
            let _inside = this.enter();
            for_request(id, || match ffi::request(request, this.contexts.local()) {
                Ok(request) => {
                    *future = Some(this.app.crossed(request));
                    Self::poll_inside(future, this, id, cx)
                }
                Err(error) => {
                    tracing::warn!("the request can't be represented: {error}");
                    let bad = Response::status(http::StatusCode::BAD_REQUEST);
                    Poll::Ready(ffi::response(bad, this.runtime.handle(), id))
                }
            })
        };
        match polled {
            Poll::Ready(response) => Begun::Answered(response),
            Poll::Pending => Begun::Later(FfiFuture::new(self)),
        }
    }

    fn poll_inside(
        future: &mut Option<BoxFuture<'static, Response>>,
        this: &Running,
        id: &str,
        cx: &mut Context<'_>,
    ) -> Poll<FfiResponse> {
        let Some(running) = future else { return Poll::Pending };
        let Poll::Ready(response) = running.as_mut().poll(cx) else { return Poll::Pending };
        *future = None;
        this.context.link().cancellations.answered(id);
        Poll::Ready(ffi::response(response, this.runtime.handle(), id))
    }
}

impl Future for Answer {
    type Output = FfiResponse;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<FfiResponse> {
        let Self { future, this, id } = &mut *self;
        let _inside = this.enter();
        for_request(id, || Self::poll_inside(future, this, id, cx))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let Self { future, this, id } = self;
        if future.is_none() {
            return;
        }
        let _inside = this.enter();
        // Before its future goes, whose destructors may look.
        this.context.link().cancellations.cancelled(id);
        for_request(id, || *future = None);
    }
}
