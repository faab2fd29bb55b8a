/* extent.c - extents: claimed, given up, adopted; the memory that other processes released in mine.
 *
 * Who may die where                                   | what stands then                     | who mends it
 *   claim: before the CAS                             | tables that have memory too early     | nobody needs to
 *   claim: between CAS and the first LIVE block       | an extent of a dead owner, no LIVE   | the reaper: sx_extent_adopt frees it
 *   claim of several: some claimed                    | HUGE and TAILs of a dead slot        | the same; a TAIL is kept iff its head is LIVE
 *   free by another: after the CAS, before the hint   | FREE, no hint                        | that process's reaper: its sweep hints again
 *   take back: after FREE -> IDLE                     | a run in nobody's list               | the owner died, so its extents are adopted: rebuilt
 *   adopt: anywhere                                   | some extents are the dead reaper's   | the reaper of the reaper; each step is idempotent
 *
 * SYNC POINT owner-changes: a freer makes the block FREE, fences, and reads the owner; an adopter writes the owner, fences, and
 * reads the states. One of the two sees the other, so no release is missed.
 */
#include "heap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

uint64_t sx_extent_word(const sx_heap_t *heap, uint32_t head, unsigned kind) {
    return SX_EXTENT_WORD(heap->me->incarnation, heap->me->slot, head, kind);
}

static int is_owned_by(uint64_t word, uint32_t slot, uint32_t incarnation) {
    return SX_EXTENT_KIND(word) && SX_EXTENT_SLOT(word) == slot && SX_EXTENT_INCARNATION(word) == incarnation;
}

int sx_extent_is_mine(const sx_heap_t *heap, uint32_t extent) {
    return is_owned_by(sx_load_acquire(&heap->owners[extent]), heap->me->slot, heap->me->incarnation);
}

/* ---- claiming ------------------------------------------------------------------------------------------------------ */

/* What nobody has had yet is not looked at: it may have no memory (E6). */
static int is_free(const sx_heap_t *heap, uint32_t extent) {
    return extent >= sx_load_acquire(&heap->header->extent_high) || !sx_load_relaxed(&heap->owners[extent]);
}

/* 1, 0, or -ENOMEM. As soon as the extent has an owner others look at its tables: they come first. */
static int try_claim(sx_heap_t *heap, uint32_t extent, uint64_t word) {
    uint64_t nobody = 0;
    if (!is_free(heap, extent))
        return 0;
    int code = sx_tables_reach(heap, extent);
    unsigned kind = SX_EXTENT_KIND(word);
    if (!code && kind != SX_EXTENT_TAIL)
        code = sx_tables_mark(heap, extent, kind == SX_EXTENT_ARENA ? SX_MARKED_ARENA : SX_MARKED_HUGE);
    if (code)
        return code;
    SX_STEP();
    return sx_cas_acq_rel(&heap->owners[extent], &nobody, word);
}

static void give_up(sx_heap_t *heap, uint32_t extent) {
    SX_STEP();
    sx_store_release(&heap->owners[extent], 0);
}

int sx_extent_claim_arena(sx_heap_t *heap, uint32_t *extent) {
    uint64_t word = sx_extent_word(heap, 0, SX_EXTENT_ARENA);
    uint32_t high = sx_extent_high(heap);
    for (int warm = 1; warm >= 0; warm--) /* one with pages that somebody has used, else any, else a new one */
        for (uint32_t e = 0; e < (warm ? high : heap->extent_count); e++) {
            if (warm && !sx_load_relaxed(&heap->extents[e].populated))
                continue;
            int code = try_claim(heap, e, word);
            if (code < 0)
                return code;
            if (!code)
                continue;
            code = sx_runs_add_extent(&heap->runs, e);
            if (!code) {
                sx_arena_t *arena = heap->runs.arenas[e];
                for (uint32_t b = sx_block_high(heap, e); b-- > 0;)
                    arena->idle[arena->idle_count++] = (uint16_t)b;
                code = sx_runs_give(&heap->runs, e, 0, SX_EXTENT_GRANULES);
            }
            if (code) {
                give_up(heap, e);
                return code;
            }
            heap->arenas++;
            *extent = e;
            return 0;
        }
    return -ENOMEM;
}

int sx_extent_claim_huge(sx_heap_t *heap, uint32_t span, uint32_t *head) {
    for (uint32_t e = 0, run = 0; e < heap->extent_count; e++) {
        run = is_free(heap, e) ? run + 1 : 0;
        if (run < span)
            continue;
        uint32_t first = e + 1 - span, claimed = 0;
        int code = 1;
        while (claimed < span && (code = try_claim(heap, first + claimed,
                                                   sx_extent_word(heap, first, claimed ? SX_EXTENT_TAIL : SX_EXTENT_HUGE))) > 0)
            claimed++;
        if (claimed == span) {
            SX_STEP();
            sx_store_release(&heap->extents[first].span, span);
            SX_STEP();
            if (!sx_load_relaxed(&heap->extents[first].block_high)) /* the owner alone raises it */
                sx_store_release(&heap->extents[first].block_high, 1);
            *head = first;
            return 0;
        }
        while (claimed-- > 0) /* somebody was faster: look further on */
            give_up(heap, first + claimed);
        if (code < 0)
            return code;
        run = 0;
    }
    return -ENOMEM;
}

void sx_extent_drop_huge(sx_heap_t *heap, uint32_t head) {
    uint32_t end = sx_extent_end(heap, head);
    for (uint32_t e = head + 1; e < end; e++) {
        uint64_t word = sx_load_acquire(&heap->owners[e]);
        if (SX_EXTENT_KIND(word) == SX_EXTENT_TAIL && SX_EXTENT_HEAD(word) == head) {
            SX_STEP();
            sx_cas_acq_rel(&heap->owners[e], &word, 0); /* no plain store: the reaper of a torn claim may give it up, too */
        }
    }
    give_up(heap, head); /* last: while it stands, nobody else can have tails of this head */
}

/* ---- coming back ----------------------------------------------------------------------------------------------------- */

static void drop_arena(sx_heap_t *heap, uint32_t extent) {
    sx_runs_drop_extent(&heap->runs, extent);
    heap->arenas--;
    give_up(heap, extent);
}

void sx_extent_take_back(sx_heap_t *heap, uint32_t block) {
    uint32_t extent = block / SX_EXTENT_BLOCKS, number = block % SX_EXTENT_BLOCKS;
    sx_block_t *descriptor = sx_block_of(heap, block);
    if (SX_EXTENT_KIND(sx_load_acquire(&heap->owners[extent])) == SX_EXTENT_HUGE) {
        if (number == 0 && sx_block_take_back(descriptor))
            sx_extent_drop_huge(heap, extent);
        return;
    }
    sx_arena_t *arena = heap->runs.arenas[extent];
    uint64_t bit = (uint64_t)1 << (number % 64);
    if (!arena || !(arena->taken[number / 64] & bit) || !sx_block_take_back(descriptor))
        return;
    uint32_t first = (uint32_t)(arena->run[number] >> 32);
    arena->taken[number / 64] &= ~bit;
    SX_STEP();
    atomic_fetch_and_explicit(&heap->marks[extent].heads[first / 64], ~((uint64_t)1 << (first % 64)), memory_order_relaxed);
    arena->idle[arena->idle_count++] = (uint16_t)number;
    sx_runs_give(&heap->runs, extent, first, (uint32_t)arena->run[number]);
    if (arena->free == SX_EXTENT_GRANULES && heap->arenas > 1) /* the last one stays: no claim and give-up in each call */
        drop_arena(heap, extent);
}

/* Tell the owner, whoever that is by now. The bits below are set before those above: who sees one finds what it points at. */
static void hint(sx_heap_t *heap, uint32_t block) {
    uint32_t extent = block / SX_EXTENT_BLOCKS, number = block % SX_EXTENT_BLOCKS;
    SX_STEP();
    sx_or_acq_rel(&heap->marks[extent].released[number / 64], (uint64_t)1 << (number % 64));
    SX_STEP();
    sx_or_acq_rel(&heap->extents[extent].hints, (uint64_t)1 << (number / 64 / 16));
    sx_fence_seq_cst(); /* SYNC POINT owner-changes */
    uint64_t word = sx_load_acquire(&heap->owners[extent]);
    SX_STEP();
    if (SX_EXTENT_KIND(word) && SX_EXTENT_SLOT(word) < SX_SLOTS)
        sx_or_acq_rel(&heap->slots[SX_EXTENT_SLOT(word)].look, (uint64_t)1 << (extent % 64));
}

void sx_extent_freed(sx_heap_t *heap, uint32_t block) {
    if (!sx_extent_is_mine(heap, block / SX_EXTENT_BLOCKS)) {
        hint(heap, block);
        return;
    }
    pthread_mutex_lock(&heap->mutex);
    if (sx_extent_is_mine(heap, block / SX_EXTENT_BLOCKS)) /* still: another thread may have taken the block back and the extent gone */
        sx_extent_take_back(heap, block);
    pthread_mutex_unlock(&heap->mutex);
}

static void collect_words(sx_heap_t *heap, uint32_t extent, uint32_t from) {
    for (uint32_t w = from; w < from + 16; w++) {
        if (!sx_load_acquire(&heap->marks[extent].released[w]))
            continue;
        SX_STEP();
        uint64_t some = sx_exchange_acq_rel(&heap->marks[extent].released[w], 0);
        for (; some; some &= some - 1)
            if (sx_extent_is_mine(heap, extent))
                sx_extent_take_back(heap, extent * SX_EXTENT_BLOCKS + w * 64 + (uint32_t)__builtin_ctzll(some));
    }
}

void sx_extent_collect(sx_heap_t *heap, uint64_t look) {
    uint32_t high = sx_extent_high(heap);
    for (uint32_t e = 0; e < high; e++) {
        if (!(look >> (e % 64) & 1) || !sx_extent_is_mine(heap, e) || !sx_load_acquire(&heap->extents[e].hints))
            continue;
        SX_STEP();
        uint64_t hints = sx_exchange_acq_rel(&heap->extents[e].hints, 0);
        for (; hints; hints &= hints - 1)
            collect_words(heap, e, (uint32_t)__builtin_ctzll(hints) * 16);
    }
}

/* ---- adopting: the caller is the reaper of the slot ------------------------------------------------------------------- */

static int compare_runs(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Do these lie in an extent, each behind the one before? Else a stray write has hit a descriptor. */
static int are_apart(const uint64_t *runs, uint32_t count) {
    uint64_t end = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (runs[i] >> 32 < end || !(uint32_t)runs[i])
            return 0;
        end = (runs[i] >> 32) + (uint32_t)runs[i];
    }
    return end <= SX_EXTENT_GRANULES;
}

/* What the dead owner knew in its private memory, from the descriptors. The extent is ours; nobody else allocates in it. If they
 * make no sense, nothing of it is used again. */
static void rebuild(sx_heap_t *heap, uint32_t extent) {
    uint32_t high = sx_block_high(heap, extent), count = 0, free_from = 0;
    uint64_t *taken = malloc((high ? high : 1) * sizeof *taken);
    if (!taken || sx_runs_add_extent(&heap->runs, extent)) {
        free(taken);
        return; /* no memory: the extent is ours and has no free run; a later sweep finds its blocks */
    }
    heap->arenas++;
    sx_arena_t *arena = heap->runs.arenas[extent];
    for (uint32_t b = 0; b < high; b++) {
        sx_block_t *block = sx_block_of(heap, extent * SX_EXTENT_BLOCKS + b);
        if (SX_STATE(sx_load_acquire(&block->state)) == SX_IDLE) {
            arena->idle[arena->idle_count++] = (uint16_t)b;
            continue;
        }
        arena->taken[b / 64] |= (uint64_t)1 << (b % 64);
        taken[count++] = arena->run[b] = sx_load_relaxed(&block->run);
    }
    qsort(taken, count, sizeof *taken, compare_runs);
    if (!are_apart(taken, count)) {
        memset(arena->taken, 0, sizeof arena->taken);
        free(taken);
        return;
    }
    sx_atomic64_t *heads = heap->marks[extent].heads;
    for (uint32_t i = 0; i <= count; i++) {
        uint32_t first = i < count ? (uint32_t)(taken[i] >> 32) : SX_EXTENT_GRANULES;
        if (first > free_from) {
            for (uint32_t g = free_from; g < first; g++) /* marks of blocks that never came to live */
                if (sx_load_relaxed(&heads[g / 64]) >> (g % 64) & 1) {
                    SX_STEP();
                    atomic_fetch_and_explicit(&heads[g / 64], ~((uint64_t)1 << (g % 64)), memory_order_relaxed);
                }
            sx_runs_give(&heap->runs, extent, free_from, first - free_from);
        }
        if (i < count)
            free_from = first + (uint32_t)taken[i];
    }
    free(taken);
    for (uint32_t b = 0; b < high && heap->runs.arenas[extent]; b++)
        if (SX_STATE(sx_load_acquire(&sx_block_of(heap, extent * SX_EXTENT_BLOCKS + b)->state)) == SX_FREE)
            sx_extent_take_back(heap, extent * SX_EXTENT_BLOCKS + b);
    if (heap->runs.arenas[extent] && arena->free == SX_EXTENT_GRANULES)
        drop_arena(heap, extent);
}

static int is_tail_of_living(const sx_heap_t *heap, uint32_t extent, uint32_t head) {
    if (head >= heap->extent_count)
        return 0;
    uint64_t word = sx_load_acquire(&heap->owners[head]);
    return SX_EXTENT_KIND(word) == SX_EXTENT_HUGE && extent < sx_extent_end(heap, head) &&
           SX_STATE(sx_load_acquire(&sx_block_of(heap, head * SX_EXTENT_BLOCKS)->state)) != SX_IDLE;
}

void sx_extent_adopt(sx_heap_t *heap, uint32_t slot, uint32_t incarnation) {
    uint32_t high = sx_extent_high(heap);
    for (uint32_t e = 0; e < high; e++) {
        uint64_t word = sx_load_acquire(&heap->owners[e]);
        unsigned kind = SX_EXTENT_KIND(word);
        if (!is_owned_by(word, slot, incarnation) || kind == SX_EXTENT_TAIL)
            continue;
        SX_STEP();
        if (kind == SX_EXTENT_BUSY) {
            sx_cas_acq_rel(&heap->owners[e], &word, 0);
            continue;
        }
        if (!sx_cas_acq_rel(&heap->owners[e], &word, sx_extent_word(heap, e * (kind == SX_EXTENT_HUGE), kind)))
            continue;
        sx_fence_seq_cst(); /* SYNC POINT owner-changes */
        if (kind == SX_EXTENT_ARENA)
            rebuild(heap, e);
        else if (SX_STATE(sx_load_acquire(&sx_block_of(heap, e * SX_EXTENT_BLOCKS)->state)) == SX_IDLE)
            sx_extent_drop_huge(heap, e);
        else
            sx_extent_take_back(heap, e * SX_EXTENT_BLOCKS); /* if it is FREE */
    }
    for (uint32_t e = 0; e < high; e++) { /* heads first: what is left are tails of a claim that was not finished */
        uint64_t word = sx_load_acquire(&heap->owners[e]);
        if (is_owned_by(word, slot, incarnation) && SX_EXTENT_KIND(word) == SX_EXTENT_TAIL &&
            !is_tail_of_living(heap, e, SX_EXTENT_HEAD(word))) {
            SX_STEP();
            sx_cas_acq_rel(&heap->owners[e], &word, 0);
        }
    }
}

/* ---- sweeping -------------------------------------------------------------------------------------------------------- */

void sx_heap_sweep(sx_heap_t *heap) {
    uint32_t high = sx_extent_high(heap);
    if (!heap->me->slot || heap->is_private)
        return;
    for (uint32_t e = 0; e < high; e++) {
        unsigned kind = SX_EXTENT_KIND(sx_load_acquire(&heap->owners[e]));
        if (kind != SX_EXTENT_ARENA && kind != SX_EXTENT_HUGE)
            continue;
        uint32_t blocks = kind == SX_EXTENT_HUGE ? 1 : sx_block_high(heap, e);
        for (uint32_t number = 0; number < blocks; number++) {
            uint32_t block = e * SX_EXTENT_BLOCKS + number;
            unsigned state = SX_STATE(sx_load_acquire(&sx_block_of(heap, block)->state));
            if (state == SX_FREE || (state == SX_LIVE && sx_block_try_free(sx_block_of(heap, block), block, &heap->scan)))
                sx_extent_freed(heap, block);
        }
    }
}
