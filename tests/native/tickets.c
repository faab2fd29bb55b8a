/* tickets.c - names for receivers that are not known: read once, twice or never; the sender dead; the entry used again. */
#include "harness.h"

static sx_heap_t sender, reader;
static uint32_t entry, seq;

static sx_name_t send(uint64_t bytes) {
    sx_name_t name = alloc(&sender, bytes);
    paint(sx_heap_start(&sender, name.block), bytes, pattern_of(name));
    CHECK(sx_ticket_issue(&sender, name.block, &entry, &seq) == 0);
    return name;
}

static void an_unread_ticket_keeps_its_block_until_it_is_read(void) {
    sx_name_t x = send(3000);
    sx_heap_release(&sender, x.block);
    sx_heap_sweep(&reader);
    sx_heap_sweep(&sender);
    CHECK(is_there(&sender, x));
    CHECK(sx_heap_hold(&reader, x) == 0 && is_painted(sx_heap_start(&reader, x.block), 3000, pattern_of(x)));
    CHECK(sx_ticket_claim(&reader, x.block, entry, seq) == 1);
    sx_heap_release(&reader, x.block);
    CHECK(!is_there(&sender, x));
}

static void a_second_reading_holds_while_somebody_does_and_is_stale_after(void) {
    sx_name_t x = send(3000);
    sx_heap_release(&sender, x.block);
    CHECK(sx_heap_hold(&reader, x) == 0 && sx_ticket_claim(&reader, x.block, entry, seq) == 1);
    CHECK(sx_heap_hold(&sender, x) == 0 && sx_ticket_claim(&sender, x.block, entry, seq) == 0, "the second reading claims nothing");
    sx_heap_release(&reader, x.block);
    CHECK(is_there(&sender, x));
    sx_heap_release(&sender, x.block);
    CHECK(!is_there(&sender, x) && sx_heap_hold(&reader, x) == -ESTALE);
}

static void two_pickles_of_one_block_need_two_readings(void) {
    sx_name_t x = send(3000);
    uint32_t first_entry = entry, first_seq = seq;
    CHECK(sx_ticket_issue(&sender, x.block, &entry, &seq) == 0 && entry != first_entry);
    sx_heap_release(&sender, x.block);
    CHECK(sx_heap_hold(&reader, x) == 0 && sx_ticket_claim(&reader, x.block, first_entry, first_seq) == 1);
    CHECK(sx_ticket_claim(&reader, x.block, first_entry, first_seq) == 0, "the same pickle again does not use up the other");
    sx_heap_release(&reader, x.block);
    CHECK(is_there(&sender, x));
    CHECK(sx_heap_hold(&reader, x) == 0 && sx_ticket_claim(&reader, x.block, entry, seq) == 1);
    sx_heap_release(&reader, x.block);
    CHECK(!is_there(&sender, x));
}

static void an_entry_that_is_used_again_is_not_claimed_by_an_old_pickle(void) {
    sx_name_t x = send(3000), y;
    uint32_t old_entry = entry, old_seq = seq;
    CHECK(sx_ticket_claim(&sender, x.block, entry, seq) == 1);
    y = send(2000);
    CHECK(entry == old_entry && seq != old_seq);
    sx_heap_release(&sender, y.block);
    CHECK(sx_ticket_claim(&reader, x.block, old_entry, old_seq) == 0 && sx_ticket_claim(&reader, y.block, old_entry, old_seq) == 0);
    CHECK(is_there(&sender, y));
    CHECK(sx_heap_hold(&reader, y) == 0 && sx_ticket_claim(&reader, y.block, entry, seq) == 1);
    sx_heap_release(&reader, y.block);
    sx_heap_release(&sender, x.block);
    CHECK(!is_there(&sender, x) && !is_there(&sender, y));
    CHECK(sx_ticket_claim(&reader, 0, SX_TICKETS, 1) == 0 && sx_ticket_claim(&reader, 0, UINT32_MAX, 1) == 0);
}

/* The block of a claimed ticket is freed and used again: the new one is not kept by the old ticket. */
static void a_block_is_freed_though_its_predecessor_had_tickets(void) {
    sx_name_t x = send(3000);
    CHECK(sx_ticket_claim(&sender, x.block, entry, seq) == 1);
    sx_heap_release(&sender, x.block);
    sx_name_t y = alloc(&sender, 3000);
    CHECK(y.block == x.block && !(sx_load_acquire(&block_of(&sender, y)->state) & SX_TICKETED));
    sx_heap_release(&sender, y.block);
    CHECK(!is_there(&sender, y));
}

static void a_dead_senders_ticket_can_be_read(void) {
    sx_name_t *names = shared(sizeof *names);
    uint32_t *numbers = shared(2 * sizeof *numbers);
    uint32_t slot = sx_slot_reserve(&sender, 1);
    pid_t pid = spawn();
    if (!pid) {
        sx_heap_t mine;
        join(&mine, &sender, slot);
        *names = alloc(&mine, 3000);
        paint(sx_heap_start(&mine, names->block), 3000, pattern_of(*names));
        CHECK(sx_ticket_issue(&mine, names->block, &numbers[0], &numbers[1]) == 0);
        raise(SIGKILL);
    }
    expect_killed_or_clean(pid);
    CHECK(sx_slot_reap(&sender, slot) == 1);
    CHECK(is_there(&sender, *names), "adopted");
    CHECK(sx_heap_hold(&reader, *names) == 0 && sx_ticket_claim(&reader, names->block, numbers[0], numbers[1]) == 1);
    CHECK(is_painted(sx_heap_start(&reader, names->block), 3000, pattern_of(*names)));
    sx_heap_release(&reader, names->block);
    CHECK(!is_there(&sender, *names));
}

/* A member that is killed at each step of issuing, or of reading, a ticket of a block that nobody else holds. */
static uint64_t killed_at_step(uint64_t at, sx_name_t *name, int reads) {
    uint32_t slot = sx_slot_reserve(&sender, 1);
    if (reads) {
        *name = send(3000);
        sx_heap_release(&sender, name->block);
    }
    pid_t pid = spawn();
    if (!pid) {
        sx_heap_t mine;
        join(&mine, &sender, slot);
        if (!reads)
            *name = alloc(&mine, 3000);
        kill_at = at;
        on_step = kill_at_step;
        if (reads)
            CHECK(sx_heap_hold(&mine, *name) == 0 && sx_ticket_claim(&mine, name->block, entry, seq) == 1);
        else
            CHECK(sx_ticket_issue(&mine, name->block, &entry, &seq) == 0);
        sx_heap_release(&mine, name->block);
        _exit(0);
    }
    int status = status_of(pid);
    CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
    CHECK(sx_slot_reap(&sender, slot) == 1);
    return WIFSIGNALED(status) ? at + 1 : 0;
}

static void whoever_is_killed_over_a_ticket_leaves_an_unread_pickle_or_nothing(void) {
    sx_name_t *name = shared(sizeof *name), next;
    for (int reads = 0; reads < 2; reads++)
        for (uint64_t at = 1; at;) {
            at = killed_at_step(at, name, reads);
            const char *wrong = sx_heap_check(&sender, 1);
            CHECK(!wrong, "killed at step %llu: %s", (unsigned long long)at, wrong);
            CHECK(is_there(&sender, *name) == (sx_ticket_count(&sender) == 1) && living(&sender) <= 1);
            sx_ticket_drop_all(&reader);
            CHECK(living(&sender) == 0 && sx_ticket_count(&sender) == 0);
            next = send(3000); /* the next life is no longer than it should be */
            CHECK(sx_ticket_claim(&reader, next.block, entry, seq) == 1);
            sx_heap_release(&sender, next.block);
            CHECK(living(&sender) == 0);
        }
}

static void what_nobody_reads_is_freed_by_drop_all(void) {
    sx_name_t names[10];
    for (int i = 0; i < 10; i++) {
        names[i] = send(100);
        if (i % 2)
            sx_heap_release(&sender, names[i].block);
    }
    sx_ticket_drop_all(&reader);
    for (int i = 0; i < 10; i++) {
        CHECK(is_there(&sender, names[i]) == (i % 2 == 0));
        if (i % 2)
            CHECK(sx_heap_hold(&reader, names[i]) == -ESTALE);
        else
            sx_heap_release(&sender, names[i].block);
    }
    CHECK(living(&sender) == 0);
}

static void a_full_table_says_so_and_recovers(void) {
    sx_name_t x = alloc(&sender, 100);
    for (uint32_t t = 0; t < SX_TICKETS; t++)
        CHECK(sx_ticket_issue(&sender, x.block, &entry, &seq) == 0);
    CHECK(sx_ticket_issue(&sender, x.block, &entry, &seq) == -ENOSPC);
    sx_heap_release(&sender, x.block);
    CHECK(is_there(&sender, x));
    sx_ticket_drop_all(&sender);
    CHECK(!is_there(&sender, x));
    x = send(100);
    sx_ticket_drop_all(&sender);
    sx_heap_release(&sender, x.block);
    CHECK(!is_there(&sender, x));
}

static void the_sequence_wraps(void) {
    sx_store_release(&sender.tickets[0], SX_TICKET_WORD(0x7fffffff, 5) & ~SX_TICKET_OPEN);
    sx_name_t x = send(100);
    CHECK(entry == 0 && seq == 0, "%u", seq);
    sx_heap_release(&sender, x.block);
    CHECK(sx_heap_hold(&reader, x) == 0 && sx_ticket_claim(&reader, x.block, entry, seq) == 1);
    sx_heap_release(&reader, x.block);
    CHECK(!is_there(&sender, x));
}

/* A chain of processes passes one block on by tickets alone, each dropping it before the next reads. */
static void a_ticket_passed_from_process_to_process_is_never_stale(void) {
    enum { HOPS = 3 };
    typedef struct {
        sx_name_t name;
        uint32_t entry, seq;
    } pickle_t;
    gate_t gates[HOPS + 1];
    pickle_t *pickle = shared(sizeof *pickle);
    pid_t pids[HOPS];
    for (int i = 0; i <= HOPS; i++)
        gates[i] = make_gate();
    for (int i = 0; i < HOPS; i++)
        if (!(pids[i] = spawn())) {
            sx_heap_t mine;
            join(&mine, &sender, 0);
            on_step = yield_at_steps;
            start_random((uint64_t)i + 9);
            for (;;) {
                pass_gate(gates[i]);
                pickle_t p = *pickle;
                CHECK(sx_heap_hold(&mine, p.name) == 0, "stale");
                CHECK(sx_ticket_claim(&mine, p.name.block, p.entry, p.seq) == 1);
                CHECK(is_painted(sx_heap_start(&mine, p.name.block), 3000, pattern_of(p.name)));
                if (rnd(2)) { /* the same block on, or a new one */
                    sx_heap_release(&mine, p.name.block);
                    p.name = alloc(&mine, 3000);
                    paint(sx_heap_start(&mine, p.name.block), 3000, pattern_of(p.name));
                }
                CHECK(sx_ticket_issue(&mine, p.name.block, &p.entry, &p.seq) == 0);
                sx_heap_release(&mine, p.name.block);
                *pickle = p;
                open_gate(gates[i + 1]);
                if (rnd(4) == 0)
                    sx_heap_sweep(&mine);
            }
        }
    do {
        pickle->name = send(3000);
        pickle->entry = entry, pickle->seq = seq;
        sx_heap_release(&sender, pickle->name.block);
        open_gate(gates[0]);
        sx_heap_sweep(&sender);
        pass_gate(gates[HOPS]);
        CHECK(sx_heap_hold(&sender, pickle->name) == 0, "stale");
        CHECK(sx_ticket_claim(&sender, pickle->name.block, pickle->entry, pickle->seq) == 1);
        sx_heap_release(&sender, pickle->name.block);
    } while (time_left());
    for (int i = 0; i < HOPS; i++)
        kill_and_wait(pids[i]);
    CHECK(sx_slot_reap_dead(&sender) == HOPS);
}

int main(int argc, char **argv) {
    begin(argc, argv);
    create(&sender, 16);
    join(&reader, &sender, 0);
    the_sequence_wraps();
    an_unread_ticket_keeps_its_block_until_it_is_read();
    a_second_reading_holds_while_somebody_does_and_is_stale_after();
    two_pickles_of_one_block_need_two_readings();
    an_entry_that_is_used_again_is_not_claimed_by_an_old_pickle();
    a_block_is_freed_though_its_predecessor_had_tickets();
    a_dead_senders_ticket_can_be_read();
    whoever_is_killed_over_a_ticket_leaves_an_unread_pickle_or_nothing();
    what_nobody_reads_is_freed_by_drop_all();
    a_full_table_says_so_and_recovers();
    a_ticket_passed_from_process_to_process_is_never_stale();
    expect_quiet(&sender, 0);
    expect_usable(&sender);
    return 0;
}
