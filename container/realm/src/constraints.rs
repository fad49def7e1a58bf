//! The security constraints of one application, put together once (Servlet 6.1, section 13.8): a pure function from method and
//! path to what is asked of a client.

use std::collections::{BTreeSet, HashMap};

use wharf_kernel::options::{Constraint, SecurityOptions, Transport};
use wharf_mapping::ServletMap;

/// Who may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Everybody, without saying who they are.
    Everybody,
    /// Nobody.
    Nobody,
    /// Users with one of these roles, or every user.
    Users {
        /// The roles.
        roles: BTreeSet<Box<str>>,
        /// Whether every user may, with any role or none: `**`.
        any: bool,
    },
}

/// What is asked of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Who may pass.
    pub access: Access,
    /// Whether the connection must be encrypted.
    pub confidential: bool,
}

/// All constraints of an application.
#[derive(Debug, Default)]
pub struct Constraints {
    map: ServletMap,
    /// What goes for each pattern; the map has their indices.
    patterns: Vec<ByMethod>,
}

/// What goes for the methods on one pattern.
#[derive(Debug)]
struct ByMethod {
    named: HashMap<Box<str>, Decision>,
    others: Decision,
}

impl Constraints {
    /// Puts the constraints together, pattern by pattern and method by method.
    ///
    /// # Errors
    /// A pattern that is malformed.
    pub fn new(options: &SecurityOptions) -> Result<Self, String> {
        let every: BTreeSet<Box<str>> = options.all_roles().map(Into::into).collect();
        let names: BTreeSet<&str> = options.constraints.iter().flat_map(|c| &c.patterns).map(String::as_str).collect();
        let mut map = Vec::new();
        let mut patterns = Vec::new();
        for (index, pattern) in names.into_iter().enumerate() {
            let here: Vec<&Constraint> =
                options.constraints.iter().filter(|c| c.patterns.iter().any(|p| p == pattern)).collect();
            let methods: BTreeSet<&str> =
                here.iter().flat_map(|c| c.methods.iter().chain(&c.method_omissions)).map(String::as_str).collect();
            let decide = |method: Option<&str>| {
                let covering = here.iter().copied().filter(|c| covers(c, method));
                combine(covering, &every, options.allow_uncovered_methods)
            };
            let named = methods.into_iter().map(|method| (method.into(), decide(Some(method)))).collect();
            patterns.push(ByMethod { named, others: decide(None) });
            map.push((index, vec![pattern.to_owned()]));
        }
        Ok(Self { map: ServletMap::new(map).map_err(|e| e.to_string())?, patterns })
    }

    /// What is asked for a method on a canonical, decoded path within the context; `None` where no constraint names the path.
    /// The pattern is chosen as a servlet's is: exact, longest prefix, extension, default.
    pub fn decide(&self, method: &str, path: &str) -> Option<&Decision> {
        let found = self.map.find(path)?;
        let pattern = self.patterns.get(found.servlet)?;
        Some(pattern.named.get(method).unwrap_or(&pattern.others))
    }
}

/// Whether a constraint is about this method; `None` is one that no constraint names.
fn covers(constraint: &Constraint, method: Option<&str>) -> bool {
    let has = |list: &[String]| method.is_some_and(|method| list.iter().any(|m| m == method));
    match (constraint.methods.is_empty(), constraint.method_omissions.is_empty()) {
        (false, _) => has(&constraint.methods),
        (true, false) => !has(&constraint.method_omissions),
        (true, true) => true,
    }
}

/// The rules of section 13.8.1. Without any constraint the method is uncovered (13.8.4).
fn combine<'a>(
    constraints: impl Iterator<Item = &'a Constraint>,
    every: &BTreeSet<Box<str>>,
    allow_uncovered: bool,
) -> Decision {
    let mut all = constraints.peekable();
    if all.peek().is_none() {
        let access = if allow_uncovered { Access::Everybody } else { Access::Nobody };
        return Decision { access, confidential: false };
    }
    let (mut nobody, mut everybody, mut any, mut confidential) = (false, false, false, true);
    let mut roles = BTreeSet::new();
    for constraint in all {
        // One that asks for no protection lets the plain connection in.
        confidential &= constraint.transport == Transport::Confidential;
        match &constraint.roles {
            None => everybody = true,
            Some(names) if names.is_empty() => nobody = true,
            Some(names) => names.iter().for_each(|name| match name.as_str() {
                "**" => any = true,
                "*" => roles.extend(every.iter().cloned()),
                name => {
                    roles.insert(name.into());
                }
            }),
        }
    }
    // An empty list of roles wins over everything; then a constraint without roles.
    let access = match (nobody, everybody) {
        (true, _) => Access::Nobody,
        (false, true) => Access::Everybody,
        (false, false) => Access::Users { roles, any },
    };
    Decision { access, confidential }
}

#[cfg(test)]
#[path = "constraints_tests.rs"]
mod tests;
