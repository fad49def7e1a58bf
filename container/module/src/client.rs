//! HTTP clients at the border, from the container's side.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use abi_stable::std_types::{RResult, RString};
use wharf_abi::{
    ClientAnswer, FfiBody, FfiBytes, FfiClientRequest, FfiClientResponse, FfiClientWork, FfiHttpClient,
    FfiHttpClientVTable, Frame, PollAnswer, PollFrame, RawStr, Trailer,
};
use wharf_kernel::resource::{
    BoundResources, Chunks, ClientError, ClientErrorKind, ClientRequest, ClientResponse, HttpClient, Work,
};

use crate::host::HostContext;
use crate::lent::{Held, Lent};
use crate::resource::bound;
use crate::trial::NO_RESOURCES;

/// For the generations of every module.
pub(crate) unsafe extern "C" fn http_client(ctx: *const (), name: RawStr) -> RResult<FfiHttpClient, RString> {
    // SAFETY: what `HostContext::as_host` gave, still alive; the name is valid for the call and UTF-8.
    let (context, name) = unsafe { (&*ctx.cast::<HostContext>(), name.as_str()) };
    let handle = |it, bound| handle(Client { held: Held { it, works: context.works.clone() }, bound });
    if context.trial {
        return RResult::ROk(handle(Arc::new(InTrial), None));
    }
    let found = bound(context).and_then(|bound| {
        let client = bound.http_client(name).map_err(RString::from)?;
        Ok(handle(client, Some(bound.clone())))
    });
    found.into()
}

/// What a handle stands for.
struct Client {
    held: Held<dyn HttpClient>,
    bound: Option<Arc<dyn BoundResources>>,
}

fn handle(client: Client) -> FfiHttpClient {
    let data = Box::into_raw(Box::new(client)).cast_const().cast();
    // SAFETY: the functions are made for this box, which `drop_it` drops; all of it is `Send` and `Sync`.
    unsafe { FfiHttpClient::new(data, &raw const CLIENT) }
}

static CLIENT: FfiHttpClientVTable = FfiHttpClientVTable { send, drop: drop_it };

unsafe extern "C" fn send(data: *const (), request: FfiClientRequest) -> FfiClientWork {
    // SAFETY: what `handle` boxed; the module has the handle still.
    let client = unsafe { &*data.cast::<Client>() };
    let trace = client.bound.as_ref().and_then(|bound| bound.trace(&request.request));
    let request = ClientRequest {
        method: request.method.into(),
        target: request.target.into(),
        headers: request.headers.into_iter().map(|line| (line.name.into(), line.value.into())).collect(),
        body: request.body.into(),
        timeout: (request.timeout_ms > 0).then(|| Duration::from_millis(request.timeout_ms)),
        request: request.request.into(),
    };
    Lent::boxed(Once(client.held.it.send(request, trace)), &client.held.works)
}

unsafe extern "C" fn drop_it(data: *const ()) {
    // SAFETY: the box made in `handle`, dropped once.
    drop(unsafe { Box::from_raw(data.cast::<Client>().cast_mut()) });
}

/// One answer.
struct Once(Work<Result<ClientResponse, ClientError>>);

impl PollAnswer<ClientAnswer> for Lent<Once> {
    fn poll_answer(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ClientAnswer> {
        let waker = self.waker(cx);
        self.work.0.as_mut().poll(&mut Context::from_waker(&waker)).map(|answer| match answer {
            Ok(ClientResponse { status, headers, body }) => ClientAnswer::Response(FfiClientResponse {
                status,
                headers: headers
                    .into_iter()
                    .map(|(name, value)| Trailer { name: name.into(), value: value.into() })
                    .collect(),
                body: FfiBody::new(Lent::new(Content(body), self.works()), None),
            }),
            Err(error) => ClientAnswer::Failed(error.kind as u8, error.message.into()),
        })
    }
}

/// The content of a response.
struct Content(Box<dyn Chunks>);

impl PollFrame for Lent<Content> {
    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Frame> {
        let waker = self.waker(cx);
        // SAFETY: the box is never moved out of: it is only reached here, and dropped where it is.
        let chunks = unsafe { Pin::new_unchecked(&mut *self.work.0) };
        chunks.poll_next(&mut Context::from_waker(&waker)).map(|chunk| match chunk {
            Some(Ok(bytes)) => Frame::Data(FfiBytes::from_owner(bytes)),
            Some(Err(what)) => Frame::Error(what.into()),
            None => Frame::End,
        })
    }
}

/// Stands for every client in a trial load.
struct InTrial;

impl HttpClient for InTrial {
    fn send(&self, _: ClientRequest, _: Option<String>) -> Work<Result<ClientResponse, ClientError>> {
        crate::trial::asked_for_a_resource();
        let message = NO_RESOURCES.into();
        Box::pin(std::future::ready(Err(ClientError { kind: ClientErrorKind::Connection, message })))
    }
}
