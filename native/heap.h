/* heap.h - the shared heap as one process sees it: blocks by number and birth, found by address, counted, released.
 *
 * Purpose: allocate, hold, release and find blocks; the process-private side of the ownership protocol (block.h).
 * Guarantees: no process ever holds a lock that another waits for; the only lock is `mutex`, private to this process. No call
 *   maps or attaches anything. Everything here may be called from any thread, with or without the GIL; nothing calls Python.
 * Assumptions: one heap a process. fork goes through the hooks of fork.h; a child that did not is without identity (slot 0), and
 *   for it every call is harmless and does nothing, or -EPERM.
 * Lock order: only `mutex`, which is never held while pages of data are provided or a block is zeroed.
 */
#ifndef SX_HEAP_H
#define SX_HEAP_H

#include "block.h"
#include "runs.h"
#include "segment.h"
#include "table.h"
#include <pthread.h>

/* In a page of its own that fork wipes: between a fork and our hook the child is nobody, and cannot clear its parent's bits. */
typedef struct {
    uint32_t slot; /* even; 0: nobody */
    uint32_t incarnation;
} sx_identity_t;

typedef struct {
    uint32_t slot;
    int lifeline; /* read end: end-of-file while the slot is RESERVED means that there is no child */
} sx_forked_t;

typedef struct {
    sx_segment_t segment;
    sx_header_t *header;
    sx_slot_t *slots;
    sx_atomic64_t *tickets;
    sx_atomic64_t *owners;
    sx_extent_t *extents;
    sx_marks_t *marks;
    sx_block_t *blocks;
    char *data;
    uint32_t extent_count;
    sx_scan_t scan;

    sx_identity_t *me;
    pthread_mutex_t mutex; /* table, outbox bits of this process, runs, forked */
    sx_table_t table;
    sx_runs_t runs;
    uint32_t arenas;         /* extents of this process */
    sx_atomic32_t trims_answered; /* header->trim_requests as last seen */

    int is_private;  /* a fork of a worker: copy-on-write, nothing is allocated or released here */
    int is_worker;
    sx_forked_t *forked;
    uint32_t forked_count, forked_capacity;
    uint32_t *deferred;
    uint32_t deferred_count, deferred_capacity;
} sx_heap_t;

typedef struct {
    uint64_t birth;
    uint32_t block; /* number in the heap: extent * SX_EXTENT_BLOCKS + number in the extent */
} sx_name_t;

int sx_heap_create(sx_heap_t *heap, int kind, uint64_t data_bytes); /* a new segment; halves data_bytes until it maps */
/* The heap that this process was given, see sx_segment_attach(). reserved_slot 0: any. */
int sx_heap_attach(sx_heap_t *heap, int kind, int number, uint32_t reserved_slot);
int sx_heap_open(sx_heap_t *heap, const char *name); /* by kernel name; codes as of sx_segment_open() */
/* To look at, without a part in it: only sx_heap_info() and the header may be used. sx_heap_close() ends it. */
int sx_heap_peek(sx_heap_t *heap, const char *name);
void sx_heap_close(sx_heap_t *heap);
uint64_t sx_heap_default_limit(const sx_heap_t *heap); /* 80 % of the memory, or what the segment can have, if that is less */
/* When this process ends and no other has a part in the heap, the segment's name goes, if it is of a kind that has one. */
void sx_heap_unlink_at_exit(sx_heap_t *heap);

enum { SX_ZERO = 1, SX_PLAIN = 2 }; /* its bytes read as zero; made for code that did not ask for shared memory */
/* A block of at least `bytes`, held once by this process. -ENOMEM: limit or memory reached. */
int sx_heap_alloc(sx_heap_t *heap, uint64_t bytes, int flags, sx_name_t *name, char **start);
int sx_heap_hold(sx_heap_t *heap, sx_name_t name);                    /* count + 1; -ESTALE */
void sx_heap_hold_again(sx_heap_t *heap, uint32_t block);             /* count + 1 of a block that this process holds */
void sx_heap_release(sx_heap_t *heap, uint32_t block);                /* count - 1, and with the last the block */

/* Which block, held by this process as the caller knows, has this address in it? 1 and *block, or 0. */
int sx_heap_block_at(const sx_heap_t *heap, const void *address, uint32_t *block);
/* Which block that this process holds has [low, high) in it? 1 and *name, or 0. */
int sx_heap_find(sx_heap_t *heap, const char *low, const char *high, sx_name_t *name);
static inline int sx_heap_has(const sx_heap_t *heap, const void *address) {
    return (uint64_t)((const char *)address - heap->data) < (uint64_t)heap->extent_count * SX_EXTENT_BYTES;
}

/* Where a block lies, read once and checked: whatever stands in its descriptor, this is in the heap. */
typedef struct {
    char *start;
    uint64_t size, bytes; /* what it takes; as asked for */
} sx_place_t;
int sx_heap_place(const sx_heap_t *heap, uint32_t block, sx_place_t *place); /* 0; -EBADMSG: the descriptor makes no sense */
/* Parts of that, for who knows the block to be whole; of one that makes no sense they are the start of the heap, and 0. */
char *sx_heap_start(const sx_heap_t *heap, uint32_t block);    /* of a block that this process holds */
uint64_t sx_heap_bytes(const sx_heap_t *heap, uint32_t block); /* as asked for */
uint64_t sx_heap_size(const sx_heap_t *heap, uint32_t block);  /* what it takes */
uint32_t sx_heap_count(sx_heap_t *heap, uint32_t block);       /* references of this process */
int sx_heap_is_sole(sx_heap_t *heap, uint32_t block);          /* one reference of this process, and none of any other? */

/* The bits of a worker's outbox: set by the worker, cleared by its parent when it has taken hold. */
int sx_heap_post(sx_heap_t *heap, sx_name_t name);                          /* 0, -ESTALE */
void sx_heap_unpost(sx_heap_t *heap, uint32_t worker_slot, uint32_t block); /* the caller holds the block itself */

/* Offers every LIVE block for freeing, and tells the owners of all FREE ones to take them back. Harmless at any time. */
void sx_heap_sweep(sx_heap_t *heap);
/* Gives pages of free memory back to the kernel: ours, of extents that nobody owns, of FREE blocks; asks the others for theirs. */
void sx_heap_trim(sx_heap_t *heap);
void sx_heap_answer_trim(sx_heap_t *heap); /* if another process asked since the last time; cheap otherwise */

typedef struct {
    uint64_t bytes_in_use, bytes_resident, bytes_limit, bytes_virtual;
    uint64_t blocks, holders, extents, processes;
} sx_heap_info_t;
void sx_heap_info(sx_heap_t *heap, sx_heap_info_t *info);

uint32_t sx_heap_pids(const sx_heap_t *heap, uint32_t pids[SX_PROCESSES]); /* who takes part; how many */

/* The invariants of layout.h, executed. quiet: nothing is going on in any process. NULL, or what is broken. */
const char *sx_heap_check(sx_heap_t *heap, int quiet);

/* ---- for the other files of the heap ---------------------------------------------------------------------------------- */

/* Marks in shared memory, as far as they make sense: no loop that goes up to them leaves its table. */
static inline uint32_t sx_extent_high(const sx_heap_t *heap) {
    uint32_t high = sx_load_acquire(&heap->header->extent_high);
    return high < heap->extent_count ? high : heap->extent_count;
}
static inline uint32_t sx_block_high(const sx_heap_t *heap, uint32_t extent) {
    uint32_t high = sx_load_acquire(&heap->extents[extent].block_high);
    return high < SX_EXTENT_BLOCKS ? high : SX_EXTENT_BLOCKS;
}
/* Whether there is a descriptor of this number that may be looked at: a name comes from outside. */
static inline int sx_heap_has_descriptor(const sx_heap_t *heap, uint32_t block) {
    uint32_t extent = block / SX_EXTENT_BLOCKS;
    return extent < sx_extent_high(heap) &&
           block % SX_EXTENT_BLOCKS < sx_load_acquire(&heap->extents[extent].described);
}
static inline uint32_t sx_ticket_high(const sx_heap_t *heap) {
    uint32_t high = sx_load_acquire(&heap->header->ticket_high);
    return high < SX_TICKETS ? high : SX_TICKETS;
}
/* The extents that a block of whole extents takes, those that are there. */
static inline uint32_t sx_extent_end(const sx_heap_t *heap, uint32_t head) {
    uint32_t span = sx_load_acquire(&heap->extents[head].span), most = heap->extent_count - head;
    return head + (span < most ? span : most);
}

static inline sx_block_t *sx_block_of(const sx_heap_t *heap, uint32_t block) {
    return &heap->blocks[block];
}
uint64_t sx_extent_word(const sx_heap_t *heap, uint32_t head, unsigned kind); /* as this process would own it */
int sx_extent_is_mine(const sx_heap_t *heap, uint32_t extent);
/* extent.c: the caller holds the mutex. */
int sx_extent_claim_arena(sx_heap_t *heap, uint32_t *extent);
int sx_extent_claim_huge(sx_heap_t *heap, uint32_t span, uint32_t *head);
void sx_extent_drop_huge(sx_heap_t *heap, uint32_t head);
void sx_extent_take_back(sx_heap_t *heap, uint32_t block);  /* a FREE block of an extent of mine */
void sx_extent_collect(sx_heap_t *heap, uint64_t look);     /* what others have released in extents of mine */
void sx_extent_adopt(sx_heap_t *heap, uint32_t slot, uint32_t incarnation);
/* extent.c: without the mutex. */
void sx_extent_freed(sx_heap_t *heap, uint32_t block);      /* this process's try_free made it FREE */
/* pages.c: memory for the tables, with or without the mutex. 0, -ENOMEM. */
int sx_tables_reach(sx_heap_t *heap, uint32_t extent);                   /* owner word and record of an extent, and extent_high */
int sx_tables_mark(sx_heap_t *heap, uint32_t extent, uint32_t how);      /* its marks; and its first descriptors */
int sx_tables_describe(sx_heap_t *heap, uint32_t extent, uint32_t upto); /* its descriptors */
/* pages.c: without the mutex. */
int sx_pages_provide(sx_heap_t *heap, uint64_t at, uint64_t bytes, int zero); /* 0, -ENOMEM */
void sx_pages_drop(sx_heap_t *heap, uint32_t extent, uint32_t first, uint32_t end); /* whole pages of a range that is mine alone */
/* fork.c */
int sx_fork_defers(sx_heap_t *heap, uint32_t block); /* 1: the release was put off until after the fork */

#endif
