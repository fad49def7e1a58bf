//! Sign-ins that an application asks for while it answers a request (Servlet 6.1, section 13.3).

use abi_stable::StableAbi;
use abi_stable::std_types::{ROption, RString, RVec};

use crate::work::{Answer, FfiWork};

/// What is to be done.
#[repr(u8)]
#[derive(StableAbi, Clone)]
pub enum SignOrder {
    /// Signs somebody in: name, password.
    Login(RString, RString),
    /// Forgets who has signed in.
    Logout,
    /// Finds out who the client is, or what to ask of it.
    Authenticate,
}

/// A user, with the roles one a line.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct SignedUser {
    /// The user's name.
    pub name: RString,
    /// How it was shown.
    pub auth_type: RString,
    /// The user's roles, one a line.
    pub roles: RString,
}

/// A field line of an answer.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct SignField {
    /// Name, in lower case.
    pub name: RString,
    /// Value.
    pub value: RVec<u8>,
}

/// The answer for a client that did not get in.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct SignRefused {
    /// Its status.
    pub status: u16,
    /// For people; may be empty.
    pub message: RString,
    /// Its header fields: a challenge, or where to sign in.
    pub headers: RVec<SignField>,
}

/// What a poll of [`FfiSignWork`] comes to.
#[repr(u8)]
#[derive(StableAbi)]
pub enum Signed {
    /// Not yet; the waker will be called.
    Pending,
    /// Who the client is from now on.
    User(ROption<SignedUser>),
    /// It did not get in.
    Refused(SignRefused),
}

impl Answer for Signed {
    const PENDING: Self = Self::Pending;

    fn panicked() -> Self {
        let message = "the container's sign-in panicked".into();
        Self::Refused(SignRefused { status: 500, message, headers: RVec::new() })
    }

    fn is_pending(&self) -> bool {
        matches!(self, Self::Pending)
    }
}

/// A sign-in: one answer.
pub type FfiSignWork = FfiWork<Signed>;
