/* ring.h - messages between one parent and one worker: two single-producer single-consumer rings in one block, and doorbells.
 *
 * Guarantees
 *   - a record is visible when `head_position` has moved over it, which is stored after its bytes: what is below the head is
 *     whole, whoever died since
 *   - neither side ever waits for the other: a ring that is full says so (-EAGAIN)
 *   - positions only grow; lengths are checked by the reader: a record that makes no sense (-EBADMSG) is a dead worker's; no byte
 *     outside of the heap is read or written, whatever the other side has written into the channel
 *   - a task's `claim` moves once, READY -> STARTED by the worker before it looks at anything else in the record, or
 *     READY -> WITHDRAWN by the parent: a call that was prefetched can be taken back, and after a death the parent knows which
 *     call had begun
 *   - who sees that a TIMED task was started sees when: the worker notes the time before it claims the task, and only the next
 *     TIMED task, which is not sent before this one is answered, overwrites it
 * What names blocks: a record lists them, each once, outside the pickle. A task's are protected by the parent's own hold until the
 * answer or the certain death; an answer's by the worker's outbox bit, or lazily by the worker's own hold (outbox.h).
 * A message that is too long for the ring lies in a block of its own, which the record names (SX_SPILLED).
 */
#ifndef SX_RING_H
#define SX_RING_H

#include "heap.h"
#include "place.h"
#include "report.h"
#include "spin.h"

#define SX_RING_BYTES ((uint32_t)32 << 10)
#define SX_INLINE_BYTES (SX_RING_BYTES / 8) /* a longer message is spilled */

typedef struct {
    sx_atomic64_t head_position; /* written by the producer */
    uint64_t unused[7];
    sx_atomic64_t tail_position; /* written by the consumer */
    sx_atomic64_t running, function, begun; /* of a task ring, by its consumer: board.h */
    uint64_t unused2[4];
    char data[SX_RING_BYTES];
} sx_ring_t;

/* What a function is called, for who looks (board.h). */
#define SX_FUNCTION_NAMES 32u
#define SX_FUNCTION_NAME_BYTES 56
typedef struct {
    sx_atomic64_t number; /* plus one; 0: none */
    sx_atomic64_t text[SX_FUNCTION_NAME_BYTES / 8];
} sx_function_name_t;

/* SYNC POINT doorbell: publish = store head; fence; if (waiting) ring. wait = look at the bell; waiting = 1; fence; look at the
 * ring; sleep if the bell has not moved. Without either fence both may read the old value, and sleep for good. The worker's bell
 * lies in its slot; a signal handler of the worker moves it, too. */
typedef struct {
    uint32_t worker_slot;
    uint32_t unused;
    uint64_t rung;       /* when the parent last woke the worker; its own */
    sx_atomic64_t begun; /* when the worker began the last TIMED task; see sx_now() */
    uint32_t unused2[10];
    sx_ring_t tasks;
    sx_ring_t answers;
    sx_report_t report; /* of the task that runs; the worker writes */
    sx_function_name_t names[SX_FUNCTION_NAMES]; /* by number modulo this; the worker writes */
} sx_channel_t;
static_assert(sizeof(sx_channel_t) == 68096, "docs/internals/data-flow.md says so; whole granules");

/* How a worker waits. */
typedef struct {
    sx_spin_t spin;
    sx_mask_t mask;
} sx_wait_t;

enum { SX_READY = 0, SX_STARTED = 1, SX_WITHDRAWN = 2 };
enum { SX_SPILLED = 1, SX_HAS_LAZY = 2, SX_TIMED = 4 }; /* TIMED: a task; one at most that is not withdrawn */
#define SX_SKIP 0xffffffffu /* kind: nothing here, go on at the start of the ring */

typedef struct {
    uint64_t birth;
    uint32_t block;
    uint32_t lazy; /* answers: 1: the worker keeps its own hold until this record is consumed */
} sx_posted_name_t;

typedef struct {
    uint32_t bytes; /* of the record, a multiple of 16 */
    uint32_t kind;
    uint64_t call;
    uint64_t function;
    sx_atomic32_t claim;
    uint32_t flags;
    uint32_t name_count;
    uint32_t first_bytes; /* the payload has two parts: the function, if it is shipped here, and the rest */
    uint64_t second_bytes;
    sx_posted_name_t spill; /* if SPILLED: the names and the parts lie there, not behind this header */
} sx_record_t;
static_assert(sizeof(sx_record_t) == 64, "");

/* What a message says, on either side. Pointers into the ring or into the spilled block: valid until popped. All else was read once,
 * and checked: who acts upon the names copies them first, for the other side may change them still. */
typedef struct {
    uint32_t kind, flags, name_count, first_bytes;
    uint64_t call, function, second_bytes;
    const sx_posted_name_t *names;
    const char *first, *second;
    sx_posted_name_t spill;
    uint64_t position;
    uint32_t bytes; /* of the record */
    sx_record_t *record;
    int is_alone; /* a task: no other worker of the pool has one, so another core is likely to be free */
    int woke;     /* what sx_task_send tells: one of SX_WAS_AWAKE ... */
} sx_message_t;

/* Producer. A record of `bytes` at *position, not yet visible; -EAGAIN: full. */
int sx_ring_reserve(sx_ring_t *ring, uint32_t bytes, sx_record_t **record, uint64_t *position);
void sx_ring_publish(sx_ring_t *ring, uint64_t position, uint32_t bytes);
/* Bytes of a record that holds all of this message; 0: it has to be spilled. */
uint32_t sx_record_bytes(uint32_t name_count, uint64_t first_bytes, uint64_t second_bytes);
/* Writes names and parts, one behind the other. */
void sx_record_fill(char *at, const sx_message_t *message);

/* The parent sends a task: names and parts are copied. A message that is too long is spilled into a block of its own, which
 * message->spill then names and of which the caller has one reference. *position tells where it lies. -EAGAIN, -ENOMEM. */
int sx_task_send(sx_heap_t *heap, sx_channel_t *channel, sx_message_t *message);

/* Consumer. 1 and *message; 0: empty; -EBADMSG. `heap` resolves a spilled message, whose block must be held by somebody, unless it is a
 * task that was taken back: of that no byte may be read. */
int sx_ring_peek(sx_heap_t *heap, sx_ring_t *ring, sx_message_t *message);
int sx_ring_is_empty(sx_ring_t *ring);
void sx_ring_pop(sx_ring_t *ring, const sx_message_t *message);

/* The worker is about to begin a TIMED task. */
void sx_task_note_time(sx_channel_t *channel);
/* The worker begins a task: 1; 0: it was withdrawn. */
int sx_task_start(const sx_message_t *message);
/* The parent takes the task at `position` back: 1; 0: the worker has begun it. */
int sx_task_withdraw(sx_ring_t *ring, uint64_t position);
/* Has the worker begun the task at `position`? After certain death: had it? */
int sx_task_was_started(sx_ring_t *ring, uint64_t position);
/* When the worker began the TIMED task at `position`, which is not answered; 0: it has not. */
uint64_t sx_task_begun(sx_channel_t *channel, uint64_t position);

enum { SX_WAS_AWAKE = 0, SX_WOKEN = 1, SX_WOKEN_AFTER_PAUSE = 2 }; /* the worker, for a task */
/* After publishing one. */
int sx_channel_wake_worker(sx_heap_t *heap, sx_channel_t *channel, int elsewhere);
void sx_channel_ring_worker(sx_heap_t *heap, sx_channel_t *channel, int always); /* after publishing a task; always: after a signal, too */
/* The worker reads the bell, then looks for signals and whatever else may have come, then sleeps on what it read: until a task is
 * there, the bell is rung, somebody has asked to trim (sx_heap_answer_trim), a signal came (-EINTR) or the time is over
 * (-ETIMEDOUT). With `how` it looks for a while before it sleeps, and may be woken elsewhere. */
uint32_t sx_channel_bell(sx_heap_t *heap, sx_channel_t *channel);
int sx_channel_wait(sx_heap_t *heap, sx_channel_t *channel, sx_wait_t *how, uint32_t seen, int64_t nanoseconds);
/* The worker's slot, as far as the channel's word for it makes sense. */
static inline uint32_t sx_channel_slot(const sx_channel_t *channel) {
    return channel->worker_slot % SX_SLOTS & ~1u;
}
int sx_channel_is_awake(sx_heap_t *heap, const sx_channel_t *channel);
int sx_channel_is_here(sx_heap_t *heap, const sx_channel_t *channel); /* its worker was last seen on this core */

#endif
