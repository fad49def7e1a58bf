//! What the TOML file of an application says, put over what its builder says.

use http::StatusCode;

use crate::app::Parts;
use crate::dispatcher_type::DispatcherTypes;
use crate::error_pages::{ErrorPage, ErrorType, For, To};
use crate::web::{Web, WebErrorPage, WebFilter, WebServlet, unknown};
use crate::{DispatcherType, FilterMapping};

impl Parts {
    /// Puts the file over the builder. The error names key and name.
    pub(crate) fn merge(&mut self, web: &Web) -> Result<(), String> {
        if let Some(name) = &web.display_name {
            self.display_name = Some(name.clone());
        }
        if let Some(files) = &web.welcome_files {
            self.welcome_files.clone_from(files);
        }
        if let Some(timeout) = web.async_timeout {
            self.async_timeout = Some(timeout);
        }
        let servlets: Vec<String> = self.servlets.iter().map(|part| part.info.name.clone()).collect();
        let filters: Vec<String> = self.filters.iter().map(|part| part.name.clone()).collect();
        for (name, servlet) in &web.servlets {
            self.merge_servlet(name, servlet)?;
        }
        for (name, filter) in &web.filters {
            self.merge_filter(name, filter, &servlets)?;
        }
        for name in &web.filter_order {
            if !filters.contains(name) {
                return Err(unknown("filter_order", "filter", name, filters.iter().map(String::as_str)));
            }
        }
        // Those that are named come first, in their order; the others keep theirs.
        let rank = |name: &String| web.filter_order.iter().position(|n| n == name).unwrap_or(usize::MAX);
        self.mappings.sort_by_key(|(name, _)| rank(name));
        for page in &web.error_pages {
            self.merge_error_page(page)?;
        }
        let off = |name: &String| web.servlets.get(name).is_some_and(|servlet| servlet.enabled == Some(false));
        self.servlets.retain(|part| !off(&part.info.name));
        let off = |name: &String| web.filters.get(name).is_some_and(|filter| filter.enabled == Some(false));
        self.filters.retain(|part| !off(&part.name));
        self.mappings.retain(|(name, _)| !off(name));
        Ok(())
    }

    fn merge_servlet(&mut self, name: &str, web: &WebServlet) -> Result<(), String> {
        let Some(at) = self.servlets.iter().position(|part| part.info.name == *name) else {
            let known = self.servlets.iter().map(|part| part.info.name.as_str());
            return Err(unknown(&format!("[servlets.{name}]"), "servlet", name, known));
        };
        let part = &mut self.servlets[at];
        part.from_file = true;
        if let Some(patterns) = &web.patterns {
            part.info.patterns.clone_from(patterns);
        }
        part.info.patterns.extend(web.add_patterns.iter().cloned());
        if let Some(timeout) = web.async_timeout {
            part.timeout = Some(timeout);
        }
        part.init.extend(web.init.clone());
        Ok(())
    }

    fn merge_filter(&mut self, name: &str, web: &WebFilter, servlets: &[String]) -> Result<(), String> {
        let Some(at) = self.filters.iter().position(|part| part.name == *name) else {
            let known = self.filters.iter().map(|part| part.name.as_str());
            return Err(unknown(&format!("[filters.{name}]"), "filter", name, known));
        };
        let part = &mut self.filters[at];
        part.from_file = true;
        part.init.extend(web.init.clone());
        for servlet in web.servlets.iter().flatten().filter(|servlet| *servlet != "*") {
            if !servlets.contains(servlet) {
                let key = format!("[filters.{name}] servlets");
                return Err(unknown(&key, "servlet", servlet, servlets.iter().map(String::as_str)));
            }
        }
        let on = match &web.dispatch {
            None => None,
            Some(names) => Some(dispatcher_types(name, names)?),
        };
        let own = |(filter, _): &&mut (String, FilterMapping)| filter == name;
        if web.patterns.is_some() || web.servlets.is_some() {
            // Its mappings are said anew, where the first of them stood.
            let before = self.mappings.iter().position(|(filter, _)| filter == name);
            let kept = before.map_or_else(DispatcherTypes::default, |at| self.mappings[at].1.on);
            let mapping = FilterMapping {
                paths: web.patterns.clone().unwrap_or_default(),
                servlets: web.servlets.clone().unwrap_or_default(),
                on: kept,
            };
            self.mappings.retain(|(filter, _)| filter != name);
            let at = before.unwrap_or(self.mappings.len()).min(self.mappings.len());
            self.mappings.insert(at, (name.to_owned(), mapping));
        }
        if !web.add_patterns.is_empty()
            && let Some((_, mapping)) = self.mappings.iter_mut().find(own)
        {
            mapping.paths.extend(web.add_patterns.iter().cloned());
        }
        if let Some(on) = on {
            self.mappings.iter_mut().filter(own).for_each(|(_, mapping)| mapping.on = on);
        }
        if let Some((_, mapping)) = self.mappings.iter_mut().find(own)
            && mapping.paths.is_empty()
            && mapping.servlets.is_empty()
        {
            return Err(format!(
                "[filters.{name}] in the TOML file leaves the filter without patterns and servlets; to switch it off, write \
                 enabled = false"
            ));
        }
        Ok(())
    }

    fn merge_error_page(&mut self, web: &WebErrorPage) -> Result<(), String> {
        let key = "[[error_pages]]";
        let of = match (web.status, &web.error) {
            (Some(_), Some(_)) => return Err(format!("{key} in the TOML file: give 'status' or 'error', not both")),
            (Some(status), None) => match StatusCode::from_u16(status) {
                Ok(status) => vec![For::Status(status)],
                Err(_) => return Err(format!("{key} in the TOML file: {status} is no status")),
            },
            (None, Some(name)) => {
                let of_name: Vec<ErrorType> = self.error_types.iter().filter(|e| e.name == name).copied().collect();
                if of_name.is_empty() {
                    let known = self.error_types.iter().map(|kind| kind.name);
                    return Err(unknown(key, "error type", name, known));
                }
                of_name.into_iter().map(For::Type).collect()
            }
            (None, None) => vec![For::Everything],
        };
        for of in of {
            let same = |page: &ErrorPage| match (&page.of, &of) {
                (For::Status(a), For::Status(b)) => a == b,
                (For::Type(a), For::Type(b)) => a.name == b.name,
                (For::Everything, For::Everything) => true,
                _ => false,
            };
            self.error_pages.retain(|page| page.from_file || !same(page));
            self.error_pages.push(ErrorPage { of, to: To::Path(web.path.clone()), from_file: true });
        }
        Ok(())
    }
}

fn dispatcher_types(filter: &str, names: &[String]) -> Result<DispatcherTypes, String> {
    names
        .iter()
        .map(|name| {
            DispatcherType::parse(name).ok_or_else(|| {
                let known = ["request", "forward", "include", "error", "async"];
                unknown(&format!("[filters.{filter}] dispatch"), "dispatcher type", name, known)
            })
        })
        .collect()
}
