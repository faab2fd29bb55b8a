/* fuzz_ring.c - rings that hold whatever the other side may have written: the reader and the producer stay within the channel and the
 * heap, hold what they say that they hold, and come to an end.
 *
 * An input is: what lies in the ring, as pieces; then pieces that are written between the reader's look at a record and its use. The
 * channel lies in memory of its own, so that the address sanitizer sees its ends.
 */
#include "fuzz.h"

enum { EXTENTS = 2, KEPT = 3 };

static sx_heap_t parent, worker;
static sx_channel_t *channel;
static sx_outbox_t outbox;
static sx_name_t kept[KEPT]; /* held by the parent: what records can name */

static void start_once(void) {
    static int started;
    if (started)
        return;
    started = 1;
    create(&parent, EXTENTS);
    join_at_same_addresses(&worker, &parent, sx_slot_reserve(&parent, 1));
    channel = malloc(sizeof *channel);
    for (uint32_t i = 0; i < KEPT; i++)
        kept[i] = alloc(&parent, 100 + 20000 * i);
}

static void write_pieces(input_t *input, sx_ring_t *ring, uint32_t pieces) {
    for (; pieces > 0 && input->at < input->end; pieces--) {
        uint32_t at = take_two(input), size = take_byte(input);
        if (at < SX_RING_BYTES)
            take_bytes(input, ring->data + at, size < SX_RING_BYTES - at ? size : SX_RING_BYTES - at);
        else if (at & 1)
            ring->head_position = take_number(input);
        else if (at & 2)
            ring->tail_position = take_number(input);
        else
            channel->worker_slot = (uint32_t)take_number(input);
    }
}

static void read_parts(const sx_message_t *message) {
    CHECK(message->name_count < 1u << 20 && message->first_bytes < 1u << 26 && message->second_bytes < 1u << 26);
    read_all(message->names, message->name_count * sizeof *message->names);
    read_all(message->first, message->first_bytes);
    read_all(message->second, message->second_bytes);
}

/* As Channel.receive does it: the names are copied before they are held. */
static int read_answer(input_t *input) {
    sx_message_t message;
    int code = sx_ring_peek(&parent, &channel->answers, &message);
    if (code <= 0)
        return 0;
    read_parts(&message);
    uint64_t bytes = message.name_count * sizeof *message.names;
    sx_posted_name_t *names = malloc(bytes + 1);
    memcpy(names, message.names, bytes);
    message.names = names;
    write_pieces(input, &channel->answers, 1);
    if ((code = sx_outbox_consume(&parent, channel, &message)) == 0) {
        for (uint32_t i = 0; i < message.name_count; i++)
            CHECK(sx_heap_count(&parent, names[i].block) > 0, "what was consumed is held");
        for (uint32_t i = 0; i < message.name_count; i++)
            sx_heap_release(&parent, names[i].block);
        if (message.flags & SX_SPILLED)
            sx_heap_release(&parent, message.spill.block);
    } else
        CHECK(code == -EBADMSG, "%d", code);
    free(names);
    return code == 0;
}

static int read_task(input_t *input) {
    sx_message_t message;
    if (sx_ring_peek(&worker, &channel->tasks, &message) <= 0)
        return 0;
    read_parts(&message);
    write_pieces(input, &channel->tasks, 1);
    sx_task_start(&message);
    sx_ring_pop(&channel->tasks, &message);
    return 1;
}

static void produce(uint32_t which, uint32_t bytes) {
    static char filler[20000];
    sx_posted_name_t name = {kept[1].birth, kept[1].block, 0};
    sx_message_t message = {.call = 7, .second_bytes = bytes % sizeof filler, .second = filler, .name_count = 1, .names = &name};
    if (which & 1) {
        if (sx_task_send(&parent, channel, &message) == 0) {
            sx_task_withdraw(&channel->tasks, message.position);
            sx_task_was_started(&channel->tasks, message.position);
            if (message.flags & SX_SPILLED)
                sx_heap_release(&parent, message.spill.block);
        }
        return;
    }
    sx_outbox_publish(&worker, &outbox, &channel->answers, &message, &name);
    channel->answers.tail_position = UINT64_MAX; /* all is read: the worker lets go */
    sx_outbox_settle(&worker, &outbox, &channel->answers);
    for (uint32_t i = 0; i < 64; i++) /* as the parent of a dead worker clears them */
        sx_heap_unpost(&parent, worker.me->slot, i);
    sx_heap_sweep(&parent);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input_t input = {data, data + size};
    start_once();
    memset(channel, 0, sizeof *channel);
    channel->worker_slot = worker.me->slot;
    uint8_t first = take_byte(&input), bytes = take_byte(&input);
    sx_ring_t *ring = first & 2 ? &channel->tasks : &channel->answers;
    ring->tail_position = take_two(&input) * (first & 4 ? 1u : 16u);
    ring->head_position = ring->tail_position + take_two(&input) * (first & 8 ? 1u : 16u);
    write_pieces(&input, ring, 1 + (first >> 4));
    for (int i = 0; i < 100; i++)
        if (!(first & 2 ? read_task(&input) : read_answer(&input)))
            break;
    if (first & 1)
        produce(first >> 1, bytes * 100u);
    for (uint32_t i = 0; i < KEPT; i++)
        CHECK(sx_heap_count(&parent, kept[i].block) == 1, "the parent's own holds stay");
    CHECK(parent.table.used == KEPT, "nothing else is held");
    return 0;
}
