//! The rules of Servlet 6.1, chapter 7, row by row, and a property test of the state machine against a plain model.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::{Value, id_from_random};

const LIMITS: Limits = Limits { sessions: 4, session_bytes: 300, total_bytes: 600 };

fn at(seconds: u64) -> Now {
    Now {
        steady: Duration::from_secs(seconds),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds),
    }
}

fn id(n: u8) -> String {
    id_from_random([n; 20])
}

fn value(json: &str) -> Value {
    Value { type_name: "t".into(), json: json.into() }
}

const IDLE: Option<Duration> = Some(Duration::from_secs(10));

#[test]
fn new_until_the_client_has_joined() {
    let sessions = Sessions::default();
    let session = sessions.create(&id(1), "", at(0), IDLE, LIMITS).unwrap();
    assert!(session.is_new() && session.is_valid());
    assert_eq!(session.created(), session.last_accessed());
    let again = sessions.find(&id(1), at(3)).unwrap();
    assert!(!again.is_new() && Arc::ptr_eq(&session, &again), "one state");
    assert_eq!(again.last_accessed(), at(0).wall);
    assert_eq!(sessions.find(&id(1), at(5)).unwrap().last_accessed(), at(3).wall);
}

#[test]
fn an_unknown_id_is_never_adopted() {
    let sessions = Sessions::default();
    assert!(sessions.find(&id(7), at(0)).is_none());
    assert_eq!(sessions.counts().active, 0);
}

#[test]
fn expiry_goes_by_the_clock_that_nobody_sets() {
    let sessions = Sessions::default();
    sessions.create(&id(1), "", at(0), IDLE, LIMITS).unwrap();
    for day in [86_400_i64, -86_400] {
        let wall = at(9).wall.checked_add(Duration::from_secs(86_400)).unwrap();
        let wall = if day > 0 { wall } else { wall - Duration::from_secs(2 * 86_400) };
        assert!(sessions.find(&id(1), Now { steady: at(9).steady, wall }).is_some(), "{day}");
    }
    assert!(sessions.find(&id(1), at(19)).is_none());
    let expired = sessions.expire(at(19));
    assert_eq!((expired.len(), sessions.counts().expired, sessions.counts().active), (1, 1, 0));
}

#[test]
fn limits_are_errors_and_change_nothing() {
    let sessions = Sessions::default();
    let all: Vec<_> = (0..4).map(|n| sessions.create(&id(n), "", at(0), IDLE, LIMITS).unwrap()).collect();
    assert_eq!(sessions.create(&id(9), "", at(0), IDLE, LIMITS).unwrap_err(), Refused::TooMany { limit: 4 });
    let large = "x".repeat(200);
    all[0].set("a", value(&large)).unwrap();
    assert_eq!(all[0].set("b", value(&large)).unwrap_err().status(), 507);
    assert_eq!(all[0].names(), ["a"]);
    all[1].set("a", value(&large)).unwrap();
    assert_eq!(all[2].set("a", value(&large)).unwrap_err().status(), 503);
    all[1].remove("a").unwrap();
    all[2].set("a", value(&large)).unwrap();
    sessions.invalidate(&all[0]);
    sessions.invalidate(&all[2]);
    assert_eq!(sessions.counts().bytes, 0);
    assert_eq!(all[0].set("a", value("1")).unwrap_err(), Refused::Invalid);
}

#[test]
fn those_that_have_expired_make_room_at_the_limit() {
    let sessions = Sessions::default();
    (0..4).for_each(|n| drop(sessions.create(&id(n), "", at(0), IDLE, LIMITS).unwrap()));
    assert!(sessions.create(&id(9), "", at(9), IDLE, LIMITS).is_err());
    assert!(sessions.create(&id(9), "", at(11), IDLE, LIMITS).is_ok());
    assert_eq!(sessions.expire(at(11)).len(), 4, "their listeners still hear of it");
}

#[test]
fn what_is_stored_comes_back_unless_it_has_expired() {
    let sessions = Sessions::default();
    let session = sessions.create(&id(1), "2", at(0), IDLE, LIMITS).unwrap();
    session.set("n", value("1")).unwrap();
    let stored = session.stored();
    let later = |wall: u64| Now { steady: Duration::from_secs(1), wall: at(wall).wall };
    for (wall, there) in [(5, true), (10, false)] {
        let other = Sessions::default();
        assert_eq!(other.restore(stored.clone(), later(wall), LIMITS), there);
        assert_eq!(
            other.peek(&id(1)).map(|s| (s.get("n"), s.version().to_owned())),
            there.then(|| (Some(value("1")), "2".into()))
        );
    }
    let back = Now { steady: Duration::ZERO, wall: SystemTime::UNIX_EPOCH };
    assert!(Sessions::default().restore(stored.clone(), back, LIMITS), "a clock set back makes nothing older");
    let forged = Stored { id: "../../etc/passwd".into(), ..stored };
    assert!(!Sessions::default().restore(forged, later(1), LIMITS));
}

#[derive(Debug, Clone)]
enum Step {
    Create(u8),
    Find(u8),
    Set(u8, u8),
    Invalidate(u8),
    Rotate(u8, u8),
    Wait(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let n = 0..6_u8;
    let step = prop_oneof![
        n.clone().prop_map(Step::Create),
        n.clone().prop_map(Step::Find),
        (n.clone(), any::<u8>()).prop_map(|(n, v)| Step::Set(n, v)),
        n.clone().prop_map(Step::Invalidate),
        (n.clone(), n).prop_map(|(a, b)| Step::Rotate(a, b)),
        (1..7_u8).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// The model: id to (time of the last request, value).
    #[test]
    fn sessions_behave_as_their_model(steps in steps()) {
        let sessions = Sessions::default();
        let mut model: HashMap<u8, (u64, Option<u8>)> = HashMap::new();
        let mut now = 100;
        for step in steps {
            let live = |model: &HashMap<u8, (u64, Option<u8>)>, n: u8| model.get(&n).is_some_and(|(t, _)| now - t < 10);
            match step {
                Step::Wait(s) => {
                    now += u64::from(s);
                    sessions.expire(at(now)).iter().for_each(|s| sessions.bury(s));
                    model.retain(|_, (t, _)| now - *t < 10);
                }
                Step::Create(n) => {
                    let fits = model.len() < 4 && !model.contains_key(&n);
                    prop_assert_eq!(sessions.create(&id(n), "", at(now), IDLE, LIMITS).is_ok(), fits);
                    if fits { model.insert(n, (now, None)); }
                }
                Step::Find(n) => {
                    let found = sessions.find(&id(n), at(now));
                    prop_assert_eq!(found.is_some(), live(&model, n));
                    if let (Some(found), Some((t, v))) = (found, model.get_mut(&n)) {
                        *t = now;
                        prop_assert_eq!(found.get("v").map(|v| v.json.to_string()), v.map(|v| v.to_string()));
                    }
                }
                Step::Set(n, v) => if let (Some(s), Some((_, slot))) = (sessions.peek(&id(n)), model.get_mut(&n)) {
                    s.set("v", value(&v.to_string())).unwrap();
                    *slot = Some(v);
                },
                Step::Invalidate(n) => if let Some(s) = sessions.peek(&id(n)) {
                    prop_assert!(sessions.invalidate(&s) && !s.is_valid());
                    model.remove(&n);
                },
                Step::Rotate(a, b) => if let Some(s) = sessions.peek(&id(a)) {
                    let may = !model.contains_key(&b);
                    prop_assert_eq!(sessions.rotate(&s, &id(b)).is_ok(), may);
                    if may && let Some(state) = model.remove(&a) { model.insert(b, state); }
                },
            }
            prop_assert_eq!(sessions.counts().active, model.len() as u64);
        }
        sessions.clear();
        prop_assert_eq!(sessions.counts().bytes, 0);
    }
}
