/* heap.c - the process-private side of the heap: allocate, hold, release, find; see heap.h. */
#include "heap.h"

#include <errno.h>

/* This process may use the heap now: it is somebody, not a child between a fork and our hook. */
static int lock(sx_heap_t *heap) {
    if (!heap->me->slot)
        return 0;
    pthread_mutex_lock(&heap->mutex);
    return 1;
}

/* ---- allocating -------------------------------------------------------------------------------------------------------- */

/* A run and a descriptor for it, in an extent of mine. */
static int reserve(sx_heap_t *heap, uint64_t granules, uint32_t *block, uint32_t *first) {
    uint32_t extent;
    sx_slot_t *slot = &heap->slots[heap->me->slot];
    if (sx_load_relaxed(&slot->look)) {
        SX_STEP();
        sx_extent_collect(heap, sx_exchange_acq_rel(&slot->look, 0));
    }
    *first = 0;
    if (granules > SX_HUGE_GRANULES) {
        uint64_t span = (granules + SX_EXTENT_GRANULES - 1) / SX_EXTENT_GRANULES;
        int code = span > heap->extent_count ? -ENOMEM : sx_extent_claim_huge(heap, (uint32_t)span, &extent);
        *block = code ? 0 : extent * SX_EXTENT_BLOCKS;
        return code;
    }
    if (sx_runs_take(&heap->runs, (uint32_t)granules, &extent, first)) {
        int code = sx_extent_claim_arena(heap, &extent);
        if (code || (code = sx_runs_take(&heap->runs, (uint32_t)granules, &extent, first)))
            return code;
    }
    sx_arena_t *arena = heap->runs.arenas[extent];
    uint32_t number;
    if (arena->idle_count)
        number = arena->idle[--arena->idle_count];
    else {
        number = sx_block_high(heap, extent);
        if (number == SX_EXTENT_BLOCKS) /* there are as many as granules: somebody wrote where they should not */
            return -ENOMEM;
        int code = sx_tables_describe(heap, extent, number + 1);
        if (code) {
            sx_runs_give(&heap->runs, extent, *first, (uint32_t)granules);
            return code;
        }
        SX_STEP();
        sx_store_release(&heap->extents[extent].block_high, number + 1);
    }
    arena->taken[number / 64] |= (uint64_t)1 << (number % 64);
    arena->run[number] = (uint64_t)*first << 32 | granules;
    *block = extent * SX_EXTENT_BLOCKS + number;
    return 0;
}

/* The descriptor has never come to live: as if it were released and taken back. */
static void unreserve(sx_heap_t *heap, uint32_t block, uint32_t first, uint64_t granules) {
    uint32_t extent = block / SX_EXTENT_BLOCKS, number = block % SX_EXTENT_BLOCKS;
    sx_arena_t *arena = heap->runs.arenas[extent];
    if (granules > SX_HUGE_GRANULES) {
        sx_extent_drop_huge(heap, extent);
        return;
    }
    arena->taken[number / 64] &= ~((uint64_t)1 << (number % 64));
    SX_STEP();
    atomic_fetch_and_explicit(&heap->marks[extent].heads[first / 64], ~((uint64_t)1 << (first % 64)), memory_order_relaxed);
    arena->idle[arena->idle_count++] = (uint16_t)number;
    sx_runs_give(&heap->runs, extent, first, (uint32_t)granules);
}

static int bring_to_live(sx_heap_t *heap, uint32_t block, uint64_t *birth) {
    sx_entry_t *entry = sx_table_add(&heap->table, block);
    if (!entry)
        return -ENOMEM;
    if (!sx_block_alloc(sx_block_of(heap, block), heap->me->slot, birth)) {
        sx_table_remove(&heap->table, entry);
        return -EIO;
    }
    entry->count = 1;
    entry->birth = *birth;
    return 0;
}

int sx_heap_alloc(sx_heap_t *heap, uint64_t bytes, int flags, sx_name_t *name, char **start) {
    uint32_t first;
    if (heap->is_private)
        return -EPERM;
    if (bytes > (uint64_t)heap->extent_count * SX_EXTENT_BYTES)
        return -ENOMEM;
    uint64_t granules = bytes ? (bytes + SX_GRANULE_BYTES - 1) / SX_GRANULE_BYTES : 1;
    sx_heap_answer_trim(heap);
    if (!lock(heap))
        return -EPERM;
    int code = reserve(heap, granules, &name->block, &first);
    pthread_mutex_unlock(&heap->mutex);
    if (code == -ENOMEM) { /* no memory for tables, or no extents in a row */
        sx_heap_sweep(heap);
        sx_heap_trim(heap);
        pthread_mutex_lock(&heap->mutex);
        code = reserve(heap, granules, &name->block, &first);
        pthread_mutex_unlock(&heap->mutex);
    }
    if (code)
        return code;

    uint32_t extent = name->block / SX_EXTENT_BLOCKS;
    uint64_t at = (uint64_t)extent * SX_EXTENT_BYTES + (uint64_t)first * SX_GRANULE_BYTES;
    if (granules > SX_HUGE_GRANULES && granules % SX_EXTENT_GRANULES) /* behind the block no other can lie */
        sx_pages_drop(heap, extent + (uint32_t)(granules / SX_EXTENT_GRANULES), (uint32_t)(granules % SX_EXTENT_GRANULES),
                      SX_EXTENT_GRANULES);
    code = sx_pages_provide(heap, at, granules * SX_GRANULE_BYTES, flags & SX_ZERO);
    if (!code) {
        sx_block_t *block = sx_block_of(heap, name->block);
        SX_STEP();
        sx_store_relaxed(&block->run, (uint64_t)first << 32 | granules); /* released by the CAS that brings it to live */
        SX_STEP();
        sx_store_relaxed(&block->bytes, bytes);
        SX_STEP();
        sx_store_relaxed(&block->plain, (flags & SX_PLAIN) != 0);
        if (granules <= SX_HUGE_GRANULES) {
            sx_marks_t *marks = &heap->marks[extent];
            SX_STEP();
            sx_store_relaxed(&marks->head_block[first], (uint16_t)(name->block % SX_EXTENT_BLOCKS));
            SX_STEP();
            atomic_fetch_or_explicit(&marks->heads[first / 64], (uint64_t)1 << (first % 64), memory_order_relaxed);
        }
    }
    pthread_mutex_lock(&heap->mutex);
    if (!code)
        code = bring_to_live(heap, name->block, &name->birth);
    if (code)
        unreserve(heap, name->block, first, granules);
    pthread_mutex_unlock(&heap->mutex);
    *start = heap->data + at;
    return code;
}

/* ---- holding ------------------------------------------------------------------------------------------------------------ */

int sx_heap_hold(sx_heap_t *heap, sx_name_t name) {
    int held = 0;
    if (!sx_heap_has_descriptor(heap, name.block))
        return -ESTALE;
    if (!lock(heap))
        return -EPERM;
    sx_entry_t *entry = sx_table_find(&heap->table, name.block);
    if (entry)
        held = entry->birth == name.birth; /* held under another birth: the name is stale, the bit is not touched */
    else if (!(entry = sx_table_add(&heap->table, name.block)))
        held = -2;
    else {
        held = sx_block_hold(sx_block_of(heap, name.block), heap->me->slot, name.birth);
        if (held != 1)
            sx_table_remove(&heap->table, entry);
        else
            entry->birth = name.birth;
    }
    if (held == 1)
        entry->count++;
    pthread_mutex_unlock(&heap->mutex);
    if (held == -1 && sx_block_try_free(sx_block_of(heap, name.block), name.block, &heap->scan))
        sx_extent_freed(heap, name.block);
    return held == 1 ? 0 : held == -2 ? -ENOMEM : -ESTALE;
}

void sx_heap_hold_again(sx_heap_t *heap, uint32_t block) {
    if (!lock(heap))
        return;
    sx_entry_t *entry = sx_table_find(&heap->table, block);
    if (entry)
        entry->count++;
    pthread_mutex_unlock(&heap->mutex);
}

void sx_heap_release(sx_heap_t *heap, uint32_t block) {
    int last = 0;
    if (sx_fork_defers(heap, block) || !heap->me->slot)
        return;
    pthread_mutex_lock(&heap->mutex);
    sx_entry_t *entry = sx_table_find(&heap->table, block);
    if (entry && --entry->count == 0) {
        sx_table_remove(&heap->table, entry);
        sx_block_clear(sx_block_of(heap, block), heap->me->slot); /* under the mutex: else it wipes another thread's hold */
        last = 1;
    }
    pthread_mutex_unlock(&heap->mutex);
    if (last && sx_block_try_free(sx_block_of(heap, block), block, &heap->scan))
        sx_extent_freed(heap, block);
}

uint32_t sx_heap_count(sx_heap_t *heap, uint32_t block) {
    if (!lock(heap))
        return 0;
    sx_entry_t *entry = sx_table_find(&heap->table, block);
    uint32_t count = entry ? entry->count : 0;
    pthread_mutex_unlock(&heap->mutex);
    return count;
}

int sx_heap_is_sole(sx_heap_t *heap, uint32_t block) {
    uint32_t others = 0;
    uint32_t mine = heap->me->slot;
    for (uint32_t w = 0; w < SX_HOLDER_WORDS; w++) {
        uint64_t bits = sx_load_acquire(&sx_block_of(heap, block)->holders[w]);
        others |= (w == mine / 64 ? bits & ~((uint64_t)1 << (mine % 64)) : bits) != 0;
    }
    return mine && !others && sx_heap_count(heap, block) == 1;
}

int sx_heap_post(sx_heap_t *heap, sx_name_t name) {
    if (name.block >= heap->extent_count * (uint64_t)SX_EXTENT_BLOCKS)
        return -ESTALE;
    sx_block_t *block = sx_block_of(heap, name.block);
    if (!heap->me->slot)
        return -EPERM;
    int held = sx_block_hold(block, heap->me->slot + 1, name.birth);
    if (held == -1 && sx_block_try_free(block, name.block, &heap->scan))
        sx_extent_freed(heap, name.block);
    return held == 1 ? 0 : -ESTALE;
}

void sx_heap_unpost(sx_heap_t *heap, uint32_t worker_slot, uint32_t block) {
    if (heap->me->slot && worker_slot < SX_SLOTS - 1) /* no try_free: the caller holds the block, and will release it */
        sx_block_clear(sx_block_of(heap, block), worker_slot + 1);
}

/* ---- finding ------------------------------------------------------------------------------------------------------------ */

int sx_heap_place(const sx_heap_t *heap, uint32_t block, sx_place_t *place) {
    uint32_t extent = block / SX_EXTENT_BLOCKS;
    *place = (sx_place_t){heap->data, 0, 0};
    if (extent >= heap->extent_count)
        return -EBADMSG;
    const sx_block_t *descriptor = sx_block_of(heap, block);
    uint64_t run = sx_load_relaxed(&descriptor->run), first = run >> 32, granules = (uint32_t)run;
    uint64_t bytes = sx_load_relaxed(&descriptor->bytes), room = (uint64_t)(heap->extent_count - extent) * SX_EXTENT_GRANULES;
    if (granules > SX_HUGE_GRANULES ? first != 0 : first + granules > SX_EXTENT_GRANULES)
        return -EBADMSG;
    if (!granules || granules > room || bytes > granules * SX_GRANULE_BYTES)
        return -EBADMSG;
    *place = (sx_place_t){heap->data + (uint64_t)extent * SX_EXTENT_BYTES + first * SX_GRANULE_BYTES, granules * SX_GRANULE_BYTES,
                          bytes};
    return 0;
}

char *sx_heap_start(const sx_heap_t *heap, uint32_t block) {
    sx_place_t place;
    sx_heap_place(heap, block, &place);
    return place.start;
}

uint64_t sx_heap_bytes(const sx_heap_t *heap, uint32_t block) {
    sx_place_t place;
    sx_heap_place(heap, block, &place);
    return place.bytes;
}

uint64_t sx_heap_size(const sx_heap_t *heap, uint32_t block) {
    sx_place_t place;
    sx_heap_place(heap, block, &place);
    return place.size;
}

/* The block that begins at this granule or last before it: its mark is the first one downwards, since no other block begins
 * inside a block that somebody holds. */
static int find_head(const sx_heap_t *heap, uint32_t extent, uint32_t granule, uint32_t *block) {
    sx_marks_t *marks = &heap->marks[extent];
    uint32_t word = granule / 64;
    uint64_t some = sx_load_relaxed(&marks->heads[word]) & (~(uint64_t)0 >> (63 - granule % 64));
    while (!some) {
        if (word == 0)
            return 0;
        some = sx_load_relaxed(&marks->heads[--word]);
    }
    uint32_t first = word * 64 + 63 - (uint32_t)__builtin_clzll(some);
    *block = extent * SX_EXTENT_BLOCKS + sx_load_relaxed(&marks->head_block[first]);
    return 1;
}

int sx_heap_block_at(const sx_heap_t *heap, const void *address, uint32_t *block) {
    if (!sx_heap_has(heap, address))
        return 0;
    uint64_t at = (uint64_t)((const char *)address - heap->data);
    uint32_t extent = (uint32_t)(at / SX_EXTENT_BYTES);
    if (extent >= sx_load_relaxed(&heap->header->extent_high))
        return 0;
    uint64_t word = sx_load_acquire(&heap->owners[extent]);
    unsigned kind = SX_EXTENT_KIND(word);
    *block = SX_EXTENT_HEAD(word) * SX_EXTENT_BLOCKS;
    return kind == SX_EXTENT_HUGE || kind == SX_EXTENT_TAIL ||
           (kind == SX_EXTENT_ARENA && find_head(heap, extent, at % SX_EXTENT_BYTES / SX_GRANULE_BYTES, block));
}

int sx_heap_find(sx_heap_t *heap, const char *low, const char *high, sx_name_t *name) {
    if (!sx_heap_block_at(heap, low, &name->block) || !lock(heap))
        return 0;
    sx_entry_t *entry = sx_table_find(&heap->table, name->block);
    name->birth = entry ? entry->birth : 0;
    pthread_mutex_unlock(&heap->mutex);
    sx_place_t place;
    return name->birth && !sx_heap_place(heap, name->block, &place) && low >= place.start && high <= place.start + place.size;
}
