//! The room: who is in it, and what was said last.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use wharf_sdk::{Sender, Text};

/// What somebody who comes in is shown of what was said before.
const HISTORY: usize = 50;

/// What the page is told.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Event<'a> {
    Here { names: Vec<&'a str> },
    Joined { name: &'a str },
    Left { name: &'a str },
    Said { name: &'a str, text: &'a str },
}

impl Event<'_> {
    fn text(&self) -> Text {
        // Names and texts: nothing that JSON could not say.
        serde_json::to_string(self).unwrap_or_default().into()
    }
}

#[derive(Default)]
struct State {
    next: u64,
    members: BTreeMap<u64, (String, Sender)>,
    said: VecDeque<Text>,
}

impl State {
    /// Tells all. Nobody is waited for: whoever reads too slowly misses it.
    fn tell(&self, event: &Text) {
        for (_, sender) in self.members.values() {
            let _ = sender.try_send(event.clone());
        }
    }
}

/// A room.
#[derive(Default)]
pub(crate) struct Room(Mutex<State>);

impl Room {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody comes in, and leaves when the guest is dropped.
    pub(crate) fn enter(&self, name: String, sender: Sender) -> Guest<'_> {
        let mut state = self.state();
        // Those who are here, and in one message what they said: a newcomer's queue is short.
        let names = state.members.values().map(|(name, _)| name.as_str()).collect();
        let _ = sender.try_send(Event::Here { names }.text());
        let said: Vec<&str> = state.said.iter().map(Text::as_str).collect();
        let _ = sender.try_send(format!("[{}]", said.join(",")));
        state.next += 1;
        let number = state.next;
        state.members.insert(number, (name.clone(), sender));
        state.tell(&Event::Joined { name: &name }.text());
        drop(state);
        Guest { room: self, number, name }
    }
}

/// Somebody in a room.
pub(crate) struct Guest<'a> {
    room: &'a Room,
    number: u64,
    name: String,
}

impl Guest<'_> {
    /// Says something to all, oneself included.
    pub(crate) fn say(&self, text: &str) {
        let event = Event::Said { name: &self.name, text }.text();
        let mut state = self.room.state();
        state.tell(&event);
        if state.said.len() == HISTORY {
            state.said.pop_front();
        }
        state.said.push_back(event);
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let mut state = self.room.state();
        state.members.remove(&self.number);
        state.tell(&Event::Left { name: &self.name }.text());
    }
}
