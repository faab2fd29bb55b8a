/* heap.c - the process-private side of the heap: open, allocate, hold, release, find; see heap.h. */
#define _GNU_SOURCE
#include "heap.h"

#include "machine.h"
#include "owner.h"
#include "slot.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

/* ---- opening ----------------------------------------------------------------------------------------------------------- */

static void lay_out(sx_heap_t *heap) {
    char *base = heap->segment.base;
    uint32_t count = heap->extent_count;
    heap->header = (sx_header_t *)base;
    heap->slots = (sx_slot_t *)(base + SX_AT_SLOTS);
    heap->tickets = (sx_atomic64_t *)(base + SX_AT_TICKETS);
    heap->owners = (sx_atomic64_t *)(base + SX_AT_OWNERS);
    heap->extents = (sx_extent_t *)(base + SX_AT_EXTENTS(count));
    heap->marks = (sx_marks_t *)(base + SX_AT_MARKS(count));
    heap->blocks = (sx_block_t *)(base + SX_AT_BLOCKS(count));
    heap->data = base + SX_AT_DATA(count);
    heap->scan = (sx_scan_t){&heap->header->slot_high, heap->tickets, &heap->header->ticket_high};
}

static int open_private(sx_heap_t *heap) {
    pthread_mutex_init(&heap->mutex, NULL);
    long page = sysconf(_SC_PAGESIZE);
    heap->me = mmap(NULL, (size_t)page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (heap->me == MAP_FAILED) {
        heap->me = NULL;
        return -ENOMEM;
    }
    if (madvise(heap->me, (size_t)page, MADV_WIPEONFORK)) /* Linux 4.14 */
        return -errno;
    return sx_runs_init(&heap->runs, heap->extent_count);
}

static void close_private(sx_heap_t *heap) {
    if (heap->me)
        munmap(heap->me, (size_t)sysconf(_SC_PAGESIZE));
    heap->me = NULL;
    sx_runs_forget(&heap->runs);
}

/* Checked when the segment was opened; but others could have written since. */
static int read_count(sx_heap_t *heap) {
    uint32_t count = ((volatile sx_header_t *)heap->segment.base)->extent_count;
    if (count < 2 || count > SX_MOST_EXTENTS || SX_SEGMENT_BYTES(count) != heap->segment.bytes)
        return -EINVAL;
    heap->extent_count = count;
    return 0;
}

static int join(sx_heap_t *heap, uint32_t reserved_slot) {
    int code = read_count(heap);
    if (code)
        return code;
    lay_out(heap);
    code = open_private(heap);
    if (!code)
        code = sx_slot_claim(heap, reserved_slot);
    if (code)
        close_private(heap);
    return code;
}

static int start(sx_heap_t *heap) {
    uint32_t count = heap->extent_count;
    lay_out(heap);
    int code = sx_segment_reserve(&heap->segment, 0, SX_AT_OWNERS);
    if (code)
        return code;
    sx_header_t *header = heap->header;
    if (getrandom(&header->identity, sizeof header->identity, GRND_NONBLOCK) != sizeof header->identity)
        header->identity = sx_process_start_time((uint32_t)getpid()) ^ (uint64_t)getpid() << 40;
    header->segment_bytes = heap->segment.bytes;
    header->extent_count = count;
    header->creator_pid = (uint32_t)getpid();
    sx_store_relaxed(&header->bytes_limit, sx_heap_default_limit(heap));
    sx_store_relaxed(&header->slot_high, 2); /* slot 0 is nobody's */
    sx_store_release(&header->magic, SX_MAGIC);
    return join(heap, 0);
}

/* Where addresses are scarce (ulimit -v) half of what is left is for others: libraries, stacks, and what the workers need. */
static int fits(uint32_t count) {
    uint64_t room = sx_address_room();
    return room == UINT64_MAX || SX_SEGMENT_BYTES(count) <= room / 2;
}

int sx_heap_create(sx_heap_t *heap, int kind, uint64_t data_bytes) {
    int code = -ENOMEM;
    memset(heap, 0, sizeof *heap);
    sx_segment_sweep(kind, NULL, NULL);
    for (uint32_t count = (uint32_t)(data_bytes / SX_EXTENT_BYTES); count >= 2; count /= 2) { /* small address spaces, ulimits */
        heap->extent_count = count;
        code = fits(count) ? sx_segment_create(&heap->segment, kind, SX_SEGMENT_BYTES(count)) : -ENOMEM;
        if (code != -ENOMEM && code != -EFBIG && code != -EINVAL && code != -ENOSPC) /* System V: shmall */
            break;
    }
    if (code)
        return code;
    if ((code = start(heap))) {
        sx_segment_unlink(&heap->segment);
        sx_segment_close(&heap->segment);
    }
    return code;
}

uint64_t sx_heap_default_limit(const sx_heap_t *heap) {
    uint64_t memory = sx_machine_memory() / 5 * 4, room = sx_segment_room(&heap->segment);
    uint64_t data = (uint64_t)heap->extent_count * SX_EXTENT_BYTES;
    room = room < data ? room : data;
    return memory < room ? memory : room;
}

int sx_heap_attach(sx_heap_t *heap, int kind, int number, uint32_t reserved_slot) {
    memset(heap, 0, sizeof *heap);
    int code = sx_segment_attach(&heap->segment, kind, number);
    return code ? code : join(heap, reserved_slot);
}

int sx_heap_open(sx_heap_t *heap, const char *name) {
    memset(heap, 0, sizeof *heap);
    int code = sx_segment_open(&heap->segment, name, 0);
    if (!code && (code = join(heap, 0)))
        sx_segment_close(&heap->segment);
    return code;
}

int sx_heap_peek(sx_heap_t *heap, const char *name) {
    memset(heap, 0, sizeof *heap);
    int code = sx_segment_open(&heap->segment, name, 1);
    if (!code && (code = read_count(heap)))
        sx_segment_close(&heap->segment);
    if (!code)
        lay_out(heap);
    return code;
}

void sx_heap_close(sx_heap_t *heap) {
    sx_segment_close(&heap->segment);
}

/* ---- ending ------------------------------------------------------------------------------------------------------------ */

static sx_heap_t *to_unlink;

/* The last who has a part in it. A child between a fork and our hook, or of a fork in C, is nobody. */
static void unlink_if_last(void) {
    sx_heap_t *heap = to_unlink;
    for (uint32_t slot = 2; heap->me->slot && slot < SX_SLOTS; slot += 2) {
        uint64_t word = sx_load_acquire(&heap->slots[slot].word);
        if (slot != heap->me->slot && SX_SLOT_STATE(word) == SX_SLOT_OWNED &&
            !sx_process_is_dead(SX_SLOT_PID(word), sx_load_acquire(&heap->slots[slot].start_time)))
            return;
    }
    if (heap->me->slot && !heap->is_private)
        sx_segment_unlink(&heap->segment);
}

void sx_heap_unlink_at_exit(sx_heap_t *heap) {
    if (!to_unlink && heap->segment.kind == SX_POSIX && !atexit(unlink_if_last))
        to_unlink = heap;
}

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
