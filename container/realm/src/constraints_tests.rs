//! The examples and combination rules of Servlet 6.1, section 13.8, as a table; and what must hold for any constraints.

use proptest::prelude::*;
use wharf_kernel::options::{Login, LoginMethod};

use super::*;

fn constraint(
    patterns: &[&str],
    methods: &[&str],
    omissions: &[&str],
    roles: Option<&[&str]>,
    tls: bool,
) -> Constraint {
    let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    Constraint {
        patterns: own(patterns),
        methods: own(methods),
        method_omissions: own(omissions),
        roles: roles.map(own),
        transport: if tls { Transport::Confidential } else { Transport::None },
    }
}

fn options(constraints: Vec<Constraint>) -> SecurityOptions {
    let login = Some(Login {
        method: LoginMethod::Basic,
        realm: "r".into(),
        login_page: None,
        error_page: None,
        callback: None,
        logout: None,
    });
    SecurityOptions { login, constraints, ..SecurityOptions::default() }
}

/// `-` no constraint, `nobody`, `all`, else the roles; `!` before it for an encrypted connection.
fn show(decision: Option<&Decision>) -> String {
    let Some(decision) = decision else { return "-".into() };
    let who = match &decision.access {
        Access::Everybody => "all".to_owned(),
        Access::Nobody => "nobody".to_owned(),
        Access::Users { any: true, .. } => "**".to_owned(),
        Access::Users { roles, .. } => roles.iter().map(|r| &**r).collect::<Vec<_>>().join(","),
    };
    format!("{}{who}", if decision.confidential { "!" } else { "" })
}

#[test]
fn the_example_of_section_13_8_2() {
    let wholesale = &["/acme/wholesale/*"][..];
    let both = &["/*", "/acme/wholesale/*", "/acme/retail/*"][..];
    let constraints = Constraints::new(&options(vec![
        constraint(both, &[], &["GET", "POST"], Some(&[]), false),
        constraint(wholesale, &["GET", "PUT"], &[], Some(&["SALESCLERK"]), false),
        constraint(wholesale, &["GET", "POST"], &[], Some(&["CONTRACTOR"]), true),
        constraint(&["/acme/retail/*"], &["GET", "POST"], &[], Some(&["CONTRACTOR", "HOMEOWNER"]), false),
    ]))
    .unwrap();
    for (method, path, want) in [
        ("DELETE", "/other", "nobody"),
        ("PUT", "/acme/wholesale/x", "nobody"),
        ("GET", "/acme/wholesale/x", "CONTRACTOR,SALESCLERK"),
        ("POST", "/acme/wholesale", "!CONTRACTOR"),
        ("GET", "/acme/retail/x", "CONTRACTOR,HOMEOWNER"),
        ("DELETE", "/acme/retail/x", "nobody"),
        ("HEAD", "/acme/retail/x", "nobody"),
        ("BREW", "/acme/retail/x", "nobody"),
        // Covered by nothing: refused by default (13.8.4).
        ("GET", "/other", "nobody"),
    ] {
        assert_eq!(show(constraints.decide(method, path)), want, "{method} {path}");
    }
}

#[test]
fn combinations() {
    let get = |path: &str, all: Vec<Constraint>| show(Constraints::new(&options(all)).unwrap().decide("GET", path));
    let c = |roles: Option<&[&str]>, tls| constraint(&["/a/*"], &[], &[], roles, tls);
    for (all, want) in [
        (vec![c(Some(&["x"]), false), c(Some(&["y"]), false)], "x,y"),
        (vec![c(Some(&["x"]), false), c(None, false)], "all"),
        (vec![c(Some(&["x"]), false), c(None, false), c(Some(&[]), false)], "nobody"),
        (vec![c(Some(&["x"]), true), c(Some(&["y"]), false)], "x,y"),
        (vec![c(Some(&["x"]), true), c(Some(&["y"]), true)], "!x,y"),
        (vec![c(Some(&["x"]), false), c(Some(&["**"]), false)], "**"),
        (vec![c(Some(&["*"]), false), constraint(&["/b"], &[], &[], Some(&["z"]), false)], "z"),
        (vec![c(None, true)], "!all"),
    ] {
        assert_eq!(get("/a/b", all), want);
    }
    // The best pattern alone counts, and what no pattern names is free.
    let several = || {
        vec![
            constraint(&["/*"], &[], &[], Some(&["low"]), false),
            constraint(&["/a/*"], &[], &[], Some(&["high"]), false),
            constraint(&["/a/open"], &[], &[], None, false),
        ]
    };
    for (path, want) in [("/", "low"), ("/x.jsp", "low"), ("/a", "high"), ("/a/b/c", "high"), ("/a/open", "all")] {
        assert_eq!(get(path, several()), want, "{path}");
    }
    assert_eq!(get("/b", vec![c(Some(&[]), false)]), "-");
}

#[test]
fn uncovered_methods_are_refused_unless_allowed() {
    let mut options = options(vec![constraint(&["/a"], &["GET"], &[], Some(&["x"]), false)]);
    let ask = |options: &SecurityOptions, method| show(Constraints::new(options).unwrap().decide(method, "/a"));
    for method in ["HEAD", "get", "POST", "OPTIONS", "BREW"] {
        assert_eq!(ask(&options, method), "nobody", "{method}");
    }
    options.allow_uncovered_methods = true;
    assert_eq!(ask(&options, "POST"), "all");
    assert_eq!(ask(&options, "GET"), "x");
}

fn any_constraint() -> impl Strategy<Value = Constraint> {
    let patterns = prop::sample::subsequence(vec!["/", "/*", "/a", "/a/*", "/a/b/*", "*.x", ""], 1..4);
    let methods = || prop::sample::subsequence(vec!["GET", "POST", "PUT"], 1..3);
    let about =
        prop_oneof![Just((vec![], vec![])), methods().prop_map(|m| (m, vec![])), methods().prop_map(|m| (vec![], m)),];
    let roles = prop::option::of(prop::sample::subsequence(vec!["x", "y", "**"], 0..3));
    (patterns, about, roles, any::<bool>()).prop_map(|(patterns, (methods, omissions), roles, tls)| {
        constraint(&patterns, &methods, &omissions, roles.as_deref(), tls)
    })
}

proptest! {
    /// A further constraint that lets nobody pass never opens anything, and closes what it covers.
    #[test]
    fn to_forbid_more_never_opens(all in prop::collection::vec(any_constraint(), 1..5), path in "(/(a|b|c\\.x)){0,3}/?", method in "GET|POST|PUT|HEAD") {
        let before = Constraints::new(&options(all.clone())).unwrap();
        let mut more = all.clone();
        let patterns: Vec<String> = all.iter().flat_map(|c| c.patterns.clone()).collect();
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        more.push(constraint(&patterns, &[&method], &[], Some(&[]), false));
        let after = Constraints::new(&options(more)).unwrap();
        let path = if path.is_empty() { "/" } else { path.as_str() };
        prop_assert_eq!(before.decide(&method, path).is_some(), after.decide(&method, path).is_some());
        if let Some(decision) = after.decide(&method, path) {
            prop_assert_eq!(&decision.access, &Access::Nobody);
        }
        prop_assert_eq!(before.decide("DELETE", path), after.decide("DELETE", path));
    }

    /// The order of the constraints means nothing.
    #[test]
    fn the_order_means_nothing(all in prop::collection::vec(any_constraint(), 1..5), path in "(/(a|b|c\\.x)){1,3}", method in "GET|POST|HEAD") {
        let mut reversed = all.clone();
        reversed.reverse();
        let (one, other) = (Constraints::new(&options(all)).unwrap(), Constraints::new(&options(reversed)).unwrap());
        prop_assert_eq!(one.decide(&method, &path), other.decide(&method, &path));
    }
}
