//! From what a builder was told, and what the TOML file says of it, to an application that can run.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};
use wharf_mapping::ServletMap;

use crate::app::{Parts, ServletPart};
use crate::application::{Application, MappingError, ServletInfo};
use crate::chain::{Reach, Step};
use crate::error_pages::{ErrorPage, ErrorPages, For, To};
use crate::running::{FilterEntry, Init, Running, ServletEntry};
use crate::session_listener::SessionListeners;
use crate::web::Web;
use crate::{App, pattern};

fn wrong<T>(text: impl Into<String>) -> Result<T, MappingError> {
    Err(MappingError::Pattern(text.into()))
}

impl App {
    /// Merges it with the TOML file, checks names and patterns, and makes it ready to run.
    pub(crate) fn build(self, web: &Web) -> Result<Arc<dyn Application>, MappingError> {
        let mut parts = self.parts;
        apply_by_name(&mut parts)?;
        check_names(&parts)?;
        parts.merge(web).map_err(MappingError::Pattern)?;
        check_patterns(&parts)?;
        add_default(&mut parts);

        let infos: Vec<&ServletInfo> = parts.servlets.iter().map(|part| &part.info).collect();
        let map = pattern::servlet_map(&infos)?;
        check_error_pages(&parts, &map)?;
        for file in &parts.welcome_files {
            if file.is_empty() || file.starts_with('/') || file.ends_with('/') {
                return wrong(format!("welcome file '{file}': it must have a name, without a slash at its ends"));
            }
        }
        let steps = steps(&parts);
        let description = describe(&parts, web).to_string();
        Ok(into_running(parts, map, steps, description))
    }
}

/// What was said of servlets and filters by name, in any order.
fn apply_by_name(parts: &mut Parts) -> Result<(), MappingError> {
    for (servlet, name, value) in std::mem::take(&mut parts.servlet_init) {
        let Some(part) = parts.servlets.iter_mut().find(|part| part.info.name == servlet) else {
            return wrong(format!(
                "init parameter '{name}' is for servlet '{servlet}', but there is none of that name"
            ));
        };
        part.init.insert(name, value);
    }
    for (filter, name, value) in std::mem::take(&mut parts.filter_init) {
        let Some(part) = parts.filters.iter_mut().find(|part| part.name == filter) else {
            return wrong(format!("init parameter '{name}' is for filter '{filter}', but there is none of that name"));
        };
        part.init.insert(name, value);
    }
    for (servlet, timeout) in std::mem::take(&mut parts.servlet_timeouts) {
        let Some(part) = parts.servlets.iter_mut().find(|part| part.info.name == servlet) else {
            return wrong(format!("a timeout is for servlet '{servlet}', but there is none of that name"));
        };
        part.timeout = Some(timeout);
    }
    Ok(())
}

fn check_names(parts: &Parts) -> Result<(), MappingError> {
    let mut names = HashSet::new();
    for ServletPart { info, by_name_alone, .. } in &parts.servlets {
        if info.name.is_empty() {
            return wrong("a servlet has an empty name: give it one");
        }
        if !names.insert(info.name.as_str()) {
            return wrong(format!("two servlets have the name '{}': give each its own", info.name));
        }
        if info.patterns.is_empty() && !by_name_alone {
            return wrong(format!("servlet '{}' has no URL pattern", info.name));
        }
    }
    let mut filters = HashSet::new();
    for filter in &parts.filters {
        if filter.name.is_empty() || !filters.insert(filter.name.as_str()) {
            return wrong(format!("filter name '{}' is empty or used twice: give each filter its own", filter.name));
        }
    }
    for (filter, mapping) in &parts.mappings {
        if !filters.contains(filter.as_str()) {
            return wrong(format!("a mapping is for filter '{filter}', but there is none of that name"));
        }
        if mapping.paths.is_empty() && mapping.servlets.is_empty() {
            return wrong(format!("filter '{filter}' has a mapping without URL patterns and servlet names"));
        }
        if let Some(unknown) = mapping.servlets.iter().find(|name| *name != "*" && !names.contains(name.as_str())) {
            return wrong(format!("filter '{filter}' is for servlet '{unknown}', but there is none of that name"));
        }
    }
    Ok(())
}

fn check_patterns(parts: &Parts) -> Result<(), MappingError> {
    for (filter, mapping) in &parts.mappings {
        for text in &mapping.paths {
            if let Err(why) = pattern::check(text) {
                return wrong(format!("filter '{filter}' has the pattern '{text}': {why}"));
            }
        }
    }
    Ok(())
}

/// Filters by path stand before whatever a path leads to, even where that is nothing; error pages answer for it; a
/// welcome file may be there. So nothing needs a servlet.
fn add_default(parts: &mut Parts) {
    let taken = |pattern: &str| parts.servlets.iter().any(|part| part.info.patterns.iter().any(|p| p == pattern));
    let nothing_mapped = parts.servlets.iter().all(|part| part.info.patterns.is_empty());
    let by_path = parts.mappings.iter().any(|(_, mapping)| !mapping.paths.is_empty());
    let for_nothing = by_path
        || !parts.error_pages.is_empty()
        || !parts.welcome_files.is_empty()
        || !parts.request_listeners.is_empty();
    if !(for_nothing || nothing_mapped) || taken("/") || taken("/*") {
        return;
    }
    let named = |name: &str| parts.servlets.iter().any(|part| part.info.name == name);
    let name = if named("default") { "wharf-default" } else { "default" };
    parts.servlets.push(ServletPart {
        info: ServletInfo { name: name.to_owned(), patterns: vec!["/".to_owned()] },
        servlet: Arc::new(crate::any(|_| async { http::StatusCode::NOT_FOUND })),
        by_name_alone: false,
        init: Init::new(),
        timeout: None,
        from_file: false,
        implied: true,
    });
}

fn check_error_pages(parts: &Parts, map: &ServletMap) -> Result<(), MappingError> {
    for page in &parts.error_pages {
        if let For::Status(status) = page.of
            && !(status.is_client_error() || status.is_server_error())
        {
            return wrong(format!("error page for status {}: that is no error", status.as_u16()));
        }
        let To::Path(path) = &page.to else { continue };
        let bare = path.split('?').next().unwrap_or_default();
        let found = match wharf_mapping::canonicalise(bare) {
            Ok(path) => map.find(&path.decoded),
            Err(error) => return wrong(format!("error page '{path}': {error}")),
        };
        if found.is_none_or(|found| parts.servlets[found.servlet].implied) {
            return wrong(format!("error page '{path}': no servlet of the application takes this path"));
        }
    }
    Ok(())
}

/// All mappings of all filters, in the order of Servlet 6.1, section 6.2.4.
fn steps(parts: &Parts) -> Vec<Step> {
    let servlet = |name: &String| parts.servlets.iter().position(|part| part.info.name == *name);
    let filter = |name: &String| parts.filters.iter().position(|part| part.name == *name);
    let mut steps: Vec<Step> = Vec::new();
    let by_path = parts.mappings.iter().filter(|(_, mapping)| !mapping.paths.is_empty()).map(|(name, mapping)| {
        let everything = mapping.paths.iter().any(|pattern| pattern == "/*");
        let reach = if everything { Reach::Everything } else { Reach::Paths(mapping.paths.clone()) };
        (name, mapping.on, reach)
    });
    let by_servlet =
        parts.mappings.iter().filter(|(_, mapping)| !mapping.servlets.is_empty()).map(|(name, mapping)| {
            let every = mapping.servlets.iter().any(|name| name == "*");
            // A servlet that the TOML file disables has no filters.
            let some = || Reach::Servlets(mapping.servlets.iter().filter_map(servlet).collect());
            (name, mapping.on, if every { Reach::EveryServlet } else { some() })
        });
    for (name, on, reach) in by_path.chain(by_servlet) {
        if let Some(filter) = filter(name) {
            let again = steps.iter().any(|step| step.filter == filter);
            steps.push(Step { filter, reach, on, again });
        }
    }
    steps
}

fn into_running(mut parts: Parts, map: ServletMap, steps: Vec<Step>, description: String) -> Arc<Running> {
    let timeout = parts.async_timeout;
    let servlets: Vec<ServletEntry> = parts
        .servlets
        .into_iter()
        .map(|part| ServletEntry {
            info: part.info,
            servlet: part.servlet,
            init: Arc::new(part.init),
            timeout: part.timeout.or(timeout).filter(|timeout| !timeout.is_zero()),
        })
        .collect();
    let plain = steps.is_empty()
        && parts.request_listeners.is_empty()
        && parts.async_listeners.is_empty()
        && parts.error_pages.is_empty()
        && parts.welcome_files.is_empty()
        && servlets.iter().all(|servlet| servlet.timeout.is_none());
    let filters = parts.filters.into_iter().map(|part| FilterEntry {
        name: part.name.into(),
        init: Arc::new(part.init),
        filter: part.filter,
    });
    let filters = filters.collect();
    if !parts.session_listeners.is_empty() {
        parts.attributes.push(Arc::new(SessionListeners(parts.session_listeners)));
    }
    Arc::new_cyclic(|this| Running {
        servlets,
        map,
        filters,
        steps,
        listeners: parts.listeners,
        request_listeners: parts.request_listeners,
        context_attribute_listeners: parts.context_attribute_listeners,
        request_attribute_listeners: parts.request_attribute_listeners,
        async_listeners: parts.async_listeners,
        attributes: parts.attributes,
        migrations: parts.migrations,
        error_pages: ErrorPages(parts.error_pages),
        welcome_files: parts.welcome_files,
        display_name: parts.display_name,
        constraints: crate::constraint::to_json(&parts.constraints),
        plain,
        description,
        started: Default::default(),
        this: this.clone(),
    })
}

fn origin(from_file: bool) -> &'static str {
    if from_file { "file" } else { "builder" }
}

/// What `wharf check` shows.
fn describe(parts: &Parts, web: &Web) -> Value {
    let seconds = |time: std::time::Duration| time.as_secs_f64();
    let servlets = parts.servlets.iter().filter(|part| !part.implied).map(|part| {
        json!({
            "name": part.info.name,
            "patterns": part.info.patterns,
            "init": part.init,
            "async_timeout": part.timeout.or(parts.async_timeout).map(seconds),
            "origin": origin(part.from_file),
        })
    });
    // In the order in which they run: all by path, then all by servlet.
    let filters = steps(parts).into_iter().map(|step| {
        let part = &parts.filters[step.filter];
        let (paths, servlets) = match step.reach {
            Reach::Everything => (vec!["/*".to_owned()], Vec::new()),
            Reach::Paths(paths) => (paths, Vec::new()),
            Reach::EveryServlet => (Vec::new(), vec!["*".to_owned()]),
            Reach::Servlets(servlets) => {
                (Vec::new(), servlets.iter().map(|at| parts.servlets[*at].info.name.clone()).collect())
            }
        };
        json!({
            "name": part.name,
            "patterns": paths,
            "servlets": servlets,
            "dispatch": step.on.names(),
            "init": part.init,
            "origin": origin(part.from_file),
        })
    });
    let pages = parts.error_pages.iter().map(|ErrorPage { of, to, from_file }| {
        let (status, error) = match of {
            For::Status(status) => (Some(status.as_u16()), None),
            For::Type(kind) => (None, Some(kind.name)),
            For::Everything => (None, None),
        };
        let path = match to {
            To::Path(path) => Some(path),
            To::Servlet(_) => None,
        };
        json!({ "status": status, "error": error, "path": path, "origin": origin(*from_file) })
    });
    json!({
        "display_name": parts.display_name,
        "servlets": servlets.collect::<Vec<_>>(),
        "filters": filters.collect::<Vec<_>>(),
        "error_pages": pages.collect::<Vec<_>>(),
        "welcome_files": parts.welcome_files,
        "welcome_files_origin": origin(web.welcome_files.is_some()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IntoApplication, filter_fn, get};

    #[test]
    fn mistakes_in_names_and_patterns_are_told() {
        let page = || get(|_| async { "x" });
        let pass = || filter_fn(|request, next: crate::Next| async move { next.run(request).await });
        for (app, want) in [
            (App::new().servlet("a", "/a", page()).servlet("a", "/b", page()), "two servlets have the name 'a'"),
            (App::new().servlet("", "/a", page()), "empty name"),
            (App::new().servlet("a", Vec::<String>::new(), page()), "no URL pattern"),
            (App::new().servlet("a", "a", page()), "'a'"),
            (App::new().servlet("a", "/a", page()).servlet("b", "/a", page()), "'/a'"),
            (App::new().filter_servlets("f", "b", pass()), "servlet 'b'"),
            (App::new().filter("f", "a", pass()), "'a'"),
            (App::new().filter("f", "/*", pass()).filter("f", "/*", pass()), "'f'"),
            (App::new().filter("f", Vec::<String>::new(), pass()), "without URL patterns"),
            (App::new().filter_mapping("f", "/*"), "filter 'f'"),
            (App::new().servlet_init("s", "a", "b"), "servlet 's'"),
            (App::new().filter_init("f", "a", "b"), "filter 'f'"),
            (App::new().servlet_timeout("s", std::time::Duration::MAX), "servlet 's'"),
            (App::new().error_page(http::StatusCode::NOT_FOUND, "/nowhere"), "'/nowhere': no servlet"),
            (App::new().error_page(http::StatusCode::NOT_FOUND, "relative"), "'relative'"),
            (App::new().error_page(http::StatusCode::FOUND, page()), "302: that is no error"),
            (App::new().welcome_files("/index.html"), "'/index.html'"),
        ] {
            match app.into_application() {
                Err(MappingError::Pattern(text)) => assert!(text.contains(want), "{text} should name {want}"),
                other => panic!("{want}: {:?}", other.map(|app| app.servlets())),
            }
        }
    }
}
