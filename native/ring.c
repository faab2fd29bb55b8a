/* ring.c - records in and out of a ring, and the doorbells; see ring.h. */
#define _GNU_SOURCE
#include "ring.h"

#include "futex.h"
#include "slot.h"
#include <errno.h>
#include <string.h>

#define SX_PAUSE 1000000u /* ns */

uint32_t sx_record_bytes(uint32_t name_count, uint64_t first_bytes, uint64_t second_bytes) {
    uint64_t names = (uint64_t)name_count * sizeof(sx_posted_name_t);
    if (names > SX_INLINE_BYTES || first_bytes > SX_INLINE_BYTES || second_bytes > SX_INLINE_BYTES ||
        names + first_bytes + second_bytes > SX_INLINE_BYTES)
        return 0;
    return (uint32_t)SX_ALIGN(sizeof(sx_record_t) + names + first_bytes + second_bytes, 16);
}

void sx_record_fill(char *at, const sx_message_t *message) {
    size_t names = message->name_count * sizeof(sx_posted_name_t);
    SX_STEP();
    if (names)
        memcpy(at, message->names, names);
    if (message->first_bytes)
        memcpy(at + names, message->first, message->first_bytes);
    SX_STEP();
    if (message->second_bytes)
        memcpy(at + names + message->first_bytes, message->second, message->second_bytes);
}

int sx_ring_reserve(sx_ring_t *ring, uint32_t bytes, sx_record_t **record, uint64_t *position) {
    uint64_t head = sx_load_relaxed(&ring->head_position); /* our own */
    uint64_t tail = sx_load_acquire(&ring->tail_position); /* SYNC POINT ring-space: the reader is done with what is below */
    uint32_t at = (uint32_t)(head % SX_RING_BYTES), room = SX_RING_BYTES - at;
    uint32_t skip = room < bytes ? room : 0;
    if (head % 16 || tail > head || head - tail > SX_RING_BYTES)
        return -EBADMSG;
    if (SX_RING_BYTES - (head - tail) < (uint64_t)skip + bytes)
        return -EAGAIN;
    if (skip) { /* positions are multiples of 16: kind fits */
        SX_STEP();
        ((sx_record_t *)(ring->data + at))->bytes = room;
        SX_STEP();
        ((sx_record_t *)(ring->data + at))->kind = SX_SKIP;
        at = 0;
    }
    *record = (sx_record_t *)(ring->data + at);
    *position = head + skip;
    return 0;
}

void sx_ring_publish(sx_ring_t *ring, uint64_t position, uint32_t bytes) {
    SX_STEP();
    sx_store_release(&ring->head_position, position + bytes); /* SYNC POINT ring-record */
    SX_STEP();
}

int sx_task_send(sx_heap_t *heap, sx_channel_t *channel, sx_message_t *message) {
    sx_record_t *record;
    char *body = NULL;
    uint32_t bytes = sx_record_bytes(message->name_count, message->first_bytes, message->second_bytes);
    int spilled = !bytes;
    int code = sx_ring_reserve(&channel->tasks, spilled ? (uint32_t)sizeof *record : bytes, &record, &message->position);
    if (code)
        return code;
    if (spilled) {
        sx_name_t spill;
        code = sx_heap_alloc(heap, message->name_count * sizeof *message->names + message->first_bytes + message->second_bytes, 0,
                             &spill, &body);
        if (code)
            return code;
        message->spill = (sx_posted_name_t){spill.birth, spill.block, 0};
        message->flags |= SX_SPILLED;
        bytes = sizeof *record;
    }
    SX_STEP();
    *record = (sx_record_t){.bytes = bytes, .kind = message->kind, .call = message->call, .function = message->function,
                            .flags = message->flags, .name_count = message->name_count, .first_bytes = message->first_bytes,
                            .second_bytes = message->second_bytes, .spill = message->spill};
    sx_record_fill(spilled ? body : (char *)(record + 1), message);
    sx_ring_publish(&channel->tasks, message->position, bytes);
    message->woke = sx_channel_wake_worker(heap, channel, message->is_alone);
    return 0;
}

int sx_ring_is_empty(sx_ring_t *ring) {
    return sx_load_acquire(&ring->head_position) == sx_load_relaxed(&ring->tail_position);
}

int sx_ring_peek(sx_heap_t *heap, sx_ring_t *ring, sx_message_t *message) {
    for (;;) {
        uint64_t tail = sx_load_relaxed(&ring->tail_position);          /* our own */
        uint64_t head = sx_load_acquire(&ring->head_position);          /* SYNC POINT ring-record */
        uint32_t at = (uint32_t)(tail % SX_RING_BYTES), room = SX_RING_BYTES - at;
        if (head == tail)
            return 0;
        if (tail % 16 || head < tail || head - tail > SX_RING_BYTES)
            return -EBADMSG;
        sx_record_t *record = (sx_record_t *)(ring->data + at), seen;
        memcpy(&seen, record, offsetof(sx_record_t, call));
        if (room >= sizeof seen) { /* but for the claim, which may move at any time */
            memcpy(&seen.call, &record->call, offsetof(sx_record_t, claim) - offsetof(sx_record_t, call));
            memcpy(&seen.flags, &record->flags, sizeof seen - offsetof(sx_record_t, flags));
        }
        atomic_signal_fence(memory_order_seq_cst); /* what is checked below is what was read here, once */
        uint32_t bytes = seen.bytes;
        if (bytes % 16 || bytes > room || bytes > head - tail)
            return -EBADMSG;
        if (seen.kind == SX_SKIP) {
            if (bytes != room)
                return -EBADMSG;
            SX_STEP();
            sx_store_release(&ring->tail_position, tail + bytes);
            continue;
        }
        if (bytes < sizeof *record)
            return -EBADMSG;
        *message = (sx_message_t){.kind = seen.kind, .flags = seen.flags, .name_count = seen.name_count,
                                  .first_bytes = seen.first_bytes, .call = seen.call, .function = seen.function,
                                  .second_bytes = seen.second_bytes, .spill = seen.spill, .position = tail, .bytes = bytes,
                                  .record = record};
        uint64_t names = (uint64_t)message->name_count * sizeof(sx_posted_name_t);
        uint64_t space = bytes - sizeof *record;
        const char *body = (const char *)(record + 1);
        if (message->flags & SX_SPILLED) {
            sx_place_t place;
            sx_heap_place(heap, message->spill.block, &place); /* of size 0 if there is no such block */
            body = place.start;
            space = place.bytes;
        }
        if (names > space || message->first_bytes > space - names ||
            message->second_bytes > space - names - message->first_bytes) {
            /* A task that was taken back names a block that may be another's by now. The claim is looked at after the block:
             * who gives a block away has taken the task back before. */
            atomic_thread_fence(memory_order_acquire);
            if (!(message->flags & SX_SPILLED) || sx_load_acquire(&record->claim) != SX_WITHDRAWN)
                return -EBADMSG;
            names = message->name_count = message->first_bytes = 0;
            message->second_bytes = 0;
        }
        message->names = (const sx_posted_name_t *)body;
        message->first = body + names;
        message->second = message->first + message->first_bytes;
        return 1;
    }
}

void sx_ring_pop(sx_ring_t *ring, const sx_message_t *message) {
    SX_STEP();
    sx_store_release(&ring->tail_position, message->position + message->bytes); /* SYNC POINT ring-space */
}

void sx_task_note_time(sx_channel_t *channel) {
    SX_STEP();
    sx_store_relaxed(&channel->begun, sx_now()); /* visible with the claim */
}

int sx_task_start(const sx_message_t *message) {
    uint32_t ready = SX_READY;
    SX_STEP();
    return sx_cas_acq_rel(&message->record->claim, &ready, SX_STARTED); /* SYNC POINT claim */
}

static sx_record_t *unread(sx_ring_t *ring, uint64_t position) {
    if (sx_load_acquire(&ring->tail_position) > position)
        return NULL; /* read, so begun */
    return (sx_record_t *)(ring->data + position % SX_RING_BYTES);
}

int sx_task_withdraw(sx_ring_t *ring, uint64_t position) {
    sx_record_t *record = unread(ring, position);
    uint32_t ready = SX_READY;
    SX_STEP();
    return record && sx_cas_acq_rel(&record->claim, &ready, SX_WITHDRAWN);
}

int sx_task_was_started(sx_ring_t *ring, uint64_t position) {
    sx_record_t *record = unread(ring, position);
    return !record || sx_load_acquire(&record->claim) == SX_STARTED; /* SYNC POINT claim, or ring-space */
}

uint64_t sx_task_begun(sx_channel_t *channel, uint64_t position) {
    return sx_task_was_started(&channel->tasks, position) ? sx_load_relaxed(&channel->begun) : 0;
}

static sx_slot_t *worker_of(sx_heap_t *heap, const sx_channel_t *channel) {
    return &heap->slots[sx_channel_slot(channel)];
}

void sx_channel_ring_worker(sx_heap_t *heap, sx_channel_t *channel, int always) {
    sx_slot_t *slot = worker_of(heap, channel);
    sx_fence_seq_cst(); /* SYNC POINT doorbell */
    if (always || sx_load_relaxed(&slot->waiting))
        sx_slot_ring(slot);
}

int sx_channel_wake_worker(sx_heap_t *heap, sx_channel_t *channel, int elsewhere) {
    sx_slot_t *slot = worker_of(heap, channel);
    sx_fence_seq_cst(); /* SYNC POINT doorbell */
    if (!sx_load_relaxed(&slot->waiting))
        return SX_WAS_AWAKE;
    uint64_t now = sx_now();
    int after_pause = now - channel->rung > SX_PAUSE;
    SX_STEP();
    channel->rung = now;
    if (elsewhere && !after_pause) /* after one all cores are idle, and the nearest is the best */
        sx_place_elsewhere(slot);
    sx_slot_ring(slot);
    return after_pause ? SX_WOKEN_AFTER_PAUSE : SX_WOKEN;
}

uint32_t sx_channel_bell(sx_heap_t *heap, sx_channel_t *channel) {
    return sx_load_acquire(&worker_of(heap, channel)->bell);
}

typedef struct {
    sx_heap_t *heap;
    sx_channel_t *channel;
    uint32_t seen;
} sx_awaited_t;

static int is_due(const void *of) {
    const sx_awaited_t *awaited = of;
    return !sx_ring_is_empty(&awaited->channel->tasks) || sx_channel_bell(awaited->heap, awaited->channel) != awaited->seen;
}

int sx_channel_wait(sx_heap_t *heap, sx_channel_t *channel, sx_wait_t *how, uint32_t seen, int64_t nanoseconds) {
    sx_slot_t *slot = worker_of(heap, channel);
    if (how && sx_spin(&how->spin, is_due, &(sx_awaited_t){heap, channel, seen}))
        return 0;
    if (how)
        sx_place_note(slot, &how->mask);
    SX_STEP();
    sx_store_relaxed(&slot->waiting, 1);
    sx_fence_seq_cst(); /* SYNC POINT doorbell */
    int is_idle = sx_ring_is_empty(&channel->tasks) &&
                  sx_load_relaxed(&heap->header->trim_requests) == sx_load_relaxed(&heap->trims_answered);
    int code = is_idle ? sx_futex_wait(&slot->bell, seen, nanoseconds) : 0;
    SX_STEP();
    sx_store_relaxed(&slot->waiting, 0);
    if (how)
        sx_place_restore(slot, &how->mask);
    return code;
}

int sx_channel_is_here(sx_heap_t *heap, const sx_channel_t *channel) {
    return sx_place_is_shared(worker_of(heap, channel));
}

int sx_channel_is_awake(sx_heap_t *heap, const sx_channel_t *channel) {
    return !sx_load_relaxed(&worker_of(heap, channel)->waiting);
}
