//! The realms in which an application's users have passwords: one, or several that are asked in turn.

use std::net::IpAddr;
use std::sync::Arc;

use crate::password_realm::{Answer, Outcome, PasswordRealm};

/// Realms of passwords, in the order in which they are asked.
#[derive(Clone)]
pub(crate) struct Passwords(Arc<[Arc<PasswordRealm>]>);

impl Passwords {
    pub(crate) fn new(realms: Vec<Arc<PasswordRealm>>) -> Self {
        Self(realms.into())
    }

    /// The user, where that is known without any computation.
    pub(crate) fn known(&self, user: &str, password: &[u8]) -> Option<Outcome> {
        self.0.iter().find_map(|realm| realm.known(user, password)).map(Outcome::User)
    }

    /// Asks the realms in turn, until one knows the user. One that can't tell or does not try is no leave to pass, and no reason to
    /// refuse whom another one knows.
    pub(crate) async fn verify(self, user: String, password: Vec<u8>, address: Option<IpAddr>) -> Outcome {
        let mut worst = Outcome::Wrong;
        for realm in &*self.0 {
            let outcome = match realm.verify(&user, &password, address) {
                Answer::Now(outcome) => outcome,
                // No answer is no leave to pass.
                Answer::Later(outcome) => outcome.await.unwrap_or(Outcome::Unavailable),
            };
            match outcome {
                Outcome::User(_) => return outcome,
                Outcome::Wrong => {}
                Outcome::Locked(_) | Outcome::Unavailable => worst = outcome,
            }
        }
        worst
    }
}
