/* board.h - what is published for who only looks at a heap from outside (`shmexec top`), and how that is read.
 *
 * Purpose: which workers there are, of which pool, what they run and for how long, what waits, how many bytes have crossed.
 * Guarantees
 *   B1  nothing that works reads any of it: what is stale or makes no sense there costs who looks a line
 *   B2  a worker's board speaks of a channel and a hub by block and birth: it counts while those blocks live, and no longer
 *   B3  a call costs its worker four plain stores, into the line that has its task ring's tail, which it has just written; the parent
 *       a branch, and some stores when the number of calls that wait for a worker has changed
 *   B4  who looks copies, and checks the copy: whatever it finds, it reads and writes nothing else
 * Assumption: a block that lives has memory. If it is freed and trimmed while it is copied, the copy is of zeros.
 */
#ifndef SX_BOARD_H
#define SX_BOARD_H

#include "hub.h"

/* A worker begins a call, and ends it. Relaxed: who looks compares `running` before and after, and can be wrong for an instant. */
static inline void sx_board_begin(sx_channel_t *channel, uint64_t call, uint64_t function, uint64_t now) {
    SX_STEP();
    sx_store_relaxed(&channel->tasks.function, function);
    SX_STEP();
    sx_store_relaxed(&channel->tasks.begun, now);
    SX_STEP();
    sx_store_relaxed(&channel->tasks.running, call);
}
static inline void sx_board_end(sx_channel_t *channel) {
    SX_STEP();
    sx_store_relaxed(&channel->tasks.running, 0);
}
/* What a function that was shipped to this worker is called. */
void sx_board_name_function(sx_channel_t *channel, uint64_t function, const char *name, uint64_t bytes);

/* The parent: this slot is kept for a worker of that pool. Both blocks are held. */
void sx_board_introduce(sx_heap_t *heap, uint32_t slot, sx_name_t channel, sx_name_t hub);
/* The parent: so many calls wait that no worker was told of. */
void sx_board_waiting(sx_hub_t *hub, uint64_t count);
/* This process: bytes of arguments and results since its start. */
void sx_board_traffic(sx_heap_t *heap, uint64_t by_name, uint64_t copied);

typedef struct {
    uint32_t pid, parent;       /* pid 0: it is coming up */
    uint32_t hub;               /* which pool */
    int sleeps;
    uint64_t running, begun, function; /* 0: nothing runs; in nanoseconds of sx_now() */
    uint64_t ahead;             /* calls that it was told of and has not begun */
    uint64_t waiting, since;    /* calls of its pool that no worker was told of; since when there are any */
    char name[SX_FUNCTION_NAME_BYTES + 1];
} sx_worker_view_t;

/* A worker of this slot? 1, or 0. `room` has space for a channel. For a heap that was opened by sx_heap_peek(), too. */
int sx_board_worker(const sx_heap_t *heap, uint32_t slot, sx_channel_t *room, sx_worker_view_t *view);
/* What this process has counted: its pid, or 0 if there is none, or nothing. */
uint32_t sx_board_counted(const sx_heap_t *heap, uint32_t slot, uint64_t *by_name, uint64_t *copied);

#endif
