//! What is asked of the servers.

/// One piece of work.
pub(crate) struct Work {
    /// Name in the table.
    pub(crate) name: &'static str,
    /// Path below an application's own, with its query.
    pub(crate) path: &'static str,
    /// Length of the content that is sent, with POST; 0 for a GET.
    pub(crate) content: usize,
    /// Whether the content is a form.
    pub(crate) form: bool,
    /// Whether each request belongs to a session, which is begun before.
    pub(crate) session: bool,
    /// Connections of the load.
    pub(crate) connections: u32,
    /// Requests per second, by a client that keeps to them; 0 for as many as there can be.
    pub(crate) rate: u32,
    /// Connections beside the load that have had an answer and do nothing.
    pub(crate) idle_connections: usize,
    /// Applications beside the one under load that do nothing: Wharf alone has such.
    pub(crate) idle_applications: usize,
}

const GET: Work = Work {
    name: "",
    path: "",
    content: 0,
    form: false,
    session: false,
    connections: 32,
    rate: 0,
    idle_connections: 0,
    idle_applications: 0,
};

/// All of it, in the order of the table.
pub(crate) const WORKS: &[Work] = &[
    Work { name: "hello", path: "/hello", ..GET },
    Work { name: "hello-paced", path: "/hello", rate: 16_000, ..GET },
    Work { name: "json", path: "/json?name=Ada", ..GET },
    Work { name: "form", path: "/form", content: 1024, form: true, ..GET },
    Work { name: "echo-64k", path: "/echo", content: 64 * 1024, ..GET },
    Work { name: "download-100m", path: "/download", connections: 4, ..GET },
    Work { name: "static-10k", path: "/static/file.bin", ..GET },
    Work { name: "session", path: "/session", session: true, ..GET },
    Work { name: "idle-connections", path: "/hello", idle_connections: 10_000, ..GET },
    Work { name: "idle-applications", path: "/hello", idle_applications: 100, ..GET },
];
