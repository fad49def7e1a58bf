//! The one message between the connection and the application: none is read before the one before it was taken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::{CloseReason, Message};

/// Shared by the connection's driver and the application's receiver.
#[derive(Default)]
pub(super) struct Inbox(Mutex<State>);

#[derive(Default)]
struct State {
    message: Option<Message>,
    ended: Option<CloseReason>,
    reader: Option<Waker>,
    driver: Option<Waker>,
    /// The receiver is gone: what comes is thrown away.
    deaf: bool,
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is room for a message; the driver is woken when there is.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state();
        let room = state.message.is_none() || state.deaf;
        state.driver = (!room).then(|| cx.waker().clone());
        room
    }

    pub(super) fn put(&self, message: Message) {
        let mut state = self.state();
        if !state.deaf {
            state.message = Some(message);
            wake(&mut state.reader);
        }
    }

    /// Nothing more comes. The first reason stands.
    pub(super) fn end(&self, reason: CloseReason) {
        let mut state = self.state();
        state.ended.get_or_insert(reason);
        wake(&mut state.reader);
    }

    pub(super) fn ended(&self) -> Option<CloseReason> {
        self.state().ended.clone()
    }

    /// The next message; `None` when nothing more comes.
    pub(super) fn poll_take(&self, cx: &Context<'_>) -> Poll<Option<Message>> {
        let mut state = self.state();
        if let Some(message) = state.message.take() {
            wake(&mut state.driver);
            return Poll::Ready(Some(message));
        }
        if state.ended.is_some() {
            return Poll::Ready(None);
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// The receiver's end.
pub(super) struct Reader(pub(super) Arc<Inbox>);

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.deaf = true;
        state.message = None;
        wake(&mut state.driver);
    }
}
