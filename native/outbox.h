/* outbox.h - how a worker's answers keep their blocks alive until the parent has taken hold.
 *
 * For each block that an answer names the worker sets its outbox bit M, and the parent clears it when it holds the block itself:
 * the hand-over ends without the worker, which may be ten seconds deep in its next call. One bit cannot stand for two
 * unread answers; a second answer that names the block is protected by the worker's own hold instead ("lazy"), kept until the
 * parent has consumed that record, and flagged so that the parent rings a sleeping worker afterwards.
 */
#ifndef SX_OUTBOX_H
#define SX_OUTBOX_H

#include "ring.h"

typedef struct {
    uint64_t position;
    uint32_t block;
    uint32_t lazy;
} sx_posted_t;

typedef struct {
    sx_table_t standing; /* blocks for which M stands; private, no lock: one thread answers */
    sx_posted_t *log;    /* oldest first */
    uint32_t begin, end, capacity;
} sx_outbox_t;

/* Publishes an answer. Its names (deduplicated, each held by this process) and parts are copied. 0, -EAGAIN: the ring is full,
 * nothing was done; -ENOMEM. `lazy` in the names is overwritten. */
int sx_outbox_publish(sx_heap_t *heap, sx_outbox_t *outbox, sx_ring_t *ring, sx_message_t *message, sx_posted_name_t *names);
/* Drops what was kept for answers that the parent has consumed since. */
void sx_outbox_settle(sx_heap_t *heap, sx_outbox_t *outbox, sx_ring_t *ring);

/* The parent's half: holds every block that the message names and clears the outbox bits, then pops the record. The caller then
 * has one reference to each name, and to the spilled block. 0; -EBADMSG: nothing is held, the worker is as good as dead. */
int sx_outbox_consume(sx_heap_t *heap, sx_channel_t *channel, const sx_message_t *message);

#endif
