//! Why a servlet is called: dispatcher types, and sets of them for filters.

use std::fmt;

/// How a request came to a servlet (`DispatcherType` of Servlet 6.1, section 6.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DispatcherType {
    /// From the client.
    Request,
    /// By [`RequestDispatcher::forward`](crate::RequestDispatcher::forward).
    Forward,
    /// By [`RequestDispatcher::include`](crate::RequestDispatcher::include).
    Include,
    /// As the error page of another request.
    Error,
    /// By [`AsyncContext::dispatch`](crate::AsyncContext::dispatch).
    Async,
}

impl DispatcherType {
    const ALL: [(Self, &str); 5] = [
        (Self::Request, "REQUEST"),
        (Self::Forward, "FORWARD"),
        (Self::Include, "INCLUDE"),
        (Self::Error, "ERROR"),
        (Self::Async, "ASYNC"),
    ];

    /// The specification's name: `REQUEST`.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The type of this name, in any case.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(kind, _)| *kind)
    }
}

impl fmt::Display for DispatcherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of dispatcher types. Without any it stands for `REQUEST` (Servlet 6.1, section 6.2.5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DispatcherTypes(u8);

impl DispatcherTypes {
    pub(crate) fn has(self, kind: DispatcherType) -> bool {
        let bits = if self.0 == 0 { 1 << DispatcherType::Request as u8 } else { self.0 };
        bits & (1 << kind as u8) != 0
    }

    pub(crate) fn names(self) -> Vec<&'static str> {
        DispatcherType::ALL.iter().filter(|(kind, _)| self.has(*kind)).map(|(_, name)| *name).collect()
    }
}

impl FromIterator<DispatcherType> for DispatcherTypes {
    fn from_iter<I: IntoIterator<Item = DispatcherType>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |bits, kind| bits | 1 << kind as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_where_the_type_says() {
        for (kind, name) in DispatcherType::ALL {
            assert_eq!((kind.name(), DispatcherType::parse(&name.to_lowercase())), (name, Some(kind)));
        }
        assert_eq!(DispatcherTypes::default().names(), ["REQUEST"]);
        let two: DispatcherTypes = [DispatcherType::Async, DispatcherType::Error].into_iter().collect();
        assert_eq!(two.names(), ["ERROR", "ASYNC"]);
        assert!(!two.has(DispatcherType::Request));
    }
}
