/* snapshot.c - see snapshot.h. */
#define _GNU_SOURCE
#include "snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct {
    char *from;
    uint64_t bytes;
} piece_t;

struct sx_snapshot {
    uint64_t bytes; /* of this mapping: the pieces, then what they hold */
    uint64_t count;
    piece_t pieces[];
};

/* Calls `take` with each piece of the heap that a child needs; twice, first to count. */
static void each_piece(sx_heap_t *heap, void (*take)(void *context, void *from, uint64_t bytes), void *context) {
    uint32_t high = sx_extent_high(heap);
    take(context, heap->segment.base, (uint64_t)((char *)heap->owners - heap->segment.base));
    take(context, heap->owners, high * sizeof *heap->owners);
    take(context, heap->extents, high * sizeof *heap->extents);
    for (uint32_t i = 0; i < heap->table.capacity; i++) {
        if (!heap->table.entries[i].key)
            continue;
        uint32_t block = heap->table.entries[i].key - 1, extent = block / SX_EXTENT_BLOCKS;
        uint32_t first = sx_block_first(sx_block_of(heap, block));
        take(context, sx_block_of(heap, block), sizeof(sx_block_t));
        take(context, sx_heap_start(heap, block), sx_heap_size(heap, block));
        if (SX_EXTENT_KIND(sx_load_acquire(&heap->owners[extent])) == SX_EXTENT_ARENA) {
            take(context, &heap->marks[extent].heads[first / 64], sizeof heap->marks->heads[0]);
            take(context, &heap->marks[extent].head_block[first], sizeof heap->marks->head_block[0]);
        }
    }
}

typedef struct {
    uint64_t count, bytes;
    sx_snapshot_t *into;
} taking_t;

static void count_piece(void *context, void *from, uint64_t bytes) {
    taking_t *taking = context;
    (void)from;
    taking->count++;
    taking->bytes += bytes;
}

static void take_piece(void *context, void *from, uint64_t bytes) {
    taking_t *taking = context;
    sx_snapshot_t *into = taking->into;
    char *to = (char *)into + into->bytes;
    memcpy(to, from, bytes);
    into->pieces[into->count++] = (piece_t){from, bytes};
    into->bytes += bytes;
}

sx_snapshot_t *sx_snapshot_take(sx_heap_t *heap) {
    taking_t taking = {0};
    each_piece(heap, count_piece, &taking);
    uint64_t before = sizeof(sx_snapshot_t) + taking.count * sizeof(piece_t);
    taking.into = mmap(NULL, before + taking.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (taking.into == MAP_FAILED)
        return NULL;
    taking.into->bytes = before;
    each_piece(heap, take_piece, &taking);
    return taking.into;
}

int sx_snapshot_lay(const sx_snapshot_t *snapshot, sx_heap_t *heap) {
    sx_segment_t *segment = &heap->segment;
    void *mapped = mmap(segment->base, segment->bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED)
        return -ENOMEM;
    const char *from = (const char *)snapshot + sizeof *snapshot + snapshot->count * sizeof(piece_t);
    for (uint64_t i = 0; i < snapshot->count; i++) {
        memcpy(snapshot->pieces[i].from, from, snapshot->pieces[i].bytes);
        from += snapshot->pieces[i].bytes;
    }
    return 0;
}

void sx_snapshot_drop(sx_snapshot_t *snapshot) {
    if (snapshot)
        munmap(snapshot, snapshot->bytes);
}
