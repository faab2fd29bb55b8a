/* heap_open.c - the heap's beginning and end in this process: made, taken part in, looked at, and its name gone; see heap.h. */
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
