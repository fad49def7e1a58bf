//! Folders of CGI programs for the tests, and a look at the processes of a container.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::{Answer, Site, Wharf, wait};

/// The beginning of an `app.toml`: options follow.
pub const CGI_TOML: &str = "kind = \"cgi\"\n[cgi]\n";

/// A program that prints its environment.
pub const CGI_ENV: &str = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nenv\n";

/// Puts a program into a site.
///
/// # Panics
/// When it can't be written.
pub fn cgi_program(site: &Site, path: &str, text: &str) {
    let temporary = site.temporary(path);
    fs::write(&temporary, text).expect("the program is written");
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755)).expect("it may be executed");
    site.rename(&temporary, path);
}

/// A container with the application `/app`, its options and its programs.
pub fn cgi_app(options: &str, programs: &[(&str, &str)], arguments: &[&str]) -> Wharf {
    let site = Site::new().with("deploy/app/app.toml", format!("{CGI_TOML}{options}"));
    for (name, text) in programs {
        cgi_program(&site, &format!("deploy/app/{name}"), text);
    }
    site.start(arguments)
}

/// What [`CGI_ENV`] printed.
///
/// # Panics
/// When the answer is no success.
pub fn cgi_variables(answer: &Answer) -> BTreeMap<String, String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let text = answer.text();
    text.lines().filter_map(|l| l.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

impl Wharf {
    /// The ids of the processes that it has started and that are there in any form, zombies too.
    ///
    /// # Panics
    /// When it is gone.
    pub fn children(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the process is there");
        let of = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).ok();
        tasks
            .flatten()
            .filter_map(of)
            .flat_map(|ids| ids.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    /// Waits until it has no process.
    pub fn wait_childless(&self) {
        wait("no process to be left", || self.children().is_empty().then_some(()));
    }
}

/// Whether a process is there. A zombie of whoever takes over orphans does not count.
pub fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}
