//! The life of a generation, as one pure function: what may follow what, and nothing else may.

use serde::{Deserialize, Serialize};

use crate::{Refusal, Stage};

/// Where a generation is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// Its source is complete; nothing has been looked at.
    Found,
    /// Its source may run, as far as can be told without running it.
    Verified,
    /// It is in the process.
    Loaded,
    /// Its own start has returned.
    Started,
    /// It is in the route table.
    Serving,
    /// It is in the route table and answers 503.
    Suspended,
    /// It is out of the route table; requests in flight go on.
    Draining,
    /// It is gone, its code unmapped.
    Retired,
    /// It is out of service, but something keeps it in memory.
    Held,
    /// It never served.
    Failed {
        /// The stage at which it failed.
        stage: Stage,
        /// Why.
        error: Refusal,
    },
}

impl State {
    /// True when nothing can follow.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Retired | Self::Failed { .. })
    }

    /// True while requests are mapped to it.
    pub const fn is_routed(&self) -> bool {
        matches!(self, Self::Serving | Self::Suspended)
    }

    /// The state's name in one word, in lower case.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Verified => "verified",
            Self::Loaded => "loaded",
            Self::Started => "started",
            Self::Serving => "serving",
            Self::Suspended => "suspended",
            Self::Draining => "draining",
            Self::Retired => "retired",
            Self::Held => "held",
            Self::Failed { .. } => "failed",
        }
    }
}

/// What happens to a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The look at its source found nothing wrong.
    Verify,
    /// It was loaded.
    Load,
    /// Its start returned.
    Start,
    /// It was put into the route table.
    Serve,
    /// It shall answer 503 for a while.
    Suspend,
    /// It shall answer again.
    Resume,
    /// It was taken out of the route table.
    Drain,
    /// Its code is gone.
    Retire,
    /// Its retirement ended with something that holds it.
    Hold,
    /// A stage before serving failed.
    Fail(Refusal),
}

/// An event that can't happen in this state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} can't happen to a generation that is {state}")]
pub struct Impossible {
    /// Name of the state.
    pub state: &'static str,
    /// The event.
    pub event: Event,
}

/// What follows when `event` happens in `state`.
///
/// ```text
///  Found --Verify--> Verified --Load--> Loaded --Start--> Started --Serve--> Serving <--Resume-- Suspended
///    |                  |                 |                  |                  |  --Suspend-->      |
///    +------------------+-----------------+--------Fail------+                Drain                Drain
///                               |                            |                  |                    |
///                               v                            +-----Drain-----> Draining <------------+
///                             Failed                                            |    |
///                                                                          Retire    Hold
///                                                                               v    v
///                                                                         Retired <--Retire-- Held --Hold--> Held
/// ```
///
/// A generation that was started, but is no longer wanted, drains without ever having served.
///
/// # Errors
/// [`Impossible`] for everything that is not drawn.
pub fn next(state: &State, event: Event) -> Result<State, Impossible> {
    Ok(match (state, event) {
        (State::Found, Event::Verify) => State::Verified,
        (State::Verified, Event::Load) => State::Loaded,
        (State::Loaded, Event::Start) => State::Started,
        (State::Started, Event::Serve) | (State::Suspended, Event::Resume) => State::Serving,
        (State::Serving, Event::Suspend) => State::Suspended,
        (State::Started | State::Serving | State::Suspended, Event::Drain) => State::Draining,
        (State::Draining | State::Held, Event::Retire) => State::Retired,
        (State::Draining | State::Held, Event::Hold) => State::Held,
        (State::Found | State::Verified | State::Loaded | State::Started, Event::Fail(error)) => {
            State::Failed { stage: error.code.stage(), error }
        }
        (state, event) => return Err(Impossible { state: state.name(), event }),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::refusal::Code;

    fn events() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Verify),
            Just(Event::Load),
            Just(Event::Start),
            Just(Event::Serve),
            Just(Event::Suspend),
            Just(Event::Resume),
            Just(Event::Drain),
            Just(Event::Retire),
            Just(Event::Hold),
            Just(Event::Fail(Refusal::new(Code::StartFailed, "x"))),
        ]
    }

    #[test]
    fn the_straight_way_leads_to_the_end() {
        let mut state = State::Found;
        for (event, name) in [
            (Event::Verify, "verified"),
            (Event::Load, "loaded"),
            (Event::Start, "started"),
            (Event::Serve, "serving"),
            (Event::Suspend, "suspended"),
            (Event::Resume, "serving"),
            (Event::Drain, "draining"),
            (Event::Hold, "held"),
            (Event::Retire, "retired"),
        ] {
            state = next(&state, event).unwrap();
            assert_eq!(state.name(), name);
        }
    }

    proptest! {
        /// Whatever happens: traffic comes only after a start, never after a drain, and never after a failure.
        #[test]
        fn no_way_leads_to_traffic_but_the_drawn_one(events in proptest::collection::vec(events(), 0..60)) {
            let mut state = State::Found;
            let (mut started, mut drained, mut failed) = (false, false, false);
            for event in events {
                let Ok(after) = next(&state, event) else { continue };
                prop_assert!(!state.is_final(), "{state:?} is final, but {after:?} followed");
                started |= after == State::Started;
                drained |= after == State::Draining;
                failed |= matches!(after, State::Failed { .. });
                if after.is_routed() {
                    prop_assert!(started && !drained && !failed);
                }
                if matches!(after, State::Held | State::Retired) {
                    prop_assert!(drained);
                }
                state = after;
            }
        }
    }
}
