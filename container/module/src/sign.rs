//! Sign-ins at the border: what a module asks of the guard while it answers a request.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use abi_stable::std_types::RVec;
use wharf_abi::{FfiSignWork, PollAnswer, SignField, SignOrder, SignRefused, Signed, SignedUser};
use wharf_kernel::Authenticated;
use wharf_kernel::guard::{Asking, Denied, Passage, Sign};
use wharf_kernel::session::Tracking;

use crate::outside::{Held, Outside};
use crate::session::Foreign;

/// Begins a sign-in.
pub(crate) unsafe extern "C" fn sign(owner: *const (), order: SignOrder) -> FfiSignWork {
    // SAFETY: a reference that `release` has not dropped yet; one more is taken for the work.
    let outside = unsafe { Held::beside(owner) };
    let sign = match order {
        SignOrder::Login(user, password) => Sign::In { user: user.into(), password: password.into() },
        SignOrder::Logout => Sign::Out,
        SignOrder::Authenticate => Sign::Ask,
    };
    FfiSignWork::new(Foreign::new(async move { outside.sign(sign).await }))
}

impl PollAnswer<Signed> for Foreign<Signed> {
    fn poll_answer(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Signed> {
        self.poll(cx)
    }
}

impl Outside {
    async fn sign(&self, sign: Sign) -> Signed {
        let Some(Passage(guard)) = self.exchange.request.extensions().get::<Passage>() else {
            return refused(500, "The application has no [login] in its TOML file.");
        };
        let session = match &self.common.sessions {
            Some(sessions) => self.open(sessions, false).await,
            None => Ok(None),
        };
        let session = match session {
            Ok(session) => session,
            Err(error) => return refused(error.status(), &error.to_string()),
        };
        let inside = self.exchange.path.inside();
        let asking = Asking {
            method: self.exchange.request.method(),
            path: if inside.is_empty() { "/" } else { inside },
            uri: self.exchange.request.uri(),
            headers: self.exchange.request.headers(),
            authority: &self.exchange.authority,
            connection: &self.exchange.connection,
        };
        let signing = guard.sign(&asking, session, sign);
        let signed = signing.await;
        if let Some(session) = signed.session {
            self.exchange.session.put(session, Tracking::Cookie);
        }
        self.sign_headers
            .get_or_init(Mutex::default)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(signed.headers);
        match signed.outcome {
            Ok(user) => Signed::User(user.as_ref().map(to_user).into()),
            Err(denied) => to_refused(denied),
        }
    }
}

fn to_user(user: &Authenticated) -> SignedUser {
    SignedUser { name: (&*user.user).into(), auth_type: (&*user.scheme).into(), roles: (&*user.roles).into() }
}

fn to_refused(denied: Denied) -> Signed {
    let field = |(name, value): &(http::HeaderName, http::HeaderValue)| SignField {
        name: name.as_str().into(),
        value: value.as_bytes().into(),
    };
    Signed::Refused(SignRefused {
        status: denied.status.as_u16(),
        message: (&*denied.detail).into(),
        headers: denied.headers.iter().map(field).collect(),
    })
}

fn refused(status: u16, message: &str) -> Signed {
    Signed::Refused(SignRefused { status, message: message.into(), headers: RVec::new() })
}
