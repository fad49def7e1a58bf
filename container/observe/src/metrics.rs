//! The counters of the container as Prometheus reads them. Nothing is kept here: each scrape reads the counters where
//! they are.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use wharf_kernel::backends::{BackendState, BackendStatus};
use wharf_kernel::counters::DURATION_BUCKETS;
use wharf_kernel::resource::ResourceState;
use wharf_kernel::{AppCounters, AppId, Fairness, Routes, ServerCounters};

/// Media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Read<T> = Box<dyn Fn() -> T + Send + Sync>;

/// Where the numbers come from.
pub struct Sources {
    /// The mounted applications, with their counters.
    pub routes: Arc<Routes>,
    /// The server's counters.
    pub server: Arc<ServerCounters>,
    /// The sessions of each context: host, context path, numbers.
    pub sessions: Read<Vec<(String, String, wharf_kernel::session::Counts)>>,
    /// Access log records that were dropped.
    pub access_log_dropped: Read<u64>,
    /// How many generations there are in each state.
    pub generations: Read<Vec<(String, u64)>>,
    /// Upgraded connections that were cut at the end of a drain time.
    pub cut_upgrades: Read<u64>,
    /// Redeploys since the start: a generation took the place of another one.
    pub redeploys: Read<u64>,
    /// Bytes on the heap of each application, where that is known.
    pub heaps: Read<Vec<(AppId, u64)>>,
    /// The resources that the container manages.
    pub resources: Read<Vec<ResourceState>>,
    /// The backends of each application that is a proxy.
    pub backends: Read<Vec<(AppId, Vec<BackendStatus>)>>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}

/// The metrics of the container.
pub struct Metrics(Registry);

impl Metrics {
    /// Metrics of these sources.
    pub fn new(sources: Sources) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape(sources)));
        Self(registry)
    }

    /// The text of one scrape, in the OpenMetrics format that Prometheus reads.
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String can't fail, and the encoder has no errors of its own.
        let _ = text::encode(&mut out, &self.0);
        out
    }
}

#[derive(Debug)]
struct Scrape(Sources);

type AppLabels<'a> = [(&'static str, &'a str); 3];

fn labels(app: &AppId) -> AppLabels<'_> {
    [("app", app.path.display()), ("version", app.version.as_str()), ("host", &app.host)]
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Writes whole families.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            family.encode_family(&labels)?.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Sources {
            routes, server, access_log_dropped, generations, cut_upgrades, redeploys, heaps, sessions, ..
        } = &self.0;
        let mut out = Families(encoder);

        let table = routes.load();
        // Two routes may share their counters; each application is listed once.
        let mut apps: Vec<&Arc<AppCounters>> = table.routes().iter().map(|route| &route.counters).collect();
        apps.sort_by(|a, b| a.app.cmp(&b.app));
        apps.dedup_by(|a, b| a.app == b.app);

        let mapped = apps.iter().flat_map(|app| {
            let [a, b, c] = labels(&app.app);
            CLASSES.into_iter().zip(app.by_class()).map(move |(class, n)| ([a, b, c, ("status", class)], n))
        });
        let unmapped = CLASSES
            .into_iter()
            .zip(server.unmapped_by_class())
            .map(|(class, n)| ([("app", ""), ("version", ""), ("host", ""), ("status", class)], n));
        let requests = mapped.chain(unmapped).filter(|(_, n)| *n > 0);
        out.counters("wharf_requests", "Requests answered; without app: no application saw them", requests)?;
        let each = |read: fn(&AppCounters) -> u64| apps.iter().map(move |app| (labels(&app.app), read(app)));
        out.gauges("wharf_requests_in_flight", "Requests begun and not ended", each(AppCounters::in_flight))?;
        out.gauges("wharf_upgrades_open", "Upgraded connections that are open", each(AppCounters::open_upgrades))?;
        out.counters("wharf_upgrades", "Connections upgraded", each(AppCounters::upgraded))?;
        out.counters("wharf_request_bytes", "Request content received", each(AppCounters::bytes_in))?;
        out.counters("wharf_response_bytes", "Response content sent", each(AppCounters::bytes_out))?;
        self.fairness(&mut out, &apps)?;
        {
            let help = "From the head of the request to the end of the response";
            let name = "wharf_request_duration_seconds";
            let mut family = out.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for app in &apps {
                let counts = app.durations();
                let bounds = DURATION_BUCKETS.into_iter().chain([f64::MAX]);
                let buckets: Vec<_> = bounds.zip(counts).collect();
                family.encode_family(&labels(&app.app))?.encode_histogram::<NoLabelSet>(
                    app.total_duration().as_secs_f64(),
                    counts.iter().sum(),
                    &buckets,
                    None,
                )?;
            }
        }

        out.gauge("wharf_connections_open", "Connections that are open", server.open_connections())?;
        out.counter("wharf_connections_accepted", "Connections accepted", server.accepted_connections())?;
        out.counter("wharf_accept_errors", "Connections that could not be accepted", server.accept_errors())?;
        out.counter("wharf_endpoint_panics", "Panics of endpoints caught by the pipeline", server.panics())?;
        out.counter("wharf_access_log_dropped", "Access log records not written", access_log_dropped())?;

        let sessions = sessions();
        let each = |read: fn(&wharf_kernel::session::Counts) -> u64| {
            sessions.iter().map(move |(host, app, n)| ([("app", app.as_str()), ("host", host.as_str())], read(n)))
        };
        out.gauges("wharf_sessions_active", "Sessions that there are", each(|n| n.active))?;
        out.gauges("wharf_sessions_bytes", "Bytes of the values of all sessions", each(|n| n.bytes))?;
        out.counters("wharf_sessions_created", "Sessions begun", each(|n| n.created))?;
        out.counters("wharf_sessions_expired", "Sessions ended for want of requests", each(|n| n.expired))?;
        out.counters("wharf_sessions_invalidated", "Sessions ended by the application", each(|n| n.invalidated))?;
        out.counters("wharf_sessions_rejected", "Sessions not begun because of a limit", each(|n| n.rejected))?;

        let states = generations();
        let states = states.iter().map(|(state, n)| ([("state", state.as_str())], *n));
        out.gauges("wharf_generations", "Generations of applications by state", states)?;
        out.counter("wharf_redeploys", "Generations that took the place of another", redeploys())?;
        out.counter("wharf_upgrades_cut", "Upgraded connections cut at the end of a drain time", cut_upgrades())?;
        let heaps = heaps();
        let heaps = heaps.iter().map(|(app, bytes)| (labels(app), *bytes));
        out.gauges("wharf_app_heap_bytes", "Bytes on the heap of an application", heaps)?;

        self.backends(&mut out)?;
        self.resources(&mut out)?;
        if let Some((resident, threads)) = process() {
            out.gauge("process_resident_memory_bytes", "Resident memory of the container", resident)?;
            out.gauge("process_threads", "Threads of the container", threads)?;
        }
        if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
            out.gauge("process_open_fds", "Open file descriptors of the container", descriptors.count() as u64)?;
        }
        Ok(())
    }
}

impl Scrape {
    /// What the backends of proxies do.
    fn backends(&self, out: &mut Families<'_>) -> fmt::Result {
        let all = (self.0.backends)();
        let each = |read: fn(&BackendStatus) -> u64| {
            all.iter().flat_map(move |(app, backends)| {
                let [a, b, c] = labels(app);
                backends.iter().map(move |backend| ([a, b, c, ("backend", backend.url.as_str())], read(backend)))
            })
        };
        out.counters("wharf_backend_requests", "Requests that a backend was given", each(|b| b.requests))?;
        out.counters("wharf_backend_failures", "Requests of these that failed", each(|b| b.failures))?;
        out.gauges("wharf_backend_in_flight", "Requests that a backend has now", each(|b| b.in_flight))?;
        let up = |b: &BackendStatus| u64::from(b.state == BackendState::Healthy);
        out.gauges("wharf_backend_up", "1 where a backend gets requests", each(up))?;
        let help = "Latency of a backend in microseconds, its peaks remembered";
        out.gauges("wharf_backend_latency_microseconds", help, each(|b| (b.latency_ms * 1e3) as u64))
    }

    /// What the pools of the resources do.
    fn resources(&self, out: &mut Families<'_>) -> fmt::Result {
        let all = (self.0.resources)();
        let each = |read: fn(&ResourceState) -> u64| {
            all.iter().map(move |r| ([("resource", r.name.as_str()), ("engine", r.engine.as_str())], read(r)))
        };
        out.gauges("wharf_resource_up", "1 where it answers", each(|r| u64::from(r.down.is_empty())))?;
        out.gauges("wharf_resource_in_use", "Connections in use", each(|r| r.figures.in_use))?;
        out.gauges("wharf_resource_idle", "Open connections that nobody uses", each(|r| r.figures.idle))?;
        out.gauges("wharf_resource_max", "The most connections there may be", each(|r| r.figures.max))?;
        out.gauges("wharf_resource_waiting", "Callers that wait for a connection", each(|r| r.figures.waiting))?;
        out.counters("wharf_resource_acquired", "Connections handed out", each(|r| r.figures.acquired))?;
        let help = "How long callers have waited for connections";
        let waited = each(|r| (r.figures.wait_seconds * 1e3) as u64);
        out.counters("wharf_resource_wait_milliseconds", help, waited)?;
        out.counters("wharf_resource_statements", "Statements", each(|r| r.figures.statements))?;
        let took = each(|r| (r.figures.statement_seconds * 1e3) as u64);
        out.counters("wharf_resource_statement_milliseconds", "How long statements took", took)?;
        let help = "Statements that took longer than slow_statement";
        out.counters("wharf_resource_slow_statements", help, each(|r| r.figures.slow))?;
        let help = "Transactions that were left open and rolled back";
        out.counters("wharf_resource_left_open", help, each(|r| r.figures.left_open))?;
        let errors = all.iter().flat_map(|r| {
            let labels = [("resource", r.name.as_str()), ("engine", r.engine.as_str())];
            r.figures.errors.iter().map(move |(kind, n)| ([labels[0], labels[1], ("kind", kind.as_str())], *n))
        });
        out.counters("wharf_resource_errors", "Errors of statements and connections", errors)
    }

    /// What the applications take of their shares.
    fn fairness(&self, out: &mut Families<'_>, apps: &[&Arc<AppCounters>]) -> fmt::Result {
        let each = |read: fn(&Fairness) -> u64| apps.iter().map(move |app| (labels(&app.app), read(&app.fairness)));
        out.gauges("wharf_requests_queued", "Requests that wait for their turn", each(Fairness::queued))?;
        let rejected = apps.iter().flat_map(|app| {
            let [a, b, c] = labels(&app.app);
            let reasons = ["busy", "memory", "stuck", "cpu"].into_iter().zip(app.fairness.rejected());
            reasons.map(move |(reason, n)| ([a, b, c, ("reason", reason)], n))
        });
        out.counters("wharf_requests_rejected", "Requests answered with 503 for the application's share", rejected)?;
        out.counters("wharf_slow_polls", "Polls that took longer than slow_poll", each(Fairness::slow_polls))?;
        out.gauges("wharf_stuck_polls", "Polls that have not come back for long", each(Fairness::stuck_polls))?;
        out.gauges(
            "wharf_app_own_threads",
            "1 where it is polled on threads of its own",
            each(|f| f.on_own_threads().into()),
        )?;
        out.gauges("wharf_app_over_memory_budget", "1 where it holds too much", each(|f| f.is_over_budget().into()))?;
        let over = each(|f| f.is_over_cpu().into());
        out.gauges("wharf_app_over_cpu_limit", "1 where it keeps more processors busy than it may", over)?;
        let help = "How long threads were in polls of the application, and processor time of its own threads";
        let cpu = apps.iter().map(|app| (labels(&app.app), u64::try_from(app.cpu().as_millis()).unwrap_or(u64::MAX)));
        out.counters("wharf_app_cpu_milliseconds", help, cpu)
    }
}

/// Resident bytes and threads of this process.
fn process() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    Some((field("VmRSS")? * 1024, field("Threads")?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wharf_kernel::resource::{ResourceFigures, ResourceKind};
    use wharf_kernel::{
        Body, ContextPath, Endpoint, Exchange, Gate, Lease, ResponseFuture, Route, RouteTable, Version,
    };

    use super::*;

    struct Nothing;

    impl Endpoint for Nothing {
        fn call(&self, _exchange: Box<Exchange>, _lease: Lease) -> ResponseFuture {
            Box::pin(async { http::Response::new(Body::empty()) })
        }
    }

    #[test]
    fn a_scrape_shows_the_counters() {
        let id =
            AppId { host: "default".into(), path: ContextPath::parse("/shop").unwrap(), version: Version::new("2") };
        let counters = Arc::new(AppCounters::new(id.clone()));
        for (status, ms) in [(200, 1), (204, 3), (500, 40_000)] {
            counters.local().begin();
            counters.local().end(status, 5, 10, Duration::from_millis(ms));
        }
        counters.local().begin();
        let route = Route {
            id: id.clone(),
            generation: 1,
            gate: Gate::new(|| {}),
            endpoint: Arc::new(Nothing),
            servlets: None,
            guard: None,
            counters,
            suspended: false,
        };
        let server = Arc::new(ServerCounters::default());
        server.connection_opened();
        server.answered_unmapped(404);
        let metrics = Metrics::new(Sources {
            routes: Arc::new(Routes::new(RouteTable::new([], [Arc::new(route)]).unwrap())),
            server,
            sessions: Box::new(|| {
                vec![(
                    "default".into(),
                    "/shop".into(),
                    wharf_kernel::session::Counts { active: 6, ..Default::default() },
                )]
            }),
            access_log_dropped: Box::new(|| 3),
            generations: Box::new(|| vec![("serving".to_owned(), 1)]),
            cut_upgrades: Box::new(|| 5),
            redeploys: Box::new(|| 4),
            backends: Box::new({
                let id = id.clone();
                move || {
                    let backend = BackendStatus {
                        url: "http://10.0.0.1:80".into(),
                        weight: 1,
                        state: BackendState::Ejected,
                        in_flight: 2,
                        requests: 7,
                        failures: 3,
                        latency_ms: 1.5,
                    };
                    vec![(id.clone(), vec![backend])]
                }
            }),
            resources: Box::new(|| {
                let figures = ResourceFigures {
                    statements: 9,
                    statement_seconds: 1.5,
                    errors: [("timeout".to_owned(), 2)].into(),
                    ..ResourceFigures::default()
                };
                vec![ResourceState {
                    name: "db".into(),
                    kind: ResourceKind::Sql,
                    engine: "sqlite".into(),
                    place: "sqlite:x".into(),
                    down: String::new(),
                    optional: false,
                    figures,
                }]
            }),
            heaps: Box::new(move || vec![(id.clone(), 1024)]),
        });
        let text = metrics.render();
        let app = r#"app="/shop",version="2",host="default""#;
        let expected = [
            format!("wharf_requests_total{{{app},status=\"2xx\"}} 2"),
            format!("wharf_requests_total{{{app},status=\"5xx\"}} 1"),
            r#"wharf_requests_total{app="",version="",host="",status="4xx"} 1"#.to_owned(),
            format!("wharf_requests_in_flight{{{app}}} 1"),
            format!("wharf_response_bytes_total{{{app}}} 30"),
            format!("wharf_request_duration_seconds_count{{{app}}} 3"),
            format!("wharf_request_duration_seconds_bucket{{le=\"0.001\",{app}}} 1"),
            format!("wharf_request_duration_seconds_bucket{{le=\"30.0\",{app}}} 2"),
            format!("wharf_request_duration_seconds_bucket{{le=\"+Inf\",{app}}} 3"),
            "wharf_connections_open 1".to_owned(),
            "wharf_access_log_dropped_total 3".to_owned(),
            r#"wharf_generations{state="serving"} 1"#.to_owned(),
            "wharf_redeploys_total 4".to_owned(),
            "wharf_upgrades_cut_total 5".to_owned(),
            format!("wharf_upgrades_open{{{app}}} 0"),
            format!("wharf_backend_requests_total{{{app},backend=\"http://10.0.0.1:80\"}} 7"),
            format!("wharf_backend_up{{{app},backend=\"http://10.0.0.1:80\"}} 0"),
            format!("wharf_backend_latency_microseconds{{{app},backend=\"http://10.0.0.1:80\"}} 1500"),
            r#"wharf_sessions_active{app="/shop",host="default"} 6"#.to_owned(),
            format!("wharf_app_heap_bytes{{{app}}} 1024"),
        ];
        for line in expected {
            assert!(text.lines().any(|l| l == line), "no line {line}\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes ") && text.ends_with("# EOF\n"), "{text}");
    }
}
