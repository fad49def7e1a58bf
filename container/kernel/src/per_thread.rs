//! A value for each thread, so that what every request counts is not passed between processors all the time.
//!
//! Measured on two cores with 'hello': the same counters and reference counts, shared, cost a third of all the user time.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::thread::LocalKey;

/// The number of all threads that have none of their own. Those below belong to one living thread each.
pub const SHARED: usize = 63;

/// A bit for each number that is taken.
static TAKEN: AtomicU64 = AtomicU64::new(1 << SHARED);

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    static GIVE_BACK: GiveBack = const { GiveBack };
}

struct GiveBack;

impl Drop for GiveBack {
    fn drop(&mut self) {
        let number = NUMBER.replace(SHARED);
        if number < SHARED {
            // Whoever takes it sees what this thread wrote under it.
            TAKEN.fetch_and(!(1 << number), Ordering::Release);
        }
    }
}

/// This thread's number: below [`SHARED`] no other living thread has it, and what is kept under it may be changed without
/// an atomic step. It does not change while the thread lives, but becomes [`SHARED`] when its thread-locals are dropped.
pub fn number() -> usize {
    let number = NUMBER.get();
    if number == usize::MAX { take() } else { number }
}

/// The same, or a number above [`SHARED`] as long as the thread has not asked for [`number`].
#[inline]
pub fn known_number() -> usize {
    NUMBER.get()
}

#[cold]
fn take() -> usize {
    let mut number = SHARED;
    // What follows may allocate, and the allocator asks for the number.
    NUMBER.set(number);
    // A thread that is ending could not give it back.
    if GIVE_BACK.try_with(|_| ()).is_ok() {
        let taken = TAKEN.fetch_update(Ordering::Acquire, Ordering::Relaxed, |taken| {
            let free = taken.trailing_ones();
            (free < u64::BITS).then(|| taken | (1 << free))
        });
        number = taken.map_or(SHARED, |taken| taken.trailing_ones() as usize);
    }
    NUMBER.set(number);
    number
}

/// How many values there are: one for each thread with a number that small, and the last for all others.
static SLOTS: LazyLock<usize> =
    LazyLock::new(|| (2 * std::thread::available_parallelism().map_or(1, usize::from)).clamp(16, SHARED + 1));

/// The number of no thread.
const NOBODY: usize = usize::MAX - 1;

/// A value on cache lines of its own, and whose it is.
#[derive(Debug)]
#[repr(align(128))]
pub struct Alone<T> {
    value: T,
    owner: usize,
}

impl<T> Alone<T> {
    /// Whether this thread is the only one whose it is.
    #[inline]
    fn is_mine(&self) -> bool {
        known_number() == self.owner
    }

    /// Adds to one of its counts; what is above the range begins at zero again, so that this can take away, too.
    #[inline]
    pub fn add(&self, count: impl FnOnce(&T) -> &Count, number: u64) {
        count(&self.value).add(number, self.is_mine());
    }
}

impl<T> std::ops::Deref for Alone<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A number that many threads add to: the one whose it is without an atomic step, which costs as much as some twenty others.
#[derive(Debug, Default)]
pub struct Count {
    own: AtomicU64,
    others: AtomicU64,
}

impl Count {
    #[inline]
    fn add(&self, number: u64, mine: bool) {
        if mine {
            // Nobody else writes it.
            self.own.store(self.own.load(Ordering::Relaxed).wrapping_add(number), Ordering::Relaxed);
        } else {
            self.others.fetch_add(number, Ordering::Relaxed);
        }
    }

    /// What has been added. Of those of all threads only the sum means anything, which may go over the range on its way.
    pub fn get(&self) -> u64 {
        self.own.load(Ordering::Relaxed).wrapping_add(self.others.load(Ordering::Relaxed))
    }
}

/// A few values of the same kind, of which each thread uses one, through an `Arc` whose count is its own as well.
#[derive(Debug)]
pub struct PerThread<T>(Arc<[Arc<Alone<T>>]>);

impl<T> Clone for PerThread<T> {
    /// The same values.
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> PerThread<T> {
    /// Makes each of them.
    pub fn new(make: impl Fn() -> T) -> Self {
        let last = *SLOTS - 1;
        let owner = |slot| if slot == last { NOBODY } else { slot };
        Self((0..=last).map(|slot| Arc::new(Alone { value: make(), owner: owner(slot) })).collect())
    }

    /// This thread's.
    #[inline]
    pub fn local(&self) -> &Arc<Alone<T>> {
        &self.0[number().min(self.0.len() - 1)]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|alone| &alone.value)
    }

    /// The sum of a count.
    pub fn sum(&self, of: impl Fn(&T) -> &Count) -> u64 {
        self.iter().fold(0, |sum, value| sum.wrapping_add(of(value).get()))
    }
}

/// A thread's own value in the hands of a request. When it is let go, the thread keeps it for its next request, if that wants the same one: it
/// is handed on then without a step of its reference count.
#[derive(Debug)]
pub struct InHand<T: Kept>(Option<Arc<Alone<T>>>);

/// What a thread keeps one of.
pub trait Kept: Sized + 'static {
    /// Where.
    fn place() -> &'static LocalKey<Cell<Option<Arc<Alone<Self>>>>>;
}

impl<T: Kept> InHand<T> {
    /// This value.
    #[inline]
    pub fn of(value: &Arc<Alone<T>>) -> Self {
        let kept = T::place().try_with(Cell::take).ok().flatten();
        Self(Some(kept.filter(|kept| Arc::ptr_eq(kept, value)).unwrap_or_else(|| value.clone())))
    }
}

impl<T: Kept> std::ops::Deref for InHand<T> {
    type Target = Arc<Alone<T>>;

    #[inline]
    fn deref(&self) -> &Arc<Alone<T>> {
        self.0.as_ref().expect("there until it is dropped")
    }
}

impl<T: Kept> Drop for InHand<T> {
    #[inline]
    fn drop(&mut self) {
        let last = self.0.take();
        // Where the thread is ending it goes with the closure.
        let _ = T::place().try_with(|place| place.set(last));
    }
}

/// A [`PerThread`] that does not keep its values.
#[derive(Debug, Clone)]
pub struct WeakPerThread<T>(Weak<[Arc<Alone<T>>]>);

impl<T> PerThread<T> {
    /// One that does not keep the values.
    pub fn downgrade(&self) -> WeakPerThread<T> {
        WeakPerThread(Arc::downgrade(&self.0))
    }
}

impl<T> WeakPerThread<T> {
    /// The values, where they are still there.
    pub fn upgrade(&self) -> Option<PerThread<T>> {
        self.0.upgrade().map(PerThread)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn a_count_is_complete_whoever_adds_to_it() {
        let counts = PerThread::<Count>::new(Count::default);
        let mine = counts.local().clone();
        std::thread::scope(|scope| {
            for _ in 0..SHARED + 10 {
                scope.spawn(|| {
                    let local = counts.local();
                    for _ in 0..1000 {
                        local.add(|count| count, 2);
                        mine.add(|count| count, 1_u64.wrapping_neg());
                    }
                });
            }
            (0..1000).for_each(|_| mine.add(|count| count, 1));
        });
        assert_eq!(counts.sum(|count| count), (SHARED as u64 + 10) * 1000 + 1000);
    }

    #[derive(Debug)]
    struct Kind;

    impl Kept for Kind {
        fn place() -> &'static LocalKey<Cell<Option<Arc<Alone<Self>>>>> {
            thread_local!(static PLACE: Cell<Option<Arc<Alone<Kind>>>> = const { Cell::new(None) });
            &PLACE
        }
    }

    #[test]
    fn a_thread_keeps_the_last_value_for_the_next_request() {
        let (first, second) = (PerThread::new(|| Kind), PerThread::new(|| Kind));
        let (first, second) = (first.local(), second.local());
        let counts = || (Arc::strong_count(first), Arc::strong_count(second));
        let (a, b) = (InHand::of(first), InHand::of(first));
        assert_eq!(counts(), (3, 1));
        drop(a);
        assert_eq!(counts(), (3, 1), "kept");
        let a = InHand::of(first);
        assert_eq!(counts(), (3, 1), "and handed on");
        drop((a, b));
        assert_eq!(counts(), (2, 1), "one is kept");
        std::thread::scope(|scope| scope.spawn(|| drop(InHand::of(first))).join()).unwrap();
        assert_eq!(counts(), (2, 1), "no thread keeps one longer than it lives");
        drop(InHand::of(second));
        assert_eq!(counts(), (1, 2));
    }

    #[test]
    fn living_threads_have_numbers_of_their_own_and_give_them_back() {
        let threads = SHARED + 10;
        for _ in 0..3 {
            let all = Barrier::new(threads);
            let mut numbers: Vec<usize> = std::thread::scope(|scope| {
                let each = (0..threads).map(|_| {
                    scope.spawn(|| {
                        let mine = number();
                        all.wait();
                        assert_eq!(number(), mine);
                        mine
                    })
                });
                let each: Vec<_> = each.collect();
                each.into_iter().map(|t| t.join().unwrap()).collect()
            });
            numbers.retain(|n| *n < SHARED);
            // The test's own threads may have some.
            assert!(numbers.len() > SHARED - 20, "{}", numbers.len());
            let alone = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), alone);
        }
    }
}
