//! Who the client is, as it crosses the border.

use abi_stable::StableAbi;

use crate::RawStr;

/// The authenticated user of a request, borrowed from whoever points to it. Text is UTF-8.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct UserHead {
    /// The user's name.
    pub name: RawStr,
    /// How it was shown: `BASIC`, `BEARER`, `FORM`, `CLIENT_CERT`.
    pub auth_type: RawStr,
    /// The user's roles, one a line.
    pub roles: RawStr,
}

/// The same, to be read.
#[derive(Clone, Copy, Debug)]
pub struct UserView<'a> {
    /// The user's name.
    pub name: &'a str,
    /// How it was shown.
    pub auth_type: &'a str,
    /// The user's roles, one a line.
    pub roles: &'a str,
}

impl UserHead {
    /// Its parts.
    ///
    /// # Safety
    /// What the fields point to must live as long as `self`, and be UTF-8.
    pub unsafe fn view(&self) -> UserView<'_> {
        // SAFETY: the caller's promise.
        let (name, auth_type, roles) = unsafe { (self.name.as_str(), self.auth_type.as_str(), self.roles.as_str()) };
        UserView { name, auth_type, roles }
    }
}
