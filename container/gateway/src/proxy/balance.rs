//! Who gets a request: the policies.
//!
//! tower's balancer draws two of a set of services that are all polled for readiness, and knows neither weights, nor keys, nor
//! what was tried before; its load measures live inside the services it owns. Here one set of backends is shared by all
//! workers, so the choice is a function of what is counted for each backend.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wharf_kernel::options::Policy;

use super::state::{State, now};

/// What the choice looks at.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) state: Arc<State>,
    pub(crate) weight: u32,
    /// Tells it from the others, in cookies and for hashes.
    pub(crate) id: u64,
}

/// Chooses among backends.
#[derive(Debug)]
pub(crate) struct Balancer {
    policy: Policy,
    slow_start: Duration,
    panic_percent: usize,
    candidates: Vec<Candidate>,
    /// Of smooth weighted round robin: how much each is owed.
    owed: Mutex<Vec<f64>>,
}

impl Balancer {
    pub(crate) fn new(policy: Policy, slow_start: Duration, panic_percent: u8, candidates: Vec<Candidate>) -> Self {
        let owed = Mutex::new(vec![0.0; candidates.len()]);
        Self { policy, slow_start, panic_percent: panic_percent.into(), candidates, owed }
    }

    /// How many are fit.
    pub(crate) fn fit(&self) -> usize {
        let now = now();
        self.candidates.iter().filter(|c| c.state.is_fit(now)).count()
    }

    /// The place of the backend for a request. `wanted` is the one a cookie names; `tried` have failed this request already.
    pub(crate) fn choose(&self, key: u64, wanted: Option<u64>, tried: &[usize]) -> Option<usize> {
        let now = now();
        let untried = |at: &usize| !tried.contains(at);
        let all = 0..self.candidates.len();
        let fit = |at: &usize| self.candidates[*at].state.is_fit(now);
        if let Some(id) = wanted
            && let Some(at) = all.clone().find(|at| self.candidates[*at].id == id)
            && fit(&at)
            && untried(&at)
        {
            return Some(at);
        }
        let fit_ones = all.clone().filter(fit).count();
        // Where too few are fit, the fault is likely elsewhere, and those few would be overrun: health is not heeded then.
        let panic = fit_ones == 0 || fit_ones * 100 < self.panic_percent * self.candidates.len();
        let open: Vec<(usize, f64)> = all
            .filter(untried)
            .filter(|at| if panic { !self.candidates[*at].state.is_drained() } else { fit(at) })
            .map(|at| (at, f64::from(self.candidates[at].weight) * self.warmth(at, now)))
            .collect();
        match &*open {
            [] => None,
            [(only, _)] => Some(*only),
            _ => Some(self.by_policy(&open, key)),
        }
    }

    fn warmth(&self, at: usize, now: u64) -> f64 {
        self.candidates[at].state.warmth(now, self.slow_start)
    }

    fn by_policy(&self, open: &[(usize, f64)], key: u64) -> usize {
        let in_flight = |at: usize| self.candidates[at].state.in_flight.load(Relaxed) as f64 + 1.0;
        let least = |cost: &dyn Fn(usize, f64) -> f64| {
            // Beginning anywhere, so that equals are not always decided for the first.
            let begin = fastrand::usize(..open.len());
            let turned = open[begin..].iter().chain(&open[..begin]);
            turned.min_by(|a, b| cost(a.0, a.1).total_cmp(&cost(b.0, b.1))).map_or(open[0].0, |c| c.0)
        };
        match self.policy {
            Policy::RoundRobin => {
                let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
                let total: f64 = open.iter().map(|(_, weight)| weight).sum();
                open.iter().for_each(|(at, weight)| owed[*at] += weight);
                let best = open.iter().max_by(|a, b| owed[a.0].total_cmp(&owed[b.0])).map_or(open[0].0, |c| c.0);
                owed[best] -= total;
                best
            }
            Policy::LeastRequests => least(&|at, weight| in_flight(at) / weight),
            Policy::PeakEwma => {
                let cost =
                    |(at, weight): (usize, f64)| (self.candidates[at].state.latency() + 0.01) * in_flight(at) / weight;
                let first = fastrand::usize(..open.len());
                let second = (first + 1 + fastrand::usize(..open.len() - 1)) % open.len();
                if cost(open[second]) < cost(open[first]) { open[second].0 } else { open[first].0 }
            }
            // Weighted rendezvous: a backend that goes takes its own keys along and moves nobody else's.
            Policy::Hash => least(&|at, weight| {
                let hash = hash(&(key, self.candidates[at].id));
                -((hash as f64 + 1.0) / (u64::MAX as f64 + 2.0)).ln() / weight
            }),
        }
    }
}

/// The same for the same value in every container of this version.
pub(crate) fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balancer(policy: Policy, weights: &[u32]) -> Balancer {
        let candidate = |(id, weight): (usize, &u32)| Candidate {
            state: Arc::default(),
            weight: *weight,
            id: hash(&("backend", id)),
        };
        Balancer::new(policy, Duration::ZERO, 0, weights.iter().enumerate().map(candidate).collect())
    }

    fn shares(balancer: &Balancer, draws: u64) -> Vec<u64> {
        let mut shares = vec![0; balancer.candidates.len()];
        (0..draws).for_each(|key| shares[balancer.choose(key, None, &[]).unwrap()] += 1);
        shares
    }

    #[test]
    fn round_robin_follows_the_weights_exactly() {
        assert_eq!(shares(&balancer(Policy::RoundRobin, &[1, 2, 5]), 800), [100, 200, 500]);
    }

    #[test]
    fn hashes_follow_the_weights_and_a_loss_moves_no_other_key() {
        let all = balancer(Policy::Hash, &[1, 1, 2]);
        let shares = shares(&all, 40_000);
        for (share, expected) in shares.iter().zip([10_000u64, 10_000, 20_000]) {
            assert!(share.abs_diff(expected) < expected / 20, "{shares:?}");
        }
        let before: Vec<_> = (0..2000).map(|key| all.choose(key, None, &[]).unwrap()).collect();
        all.candidates[0].state.set_down(true);
        for (key, at) in before.into_iter().enumerate() {
            let after = all.choose(key as u64, None, &[]).unwrap();
            assert!(at == 0 || after == at);
        }
    }

    #[test]
    fn the_least_busy_and_the_quickest_win() {
        let least = balancer(Policy::LeastRequests, &[1, 1]);
        least.candidates[0].state.in_flight.store(3, Relaxed);
        assert_eq!(shares(&least, 10), [0, 10]);
        let ewma = balancer(Policy::PeakEwma, &[1, 1]);
        ewma.candidates[1].state.observe(Duration::from_millis(500));
        ewma.candidates[0].state.observe(Duration::from_millis(5));
        assert_eq!(shares(&ewma, 10), [10, 0]);
    }

    #[test]
    fn with_none_fit_all_but_the_drained_are_tried() {
        let all = balancer(Policy::RoundRobin, &[1, 1, 1]);
        all.candidates.iter().for_each(|c| c.state.set_down(true));
        all.candidates[1].state.drained.store(true, Relaxed);
        assert_eq!(shares(&all, 10), [5, 0, 5]);
        assert_eq!(all.choose(0, None, &[0, 2]), None);
    }

    #[test]
    fn a_cookie_wins_while_its_backend_is_fit() {
        let all = balancer(Policy::RoundRobin, &[1, 1]);
        let id = all.candidates[1].id;
        assert!((0..9).all(|key| all.choose(key, Some(id), &[]) == Some(1)));
        all.candidates[1].state.set_down(true);
        assert_eq!(all.choose(0, Some(id), &[]), Some(0));
        assert_eq!(all.choose(0, Some(4711), &[]), Some(0), "an unknown one is no backend");
    }
}
