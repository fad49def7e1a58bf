//! Answers to an ACME authority that wants to see whether a name is ours (RFC 8555, section 8.3).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Where the authority asks.
const PREFIX: &str = "/.well-known/acme-challenge/";

/// The challenges that are open now.
#[derive(Debug, Default)]
pub struct Challenges(Mutex<HashMap<String, String>>);

impl Challenges {
    /// Answers a challenge until what is returned is dropped.
    pub fn open(self: &Arc<Self>, token: &str, answer: &str) -> Open {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(token.to_owned(), answer.to_owned());
        Open { all: self.clone(), token: token.to_owned() }
    }

    /// The answer to a request for this path, where it is one for an open challenge.
    pub fn answer(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(PREFIX)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }
}

/// A challenge that is answered.
#[derive(Debug)]
pub struct Open {
    all: Arc<Challenges>,
    token: String,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_answered_while_it_is_open() {
        let all = Arc::new(Challenges::default());
        let open = all.open("token", "answer");
        assert_eq!(all.answer("/.well-known/acme-challenge/token").as_deref(), Some("answer"));
        for path in ["/.well-known/acme-challenge/", "/.well-known/acme-challenge/token/", "/x", "/token"] {
            assert_eq!(all.answer(path), None, "{path}");
        }
        drop(open);
        assert_eq!(all.answer("/.well-known/acme-challenge/token"), None);
    }
}
