/* heap_check.c - the invariants of layout.h, executed. Reads only. */
#include "heap.h"

#include "owner.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char report[200];

static const char *broken(const char *invariant, uint32_t block) {
    snprintf(report, sizeof report, "%s: block %u of extent %u", invariant, block % SX_EXTENT_BLOCKS, block / SX_EXTENT_BLOCKS);
    return report;
}

static int has_ticket(const sx_heap_t *heap, uint32_t block) {
    for (uint32_t t = 0; t < sx_ticket_high(heap); t++) {
        uint64_t ticket = sx_load_acquire(&heap->tickets[t]);
        if ((ticket & SX_TICKET_OPEN) && SX_TICKET_BLOCK(ticket) == block)
            return 1;
    }
    return 0;
}

static const char *check_bits(sx_heap_t *heap, sx_block_t *block, uint32_t number, int quiet) {
    unsigned state = SX_STATE(sx_load_acquire(&block->state));
    int held = 0;
    for (uint32_t w = 0; w < SX_HOLDER_WORDS; w++)
        for (uint64_t some = sx_load_acquire(&block->holders[w]); some; some &= some - 1) {
            uint32_t slot = w * 64 + (uint32_t)__builtin_ctzll(some);
            held = 1;
            if (SX_SLOT_STATE(sx_load_acquire(&heap->slots[slot & ~1u].word)) == SX_SLOT_FREE)
                return broken("E5 a holder bit of a free slot", number);
        }
    if (!quiet)
        return NULL;
    if (state == SX_LIVE && !held && !has_ticket(heap, number))
        return broken("Q1 live and held by nobody", number);
    if (state != SX_LIVE && held)
        return broken("Q2 not live and held", number);
    if (heap->me->slot) {
        sx_entry_t *entry = sx_table_find(&heap->table, number);
        int mine = sx_load_acquire(&block->holders[heap->me->slot / 64]) >> (heap->me->slot % 64) & 1;
        if (mine != (entry != NULL) || (entry && entry->birth != sx_load_acquire(&block->birth)))
            return broken("Q3 my table and my bit differ", number);
    }
    return NULL;
}

static const char *check_run(sx_heap_t *heap, uint32_t extent, uint32_t number, uint8_t *used) {
    sx_block_t *block = sx_block_of(heap, extent * SX_EXTENT_BLOCKS + number);
    uint32_t first = sx_block_first(block), granules = sx_block_granules(block);
    if (!granules || (uint64_t)first + granules > SX_EXTENT_GRANULES)
        return broken("E1 a run that leaves its extent", extent * SX_EXTENT_BLOCKS + number);
    if (memchr(used + first, 1, granules))
        return broken("E1 two runs overlap", extent * SX_EXTENT_BLOCKS + number);
    memset(used + first, 1, granules);
    if (!(sx_load_relaxed(&heap->marks[extent].heads[first / 64]) >> (first % 64) & 1) ||
        sx_load_relaxed(&heap->marks[extent].head_block[first]) != number)
        return broken("E2 a block without its mark", extent * SX_EXTENT_BLOCKS + number);
    return NULL;
}

static const char *check_extent(sx_heap_t *heap, uint32_t extent, int quiet, uint8_t *used) {
    uint64_t word = sx_load_acquire(&heap->owners[extent]);
    unsigned kind = SX_EXTENT_KIND(word);
    uint32_t high = sx_block_high(heap, extent), taken = 0, living = 0;
    const char *wrong = NULL;
    memset(used, 0, SX_EXTENT_GRANULES);
    if (high > sx_load_acquire(&heap->extents[extent].described) ||
        (kind == SX_EXTENT_ARENA && sx_load_acquire(&heap->extents[extent].marked) != SX_MARKED_ARENA))
        return broken("E6 tables without memory", extent * SX_EXTENT_BLOCKS);
    for (uint32_t number = 0; number < high && !wrong; number++) {
        sx_block_t *block = sx_block_of(heap, extent * SX_EXTENT_BLOCKS + number);
        unsigned state = SX_STATE(sx_load_acquire(&block->state));
        wrong = check_bits(heap, block, extent * SX_EXTENT_BLOCKS + number, quiet);
        living += state == SX_LIVE;
        if (wrong || state == SX_IDLE || kind == SX_EXTENT_HUGE || (state != SX_LIVE && !quiet))
            continue;
        if (kind != SX_EXTENT_ARENA)
            return broken("E3 a block in an extent that is no arena", extent * SX_EXTENT_BLOCKS + number);
        wrong = check_run(heap, extent, number, used);
        taken += sx_block_granules(block);
    }
    if (wrong)
        return wrong;
    if (living) {
        uint64_t owner = sx_load_acquire(&heap->slots[SX_EXTENT_SLOT(word) % SX_SLOTS].word);
        unsigned state = SX_SLOT_STATE(owner);
        if (SX_SLOT_INCARNATION(owner) != SX_EXTENT_INCARNATION(word) || (state != SX_SLOT_OWNED && state != SX_SLOT_REAPING))
            return broken("E3 live blocks in an extent of nobody", extent * SX_EXTENT_BLOCKS);
        for (uint32_t e = extent + 1; kind == SX_EXTENT_HUGE && e < sx_extent_end(heap, extent); e++) {
            uint64_t tail = sx_load_acquire(&heap->owners[e]);
            if (SX_EXTENT_KIND(tail) != SX_EXTENT_TAIL || SX_EXTENT_HEAD(tail) != extent)
                return broken("E4 a tail that is not its head's", e * SX_EXTENT_BLOCKS);
        }
    }
    if (quiet && kind == SX_EXTENT_ARENA && sx_extent_is_mine(heap, extent) &&
        (!heap->runs.arenas[extent] || heap->runs.arenas[extent]->free + taken != SX_EXTENT_GRANULES))
        return broken("Q4 granules are missing", extent * SX_EXTENT_BLOCKS);
    return NULL;
}

static const char *check_tickets(const sx_heap_t *heap) {
    for (uint32_t t = 0; t < sx_ticket_high(heap); t++) {
        uint64_t ticket = sx_load_acquire(&heap->tickets[t]);
        if (!(ticket & SX_TICKET_OPEN))
            continue;
        if (SX_TICKET_BLOCK(ticket) / SX_EXTENT_BLOCKS >= heap->extent_count)
            return broken("Q5 an open ticket of no block", SX_TICKET_BLOCK(ticket));
        uint64_t state = sx_load_acquire(&sx_block_of(heap, SX_TICKET_BLOCK(ticket))->state);
        if (SX_STATE(state) != SX_LIVE || !(state & SX_TICKETED))
            return broken("Q5 an open ticket of a block that does not know of it", SX_TICKET_BLOCK(ticket));
    }
    return NULL;
}

const char *sx_heap_check(sx_heap_t *heap, int quiet) {
    uint8_t *used = malloc(SX_EXTENT_GRANULES);
    const char *wrong = used ? NULL : "no memory to check with";
    pthread_mutex_lock(&heap->mutex);
    for (uint32_t e = 0; e < sx_extent_high(heap) && !wrong; e++)
        wrong = check_extent(heap, e, quiet, used);
    if (!wrong && quiet)
        wrong = check_tickets(heap);
    if (!wrong)
        wrong = sx_runs_check(&heap->runs);
    for (uint32_t slot = 0; slot < SX_SLOTS && quiet && !wrong; slot += 2)
        if (sx_load_acquire(&heap->slots[slot].providing))
            wrong = "E7 a slot that goes on providing";
    pthread_mutex_unlock(&heap->mutex);
    free(used);
    return wrong;
}

void sx_heap_info(sx_heap_t *heap, sx_heap_info_t *info) {
    uint32_t high = sx_extent_high(heap);
    *info = (sx_heap_info_t){.bytes_resident = sx_segment_resident(&heap->segment),
                             .bytes_limit = sx_load_relaxed(&heap->header->bytes_limit),
                             .bytes_virtual = heap->segment.bytes};
    for (uint32_t e = 0; e < high; e++) {
        uint32_t blocks = sx_block_high(heap, e);
        info->extents += SX_EXTENT_KIND(sx_load_acquire(&heap->owners[e])) != SX_EXTENT_FREE;
        for (uint32_t b = 0; b < blocks; b++) {
            sx_block_t *block = sx_block_of(heap, e * SX_EXTENT_BLOCKS + b);
            if (SX_STATE(sx_load_acquire(&block->state)) != SX_LIVE)
                continue;
            info->blocks++;
            info->bytes_in_use += (uint64_t)sx_block_granules(block) * SX_GRANULE_BYTES;
            for (uint32_t w = 0; w < SX_HOLDER_WORDS; w++)
                info->holders += (uint64_t)__builtin_popcountll(sx_load_acquire(&block->holders[w]));
        }
    }
    for (uint32_t slot = 2; slot < SX_SLOTS; slot += 2)
        info->processes += SX_SLOT_STATE(sx_load_acquire(&heap->slots[slot].word)) == SX_SLOT_OWNED;
}

uint32_t sx_heap_pids(const sx_heap_t *heap, uint32_t pids[SX_PROCESSES]) {
    uint32_t count = 0;
    for (uint32_t slot = 2; slot < SX_SLOTS; slot += 2) {
        uint64_t word = sx_load_acquire(&heap->slots[slot].word);
        if (SX_SLOT_STATE(word) == SX_SLOT_OWNED &&
            !sx_process_is_dead(SX_SLOT_PID(word), sx_load_acquire(&heap->slots[slot].start_time)))
            pids[count++] = SX_SLOT_PID(word);
    }
    return count;
}
