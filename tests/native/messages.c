/* messages.c - answers on their way: what keeps their blocks, who gives them back, and rings written by somebody who is broken. */
#include "harness.h"

enum { EXTENTS = 16 };

static sx_heap_t parent, worker;
static sx_channel_t *channel;
static sx_outbox_t outbox;
static char filler[SX_RING_BYTES];

static sx_slot_t *bell_slot(void) {
    return &parent.slots[channel->worker_slot];
}

static void start(void) {
    uint32_t slot = sx_slot_reserve(&parent, 1);
    join(&worker, &parent, slot);
    memset(channel, 0, sizeof *channel);
    channel->worker_slot = slot;
    bell_slot()->bell = bell_slot()->waiting = 0;
    memset(&outbox, 0, sizeof outbox);
}

/* As the parent does it: the worker is dead for certain, its answers have been read or are unreadable. */
static void end(void) {
    CHECK(sx_slot_reap(&parent, channel->worker_slot) == 1);
    expect_quiet(&parent, 1);
    free(outbox.log);
    sx_table_clear(&outbox.standing);
    sx_table_clear(&worker.table);
    sx_runs_forget(&worker.runs);
    munmap(worker.me, 4096);
    sx_segment_close(&worker.segment);
}

static int publish(const sx_name_t *names, uint32_t count, uint64_t bytes) {
    sx_posted_name_t posted[64];
    CHECK(count <= 64);
    for (uint32_t i = 0; i < count; i++)
        posted[i] = (sx_posted_name_t){names[i].birth, names[i].block, 9};
    sx_message_t message = {.kind = 3, .call = 11, .function = 12, .name_count = count, .second_bytes = bytes, .second = filler};
    return sx_outbox_publish(&worker, &outbox, &channel->answers, &message, posted);
}

static int consume(sx_message_t *message) {
    int code = sx_ring_peek(&parent, &channel->answers, message);
    if (code <= 0)
        return code ? code : -ENOENT;
    return sx_outbox_consume(&parent, channel, message);
}

static void release_all(const sx_message_t *message) {
    for (uint32_t i = 0; i < message->name_count; i++)
        sx_heap_release(&parent, message->names[i].block);
    if (message->flags & SX_SPILLED)
        sx_heap_release(&parent, message->spill.block);
}

static void settle(void) {
    sx_outbox_settle(&worker, &outbox, &channel->answers);
}

/* ---- who holds what ------------------------------------------------------------------------------------------------------ */

static void a_returned_argument_stays_and_goes_with_its_last_holder(void) {
    start();
    sx_message_t message;
    sx_name_t x = alloc(&parent, 5000);
    CHECK(sx_heap_hold(&worker, x) == 0);
    CHECK(publish(&x, 1, 10) == 0);
    sx_heap_release(&worker, x.block);
    CHECK(has_bit(&parent, x, worker.me->slot + 1) && !has_bit(&parent, x, worker.me->slot));
    CHECK(consume(&message) == 0 && message.call == 11 && message.function == 12 && message.kind == 3);
    CHECK(!has_bit(&parent, x, worker.me->slot + 1) && sx_heap_count(&parent, x.block) == 2);
    sx_heap_release(&parent, x.block);
    CHECK(is_there(&parent, x));
    sx_heap_release(&parent, x.block);
    CHECK(!is_there(&parent, x));
    end();
}

static void a_block_twice_in_a_message_is_held_twice_and_given_back(void) {
    start();
    sx_message_t message;
    sx_name_t x = alloc(&worker, 5000), twice[3] = {x, x, x};
    CHECK(publish(twice, 3, 10) == 0);
    sx_heap_release(&worker, x.block);
    CHECK(consume(&message) == 0 && message.name_count == 3);
    CHECK(sx_heap_count(&parent, x.block) == 3);
    release_all(&message);
    settle();
    CHECK(!is_there(&parent, x));
    end();
}

/* In each order of settling, of the worker's own drop, and of the parent's drop. */
static void two_unread_answers_may_name_one_block(void) {
    for (int order = 0; order < 32; order++) {
        start();
        sx_message_t message;
        sx_name_t x = alloc(&worker, 5000);
        paint(sx_heap_start(&worker, x.block), 5000, 99);
        CHECK(publish(&x, 1, 10) == 0 && publish(&x, 1, 20) == 0);
        CHECK(has_bit(&worker, x, worker.me->slot + 1) && sx_heap_count(&worker, x.block) == 2, "M for the first, a hold for the second");
        if (order & 1)
            sx_heap_release(&worker, x.block);
        if (order & 2)
            settle();
        bell_slot()->waiting = 1;
        CHECK(consume(&message) == 0 && !(message.flags & SX_HAS_LAZY) && bell_slot()->bell == 0);
        release_all(&message);
        CHECK(is_there(&parent, x), "the second answer is unread");
        if (order & 4)
            settle();
        if (order & 8)
            CHECK(publish(&x, 1, 30) == 0); /* the bit may be used again if the first answer is settled */
        CHECK(consume(&message) == 0 && (message.flags & SX_HAS_LAZY));
        CHECK(bell_slot()->bell == 1, "a worker that sleeps has something to give back");
        CHECK(is_painted(sx_heap_start(&parent, x.block), 5000, 99));
        release_all(&message);
        if (order & 16)
            settle();
        if (order & 8) {
            CHECK(is_there(&parent, x) && consume(&message) == 0);
            release_all(&message);
        }
        if (!(order & 1))
            sx_heap_release(&worker, x.block);
        settle();
        CHECK(outbox.standing.used == 0 && outbox.begin == outbox.end);
        CHECK(!is_there(&parent, x), "order %d", order);
        end();
    }
}

static void a_full_ring_leaves_nothing_posted(void) {
    start();
    sx_message_t message;
    sx_name_t x = alloc(&worker, 100), y = alloc(&worker, 100), names[2] = {x, y};
    uint32_t published = 0;
    while (publish(names, 2, 3000) == 0)
        published++;
    CHECK(publish(names, 2, 3000) == -EAGAIN && published >= 8);
    CHECK(sx_heap_count(&worker, x.block) == published, "one M, the others lazy");
    sx_name_t z = alloc(&worker, 100);
    CHECK(publish(&z, 1, 3000) == -EAGAIN && !has_bit(&worker, z, worker.me->slot + 1) && sx_heap_count(&worker, z.block) == 1);
    for (uint32_t i = 0; i < published; i++) {
        CHECK(consume(&message) == 0);
        release_all(&message);
    }
    CHECK(consume(&message) == -ENOENT);
    sx_heap_release(&worker, x.block);
    sx_heap_release(&worker, y.block);
    sx_heap_release(&worker, z.block);
    settle();
    CHECK(!is_there(&worker, x) && !is_there(&worker, y) && !is_there(&worker, z));
    end();
}

static void a_name_that_is_stale_leaves_nothing_posted(void) {
    start();
    sx_message_t message;
    sx_name_t x = alloc(&worker, 100), gone = alloc(&worker, 100), names[3] = {x, x, gone};
    sx_heap_release(&worker, gone.block);
    CHECK(publish(names, 3, 30) == -ESTALE && publish(names, 3, 30000) == -ESTALE);
    CHECK(sx_heap_count(&worker, x.block) == 1 && !has_bit(&worker, x, worker.me->slot + 1));
    CHECK(outbox.begin == outbox.end && outbox.standing.used == 0 && consume(&message) == -ENOENT);
    CHECK(living(&parent) == 2);
    end();
}

/* The block of a long message comes back to the worker between its looking and its publishing, and is used again. */
static sx_name_t spill_read;
static int read_at_step;

static void parent_reads_in_between(void) {
    sx_message_t message;
    if ((int)++steps != read_at_step)
        return;
    on_step = NULL;
    if (consume(&message) == 0)
        release_all(&message);
    on_step = parent_reads_in_between;
}

static void a_long_message_rings_the_worker_if_it_is_lazy(void) {
    int ended = 0;
    for (read_at_step = 1; !ended; read_at_step++) {
        start();
        sx_message_t message;
        channel->answers.head_position = channel->answers.tail_position = SX_RING_BYTES - 80; /* the next but one begins with a skip */
        CHECK(publish(NULL, 0, 20000) == 0);
        steps = 0;
        on_step = parent_reads_in_between;
        CHECK(publish(NULL, 0, 20000) == 0);
        on_step = NULL;
        ended = (int)steps < read_at_step;
        uint32_t lazy_before = bell_slot()->bell;
        bell_slot()->waiting = 1;
        while (consume(&message) == 0)
            release_all(&message);
        if (bell_slot()->bell == lazy_before)
            CHECK(living(&parent) == 1, "the worker sleeps over a block that nobody reads, and no bell wakes it (step %d)", read_at_step);
        settle();
        CHECK(living(&parent) == 1);
        end();
    }
}

static void the_log_does_not_grow_while_one_answer_is_always_unread(void) {
    start();
    sx_message_t message;
    sx_name_t x = alloc(&worker, 100), y = alloc(&worker, 100);
    CHECK(publish(&x, 1, 10) == 0);
    for (int i = 0; i < 20000; i++) {
        CHECK(publish(i % 2 ? &x : &y, 1, 10) == 0 && consume(&message) == 0);
        release_all(&message);
    }
    CHECK(outbox.capacity < 1000, "%u entries for one unread answer", outbox.capacity);
    end();
}

/* ---- dead workers -------------------------------------------------------------------------------------------------------- */

/* A worker is killed at every step of publishing: what is below the head is whole, what is not is reaped. */
static void answers_of_a_dead_worker_are_read_and_the_rest_is_reaped(uint64_t bytes) {
    int killed = 1;
    for (uint64_t at = 1; killed; at++) {
        sx_message_t message;
        uint32_t slot = sx_slot_reserve(&parent, 1);
        memset(channel, 0, sizeof *channel);
        channel->worker_slot = slot;
        pid_t pid = spawn();
        if (!pid) {
            static sx_hub_t hub = {.word = SX_COLLECTOR};
            int event = open("/dev/null", O_WRONLY);
            memset(&outbox, 0, sizeof outbox);
            join(&worker, &parent, slot);
            sx_name_t x[2] = {alloc(&worker, 3000), alloc(&worker, 5000)};
            paint(sx_heap_start(&worker, x[0].block), 3000, 1234);
            memset(filler, 'm', sizeof filler);
            kill_at = at;
            on_step = kill_at_step;
            for (int i = 0; i < 3; i++) {
                CHECK(publish(x, 2, bytes) == 0);
                atomic_store(&hub.word, i % 2 ? SX_LEADER : SX_COLLECTOR);
                sx_hub_ring(&hub, event); /* killed before the write: its death is the ring */
            }
            sx_heap_release(&worker, x[0].block);
            sx_heap_release(&worker, x[1].block);
            on_step = NULL;
            _exit(0);
        }
        int status = status_of(pid);
        CHECK(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
        killed = WIFSIGNALED(status);
        int answers = 0;
        sx_message_t read[3];
        while (consume(&message) == 0) {
            CHECK(answers < 3 && message.name_count == 2 && message.second_bytes == bytes);
            for (uint64_t i = 0; i < bytes; i++)
                CHECK(message.second[i] == 'm', "half an answer");
            read[answers++] = message;
        }
        CHECK(killed || answers == 3);
        CHECK(sx_slot_reap(&parent, slot) == 1);
        for (int i = 0; i < answers; i++) {
            CHECK(is_painted(sx_heap_start(&parent, read[i].names[0].block), 3000, 1234));
            release_all(&read[i]);
        }
        expect_quiet(&parent, 1);
    }
}

static void the_head_is_whole_whatever_the_bytes_say(void) {
    for (int round = 0; round < 3000; round++) {
        start();
        sx_message_t message;
        sx_name_t x = alloc(&worker, 100);
        int good = (int)rnd(3);
        for (int i = 0; i < good; i++)
            CHECK(publish(&x, 1, rnd(200)) == 0);
        for (int i = 0; i < good && rnd(2); i++) {
            CHECK(consume(&message) == 0);
            release_all(&message);
        }
        /* a stray write of the worker, of any kind, anywhere in its ring */
        uint64_t tail = channel->answers.tail_position % SX_RING_BYTES;
        sx_record_t *record = (sx_record_t *)(channel->answers.data + tail);
        switch (rnd(10)) {
        case 0:
            record->bytes = rnd(2) ? rnd(200) : rnd(UINT32_MAX);
            break;
        case 1:
            record->name_count = rnd(2) ? rnd(50) : rnd(UINT32_MAX);
            break;
        case 2:
            record->first_bytes = rnd(UINT32_MAX);
            break;
        case 3:
            record->second_bytes = (uint64_t)rnd(UINT32_MAX) << rnd(32) | rnd(64);
            break;
        case 4:
            channel->answers.head_position += 1 + rnd(100000);
            break;
        case 5:
            channel->answers.head_position = (uint64_t)rnd(UINT32_MAX) << 32 | rnd(UINT32_MAX);
            break;
        case 6:
            channel->answers.tail_position = rnd(2) ? rnd(100) : (uint64_t)rnd(UINT32_MAX) << 32;
            break;
        case 7:
            record->flags = rnd(4);
            record->spill = (sx_posted_name_t){rnd(3), rnd(4) ? rnd(200000) : rnd(UINT32_MAX), 0};
            break;
        case 8:
            record->kind = rnd(2) ? SX_SKIP : rnd(100);
            break;
        default:
            for (int i = 0; i < 40; i++)
                channel->answers.data[(tail + rnd(200)) % SX_RING_BYTES] = (char)rnd(256);
        }
        for (int i = 0; i < 4; i++) {
            int code = consume(&message);
            CHECK(code == 0 || code == -EBADMSG || code == -ENOENT, "%d", code);
            if (code)
                break;
            for (uint32_t n = 0; n < message.name_count; n++)
                CHECK(sx_heap_count(&parent, message.names[n].block) > 0, "what was consumed is held");
            volatile uint64_t sum = 0; /* all of it can be read */
            for (uint64_t n = 0; n < message.first_bytes; n++)
                sum += (unsigned char)message.first[n];
            for (uint64_t n = 0; n < message.second_bytes; n++)
                sum += (unsigned char)message.second[n];
            release_all(&message);
        }
        end();
    }
}

static void a_garbage_length_is_a_bad_message(void) {
    static const uint32_t lengths[] = {0, 1, 8, 16, 48, 63, 72, 1u << 15, (1u << 15) + 16, 0x7fffffff, 0xfffffff0, 0xffffffff};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        start();
        sx_message_t message;
        CHECK(publish(NULL, 0, 10) == 0);
        ((sx_record_t *)channel->answers.data)->bytes = lengths[i];
        CHECK(consume(&message) == -EBADMSG && consume(&message) == -EBADMSG, "length %u", lengths[i]);
        end();
    }
    for (uint64_t tail = 1; tail < 16; tail++) { /* a position that is no place for a record */
        start();
        sx_message_t message;
        channel->answers.tail_position = SX_RING_BYTES - tail;
        channel->answers.head_position = SX_RING_BYTES + 4096;
        CHECK(consume(&message) == -EBADMSG);
        end();
    }
}

static void a_consume_that_fails_holds_nothing(void) {
    start();
    sx_message_t message;
    sx_name_t x = alloc(&worker, 100), y = alloc(&worker, 100), names[2] = {x, y};
    CHECK(publish(names, 2, 30000) == 0);
    CHECK(sx_ring_peek(&parent, &channel->answers, &message) == 1);
    ((sx_posted_name_t *)(uintptr_t)message.names)[1].birth += 5;
    CHECK(sx_outbox_consume(&parent, channel, &message) == -EBADMSG);
    CHECK(sx_heap_count(&parent, x.block) == 0 && sx_heap_count(&parent, message.spill.block) == 0);
    end();
}

/* ---- tasks --------------------------------------------------------------------------------------------------------------- */

static uint64_t send_task(uint64_t call, uint32_t bytes) {
    sx_message_t message = {.call = call, .second_bytes = bytes, .second = filler};
    CHECK(sx_task_send(&parent, channel, &message) == 0);
    return message.position;
}

static void a_task_that_is_too_long_lies_in_a_block_of_its_own(void) {
    start();
    sx_message_t sent = {.call = 5, .first_bytes = 4, .first = "func", .second_bytes = 20000, .second = filler}, task;
    memset(filler, 'q', sizeof filler);
    CHECK(sx_task_send(&parent, channel, &sent) == 0 && (sent.flags & SX_SPILLED));
    CHECK(sx_ring_peek(&worker, &channel->tasks, &task) == 1 && sx_task_start(&task) == 1 && task.call == 5);
    CHECK(task.first_bytes == 4 && !memcmp(task.first, "func", 4) && task.second_bytes == 20000);
    for (int i = 0; i < 20000; i++)
        CHECK(task.second[i] == 'q');
    sx_ring_pop(&channel->tasks, &task);
    CHECK(sx_heap_count(&parent, sent.spill.block) == 1);
    sx_heap_release(&parent, sent.spill.block);
    int code = 0, count = 0;
    for (; !code && count < 10000; count++) {
        sent = (sx_message_t){.call = 6, .second_bytes = 3000, .second = filler};
        code = sx_task_send(&parent, channel, &sent);
    }
    CHECK(code == -EAGAIN && count >= 10);
    sent.second_bytes = 20000;
    if ((code = sx_task_send(&parent, channel, &sent)) == 0)
        sx_heap_release(&parent, sent.spill.block);
    CHECK((code == 0 || code == -EAGAIN) && living(&parent) == 1, "a task that was not sent leaves its block");
    end();
}

static void a_task_is_begun_or_taken_back_but_not_both(void) {
    start();
    sx_message_t task;
    uint64_t at[3] = {send_task(0, 100), send_task(1, 200), send_task(2, 300)};
    CHECK(!sx_task_was_started(&channel->tasks, at[0]));
    CHECK(sx_ring_peek(&worker, &channel->tasks, &task) == 1 && task.call == 0 && sx_task_start(&task) == 1);
    CHECK(sx_task_was_started(&channel->tasks, at[0]) && !sx_task_was_started(&channel->tasks, at[1]));
    CHECK(!sx_task_withdraw(&channel->tasks, at[0]) && sx_task_withdraw(&channel->tasks, at[1]) == 1);
    sx_ring_pop(&channel->tasks, &task);
    CHECK(sx_task_was_started(&channel->tasks, at[0]), "read, so begun");
    CHECK(sx_ring_peek(&worker, &channel->tasks, &task) == 1 && task.call == 1 && sx_task_start(&task) == 0);
    sx_ring_pop(&channel->tasks, &task);
    CHECK(sx_ring_peek(&worker, &channel->tasks, &task) == 1 && task.call == 2 && sx_task_start(&task) == 1);
    CHECK(!sx_task_withdraw(&channel->tasks, at[2]));
    end();
}

/* It was taken back, answered by another worker, and its block serves a shorter message by now. */
static void a_long_task_that_was_taken_back_is_skipped_whatever_lies_in_its_block(void) {
    start();
    sx_message_t task, sent = {.call = 5, .second_bytes = 20000, .second = filler};
    CHECK(sx_task_send(&parent, channel, &sent) == 0 && (sent.flags & SX_SPILLED));
    CHECK(sx_task_withdraw(&channel->tasks, sent.position) == 1);
    sx_heap_release(&parent, sent.spill.block);
    sx_name_t other = alloc(&parent, 100);
    CHECK(other.block == sent.spill.block, "the descriptor is used again");
    CHECK(sx_ring_peek(&worker, &channel->tasks, &task) == 1 && task.call == 5 && sx_task_start(&task) == 0);
    sx_ring_pop(&channel->tasks, &task);
    CHECK(sx_ring_peek(&worker, &channel->tasks, &task) == 0);
    sx_heap_release(&parent, other.block);
    end();
}

/* Two processes and the doorbell: a lost wake would hang. */
static void no_task_is_slept_through(double until) {
    start();
    volatile uint64_t *read = shared(sizeof *read);
    memset(filler, 't', sizeof filler);
    pid_t pid = spawn();
    if (!pid) {
        on_step = yield_at_steps;
        start_random(3);
        for (uint64_t expected = 0;;) {
            sx_message_t task;
            if (sx_ring_peek(&worker, &channel->tasks, &task) == 0) {
                sx_heap_answer_trim(&worker);
                int code = sx_channel_wait(&worker, channel, NULL, sx_channel_bell(&worker, channel), -1);
                CHECK(code == 0 || code == -EINTR, "%d", code);
                continue;
            }
            CHECK(task.call == expected && task.second_bytes == expected % 3000);
            for (uint64_t i = 0; i < task.second_bytes; i++)
                CHECK(task.second[i] == 't');
            CHECK(sx_task_start(&task) == 1);
            sx_ring_pop(&channel->tasks, &task);
            expected++;
            __atomic_store_n(read, expected, __ATOMIC_RELEASE);
            if (expected == UINT64_MAX)
                break;
        }
    }
    on_step = yield_at_steps;
    for (uint64_t call = 0; now() < until || call < 1000; call++) {
        if (rnd(4))
            WAIT_UNTIL(__atomic_load_n(read, __ATOMIC_ACQUIRE) == call);
        else
            WAIT_UNTIL(__atomic_load_n(read, __ATOMIC_ACQUIRE) + 8 > call);
        send_task(call, (uint32_t)(call % 3000));
    }
    on_step = NULL;
    kill_and_wait(pid);
    end();
}

static void a_wait_ends_when_its_time_is_over_or_the_bell_was_rung(void) {
    start();
    sx_heap_answer_trim(&worker);
    uint32_t seen = sx_channel_bell(&worker, channel);
    CHECK(sx_channel_wait(&worker, channel, NULL, seen, 1000) == -ETIMEDOUT && bell_slot()->waiting == 0);
    send_task(0, 1);
    CHECK(sx_channel_wait(&worker, channel, NULL, seen, -1) == 0, "a task is there");
    sx_message_t task;
    CHECK(sx_ring_peek(&worker, &channel->tasks, &task) == 1);
    sx_ring_pop(&channel->tasks, &task);
    sx_channel_ring_worker(&parent, channel, 1);
    CHECK(sx_channel_wait(&worker, channel, NULL, seen, -1) == 0, "the bell was rung since it was read");
    end();
}

/* A trim between the worker's look and its sleep. */
static void parent_trims_in_between(void) {
    on_step = NULL;
    sx_heap_trim(&parent);
}

static void no_request_to_trim_is_slept_through(void) {
    start();
    uint32_t seen = sx_channel_bell(&worker, channel);
    sx_heap_answer_trim(&worker); /* as the worker's loop does it: look, then sleep */
    on_step = parent_trims_in_between;
    CHECK(sx_channel_wait(&worker, channel, NULL, seen, 1000000000) == 0, "it slept over a request");
    sx_heap_answer_trim(&worker);
    seen = sx_channel_bell(&worker, channel);
    CHECK(sx_channel_wait(&worker, channel, NULL, seen, 1000) == -ETIMEDOUT, "the request is answered");
    end();
}

int main(int argc, char **argv) {
    begin(argc, argv);
    create(&parent, EXTENTS);
    channel = shared(sizeof *channel);
    alloc(&parent, 100); /* one that stays */
    a_returned_argument_stays_and_goes_with_its_last_holder();
    a_block_twice_in_a_message_is_held_twice_and_given_back();
    two_unread_answers_may_name_one_block();
    a_full_ring_leaves_nothing_posted();
    a_name_that_is_stale_leaves_nothing_posted();
    a_long_message_rings_the_worker_if_it_is_lazy();
    the_log_does_not_grow_while_one_answer_is_always_unread();
    a_consume_that_fails_holds_nothing();
    answers_of_a_dead_worker_are_read_and_the_rest_is_reaped(100);
    answers_of_a_dead_worker_are_read_and_the_rest_is_reaped(20000);
    a_garbage_length_is_a_bad_message();
    a_task_is_begun_or_taken_back_but_not_both();
    a_task_that_is_too_long_lies_in_a_block_of_its_own();
    a_long_task_that_was_taken_back_is_skipped_whatever_lies_in_its_block();
    a_wait_ends_when_its_time_is_over_or_the_bell_was_rung();
    no_request_to_trim_is_slept_through();
    no_task_is_slept_through(began + seconds * 0.6);
    do
        the_head_is_whole_whatever_the_bytes_say();
    while (time_left());
    return 0;
}
