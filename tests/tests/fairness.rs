//! One application that saturates its limit, or takes all threads, memory or processors, must not hurt the one beside it.

use std::time::{Duration, Instant};

use wharf_tests::neighbours::{BAD, answers, begin, count, metric, neighbours};
use wharf_tests::{Site, Wharf, chameleon, wait};

#[test]
fn above_its_limit_requests_wait_and_above_its_queue_they_get_503() {
    let wharf = neighbours("max_requests = 2\nmax_queued = 2\n", &[]);
    let held = begin(&wharf, "/bad/wait?millis=1500", 4);
    wait("two in the queue", || (wharf.app("bad")["load"]["queued"] == 2).then_some(()));
    let refused = wharf.get("/bad/");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(wharf.get("/good/").text(), "good");
    assert!(wharf.cli(&["list"]).out.contains("bad: 2 requests wait for their turn, 1 refused as too many"));
    assert_eq!(metric(&wharf, &format!("wharf_requests_queued{BAD}}}")), Some(2));
    assert_eq!(metric(&wharf, &format!("wharf_requests_rejected_total{BAD},reason=\"busy\"}}")), Some(1));
    assert_eq!(count(&answers(held), 200), 4);
    assert_eq!(wharf.get("/bad/").text(), "bad");
}

#[test]
fn who_waits_too_long_or_goes_away_leaves_the_queue() {
    let wharf = neighbours("max_requests = 1\nmax_queued = 2\nqueue_timeout = \"200ms\"\n", &[]);
    let held = begin(&wharf, "/bad/wait?millis=3000", 1);
    wait("the first", || (wharf.app("bad")["load"]["in_flight"] == 1).then_some(()));
    let late = wharf.get("/bad/");
    assert_eq!((late.status, late.header("retry-after")), (503, Some("1")));
    drop(begin(&wharf, "/bad/wait?millis=3000", 2));
    wait("an empty queue", || (wharf.app("bad")["load"]["queued"] == 0).then_some(()));
    // The client goes, and with it what holds the permit.
    drop(held);
    wait("a free place", || (wharf.get("/bad/").status == 200).then_some(()));
}

#[test]
fn a_full_pool_for_blocking_work_answers_503() {
    let wharf = neighbours("blocking_threads = 1\n", &[]);
    let held = begin(&wharf, "/bad/block?millis=100", 40);
    assert_eq!(wharf.get("/good/").text(), "good");
    let answers = answers(held);
    assert_eq!((count(&answers, 200), count(&answers, 503)), (33, 7));
    assert!(answers.iter().all(|a| a.status == 200 || a.header("retry-after") == Some("1")));
    assert_eq!(wharf.get("/bad/block?millis=1").text(), "blocked");
}

/// In front of the C library: no thread can be started while there is a file of this name.
const NO_THREADS: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
    const char *file = getenv("NO_THREADS");
    if (file && access(file, F_OK) == 0) return EAGAIN;
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = dlsym(RTLD_NEXT, "pthread_create");
    return real(thread, attributes, start, argument);
}
"#;

#[test]
fn where_no_thread_is_to_be_had_the_answer_is_503() {
    let Some(mut cc) = wharf_tests::tool("cc", &["-shared", "-fPIC", "-o", "no_threads.so", "no_threads.c", "-ldl"])
    else {
        return;
    };
    let site = Site::new().with("no_threads.c", NO_THREADS).with("deploy/good.so", chameleon("good"));
    assert!(cc.current_dir(site.path("")).status().unwrap().success());
    let (library, file) = (site.path("no_threads.so"), site.path("none"));
    let wharf = site.start_as(&[], |command| {
        command.env("LD_PRELOAD", &library).env("NO_THREADS", &file);
    });
    wharf.put("none", "");
    for _ in 0..3 {
        let refused = wharf.get("/good/block?millis=1");
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
        assert_eq!(wharf.get("/good/").text(), "good");
    }
    assert!(wharf.log().contains("no thread can be started"), "{}", wharf.log());
    wharf.remove("none");
    // What was refused is not done later.
    assert_eq!(wharf.get("/good/block?millis=1").text(), "blocked");
}

#[test]
fn above_its_memory_budget_new_requests_get_503_until_it_is_redeployed() {
    let wharf = neighbours("memory_budget = 20000000\n", &[]);
    assert_eq!(wharf.get("/bad/allocate?bytes=30000000").text(), "allocated");
    wait("the budget", || (wharf.get("/bad/").status == 503).then_some(()));
    assert_eq!(wharf.get("/bad/").header("retry-after"), Some("5"));
    assert_eq!(wharf.get("/good/").text(), "good");
    assert!(wharf.cli(&["list"]).out.contains("above its memory budget"));
    assert_eq!(metric(&wharf, &format!("wharf_app_over_memory_budget{BAD}}}")), Some(1));
    wharf.cli(&["reload", "bad"]);
    wharf.wait_for("/bad/", "bad");
}

/// Seconds that the bad application has taken of the processors.
fn cpu(wharf: &Wharf) -> f64 {
    wharf.app("bad")["load"]["cpu_seconds"].as_f64().unwrap()
}

#[test]
fn processor_time_is_counted_wherever_it_is_taken() {
    let wharf = neighbours("", &["--set", "server.workers=1"]);
    let begin_at = Instant::now();
    assert_eq!(wharf.get("/bad/hog?millis=120").text(), "slept");
    assert!(cpu(&wharf) >= 0.12, "a poll keeps its thread: {}", cpu(&wharf));
    assert_eq!(wharf.get("/bad/burn?millis=300").text(), "burnt");
    wait("the time of a thread of its own", || (cpu(&wharf) >= 0.42).then_some(()));
    // What threads have taken that have ended stays counted.
    assert_eq!(wharf.get("/bad/burn?millis=300&thread").text(), "burnt");
    wait("the time of a thread that has ended", || (cpu(&wharf) >= 0.72).then_some(()));
    // And of a poll that goes on while it goes on.
    let spinning = begin(&wharf, "/bad/spin", 1);
    wait("the time of a poll that does not come back", || (cpu(&wharf) >= 1.2).then_some(()));
    assert_eq!(wharf.get("/bad/spin-end").text(), "ended");
    assert_eq!(answers(spinning)[0].text(), "spun");
    let (taken, passed) = (cpu(&wharf), begin_at.elapsed().as_secs_f64());
    assert!(taken < passed, "{taken} s in {passed} s");
    let counted = metric(&wharf, &format!("wharf_app_cpu_milliseconds_total{BAD}}}")).unwrap();
    assert!(counted >= 1200, "{counted}");
    let list = wharf.cli(&["list"]).out;
    assert!(list.lines().any(|l| l.starts_with("good") && l.ends_with("0.0 s")), "{list}");
}

#[test]
fn above_its_processor_limit_new_requests_get_503_until_it_has_waited() {
    let wharf = neighbours("cpu_limit = 0.2\n", &[]);
    // A fifth of a second is there at once; this is four more.
    assert_eq!(wharf.get("/bad/burn?millis=1000").text(), "burnt");
    let begin_at = Instant::now();
    wait("the limit", || (wharf.get("/bad/").status == 503).then_some(()));
    assert_eq!(wharf.get("/bad/").header("retry-after"), Some("1"));
    assert_eq!(wharf.get("/good/").text(), "good");
    assert!(wharf.cli(&["list"]).out.contains("above its processor limit"));
    assert_eq!(metric(&wharf, &format!("wharf_app_over_cpu_limit{BAD}}}")), Some(1));
    wait("its turn", || (wharf.get("/bad/").status == 200).then_some(()));
    assert!(begin_at.elapsed() > Duration::from_secs(2), "{:?}", begin_at.elapsed());
    assert!(metric(&wharf, &format!("wharf_requests_rejected_total{BAD},reason=\"cpu\"}}")) > Some(0));
}
