/* outbox.c - answers on their way; see outbox.h. */
#include "outbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void sx_outbox_settle(sx_heap_t *heap, sx_outbox_t *outbox, sx_ring_t *ring) {
    uint64_t tail = sx_load_acquire(&ring->tail_position);
    for (; outbox->begin < outbox->end && outbox->log[outbox->begin].position < tail; outbox->begin++) {
        sx_posted_t posted = outbox->log[outbox->begin];
        if (posted.lazy)
            sx_heap_release(heap, posted.block);
        else
            sx_table_remove(&outbox->standing, sx_table_find(&outbox->standing, posted.block));
    }
    if (outbox->begin == outbox->end)
        outbox->begin = outbox->end = 0;
}

static int make_space(sx_outbox_t *outbox, uint32_t count) {
    if (outbox->end + count <= outbox->capacity)
        return 0;
    if (outbox->begin && outbox->begin >= outbox->end - outbox->begin) { /* mostly settled: there may always be one answer that is not */
        memmove(outbox->log, outbox->log + outbox->begin, (outbox->end - outbox->begin) * sizeof *outbox->log);
        outbox->end -= outbox->begin;
        outbox->begin = 0;
        if (outbox->end + count <= outbox->capacity)
            return 0;
    }
    uint32_t capacity = (outbox->end + count) * 2;
    sx_posted_t *wider = realloc(outbox->log, capacity * sizeof *wider);
    if (!wider)
        return -ENOMEM;
    outbox->log = wider;
    outbox->capacity = capacity;
    return 0;
}

static int post(sx_heap_t *heap, sx_outbox_t *outbox, sx_posted_name_t *name, uint64_t position) {
    name->lazy = sx_table_find(&outbox->standing, name->block) != NULL;
    if (name->lazy)
        sx_heap_hold_again(heap, name->block);
    else {
        sx_entry_t *entry = sx_table_add(&outbox->standing, name->block);
        if (!entry)
            return -ENOMEM;
        int code = sx_heap_post(heap, (sx_name_t){name->birth, name->block});
        if (code) {
            sx_table_remove(&outbox->standing, entry);
            return code;
        }
    }
    outbox->log[outbox->end++] = (sx_posted_t){position, name->block, name->lazy};
    return 0;
}

/* Nothing was published: as if nothing had been posted. */
static void unpost_from(sx_heap_t *heap, sx_outbox_t *outbox, uint32_t begin) {
    while (outbox->end > begin) {
        sx_posted_t posted = outbox->log[--outbox->end];
        if (posted.lazy)
            sx_heap_release(heap, posted.block);
        else {
            sx_table_remove(&outbox->standing, sx_table_find(&outbox->standing, posted.block));
            sx_heap_unpost(heap, heap->me->slot, posted.block);
        }
    }
}

int sx_outbox_publish(sx_heap_t *heap, sx_outbox_t *outbox, sx_ring_t *ring, sx_message_t *message, sx_posted_name_t *names) {
    sx_record_t *record;
    uint64_t position;
    sx_name_t spill = {0, 0};
    char *body = NULL;
    sx_outbox_settle(heap, outbox, ring);
    uint32_t bytes = sx_record_bytes(message->name_count, message->first_bytes, message->second_bytes);
    int spilled = !bytes;
    if (spilled)
        bytes = sizeof *record;
    int code = sx_ring_reserve(ring, bytes, &record, &position);
    if (code || (code = make_space(outbox, message->name_count + 1)))
        return code;
    if (spilled) {
        code = sx_heap_alloc(heap, message->name_count * sizeof *names + message->first_bytes + message->second_bytes, 0, &spill,
                             &body);
        if (code)
            return code;
    }
    uint32_t begin = outbox->end;
    for (uint32_t i = 0; i < message->name_count && !code; i++)
        code = post(heap, outbox, &names[i], position);
    sx_posted_name_t spill_name = {spill.birth, spill.block, 0};
    if (spilled && !code)
        code = post(heap, outbox, &spill_name, position);
    if (code) {
        unpost_from(heap, outbox, begin);
        if (spilled)
            sx_heap_release(heap, spill.block);
        return code;
    }
    uint32_t flags = (spilled ? SX_SPILLED : 0) | (spill_name.lazy ? SX_HAS_LAZY : 0);
    for (uint32_t i = 0; i < message->name_count; i++)
        flags |= names[i].lazy ? SX_HAS_LAZY : 0;
    SX_STEP();
    *record = (sx_record_t){.bytes = bytes, .kind = message->kind, .call = message->call, .function = message->function,
                            .flags = flags, .name_count = message->name_count, .first_bytes = message->first_bytes,
                            .second_bytes = message->second_bytes, .spill = spill_name};
    message->names = names;
    sx_record_fill(spilled ? body : (char *)(record + 1), message);
    sx_ring_publish(ring, position, bytes);
    if (spilled)
        sx_heap_release(heap, spill.block); /* its outbox bit holds it */
    return 0;
}

int sx_outbox_consume(sx_heap_t *heap, sx_channel_t *channel, const sx_message_t *message) {
    uint32_t held = 0;
    int spilled = message->flags & SX_SPILLED;
    if (spilled && sx_heap_hold(heap, (sx_name_t){message->spill.birth, message->spill.block}))
        return -EBADMSG;
    while (held < message->name_count &&
           !sx_heap_hold(heap, (sx_name_t){message->names[held].birth, message->names[held].block}))
        held++;
    if (held < message->name_count) { /* a name in flight is never stale: somebody wrote where they should not */
        while (held-- > 0)
            sx_heap_release(heap, message->names[held].block);
        if (spilled)
            sx_heap_release(heap, message->spill.block);
        return -EBADMSG;
    }
    for (uint32_t i = 0; i < message->name_count; i++)
        if (!message->names[i].lazy)
            sx_heap_unpost(heap, sx_channel_slot(channel), message->names[i].block);
    if (spilled)
        sx_heap_unpost(heap, sx_channel_slot(channel), message->spill.block);
    sx_ring_pop(&channel->answers, message);
    if (message->flags & SX_HAS_LAZY)
        sx_channel_ring_worker(heap, channel, 0);
    return 0;
}
