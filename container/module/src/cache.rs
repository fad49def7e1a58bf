//! Caches at the border, from the container's side.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use abi_stable::std_types::{ROption, RResult, RString};
use bytes::Bytes;
use wharf_abi::{CacheAnswer, CacheOrder, FfiCache, FfiCacheVTable, FfiCacheWork, PollAnswer, RawStr};
use wharf_kernel::resource::{self, Cache, CacheReply, Chunks, Work};

use crate::host::HostContext;
use crate::lent::{Held, Lent};
use crate::resource::bound;
use crate::trial::NO_RESOURCES;

/// For the generations of every module.
pub(crate) unsafe extern "C" fn cache(ctx: *const (), name: RawStr) -> RResult<FfiCache, RString> {
    // SAFETY: what `HostContext::as_host` gave, still alive; the name is valid for the call and UTF-8.
    let (context, name) = unsafe { (&*ctx.cast::<HostContext>(), name.as_str()) };
    let handle = |it| handle(Held { it, works: context.works.clone() });
    if context.trial {
        return RResult::ROk(handle(Arc::new(InTrial)));
    }
    bound(context).and_then(|bound| bound.cache(name).map_err(RString::from)).map(handle).into()
}

fn handle(cache: Held<dyn Cache>) -> FfiCache {
    let data = Box::into_raw(Box::new(cache)).cast_const().cast();
    // SAFETY: the functions are made for this box, which `drop_it` drops; a cache is `Send` and `Sync`.
    unsafe { FfiCache::new(data, &raw const CACHE) }
}

static CACHE: FfiCacheVTable = FfiCacheVTable { order, drop: drop_it };

unsafe extern "C" fn order(data: *const (), order: CacheOrder) -> FfiCacheWork {
    // SAFETY: what `handle` boxed; the module has the handle still.
    let held = unsafe { &*data.cast::<Held<dyn Cache>>() };
    let time = |millis: u64| (millis > 0).then(|| Duration::from_millis(millis));
    let order = match order {
        CacheOrder::Get(key) => resource::CacheOrder::Get(key.into()),
        CacheOrder::Set(key, value, ttl) => resource::CacheOrder::Set(key.into(), value.into(), time(ttl)),
        CacheOrder::Add(key, value, ttl) => resource::CacheOrder::Add(key.into(), value.into(), time(ttl)),
        CacheOrder::CompareAndSet(key, before, value, ttl) => {
            let before = before.into_option().map(Into::into);
            resource::CacheOrder::CompareAndSet(key.into(), before, value.into(), time(ttl))
        }
        CacheOrder::Increment(key, by, ttl) => resource::CacheOrder::Increment(key.into(), by, time(ttl)),
        CacheOrder::Remove(key) => resource::CacheOrder::Remove(key.into()),
        CacheOrder::Publish(channel, message) => resource::CacheOrder::Publish(channel.into(), message.into()),
        CacheOrder::Subscribe(channel) => {
            return Lent::boxed(Hearing(held.it.subscribe(channel.into())), &held.works);
        }
    };
    Lent::boxed(Once(held.it.order(order)), &held.works)
}

unsafe extern "C" fn drop_it(data: *const ()) {
    // SAFETY: the box made in `handle`, dropped once.
    drop(unsafe { Box::from_raw(data.cast::<Held<dyn Cache>>().cast_mut()) });
}

/// One answer.
struct Once(Work<Result<CacheReply, String>>);

impl PollAnswer<CacheAnswer> for Lent<Once> {
    fn poll_answer(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CacheAnswer> {
        let waker = self.waker(cx);
        self.work.0.as_mut().poll(&mut Context::from_waker(&waker)).map(|reply| match reply {
            Ok(CacheReply::Value(value)) => CacheAnswer::Value(value.map(Into::into).into()),
            Ok(CacheReply::Done(done)) => CacheAnswer::Done(done),
            Ok(CacheReply::Number(number)) => CacheAnswer::Number(number),
            Err(what) => CacheAnswer::Failed(what.into()),
        })
    }
}

/// Chunks.
struct Hearing(Box<dyn Chunks>);

impl PollAnswer<CacheAnswer> for Lent<Hearing> {
    fn poll_answer(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CacheAnswer> {
        let waker = self.waker(cx);
        // SAFETY: the box is never moved out of: it is only reached here, and dropped where it is.
        let messages = unsafe { Pin::new_unchecked(&mut *self.work.0) };
        messages.poll_next(&mut Context::from_waker(&waker)).map(|message| match message {
            Some(Ok(message)) => CacheAnswer::Message(message[..].into()),
            Some(Err(what)) => CacheAnswer::Failed(what.into()),
            None => CacheAnswer::Value(ROption::RNone),
        })
    }
}

/// Stands for every cache in a trial load.
struct InTrial;

impl Cache for InTrial {
    fn order(&self, _: resource::CacheOrder) -> Work<Result<CacheReply, String>> {
        crate::trial::asked_for_a_resource();
        Box::pin(std::future::ready(Err(NO_RESOURCES.into())))
    }

    fn subscribe(&self, _: String) -> Box<dyn Chunks> {
        Box::new(Silence)
    }
}

/// No message.
struct Silence;

impl Chunks for Silence {
    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, String>>> {
        crate::trial::asked_for_a_resource();
        Poll::Ready(Some(Err(NO_RESOURCES.into())))
    }
}
