/* kill_points.c - a script of everything that the heap does, killed at every step; then what is left is reaped and checked.
 *
 * The script runs in one process that has two members of the heap, A and B (a worker and its parent, an owner and a stranger),
 * starts a third, C, and reaps it. All die together. In the second half a reaper is killed at every step over what the script
 * left, and then both are reaped. The numbers of steps are not the same in every run: n grows until the script comes to its end.
 */
#include "harness.h"

enum { EXTENTS = 24 };

static sx_heap_t heap;
static sx_name_t channel_block;
static sx_channel_t *channel;
static sx_name_t kept, kept_huge; /* of the parent: must survive everything */

#define HALF_EXTENT (SX_EXTENT_BYTES / 2)

static int publish(sx_heap_t *a, sx_outbox_t *outbox, sx_name_t name, uint64_t payload) {
    static char bytes[SX_RING_BYTES];
    sx_posted_name_t names[1] = {{name.birth, name.block, 0}};
    sx_message_t message = {.kind = 1, .call = 7, .name_count = 1, .second_bytes = payload, .second = bytes};
    return sx_outbox_publish(a, outbox, &channel->answers, &message, names);
}

static void consume(sx_heap_t *b) {
    sx_message_t message;
    CHECK(sx_ring_peek(b, &channel->answers, &message) == 1);
    sx_posted_name_t name = message.names[0];
    uint32_t spill = message.flags & SX_SPILLED ? message.spill.block : 0;
    CHECK(sx_outbox_consume(b, channel, &message) == 0);
    sx_heap_release(b, name.block);
    if (spill)
        sx_heap_release(b, spill);
}

static void fork_one(sx_heap_t *a, sx_name_t mine) {
    sx_fork_before(a);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (!pid) {
        int code = sx_fork_after_in_child(a);
        if (!code) {
            sx_heap_release(a, mine.block);
            sx_name_t other = alloc(a, 3000);
            sx_heap_release(a, other.block);
        }
        _exit(0);
    }
    sx_fork_after_in_parent(a);
    expect_killed_or_clean(pid);
    sx_fork_poll(a);
}

static void script(uint32_t slot_a, uint32_t slot_b) {
    sx_heap_t a, b, c;
    sx_outbox_t outbox = {0};
    uint32_t entry, seq;
    join(&a, &heap, slot_a);
    join(&b, &heap, slot_b);

    /* alloc, hold, release, free by one who is not the owner, take back */
    sx_name_t x = alloc(&a, 1000), y = alloc(&a, 5 << 20), z = alloc(&a, HALF_EXTENT + 1), w = alloc(&a, 40000);
    CHECK(sx_heap_hold(&b, x) == 0 && sx_heap_hold(&b, y) == 0 && sx_heap_hold(&b, z) == 0 && sx_heap_hold(&b, kept) == 0);
    sx_heap_release(&a, x.block);
    sx_heap_release(&a, y.block);
    sx_heap_release(&b, x.block);
    sx_heap_release(&b, y.block);
    sx_heap_release(&a, z.block);
    sx_heap_release(&b, z.block);
    CHECK(sx_heap_hold(&b, x) == -ESTALE);
    sx_heap_trim(&b);
    y = alloc(&a, 2 << 20);

    /* tickets */
    CHECK(sx_ticket_issue(&a, y.block, &entry, &seq) == 0);
    sx_heap_release(&a, y.block);
    CHECK(sx_heap_hold(&b, y) == 0 && sx_ticket_claim(&b, y.block, entry, seq) == 1);
    sx_heap_release(&b, y.block);
    y = alloc(&b, 700);
    CHECK(sx_ticket_issue(&b, y.block, &entry, &seq) == 0);
    sx_heap_release(&b, y.block); /* never read */

    /* answers: plain, lazy, spilled */
    CHECK(publish(&a, &outbox, w, 100) == 0 && publish(&a, &outbox, w, 50) == 0 && publish(&a, &outbox, w, 20000) == 0);
    sx_heap_release(&a, w.block);
    consume(&b);
    consume(&b);
    sx_outbox_settle(&a, &outbox, &channel->answers);
    consume(&b);
    sx_outbox_settle(&a, &outbox, &channel->answers);
    CHECK(!is_there(&a, w));

    /* C comes, allocates, holds, and is reaped: adoption with a block that A holds */
    uint32_t slot_c = sx_slot_reserve(&b, 1);
    CHECK(slot_c);
    join(&c, &heap, slot_c);
    x = alloc(&c, 2000);
    y = alloc(&c, 9 << 20);
    z = alloc(&c, SX_EXTENT_BYTES + 5);
    w = alloc(&c, HALF_EXTENT + 9);
    CHECK(sx_heap_hold(&a, x) == 0 && sx_heap_hold(&a, z) == 0 && sx_heap_post(&c, y) == 0);
    CHECK(sx_slot_reap(&b, slot_c) == 1);
    CHECK(is_there(&a, x) && is_there(&a, z) && !is_there(&a, y) && !is_there(&a, w));
    w = alloc(&b, 100);
    sx_heap_release(&a, z.block);

    /* forks: one that fails, one that does not */
    sx_fork_before(&a);
    sx_heap_release(&a, x.block);
    sx_fork_after_in_parent(&a);
    sx_fork_poll(&a);
    y = alloc(&a, 100);
    fork_one(&a, y);
    sx_heap_trim(&a);
    sx_heap_release(&a, y.block);
    sx_heap_release(&b, w.block);
    sx_heap_release(&b, kept.block);
}

static void reap_all(uint32_t keep_free) {
    WAIT_UNTIL((sx_fork_poll(&heap), sx_slot_reap_dead(&heap), free_slots(&heap) == keep_free));
    while (waitpid(-1, NULL, WNOHANG) > 0) /* grandchildren */
        ;
}

static void check_what_is_left(uint32_t keep_free, uint64_t at) {
    kill_at = 0;
    on_step = NULL;
    const char *wrong = sx_heap_check(&heap, 1);
    CHECK(!wrong, "killed at step %llu: %s", (unsigned long long)at, wrong);
    sx_ticket_drop_all(&heap);
    CHECK(living(&heap) == 3, "killed at step %llu: %llu live blocks", (unsigned long long)at, (unsigned long long)living(&heap));
    CHECK(free_slots(&heap) == keep_free && members(&heap) == 1);
    expect_quiet(&heap, 3);
    CHECK(is_there(&heap, kept) && is_painted(sx_heap_start(&heap, kept.block), 3000, pattern_of(kept)));
    CHECK(is_there(&heap, kept_huge));
    for (uint32_t e = 0; e < EXTENTS; e++) {
        uint64_t word = sx_load_acquire(&heap.owners[e]);
        CHECK(!word || SX_EXTENT_KIND(word) == SX_EXTENT_TAIL || sx_extent_is_mine(&heap, e), "killed at step %llu: extent %u is %llx",
              (unsigned long long)at, e, (unsigned long long)word);
    }
}

/* 1: the script was killed; 0: it came to its end. */
static int run_script(uint64_t at, int guarded, uint32_t *slot_a, uint32_t *slot_b) {
    *slot_a = sx_slot_reserve(&heap, guarded);
    *slot_b = sx_slot_reserve(&heap, guarded);
    memset(channel, 0, sizeof *channel);
    channel->worker_slot = *slot_a;
    pid_t pid = spawn();
    if (!pid) {
        kill_at = at;
        on_step = kill_at_step;
        script(*slot_a, *slot_b);
        _exit(0);
    }
    int status = status_of(pid);
    CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0, "killed at %llu: status %x",
          (unsigned long long)at, status);
    return WIFSIGNALED(status);
}

static uint64_t the_script_killed_at_each_step(uint32_t keep_free, uint64_t from, uint64_t stride) {
    for (uint64_t at = from;; at += stride) {
        uint32_t slot_a, slot_b;
        int killed = run_script(at, 1, &slot_a, &slot_b);
        CHECK(sx_slot_reap(&heap, slot_a) == 1 && sx_slot_reap(&heap, slot_b) == 1);
        reap_all(keep_free);
        check_what_is_left(keep_free, at);
        if (at % 37 == 0)
            expect_usable(&heap);
        if (!killed)
            return at;
    }
}

/* The reaper of what the script left when it was killed at step m is killed at step n. */
static uint64_t the_reaper_killed_at_each_step(uint32_t keep_free, uint64_t script_steps, uint64_t stride) {
    uint64_t at = 1 + seed % stride, runs = 0;
    for (;; at += stride, runs++) {
        uint32_t slot_a, slot_b;
        uint64_t script_at = script_steps / 4 + rnd((uint32_t)(script_steps * 3 / 4) + 1);
        run_script(script_at, 0, &slot_a, &slot_b);
        uint32_t slot_r = sx_slot_reserve(&heap, 1);
        pid_t pid = spawn();
        if (!pid) {
            sx_heap_t r;
            kill_at = at;
            on_step = kill_at_step;
            join(&r, &heap, slot_r);
            sx_name_t own = alloc(&r, 5000);
            while (sx_slot_reap_dead(&r))
                ;
            sx_heap_trim(&r);
            alloc(&r, 70000);
            sx_heap_release(&r, own.block);
            _exit(0);
        }
        int status = status_of(pid);
        CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0, "status %x", status);
        int has_come = SX_SLOT_STATE(sx_load_acquire(&heap.slots[slot_r].word)) != SX_SLOT_RESERVED;
        if (!has_come || rnd(2)) /* of one that has not come only who keeps its slot can know that it is dead */
            CHECK(sx_slot_reap(&heap, slot_r) == 1);
        else { /* the slots that it was reaping first */
            sx_slot_unguard(&heap, slot_r);
            sx_slot_reap(&heap, slot_b);
            sx_slot_reap(&heap, slot_a);
        }
        reap_all(keep_free);
        check_what_is_left(keep_free, at);
        if (!WIFSIGNALED(status))
            at = rnd((uint32_t)stride + 1);
        if (!time_left())
            return runs;
    }
}

int main(int argc, char **argv) {
    begin(argc, argv);
    create(&heap, EXTENTS);
    channel_block = alloc(&heap, sizeof *channel);
    channel = (sx_channel_t *)sx_heap_start(&heap, channel_block.block);
    kept = alloc(&heap, 3000);
    kept_huge = alloc(&heap, HALF_EXTENT + 100);
    paint(sx_heap_start(&heap, kept.block), 3000, pattern_of(kept));
    uint32_t keep_free = free_slots(&heap), slot_a, slot_b;

    /* how many steps are there, and how long does a run take? */
    uint64_t low = 1, high = 2, runs = 0;
    double since = now();
    for (int found = 0; !found || high - low > 16; runs++) {
        uint64_t middle = found ? (low + high) / 2 : high;
        int killed = run_script(middle, 1, &slot_a, &slot_b);
        CHECK(sx_slot_reap(&heap, slot_a) == 1 && sx_slot_reap(&heap, slot_b) == 1);
        reap_all(keep_free);
        check_what_is_left(keep_free, middle);
        found |= !killed;
        if (killed)
            low = middle;
        if (!killed || !found)
            high = found ? middle : high * 2;
    }
    double a_run = (now() - since) / (double)runs, left = seconds - (now() - began);
    left = left < seconds / 4 ? seconds / 4 : left; /* on a slow machine the search has taken it all */
    /* in a short run every k-th step, beginning with another one for each seed */
    uint64_t stride = (uint64_t)((double)high * a_run / (left / 2)) + 1;
    uint64_t ended_at = the_script_killed_at_each_step(keep_free, 1 + seed % stride, stride);
    uint64_t reapers = the_reaper_killed_at_each_step(keep_free, high, stride);
    expect_usable(&heap);
    printf("the script killed at each %llu of its %llu steps, the reaper %llu times\n", (unsigned long long)stride,
           (unsigned long long)ended_at, (unsigned long long)reapers);
    return 0;
}
