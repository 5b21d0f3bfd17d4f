//! Timers: by deadline, then by insertion; cancelled in constant time; no memory for what is gone.
//!
//! Theory. A binary heap holds one small entry per timer (deadline, insertion number, key), a table of slots holds the
//! items. Cancelling takes the item out of its slot and leaves the heap alone (a heap cannot find an entry), so the
//! heap may hold *stale* entries, whose slot is free or belongs to a later timer; the slot's generation tells. A stale
//! entry is dropped when it comes to the top, or by compaction:
//!
//! - Compaction rebuilds the heap once stale entries outnumber live ones. It visits at most twice as many entries as it
//!   drops, so a cancellation costs a constant. (asyncio does the same from 100
//!   timers on, `base_events.py`, `_MIN_SCHEDULED_TIMER_HANDLES`, but keeps the handles until then. Here the item goes back
//!   to the caller at once: what a callback refers to is free as soon as its timer is cancelled.)
//! - Slots live in pages. When few of them are in use, pages without a timer are freed, wherever they are: one timer that
//!   outlives a million others keeps one page.
//!
//! A key is never valid for a later timer. The generation of a slot grows with each timer that leaves it, and survives the
//! page: new pages start above every generation ever freed. At the end of its 2^32 generations a slot retires.

use std::collections::BinaryHeap;

use super::time::Time;

/// Stale entries that never cause a compaction: below this, memory and time are not worth it.
const STALE_MIN: usize = 64;
/// Slots per page: 2 KiB of pointers and their generations.
const PAGE: u32 = 128;
/// Pages that are never freed: a loop of a few hundred timers allocates once.
const PAGES_KEPT: usize = 8;
/// A page whose generations passed this is not freed. It bounds the generation that new pages start from, so that each
/// slot serves at least 2^31 timers before it retires.
const GENERATION_FREED: u32 = u32::MAX / 2;
/// End of a list of free slots.
const NONE: u32 = u32::MAX;

/// Names one timer, for ever: after it ran or was cancelled the key names nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimerKey {
    slot: u32,
    generation: u32,
}

/// One timer in the heap. 24 bytes.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// [`Time::order_bits`] of the deadline.
    when: u64,
    /// Counts insertions: the order of equal deadlines.
    inserted: u64,
    key: TimerKey,
}

impl Entry {
    #[inline]
    fn order(&self) -> u128 {
        u128::from(self.when) << 64 | u128::from(self.inserted)
    }
}

// Reversed: the standard heap gives out the largest.
impl Ord for Entry {
    #[inline]
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.order().cmp(&self.order())
    }
}

impl PartialOrd for Entry {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl Eq for Entry {}

/// Timers with items of type `T`.
#[derive(Debug)]
pub struct Timers<T> {
    heap: BinaryHeap<Entry>,
    slots: Slots<T>,
    inserted: u64,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Timers<T> {
    /// No timers; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { heap: BinaryHeap::new(), slots: Slots::new(), inserted: 0 }
    }

    /// How many timers are set: neither cancelled nor popped.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.used
    }

    /// Whether no timer is set.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.used == 0
    }

    /// Places allocated for heap entries and for items: what a test of memory bounds.
    #[must_use]
    pub fn capacity(&self) -> (usize, usize) {
        (self.heap.capacity(), self.slots.allocated)
    }

    /// Sets a timer for `when`, behind those already set for the same instant.
    ///
    /// # Panics
    /// Beyond 2^32 - 1 timers at a time.
    #[inline]
    pub fn insert(&mut self, when: Time, item: T) -> TimerKey {
        let key = self.slots.insert(item);
        self.heap.push(Entry { when: when.order_bits(), inserted: self.inserted, key });
        self.inserted += 1;
        key
    }

    /// Unsets a timer and gives its item back; `None` if it ran or was cancelled before.
    #[inline]
    pub fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let item = self.slots.remove(key)?;
        self.tidy();
        Some(item)
    }

    /// Removes and returns the first timer that is due at `now`: by deadline, then by insertion.
    #[inline]
    pub fn pop_due(&mut self, now: Time) -> Option<T> {
        while let Some(entry) = self.heap.peek() {
            // A stale entry that is not due yet is left: dropping it now gains nothing.
            if entry.when > now.order_bits() {
                return None;
            }
            let key = entry.key;
            self.heap.pop();
            if let Some(item) = self.slots.remove(key) {
                self.tidy();
                return Some(item);
            }
        }
        None
    }

    /// The deadline of the first timer.
    #[inline]
    pub fn next_deadline(&mut self) -> Option<Time> {
        while let Some(entry) = self.heap.peek() {
            if self.slots.contains(entry.key) {
                return Some(Time::from_order_bits(entry.when));
            }
            self.heap.pop();
        }
        None
    }

    /// The items of the set timers, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.pages.iter().flatten().filter_map(|slot| slot.item.as_ref())
    }

    /// Unsets all timers: the loop closes. Their items, by deadline; the caller drops them once it holds no borrow.
    #[must_use]
    pub fn take_all(&mut self) -> Vec<T> {
        let entries = std::mem::take(&mut self.heap).into_sorted_vec();
        // Sorted by the reversed order: the first deadline comes last.
        entries.iter().rev().filter_map(|entry| self.slots.remove(entry.key)).collect()
    }

    /// A timer left. Keeps stale entries fewer than live ones, and the heap's memory near to what it holds.
    #[inline]
    fn tidy(&mut self) {
        let stale = self.heap.len() - self.slots.used;
        if stale > self.slots.used + STALE_MIN || self.heap.capacity() > shrinks_above(self.heap.len()) {
            self.compact();
        }
    }

    #[cold]
    fn compact(&mut self) {
        let slots = &self.slots;
        self.heap.retain(|entry| slots.contains(entry.key));
        if self.heap.capacity() > shrinks_above(self.heap.len()) {
            self.heap.shrink_to(self.heap.len() * 2);
        }
    }
}

/// The capacity above which memory for `len` entries is given back.
#[inline]
fn shrinks_above(len: usize) -> usize {
    (len * 8).max(PAGES_KEPT * PAGE as usize)
}

/// A place for an item. Free ones are linked into a list.
#[derive(Debug)]
struct Slot<T> {
    /// Of the timer in the slot, or of the next one to come.
    generation: u32,
    next_free: u32,
    item: Option<T>,
}

/// Paged table of slots; a page that was freed is an empty vector.
#[derive(Debug)]
struct Slots<T> {
    pages: Vec<Vec<Slot<T>>>,
    first_free: u32,
    /// Items in the table.
    used: usize,
    /// Slots in all pages.
    allocated: usize,
    /// When `used` falls to this, pages are looked through for empty ones.
    sweep_at: usize,
    /// The generation that slots of a new page start from.
    generation: u32,
}

impl<T> Slots<T> {
    const fn new() -> Self {
        Self { pages: Vec::new(), first_free: NONE, used: 0, allocated: 0, sweep_at: 0, generation: 0 }
    }

    #[inline]
    fn slot(&self, key: TimerKey) -> Option<&Slot<T>> {
        let (page, offset) = place(key.slot);
        self.pages.get(page)?.get(offset)
    }

    #[inline]
    fn contains(&self, key: TimerKey) -> bool {
        self.slot(key).is_some_and(|slot| slot.generation == key.generation && slot.item.is_some())
    }

    #[inline]
    fn insert(&mut self, item: T) -> TimerKey {
        if self.first_free == NONE {
            self.grow();
        }
        let index = self.first_free;
        let (page, offset) = place(index);
        let slot = &mut self.pages[page][offset];
        self.first_free = slot.next_free;
        slot.item = Some(item);
        self.used += 1;
        TimerKey { slot: index, generation: slot.generation }
    }

    #[inline]
    fn remove(&mut self, key: TimerKey) -> Option<T> {
        let (page, offset) = place(key.slot);
        let slot = self.pages.get_mut(page)?.get_mut(offset)?;
        if slot.generation != key.generation {
            return None;
        }
        let item = slot.item.take()?;
        slot.generation += 1;
        // The last generation is never given out: the slot retires.
        if slot.generation < u32::MAX {
            slot.next_free = self.first_free;
            self.first_free = key.slot;
        }
        self.used -= 1;
        if self.used < self.sweep_at {
            self.sweep();
        }
        Some(item)
    }

    /// Adds a page. Called with no slot free, so all that are allocated are used (or retired).
    #[cold]
    fn grow(&mut self) {
        let at = self.pages.iter().position(Vec::is_empty).unwrap_or(self.pages.len());
        let first = u32::try_from(at).ok().and_then(|at| at.checked_mul(PAGE)).filter(|first| *first <= NONE - PAGE);
        // Unreachable on today's machines: so many slots take 64 GiB and more.
        // 2^32 timers would be 160 GiB of entries and slots: memory ends first.
        let first = first.expect("fewer than 2^32 timers at a time");
        if at == self.pages.len() {
            self.pages.push(Vec::new());
        }
        let slot = |index| Slot { generation: self.generation, next_free: index + 1, item: None };
        let mut page: Vec<_> = (first..first + PAGE).map(slot).collect();
        page[PAGE as usize - 1].next_free = NONE;
        self.pages[at] = page;
        self.first_free = first;
        self.allocated += PAGE as usize;
        self.sweep_at = self.allocated / 8;
        self.spare();
    }

    /// Frees pages without items and links the free slots anew, lowest first, so that the upper pages empty.
    ///
    /// The next sweep comes when half of the items are gone, or after the table grew and emptied again.
    #[cold]
    #[expect(clippy::cast_possible_truncation, reason = "`grow` checked that the pages' slots fit")]
    fn sweep(&mut self) {
        self.first_free = NONE;
        let mut at = self.pages.len();
        for page in self.pages.iter_mut().rev() {
            at -= 1;
            let newest = page.iter().map(|slot| slot.generation).max().unwrap_or(0);
            let free = page.iter().all(|slot| slot.item.is_none());
            if free && at >= PAGES_KEPT && newest <= GENERATION_FREED {
                self.generation = self.generation.max(newest);
                self.allocated -= page.len();
                *page = Vec::new();
            }
            let first = at as u32 * PAGE;
            for (index, slot) in (first..first + PAGE).zip(page).rev() {
                if slot.item.is_none() && slot.generation < u32::MAX {
                    slot.next_free = self.first_free;
                    self.first_free = index;
                }
            }
        }
        let last = self.pages.iter().rposition(|page| !page.is_empty()).map_or(0, |at| at + 1);
        self.pages.truncate(last);
        self.pages.shrink_to_fit();
        self.sweep_at = self.used.div_ceil(2);
        self.spare();
    }

    /// A small table is not swept.
    fn spare(&mut self) {
        if self.allocated <= PAGES_KEPT * PAGE as usize {
            self.sweep_at = 0;
        }
    }
}

/// The page of a slot and its offset there.
#[inline]
fn place(slot: u32) -> (usize, usize) {
    ((slot / PAGE) as usize, (slot % PAGE) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: f64) -> Time {
        Time::from_secs(secs)
    }

    fn drain<T>(timers: &mut Timers<T>, now: f64) -> Vec<T> {
        std::iter::from_fn(|| timers.pop_due(at(now))).collect()
    }

    /// Every slot holds an item, or is free, or has retired, and what is counted is there.
    fn check<T>(timers: &Timers<T>) {
        let slots = &timers.slots;
        let all = || slots.pages.iter().flatten();
        let retired = all().filter(|slot| slot.item.is_none() && slot.generation == u32::MAX).count();
        let (mut free, mut next) = (0, slots.first_free);
        while next != NONE {
            let (page, offset) = place(next);
            (free, next) = (free + 1, slots.pages[page][offset].next_free);
        }
        assert_eq!(free, slots.allocated - slots.used - retired);
        assert_eq!((slots.allocated, slots.used), (all().count(), timers.iter().count()));
        assert!(timers.capacity().0 >= timers.len() && timers.capacity().1 >= timers.len());
    }

    #[test]
    fn timers_come_by_deadline_then_by_insertion() {
        let mut timers = Timers::new();
        for (when, item) in
            [(2.0, "c"), (1.0, "a"), (2.0, "d"), (1.0, "b"), (f64::NAN, "now"), (f64::INFINITY, "never")]
        {
            timers.insert(at(when), item);
        }
        assert_eq!(timers.next_deadline(), Some(Time::PAST));
        assert_eq!(drain(&mut timers, 0.0), ["now"]);
        assert_eq!(drain(&mut timers, 1.0), ["a", "b"]);
        assert_eq!(drain(&mut timers, 1e300), ["c", "d"]);
        assert_eq!((timers.len(), timers.next_deadline()), (1, Some(Time::NEVER)));
    }

    #[test]
    fn a_cancelled_timer_gives_its_item_back_at_once_and_once() {
        let mut timers = Timers::new();
        let key = timers.insert(at(1.0), "a");
        assert_eq!(timers.cancel(key), Some("a"));
        assert_eq!(timers.cancel(key), None);
        assert_eq!((timers.len(), timers.next_deadline(), timers.pop_due(at(9.0))), (0, None, None));
    }

    #[test]
    fn a_key_never_names_a_later_timer() {
        let mut timers = Timers::new();
        let key = timers.insert(at(1.0), "a");
        assert_eq!(timers.pop_due(at(1.0)), Some("a"));
        let later = timers.insert(at(1.0), "b");
        assert_eq!(later.slot, key.slot);
        assert_eq!(timers.cancel(key), None);
        assert_eq!(timers.cancel(later), Some("b"));
    }

    #[test]
    fn keys_stay_unique_when_their_page_was_freed() {
        let mut timers = Timers::new();
        let count = if cfg!(miri) { 16 } else { 64 } * PAGE as usize;
        let early: Vec<_> = (0..count).map(|item| timers.insert(at(1.0), item)).collect();
        assert_eq!(early.iter().filter_map(|&key| timers.cancel(key)).count(), count);
        assert!(timers.capacity().1 < count, "nothing was freed");
        check(&timers);
        (0..count).for_each(|item| {
            timers.insert(at(1.0), item);
        });
        assert!(early.iter().all(|&key| timers.cancel(key).is_none()));
        assert_eq!(timers.len(), count);
        check(&timers);
    }

    #[test]
    fn a_slot_that_retired_stays_so_when_the_free_ones_are_linked_anew() {
        let mut timers = Timers::new();
        timers.insert(at(1.0), 0);
        timers.slots.pages[0][1].generation = u32::MAX - 1;
        let count = 16 * PAGE as usize;
        let keys: Vec<_> = (0..count).map(|item| timers.insert(at(1.0), item)).collect();
        assert_eq!(keys.iter().filter_map(|&key| timers.cancel(key)).count(), count);
        assert!(timers.capacity().1 < count, "nothing was freed");
        check(&timers);
        assert!(keys.iter().all(|_| timers.insert(at(1.0), 2).slot != 1));
    }

    #[test]
    fn entries_are_equal_where_neither_comes_first() {
        let entry = |when, inserted, slot| Entry { when, inserted, key: TimerKey { slot, generation: 0 } };
        assert!(entry(1, 2, 3) == entry(1, 2, 4));
        assert!(entry(1, 2, 3) != entry(1, 3, 3) && entry(1, 2, 3) != entry(2, 2, 3));
    }

    #[test]
    fn a_slot_retires_after_its_last_generation() {
        let mut timers = Timers::new();
        timers.insert(at(1.0), 0);
        timers.slots.pages[0][1].generation = u32::MAX - 1;
        let key = timers.insert(at(1.0), 1);
        assert_eq!(key.slot, 1);
        assert_eq!(timers.cancel(key), Some(1));
        assert_ne!(timers.insert(at(1.0), 2).slot, 1);
    }

    #[test]
    #[cfg_attr(miri, ignore = "so many take Miri an hour")]
    fn a_million_cancelled_timers_hold_no_memory_though_one_survives() {
        let mut timers = Timers::new();
        let keys: Vec<_> = (0..1_000_000).map(|item| timers.insert(at(f64::from(item)), item)).collect();
        let survivor = keys[999_000];
        keys.iter().filter(|&&key| key != survivor).for_each(|&key| assert!(timers.cancel(key).is_some()));
        let (heap, slots) = timers.capacity();
        assert!(heap <= 1024 && slots <= (PAGES_KEPT + 2) * PAGE as usize, "{heap} {slots}");
        assert_eq!(timers.take_all(), [999_000]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "so many take Miri an hour")]
    fn a_million_timers_that_ran_hold_no_memory() {
        let mut timers = Timers::new();
        (0..1_000_000).for_each(|item| {
            timers.insert(at(0.0), item);
        });
        assert_eq!(drain(&mut timers, 0.0).len(), 1_000_000);
        let (heap, slots) = timers.capacity();
        assert!(heap <= 1024 && slots <= PAGES_KEPT * PAGE as usize, "{heap} {slots}");
    }

    #[test]
    fn a_closed_loop_hands_its_timers_out_by_deadline() {
        let mut timers = Timers::new();
        let cancelled = timers.insert(at(2.0), "x");
        for (when, item) in [(3.0, "b"), (1.0, "a")] {
            timers.insert(at(when), item);
        }
        timers.cancel(cancelled);
        assert_eq!(timers.take_all(), ["a", "b"]);
        assert!(timers.is_empty() && timers.cancel(cancelled).is_none());
        timers.insert(at(1.0), "again");
        assert_eq!(drain(&mut timers, 1.0), ["again"]);
    }

    #[test]
    fn an_entry_is_24_bytes() {
        assert_eq!(size_of::<Entry>(), 24);
    }
}
