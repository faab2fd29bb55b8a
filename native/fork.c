/* fork.c - the hooks around os.fork(); see fork.h. */
#define _GNU_SOURCE
#include "fork.h"

#include "slot.h"
#include "snapshot.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

/* The forks that this thread is about, one for each heap: from sx_fork_before until the hook after it, on either side. Between the
 * Python hooks no lock is held: another hook in between may wait (for the GIL, for a lock of logging's) for a thread that waits for
 * ours. The mutex is taken by the handlers of pthread_atfork, around the system call alone: the child's copy of the table is whole. */
typedef struct fork {
    struct fork *next;
    sx_heap_t *heap;
    uint32_t slot;  /* of the child that is being made; 0: it will be private */
    int pipe[2];
    sx_snapshot_t *snapshot; /* for a private child of a heap that cannot be mapped copy-on-write */
    int is_child;   /* between the fork and the hook: releases are put off */
} fork_t;
static _Thread_local fork_t *forks;
static _Thread_local struct {
    sx_heap_t *heap;
    uint32_t slot;
} expected;

void sx_fork_expect(sx_heap_t *heap, uint32_t slot) {
    expected.heap = heap;
    expected.slot = slot;
}

static fork_t *fork_of(const sx_heap_t *heap) {
    fork_t *fork = forks;
    while (fork && fork->heap != heap)
        fork = fork->next;
    return fork;
}

static void forget(fork_t *over) {
    fork_t **link = &forks;
    while (*link != over)
        link = &(*link)->next;
    *link = over->next;
    if (expected.heap == over->heap)
        expected.slot = 0;
    sx_snapshot_drop(over->snapshot);
    free(over);
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

static void prepare(void) {
    for (fork_t *fork = forks; fork; fork = fork->next) {
        pthread_mutex_lock(&fork->heap->mutex); /* in the same order in each thread; nobody else takes two */
        if (fork->slot)
            hold_for_child(fork->heap, fork->slot);
        else if (!sx_segment_is_file(&fork->heap->segment))
            fork->snapshot = sx_snapshot_take(fork->heap);
    }
}

static void in_parent(void) {
    for (fork_t *fork = forks; fork; fork = fork->next)
        pthread_mutex_unlock(&fork->heap->mutex);
}

static void in_child(void) {
    for (fork_t *fork = forks; fork; fork = fork->next) {
        pthread_mutex_init(&fork->heap->mutex, NULL);
        fork->is_child = 1;
    }
}

static void register_handlers(void) {
    pthread_atfork(prepare, in_parent, in_child);
}

void sx_fork_before(sx_heap_t *heap) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (!heap->me->slot || heap->is_private)
        return;
    fork_t *fork = malloc(sizeof *fork);
    if (!fork)
        return; /* no memory: the child will be nobody, as after a fork without hooks */
    pthread_once(&once, register_handlers);
    sx_fork_poll(heap);
    *fork = (fork_t){forks, heap, expected.heap == heap ? expected.slot : 0, {-1, -1}, NULL, 0};
    if (!fork->slot && !heap->is_worker) {
        fork->slot = sx_slot_reserve(heap, 1);
        if (fork->slot && pipe2(fork->pipe, O_CLOEXEC)) {
            sx_slot_reap(heap, fork->slot);
            fork->slot = 0; /* no descriptor left: the child will be private */
        }
    }
    forks = fork;
}

int sx_fork_defers(sx_heap_t *heap, uint32_t block) {
    fork_t *fork = fork_of(heap);
    if (!fork || !fork->is_child)
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
    fork_t *fork = fork_of(heap);
    if (!fork)
        return;
    if (fork->pipe[1] >= 0) {
        close(fork->pipe[1]);
        pthread_mutex_lock(&heap->mutex);
        watch_child(heap, fork->slot, fork->pipe[0]);
        pthread_mutex_unlock(&heap->mutex);
    }
    forget(fork);
}

int sx_fork_after_in_child(sx_heap_t *heap) {
    fork_t *fork = fork_of(heap);
    if (!fork || !fork->is_child)
        return 0;
    for (uint32_t i = 0; i < heap->forked_count; i++)
        close(heap->forked[i].lifeline);
    heap->forked_count = 0;
    heap->arenas = 0;
    sx_runs_forget(&heap->runs); /* the extents are the parent's */
    int code = sx_runs_init(&heap->runs, heap->extent_count);
    if (!fork->slot) {
        heap->is_private = 1;
        if (!code && sx_segment_is_file(&heap->segment))
            code = sx_segment_map_private(&heap->segment);
        else if (!code)
            code = fork->snapshot ? sx_snapshot_lay(fork->snapshot, heap) : -ENOMEM;
    } else {
        code = sx_slot_claim(heap, fork->slot);
        if (fork->pipe[0] >= 0) {
            heap->is_worker = 0;
            close(fork->pipe[0]);
            close(fork->pipe[1]);
        }
    }
    forget(fork);
    release_deferred(heap);
    return code;
}

void sx_fork_poll(sx_heap_t *heap) {
    uint32_t left = 1;
    for (uint32_t i = 0; heap->me->slot && left;) {
        pthread_mutex_lock(&heap->mutex);
        left = i < heap->forked_count;
        sx_forked_t child = left ? heap->forked[i] : (sx_forked_t){0, -1};
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
