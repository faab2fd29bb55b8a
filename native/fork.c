/* fork.c - the hooks around os.fork(); see fork.h. */
#define _GNU_SOURCE
#include "fork.h"

#include "slot.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

void sx_fork_expect(sx_heap_t *heap, uint32_t slot) {
    heap->expected_slot = slot;
}

/* The child will hold what this process holds: its bit, then the epoch, for each block. This process holds them: none is stale. */
static void hold_for_child(sx_heap_t *heap, uint32_t slot) {
    for (uint32_t i = 0; i < heap->table.capacity; i++) {
        if (!heap->table.entries[i].key)
            continue;
        sx_block_t *block = sx_block_of(heap, heap->table.entries[i].key - 1);
        SX_STEP();
        sx_or_acq_rel(&block->holders[slot >> 6], (uint64_t)1 << (slot & 63));
        SX_STEP();
        sx_add_acq_rel(&block->state, SX_EPOCH);
    }
}

void sx_fork_before(sx_heap_t *heap) {
    uint32_t slot = heap->expected_slot;
    if (!heap->me->slot || heap->is_private)
        return;
    sx_fork_poll(heap);
    heap->fork_pipe[0] = heap->fork_pipe[1] = -1;
    if (!slot && !heap->is_worker) {
        slot = sx_slot_reserve(heap, 1);
        if (slot && pipe2(heap->fork_pipe, O_CLOEXEC)) {
            sx_slot_reap(heap, slot);
            slot = 0; /* no descriptor left: the child will be private */
        }
    }
    pthread_mutex_lock(&heap->mutex); /* until after the fork: the child's copy of the table must be whole */
    heap->fork_slot = slot;
    heap->forker = pthread_self();
    heap->forking = 1;
    if (slot)
        hold_for_child(heap, slot);
}

int sx_fork_defers(sx_heap_t *heap, uint32_t block) {
    if (!heap->forking || !pthread_equal(heap->forker, pthread_self()))
        return 0;
    if (heap->deferred_count == heap->deferred_capacity) {
        uint32_t capacity = heap->deferred_capacity ? heap->deferred_capacity * 2 : 16;
        uint32_t *wider = realloc(heap->deferred, capacity * sizeof *wider);
        if (!wider)
            return 1; /* no memory: the block stays held until this process ends */
        heap->deferred = wider;
        heap->deferred_capacity = capacity;
    }
    heap->deferred[heap->deferred_count++] = block;
    return 1;
}

static void release_deferred(sx_heap_t *heap) {
    for (uint32_t i = 0; i < heap->deferred_count; i++)
        sx_heap_release(heap, heap->deferred[i]);
    heap->deferred_count = 0;
}

static void watch_child(sx_heap_t *heap, uint32_t slot, int lifeline) {
    if (heap->forked_count == heap->forked_capacity) {
        uint32_t capacity = heap->forked_capacity ? heap->forked_capacity * 2 : 8;
        sx_forked_t *wider = realloc(heap->forked, capacity * sizeof *wider);
        if (!wider) { /* whoever looks for dead slots finds it */
            sx_slot_unguard(heap, slot);
            close(lifeline);
            return;
        }
        heap->forked = wider;
        heap->forked_capacity = capacity;
    }
    heap->forked[heap->forked_count++] = (sx_forked_t){slot, lifeline};
}

void sx_fork_after_in_parent(sx_heap_t *heap) {
    if (!heap->forking)
        return;
    if (heap->fork_pipe[1] >= 0) {
        close(heap->fork_pipe[1]);
        watch_child(heap, heap->fork_slot, heap->fork_pipe[0]);
    }
    heap->forking = 0;
    heap->fork_slot = heap->expected_slot = 0;
    pthread_mutex_unlock(&heap->mutex);
    release_deferred(heap);
}

int sx_fork_after_in_child(sx_heap_t *heap) {
    uint32_t slot = heap->fork_slot;
    if (!heap->forking)
        return 0;
    pthread_mutex_init(&heap->mutex, NULL);
    for (uint32_t i = 0; i < heap->forked_count; i++)
        close(heap->forked[i].lifeline);
    heap->forked_count = 0;
    heap->fork_slot = heap->expected_slot = 0;
    heap->arenas = 0;
    sx_runs_forget(&heap->runs); /* the extents are the parent's */
    int code = sx_runs_init(&heap->runs, heap->extent_count);
    if (!slot) {
        heap->is_private = 1;
        if (!code)
            code = sx_segment_map_private(&heap->segment);
    } else {
        code = sx_slot_claim(heap, slot);
        if (heap->fork_pipe[0] >= 0) {
            heap->is_worker = 0;
            close(heap->fork_pipe[0]);
            close(heap->fork_pipe[1]);
        }
    }
    heap->forking = 0;
    release_deferred(heap);
    return code;
}

void sx_fork_poll(sx_heap_t *heap) {
    if (!heap->forked_count || !heap->me->slot)
        return;
    for (uint32_t i = 0; i < heap->forked_count;) {
        pthread_mutex_lock(&heap->mutex);
        sx_forked_t child = i < heap->forked_count ? heap->forked[i] : (sx_forked_t){0, -1};
        struct pollfd lifeline = {.fd = child.lifeline, .events = POLLIN};
        int over = child.lifeline >= 0 && poll(&lifeline, 1, 0) == 1;
        if (over)
            heap->forked[i] = heap->forked[--heap->forked_count];
        pthread_mutex_unlock(&heap->mutex);
        if (!over) {
            i++;
            continue;
        }
        close(child.lifeline);
        uint64_t word = sx_load_acquire(&heap->slots[child.slot].word);
        if (SX_SLOT_STATE(word) == SX_SLOT_OWNED && sx_load_acquire(&heap->slots[child.slot].start_time))
            sx_slot_unguard(heap, child.slot); /* it is up, and known by pid and start time */
        else
            sx_slot_reap(heap, child.slot);
    }
}
