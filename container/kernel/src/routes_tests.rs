//! Lookups in the route table: tables of cases, and a comparison with a naive model.

use proptest::prelude::*;

use super::*;
use crate::{Body, ContextPath, Exchange, Lease, ResponseFuture, Version};

struct Nothing;

impl Endpoint for Nothing {
    fn call(&self, _exchange: Box<Exchange>, _lease: Lease) -> ResponseFuture {
        Box::pin(async { http::Response::new(Body::empty()) })
    }
}

fn route(host: &str, path: &str, version: &str, generation: u64, suspended: bool) -> Arc<Route> {
    let id = AppId { host: host.into(), path: ContextPath::parse(path).unwrap(), version: Version::new(version) };
    Arc::new(Route {
        gate: Gate::new(|| {}),
        endpoint: Arc::new(Nothing),
        servlets: None,
        guard: None,
        counters: Arc::new(AppCounters::new(id.clone())),
        id,
        generation,
        suspended,
    })
}

fn host(name: &str, aliases: &[&str], default: bool) -> HostSpec {
    HostSpec { name: name.into(), aliases: aliases.iter().map(|a| (*a).to_owned()).collect(), default }
}

fn generation(lookup: Lookup<'_>) -> Option<u64> {
    match lookup {
        Lookup::Found(route, _) => Some(route.generation),
        _ => None,
    }
}

#[test]
fn the_longest_context_wins_on_a_segment_boundary() {
    let routes = [("/", 1), ("/a", 2), ("/a/b", 3), ("/ab", 4)].map(|(p, g)| route("default", p, "", g, false));
    let table = RouteTable::new([], routes).unwrap();
    let rows = [
        ("/", 1),
        ("/a", 2),
        ("/a/", 2),
        ("/a/b", 3),
        ("/a/b/c", 3),
        ("/a/bc", 2),
        ("/ab", 4),
        ("/abc", 1),
        ("/é/a", 1),
    ];
    for (path, expected) in rows {
        assert_eq!(generation(table.find("any.example", path)), Some(expected), "{path}");
    }
    let table = RouteTable::new([], [route("default", "/a", "", 1, false)]).unwrap();
    assert!(matches!(table.find("", "/b"), Lookup::Missing));
    assert!(matches!(Routes::default().load().find("", "/"), Lookup::Missing));
}

#[test]
fn hosts_are_found_by_name_wildcard_and_default() {
    let hosts = [
        host("one", &["One.Example", "[::1]"], false),
        host("two", &["*.example", "two.test"], true),
        host("three", &["*.deep.example"], false),
    ];
    let routes = ["one", "two", "three"].iter().zip(1..).map(|(h, g)| route(h, "/", "", g, false));
    let table = RouteTable::new(hosts, routes).unwrap();
    let rows = [
        ("one", 1),
        ("ONE.example", 1),
        ("one.example.", 1),
        ("[::1]", 1),
        ("x.example", 2),
        ("a.b.example", 2),
        ("x.deep.example", 3),
        ("X.Deep.Example", 3),
        ("deep.example", 2),
        ("example", 2),
        ("elsewhere", 2),
        ("", 2),
    ];
    for (name, expected) in rows {
        assert_eq!(generation(table.find(name, "/x")), Some(expected), "{name}");
    }
    assert_eq!(table.host_name("X.example").map(|n| &**n), Some("two"));
}

#[test]
fn the_newest_version_that_is_not_suspended_serves() {
    let all = |suspended: [bool; 3]| {
        ["", "9", "10"]
            .iter()
            .zip(suspended)
            .zip(1..)
            .map(|((v, s), g)| route("default", "/a", v, g, s))
            .collect::<Vec<_>>()
    };
    let found = |suspended| generation(RouteTable::new([], all(suspended)).unwrap().find("", "/a/x"));
    assert_eq!(found([false, false, false]), Some(3));
    assert_eq!(found([false, false, true]), Some(2));
    assert_eq!(found([false, true, true]), Some(1));
    let table = RouteTable::new([], all([true, true, true])).unwrap();
    assert!(matches!(table.find("", "/a"), Lookup::Suspended(route) if route.generation == 3));
    assert_eq!(table.versions("", "/a").len(), 3);
}

#[test]
fn what_collides_is_refused_by_name() {
    let error = |hosts: &[HostSpec], routes: &[Arc<Route>]| {
        RouteTable::new(hosts.to_vec(), routes.to_vec()).err().unwrap().to_string()
    };
    let text = error(&[host("a", &["x.test"], false), host("b", &["X.test"], false)], &[]);
    assert!(text.contains("'a'") && text.contains("'b'") && text.contains("X.test"), "{text}");
    let text = error(&[host("a", &[], true), host("b", &[], true)], &[]);
    assert!(text.contains("default"), "{text}");
    let text = error(&[host("a", &["*"], true)], &[]);
    assert!(text.contains("'*'"), "{text}");
    let text = error(&[], &[route("nowhere", "/a", "", 1, false)]);
    assert!(text.contains("nowhere"), "{text}");
    let text = error(&[], &[route("default", "/a", "1", 7, false), route("default", "/a", "1", 8, true)]);
    assert!(text.contains('7') && text.contains('8') && text.contains("/a##1"), "{text}");
}

#[test]
fn a_stored_table_is_in_force_at_once() {
    let routes = Routes::default();
    let before = routes.load();
    routes.store(RouteTable::new([], [route("default", "/", "", 1, false)]).unwrap());
    assert!(matches!(before.find("", "/"), Lookup::Missing), "a snapshot does not change");
    assert_eq!(generation(routes.load().find("", "/")), Some(1));
}

proptest! {
    #[test]
    fn lookups_agree_with_the_model(
        contexts in proptest::collection::btree_map(("(/[ab]{1,2}){0,3}", 0..3_u8), any::<bool>(), 0..12),
        path in "(/[ab]{1,2}){0,4}/?",
    ) {
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let routes: Vec<_> = contexts
            .iter()
            .zip(1..)
            .map(|(((context, version), suspended), g)| route("default", context, &version.to_string(), g, *suspended))
            .collect();
        let table = RouteTable::new([], routes.iter().rev().cloned()).unwrap();
        let contains = |c: &str| path == c || path.starts_with(&format!("{c}/"));
        let longest = contexts.keys().map(|(c, _)| c).filter(|c| contains(c)).max_by_key(|c| c.len());
        let expected = longest.and_then(|c| {
            routes.iter().filter(|r| r.id.path.as_str() == c && !r.suspended).max_by(|a, b| a.id.version.cmp(&b.id.version))
        });
        match table.find("host", &path) {
            Lookup::Found(found, _) => prop_assert_eq!(Some(found.generation), expected.map(|r| r.generation)),
            Lookup::Suspended(found) => {
                prop_assert!(expected.is_none());
                prop_assert_eq!(Some(found.id.path.as_str()), longest.map(String::as_str));
            }
            Lookup::Missing => prop_assert!(longest.is_none()),
        }
    }
}
