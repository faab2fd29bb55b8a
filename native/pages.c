/* pages.c - pages behind the blocks: provided before the first write, zeroed when recycled, given back by trim.
 *
 * A page without its bit of `populated` was never handed out since it last was zero, so zeroing skips it. The bit is set before
 * the page is used and cleared after it was removed: a process killed in between leaves a bit too many, which costs a memset,
 * never a wrong zero. A page without its bit of `backed` has to be provided. That bit is set after it was and cleared before it is
 * removed: a process killed in between, or refused for want of memory, leaves a bit too few, and the page is provided again.
 */
#include "fork.h"
#include "slot.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

#define ALL_PAGES ((1u << SX_EXTENT_PAGES) - 1)

/* ---- the bound ------------------------------------------------------------------------------------------------------------- */

#define SMALL_PAGE 4096u
#define YIELDS 100

static uint64_t being_provided(const sx_heap_t *heap) {
    uint32_t high = sx_load_acquire(&heap->header->slot_high);
    uint64_t pages = 0;
    for (uint32_t slot = 2; slot < high && slot < SX_SLOTS; slot += 2)
        pages += sx_load_acquire(&heap->slots[slot].providing);
    return pages;
}

static void end_providing(const sx_heap_t *heap, uint64_t bytes) {
    SX_STEP();
    sx_add_acq_rel(&heap->slots[heap->me->slot].providing, 0u - (uint32_t)((bytes + SMALL_PAGE - 1) / SMALL_PAGE));
}

/* Is there room for so many bytes more? Then it is kept until end_providing(): to look and then to ask the kernel would let two
 * processes pass who see the same last page. Each says what it is about to take, then adds up what all say, and then asks what is
 * resident: who is in between is counted twice and never not at all. Two who refuse each other look again; a process that is stopped
 * in between keeps its pages until it is reaped, so nobody looks for ever. */
static int begin_providing(const sx_heap_t *heap, uint64_t bytes) {
    uint32_t pages = (uint32_t)((bytes + SMALL_PAGE - 1) / SMALL_PAGE);
    for (int tries = 0;; tries++) {
        SX_STEP();
        sx_add_acq_rel(&heap->slots[heap->me->slot].providing, pages);
        sx_fence_seq_cst(); /* SYNC POINT providing: with the same fence of each other process */
        uint64_t all = being_provided(heap);
        if (sx_segment_resident(&heap->segment) + all * SMALL_PAGE <= sx_load_relaxed(&heap->header->bytes_limit))
            return 0;
        end_providing(heap, bytes);
        if (all == pages || tries == YIELDS)
            return -ENOMEM;
        sched_yield();
    }
}

/* ---- tables ---------------------------------------------------------------------------------------------------------------- */

#define FIRST_DESCRIPTORS 32u /* a small page */
#define MORE_DESCRIPTORS 512u

static void raise_to(sx_atomic32_t *mark, uint32_t to) {
    uint32_t seen = sx_load_acquire(mark);
    SX_STEP();
    while (seen < to && !sx_cas_acq_rel(mark, &seen, to))
        ;
}

static int reserve(const sx_heap_t *heap, const void *start, uint64_t bytes) {
    if (begin_providing(heap, bytes))
        return -ENOMEM;
    SX_STEP();
    int code = sx_segment_reserve(&heap->segment, (uint64_t)((const char *)start - heap->segment.base), bytes) ? -ENOMEM : 0;
    end_providing(heap, bytes);
    return code;
}

int sx_tables_reach(sx_heap_t *heap, uint32_t extent) {
    uint32_t high = sx_extent_high(heap);
    if (extent < high)
        return 0;
    uint64_t more = extent + 1 - high;
    if (reserve(heap, &heap->owners[high], more * sizeof *heap->owners) || reserve(heap, &heap->extents[high], more * sizeof *heap->extents))
        return -ENOMEM;
    raise_to(&heap->header->extent_high, extent + 1);
    return 0;
}

int sx_tables_mark(sx_heap_t *heap, uint32_t extent, uint32_t how) {
    sx_marks_t *marks = &heap->marks[extent];
    if (sx_load_acquire(&heap->extents[extent].marked) < how) {
        if (how == SX_MARKED_ARENA ? reserve(heap, marks, sizeof *marks) : reserve(heap, marks->released, sizeof *marks->released))
            return -ENOMEM;
        raise_to(&heap->extents[extent].marked, how);
    }
    return sx_tables_describe(heap, extent, 1);
}

int sx_tables_describe(sx_heap_t *heap, uint32_t extent, uint32_t upto) {
    uint32_t has = sx_load_acquire(&heap->extents[extent].described);
    if (upto <= has)
        return 0;
    uint64_t to = upto <= FIRST_DESCRIPTORS ? FIRST_DESCRIPTORS : SX_ALIGN(upto, MORE_DESCRIPTORS);
    if (reserve(heap, sx_block_of(heap, extent * SX_EXTENT_BLOCKS + has), (to - has) * sizeof(sx_block_t)))
        return -ENOMEM;
    raise_to(&heap->extents[extent].described, (uint32_t)to);
    return 0;
}

/* ---- data ------------------------------------------------------------------------------------------------------------------ */

/* Removes the populated pages that lie wholly in [first, end) granules of an extent. Nobody but the caller may use the range. */
static void remove_pages(sx_heap_t *heap, uint32_t extent, uint32_t first, uint32_t end);

/* Free pages of an extent that nobody owns serve only who claims that extent. Before the heap grows by a page one of them goes, from
 * the end of the heap, where claims come last: what is resident stays near to what is in use. */
static void take_idle_page(sx_heap_t *heap) {
    uint64_t busy = sx_extent_word(heap, 0, SX_EXTENT_BUSY);
    for (uint32_t e = sx_extent_high(heap); e-- > 0;) {
        uint64_t word = 0;
        uint32_t populated = sx_load_relaxed(&heap->extents[e].populated) & ALL_PAGES;
        if (!populated || sx_load_relaxed(&heap->owners[e]) || (SX_STEP(), !sx_cas_acq_rel(&heap->owners[e], &word, busy)))
            continue;
        uint32_t page = 31 - (uint32_t)__builtin_clz(populated);
        remove_pages(heap, e, page * SX_PAGE_GRANULES, (page + 1) * SX_PAGE_GRANULES);
        SX_STEP();
        sx_store_release(&heap->owners[e], 0);
        return;
    }
}

#define MAY_IDLE_PAGES 8u /* of an owner's extents, and an eighth of what it has handed out */

struct one_page {
    sx_heap_t *heap;
    int taken;
};

static void take_page_of_run(void *context, uint32_t extent, uint32_t first, uint32_t granules) {
    struct one_page *page = context;
    uint32_t from = (first + SX_PAGE_GRANULES - 1) / SX_PAGE_GRANULES, to = (first + granules) / SX_PAGE_GRANULES;
    if (page->taken || from >= to)
        return;
    uint32_t populated = sx_load_relaxed(&page->heap->extents[extent].populated) >> from << from;
    populated &= to < 32 ? (1u << to) - 1 : ~0u;
    if (!populated)
        return;
    from = (uint32_t)__builtin_ctz(populated);
    remove_pages(page->heap, extent, from * SX_PAGE_GRANULES, (from + 1) * SX_PAGE_GRANULES);
    page->taken = 1;
}

/* The same of my own extents, whose free runs are of all sizes and mostly fit nobody, when too much of them lies idle. */
static void take_idle_page_of_mine(sx_heap_t *heap) {
    struct one_page page = {heap, 0};
    uint64_t used = 0, populated = 0;
    uint32_t high = sx_extent_high(heap);
    pthread_mutex_lock(&heap->mutex);
    for (uint32_t e = 0; e < high; e++)
        if (heap->runs.arenas[e]) {
            used += SX_EXTENT_GRANULES - heap->runs.arenas[e]->free;
            populated += (uint32_t)__builtin_popcount(sx_load_relaxed(&heap->extents[e].populated));
        }
    if (populated > used / SX_PAGE_GRANULES * 9 / 8 + MAY_IDLE_PAGES)
        sx_runs_each(&heap->runs, take_page_of_run, &page);
    pthread_mutex_unlock(&heap->mutex);
}

static int provide(sx_heap_t *heap, uint64_t at) {
    take_idle_page(heap);
    take_idle_page_of_mine(heap);
    int code = begin_providing(heap, SX_PAGE_BYTES);
    if (code) {
        sx_fork_poll(heap);
        sx_slot_reap_dead(heap); /* children of fork, and strangers: no pool tells that they are dead */
        sx_heap_sweep(heap);
        code = begin_providing(heap, SX_PAGE_BYTES);
    }
    if (code) {
        sx_heap_trim(heap);
        code = begin_providing(heap, SX_PAGE_BYTES);
    }
    if (code)
        return code;
    uint32_t tried = sx_load_relaxed(&heap->header->huge_pages), huge = tried;
    uint64_t offset = (uint64_t)(heap->data - heap->segment.base) + at;
    SX_STEP();
    code = sx_segment_populate(&heap->segment, offset, &huge);
    if (code) { /* the machine or /dev/shm is full: as at the bound */
        sx_heap_sweep(heap);
        sx_heap_trim(heap);
        code = sx_segment_populate(&heap->segment, offset, &huge);
    }
    end_providing(heap, SX_PAGE_BYTES);
    if (huge != tried) {
        SX_STEP();
        sx_store_relaxed(&heap->header->huge_pages, huge); /* a hint: whichever process writes last is right enough */
    }
    return code ? -ENOMEM : 0;
}

int sx_pages_provide(sx_heap_t *heap, uint64_t at, uint64_t bytes, int zero) {
    uint64_t end = at + bytes;
    for (uint64_t from = at; from < end;) {
        uint64_t page = from / SX_PAGE_BYTES, next = (page + 1) * SX_PAGE_BYTES, to = next < end ? next : end;
        sx_atomic32_t *populated = &heap->extents[page / SX_EXTENT_PAGES].populated;
        uint32_t bit = 1u << (page % SX_EXTENT_PAGES);
        sx_atomic32_t *backed = &heap->extents[page / SX_EXTENT_PAGES].backed;
        int fresh = !(sx_load_relaxed(populated) & bit) && (SX_STEP(), !(sx_or_acq_rel(populated, bit) & bit));
        if (!(sx_load_acquire(backed) & bit)) {
            if (provide(heap, from)) /* the bit of populated stays: another block of the page may have been written */
                return -ENOMEM;
            SX_STEP();
            sx_or_acq_rel(backed, bit);
        }
        if (zero && !fresh)
            memset(heap->data + from, 0, to - from);
        from = to;
    }
    return 0;
}

static void remove_pages(sx_heap_t *heap, uint32_t extent, uint32_t first, uint32_t end) {
    uint32_t populated = sx_load_acquire(&heap->extents[extent].populated), removed = 0;
    uint32_t from = (first + SX_PAGE_GRANULES - 1) / SX_PAGE_GRANULES, to = end / SX_PAGE_GRANULES;
    uint64_t at = (uint64_t)(heap->data - heap->segment.base) + (uint64_t)extent * SX_EXTENT_BYTES;
    for (uint32_t page = 0; page < SX_EXTENT_PAGES; page++)
        if (page < from || page >= to)
            populated &= ~(1u << page);
    if (!populated)
        return;
    SX_STEP();
    atomic_fetch_and_explicit(&heap->extents[extent].backed, ~populated, memory_order_acq_rel);
    for (uint32_t page = from; page < to; page++)
        if ((populated >> page & 1) && !sx_segment_remove(&heap->segment, at + page * SX_PAGE_BYTES, SX_PAGE_BYTES))
            removed |= 1u << page;
    SX_STEP();
    if (removed)
        atomic_fetch_and_explicit(&heap->extents[extent].populated, ~removed, memory_order_acq_rel);
}

void sx_pages_drop(sx_heap_t *heap, uint32_t extent, uint32_t first, uint32_t end) {
    remove_pages(heap, extent, first, end);
}

static void remove_run(void *heap, uint32_t extent, uint32_t first, uint32_t granules) {
    remove_pages(heap, extent, first, first + granules);
}

static void trim_mine(sx_heap_t *heap) {
    pthread_mutex_lock(&heap->mutex);
    sx_runs_each(&heap->runs, remove_run, heap);
    pthread_mutex_unlock(&heap->mutex);
}

void sx_heap_answer_trim(sx_heap_t *heap) {
    uint32_t asked = sx_load_relaxed(&heap->header->trim_requests);
    if (asked == sx_load_relaxed(&heap->trims_answered) || !heap->me->slot || heap->is_private)
        return;
    sx_store_relaxed(&heap->trims_answered, asked); /* relaxed: if two threads answer, pages are looked for twice */
    sx_heap_sweep(heap);
    trim_mine(heap);
}

/* A block that was released but that its owner (busy, or asleep) has not taken back. */
static void trim_block(sx_heap_t *heap, uint32_t block) {
    sx_block_t *descriptor = sx_block_of(heap, block);
    uint32_t extent = block / SX_EXTENT_BLOCKS;
    if (!sx_block_begin_trim(descriptor, heap->me->slot))
        return;
    sx_place_t place;
    sx_heap_place(heap, block, &place); /* of size 0, if a stray write has hit the descriptor */
    uint64_t first = (uint64_t)(place.start - heap->data) % SX_EXTENT_BYTES / SX_GRANULE_BYTES;
    uint64_t end = first + place.size / SX_GRANULE_BYTES;
    for (; first < end; extent++, first = 0) {
        uint64_t to = end < SX_EXTENT_GRANULES ? end : SX_EXTENT_GRANULES;
        remove_pages(heap, extent, (uint32_t)first, (uint32_t)to);
        end -= to;
    }
    sx_block_end_trim(descriptor);
    sx_extent_freed(heap, block); /* the owner may have looked while it was TRIM: tell it again */
}

void sx_heap_trim(sx_heap_t *heap) {
    if (!heap->me->slot || heap->is_private)
        return;
    sx_heap_sweep(heap);
    trim_mine(heap);
    uint32_t high = sx_extent_high(heap);
    for (uint32_t e = 0; e < high; e++) {
        uint64_t word = sx_load_acquire(&heap->owners[e]), busy = sx_extent_word(heap, 0, SX_EXTENT_BUSY);
        if (!word && sx_load_relaxed(&heap->extents[e].populated) && (SX_STEP(), sx_cas_acq_rel(&heap->owners[e], &word, busy))) {
            remove_pages(heap, e, 0, SX_EXTENT_GRANULES);
            SX_STEP();
            sx_store_release(&heap->owners[e], 0);
            continue;
        }
        unsigned kind = SX_EXTENT_KIND(word);
        if ((kind != SX_EXTENT_ARENA && kind != SX_EXTENT_HUGE) || sx_extent_is_mine(heap, e))
            continue;
        uint32_t blocks = kind == SX_EXTENT_HUGE ? 1 : sx_block_high(heap, e);
        for (uint32_t b = 0; b < blocks; b++)
            if (SX_STATE(sx_load_acquire(&sx_block_of(heap, e * SX_EXTENT_BLOCKS + b)->state)) == SX_FREE)
                trim_block(heap, e * SX_EXTENT_BLOCKS + b);
    }
    SX_STEP();
    sx_store_relaxed(&heap->trims_answered, sx_add_acq_rel(&heap->header->trim_requests, 1) + 1);
    sx_fence_seq_cst(); /* SYNC POINT doorbell */
    for (uint32_t slot = 2; slot < SX_SLOTS; slot += 2) /* who is awake looks before it sleeps or allocates again */
        if (sx_load_acquire(&heap->slots[slot].waiting) && slot != heap->me->slot)
            sx_slot_ring(&heap->slots[slot]);
}
