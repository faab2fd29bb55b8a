/* schedules.c - two members of the heap, one interrupted by the other at every step: all orders with one preemption, by force.
 *
 * A schedule has a `first` and a `second` half; for k = 1, 2, ... the second runs in the middle of the first, at its k-th step. P, W
 * and V have their holder bits in three different words. After each run nothing may be left, in nobody's view.
 */
#include "harness.h"

enum { EXTENTS = 32 };
#define HALF_EXTENT (SX_EXTENT_BYTES / 2)

static sx_heap_t p, w, v;
static void (*second_half)(void);
static int second_done;
static uint64_t max_steps = 1000;

static void interrupt(void) {
    if (++steps != kill_at)
        return;
    on_step = NULL;
    second_half();
    second_done = 1;
    on_step = interrupt;
}

static void expect_nothing_left(uint64_t at) {
    sx_heap_t *all[3] = {&p, &w, &v};
    for (int i = 0; i < 3; i++)
        sx_heap_sweep(all[i]);
    for (int i = 0; i < 3; i++) { /* each takes back what the others have told it */
        sx_name_t name = alloc(all[i], 100);
        sx_heap_release(all[i], name.block);
    }
    for (int i = 0; i < 3; i++) {
        const char *wrong = sx_heap_check(all[i], 1);
        CHECK(!wrong, "interrupted at step %llu: %s", (unsigned long long)at, wrong);
        CHECK(living(all[i]) == 0, "interrupted at step %llu: %llu live blocks", (unsigned long long)at,
              (unsigned long long)living(all[i]));
        check_marks(all[i]);
    }
}

static void run(const char *title, void (*before)(void), void (*first)(void), void (*second)(void), void (*after)(void)) {
    uint64_t at = 0;
    do {
        at++;
        before();
        steps = 0;
        kill_at = at;
        second_done = 0;
        second_half = second;
        on_step = interrupt;
        first();
        on_step = NULL;
        if (!second_done)
            second();
        after();
        expect_nothing_left(at);
    } while (steps >= at && at < max_steps);
    printf("%s: %llu steps\n", title, (unsigned long long)at - 1);
}

static sx_name_t x, y;
static int p_holds, v_holds, code1, code2;

/* ---- F1: a scan of many words is no snapshot ------------------------------------------------------------------------------ */

/* W and V hold x. W drops; meanwhile P takes hold in a word that W has read already, and V drops in one that it has not. */
static void hold_by_two(void) {
    x = alloc(&w, 900);
    CHECK(sx_heap_hold(&v, x) == 0);
    paint(sx_heap_start(&w, x.block), 900, pattern_of(x));
}

static void w_drops(void) {
    sx_heap_release(&w, x.block);
}

static void p_holds_and_v_drops(void) {
    p_holds = sx_heap_hold(&p, x) == 0;
    CHECK(p_holds, "V holds it, so it is there");
    sx_heap_release(&v, x.block);
}

static void p_still_has_it(void) {
    CHECK(is_there(&p, x), "F1: freed under a holder");
    y = alloc(&w, 900);
    paint(sx_heap_start(&w, y.block), 900, pattern_of(y));
    CHECK(is_painted(sx_heap_start(&p, x.block), 900, pattern_of(x)), "F1: somebody else's data");
    sx_heap_release(&w, y.block);
    sx_heap_release(&p, x.block);
    CHECK(!is_there(&p, x));
}

/* ---- a name that may or may not be stale ----------------------------------------------------------------------------------- */

static void hold_by_one(void) {
    x = alloc(&w, 900);
    paint(sx_heap_start(&w, x.block), 900, pattern_of(x));
}

static void p_tries_to_hold(void) {
    p_holds = sx_heap_hold(&p, x) == 0;
}

static void p_has_it_or_not(void) {
    CHECK(is_there(&p, x) == p_holds && has_bit(&p, x, p.me->slot) == p_holds);
    if (p_holds) {
        CHECK(is_painted(sx_heap_start(&p, x.block), 900, pattern_of(x)));
        sx_heap_release(&p, x.block);
    }
}

static void x_is_gone_and_y_comes(void) {
    x = alloc(&w, 900);
    sx_heap_release(&w, x.block);
}

static void w_allocates_y(void) {
    y = alloc(&w, 900);
}

static void p_sweeps(void) {
    sx_heap_sweep(&p);
    CHECK(sx_heap_hold(&p, x) == -ESTALE);
}

static void y_is_there(void) {
    CHECK(is_there(&w, y) && !is_there(&w, x), "freed as it was born");
    sx_heap_release(&w, y.block);
}

/* ---- trim ------------------------------------------------------------------------------------------------------------------ */

static uint64_t trim_bytes;

static void w_has_dirty_pages_that_v_holds(void) {
    x = alloc(&w, trim_bytes);
    y = (sx_name_t){0, 0};
    memset(sx_heap_start(&w, x.block), 0xee, trim_bytes);
    CHECK(sx_heap_hold(&v, x) == 0);
    sx_heap_release(&w, x.block);
}

static void v_drops(void) {
    sx_heap_release(&v, x.block);
}

static void p_trims(void) {
    sx_heap_trim(&p);
}

static void w_allocates_zeroed(void) {
    char *start;
    CHECK(sx_heap_alloc(&w, trim_bytes, 1, &y, &start) == 0);
    for (uint64_t at = 0; at < trim_bytes; at += 512)
        CHECK(start[at] == 0, "not zero at %llu", (unsigned long long)at);
    memset(start, 0x77, trim_bytes);
}

static void v_drops_and_p_trims(void) {
    v_drops();
    p_trims();
}

static void v_drops_and_w_allocates_zeroed(void) {
    v_drops();
    w_allocates_zeroed();
}

static void y_is_intact(void) {
    if (!y.birth)
        w_allocates_zeroed();
    const char *start = sx_heap_start(&w, y.block);
    for (uint64_t at = 0; at < trim_bytes; at += 512)
        CHECK(start[at] == 0x77, "trimmed away at %llu", (unsigned long long)at);
    sx_heap_release(&w, y.block);
}

static void v_has_dropped_dirty_pages(void) {
    w_has_dirty_pages_that_v_holds();
    v_drops();
}

/* ---- extents --------------------------------------------------------------------------------------------------------------- */

static sx_name_t w_has[3], v_has[3];

static void nothing(void) {
}

static void take_extents(sx_heap_t *heap, sx_name_t *has) {
    has[0] = alloc(heap, 3 * SX_EXTENT_BYTES);
    has[1] = alloc(heap, HALF_EXTENT);
    has[2] = alloc(heap, HALF_EXTENT + 1);
}

static void w_takes_extents(void) {
    take_extents(&w, w_has);
}

static void v_takes_extents(void) {
    take_extents(&v, v_has);
}

static void no_extent_has_two_owners(void) {
    for (int i = 0; i < 3; i++) {
        paint(sx_heap_start(&w, w_has[i].block), 100000, pattern_of(w_has[i]));
        paint(sx_heap_start(&v, v_has[i].block), 100000, pattern_of(v_has[i]));
    }
    for (int i = 0; i < 3; i++) {
        CHECK(is_painted(sx_heap_start(&w, w_has[i].block), 100000, pattern_of(w_has[i])));
        CHECK(is_painted(sx_heap_start(&v, v_has[i].block), 100000, pattern_of(v_has[i])));
        sx_heap_release(&w, w_has[i].block);
        sx_heap_release(&v, v_has[i].block);
    }
}

/* ---- reaping: D is a process that is dead ---------------------------------------------------------------------------------- */

static uint32_t d_slot;
static sx_name_t of_d[4];
static struct {
    sx_name_t names[4];
} *from_d;

static void a_process_has_died(void) {
    if (!from_d)
        from_d = shared(sizeof *from_d);
    x = alloc(&v, 4000);
    d_slot = sx_slot_reserve(&p, 0);
    CHECK(d_slot);
    pid_t pid = spawn();
    if (!pid) {
        sx_heap_t d;
        join(&d, &p, d_slot);
        for (int i = 0; i < 4; i++) {
            from_d->names[i] = alloc(&d, (uint64_t[]){100, 5 << 20, SX_EXTENT_BYTES + 1, 7000}[i]);
            paint(sx_heap_start(&d, from_d->names[i].block), 100, pattern_of(from_d->names[i]));
        }
        CHECK(sx_heap_hold(&d, x) == 0);
        sx_heap_release(&d, from_d->names[3].block);
        _exit(0);
    }
    /* what D has made is held by others before it is reaped */
    expect_clean_exit(pid);
    memcpy(of_d, from_d->names, sizeof of_d);
    for (int i = 0; i < 3; i++)
        CHECK(sx_heap_hold(&v, of_d[i]) == 0);
    code1 = code2 = 0;
}

static void p_reaps(void) {
    code1 = sx_slot_reap(&p, d_slot);
}

static void v_drops_all(void) {
    for (int i = 0; i < 3; i++) {
        CHECK(is_there(&v, of_d[i]) && is_painted(sx_heap_start(&v, of_d[i].block), 100, pattern_of(of_d[i])));
        sx_heap_release(&v, of_d[i].block);
    }
    sx_heap_release(&v, x.block);
}

static void v_drops_all_and_allocates(void) {
    v_drops_all();
    sx_name_t name = alloc(&v, SX_EXTENT_BYTES + 1);
    sx_heap_release(&v, name.block);
}

static void d_is_reaped_once(void) {
    CHECK(code1 == 1 && code2 == 0);
    CHECK(SX_SLOT_STATE(sx_load_acquire(&p.slots[d_slot].word)) == SX_SLOT_FREE);
    CHECK(!is_there(&v, of_d[0]) && !is_there(&v, of_d[1]) && !is_there(&v, of_d[2]) && !is_there(&v, x));
}

static void v_reaps(void) {
    code2 = sx_slot_reap(&v, d_slot);
}

static void d_is_reaped_by_one(void) {
    CHECK(code1 + code2 == 1, "reaped by P: %d, by V: %d", code1, code2);
    code1 = 1, code2 = 0;
    v_drops_all();
    d_is_reaped_once();
}

/* Another thread of P. Where P holds its mutex that one would wait. */
static void p_reaps_again(void) {
    if (pthread_mutex_trylock(&p.mutex))
        return;
    pthread_mutex_unlock(&p.mutex);
    code2 = sx_slot_reap(&p, d_slot);
}

static void v_trims(void) {
    sx_heap_trim(&v);
}

static void d_is_reaped_with_others(void) {
    v_drops_all();
    d_is_reaped_once();
}

/* ---- tickets --------------------------------------------------------------------------------------------------------------- */

static uint32_t entry, seq;

static void a_ticket_is_out(void) {
    x = alloc(&w, 900);
    CHECK(sx_ticket_issue(&w, x.block, &entry, &seq) == 0);
}

static void p_reads_the_ticket(void) {
    CHECK(sx_heap_hold(&p, x) == 0, "a ticket that nobody has read is stale");
    CHECK(sx_ticket_claim(&p, x.block, entry, seq) == 1);
}

static void w_has_sent_and_dropped(void) {
    a_ticket_is_out();
    w_drops();
}

static void v_sweeps(void) {
    sx_heap_sweep(&v);
}

static void p_has_read_it(void) {
    CHECK(is_there(&p, x));
    sx_heap_release(&p, x.block);
    CHECK(!is_there(&p, x));
}

static void w_sends_and_drops(void) {
    CHECK(sx_ticket_issue(&w, x.block, &entry, &seq) == 0);
    w_drops();
}

static void p_holds_and_drops(void) { /* its scan may see neither the holder nor the ticket, if they are looked at in the wrong order */
    if (sx_heap_hold(&p, x) == 0)
        sx_heap_release(&p, x.block);
}

static void p_reads_it_at_last(void) {
    p_reads_the_ticket();
    p_has_read_it();
}

static void drop_all_is_called(void) {
    sx_ticket_drop_all(&v);
}

static void p_reads_if_it_is_there(void) {
    p_holds = sx_heap_hold(&p, x) == 0;
    if (p_holds)
        sx_ticket_claim(&p, x.block, entry, seq);
}

static void p_drops_if_it_holds(void) {
    if (p_holds) {
        CHECK(is_there(&p, x));
        sx_heap_release(&p, x.block);
    }
    CHECK(!is_there(&p, x));
}

/* ---- answers --------------------------------------------------------------------------------------------------------------- */

static sx_channel_t *channel;
static sx_outbox_t outbox;
static int consumed, published, payload;

static int w_answers_with_x(void) {
    static char bytes[SX_RING_BYTES];
    sx_posted_name_t names[1] = {{x.birth, x.block, 0}};
    sx_message_t message = {.kind = 1, .name_count = 1, .second_bytes = (uint64_t)payload, .second = bytes};
    int code = sx_outbox_publish(&w, &outbox, &channel->answers, &message, names);
    CHECK(code == 0, "publish %d", code);
    published++;
    return code;
}

/* P reads one answer, if there is one, looks at the data and drops them. */
static void p_reads_an_answer(void) {
    sx_message_t message;
    int code = sx_ring_peek(&p, &channel->answers, &message);
    CHECK(code >= 0);
    if (!code)
        return;
    sx_posted_name_t name = message.names[0];
    code = sx_outbox_consume(&p, channel, &message);
    CHECK(code == 0, "a name in flight is stale");
    CHECK(name.block == x.block && is_there(&p, x) && is_painted(sx_heap_start(&p, x.block), 900, pattern_of(x)));
    sx_heap_release(&p, x.block);
    if (message.flags & SX_SPILLED)
        sx_heap_release(&p, message.spill.block);
    consumed++;
}

static void all_answers_are_read(void) {
    while (consumed < published)
        p_reads_an_answer();
    sx_outbox_settle(&w, &outbox, &channel->answers);
    CHECK(outbox.standing.used == 0 && outbox.begin == outbox.end);
}

static void w_has_x(void) {
    hold_by_one();
    consumed = published = 0;
}

static void w_answers_once(void) {
    w_answers_with_x();
    w_drops();
}

static void w_answers_twice(void) {
    w_answers_with_x();
    w_answers_with_x();
    w_drops();
}

static void w_has_answered(void) {
    w_has_x();
    w_answers_with_x();
}

static void w_answers_again_and_drops(void) {
    w_answers_with_x();
    w_drops();
}

static void p_reads_two_answers(void) {
    p_reads_an_answer();
    p_reads_an_answer();
}

static void everything_is_read(void) {
    all_answers_are_read();
    CHECK(!is_there(&p, x));
}

/* F2: P has the argument x; W answers with x, which it has cached; P drops its own x meanwhile. */
static void p_has_the_cached_result(void) {
    w_has_answered();
    p_reads_an_answer();
    CHECK(sx_heap_hold(&p, x) == 0);
}

static void p_drops_x(void) {
    sx_heap_release(&p, x.block);
}

/* ---- forks ----------------------------------------------------------------------------------------------------------------- */

static void p_holds_x_of_w(void) {
    hold_by_one();
    CHECK(sx_heap_hold(&p, x) == 0);
}

static void p_fails_to_fork(void) {
    sx_fork_before(&p);
    sx_heap_release(&p, x.block);
    sx_fork_after_in_parent(&p);
    sx_fork_poll(&p);
}

static void w_drops_and_sweeps(void) {
    w_drops();
    sx_heap_sweep(&w);
}

/* ---- two dead reapers, handmade --------------------------------------------------------------------------------------------- */

static uint32_t torn;

/* D died over a claim of two extents; so did R1, who was reaping D and had adopted the head. While V reaps R1, the reaper of D
 * gives the tail back, and somebody takes it. */
static int newcomer_took;

static void a_newcomer_takes_the_tail(void) {
    uint64_t tail = sx_load_acquire(&v.owners[torn + 1]);
    if (SX_EXTENT_KIND(tail) == SX_EXTENT_TAIL) {
        sx_store_release(&v.owners[torn + 1], sx_extent_word(&p, 0, SX_EXTENT_ARENA));
        newcomer_took = 1;
    }
}

static void the_tail_of_a_torn_claim_is_given_up_once(void) {
    for (uint64_t at = 1; at == 1 || steps >= at - 1; at++) {
        torn = EXTENTS - 3;
        uint32_t r1 = sx_slot_reserve(&v, 1);
        uint32_t incarnation = SX_SLOT_INCARNATION(sx_load_acquire(&v.slots[r1].word));
        sx_store_release(&v.header->extent_high, EXTENTS);
        sx_store_release(&v.owners[torn], SX_EXTENT_WORD(incarnation, r1, torn, SX_EXTENT_HUGE));
        sx_store_release(&v.owners[torn + 1], SX_EXTENT_WORD(77, 400, torn, SX_EXTENT_TAIL));
        sx_store_release(&v.extents[torn].span, 2);
        newcomer_took = 0;
        steps = 0, kill_at = at;
        second_half = a_newcomer_takes_the_tail;
        on_step = interrupt;
        CHECK(sx_slot_reap(&v, r1) == 1);
        on_step = NULL;
        uint64_t tail = sx_load_acquire(&v.owners[torn + 1]);
        CHECK(sx_load_acquire(&v.owners[torn]) == 0);
        CHECK(SX_EXTENT_KIND(tail) == (newcomer_took ? SX_EXTENT_ARENA : SX_EXTENT_FREE), "the newcomer has lost its extent");
        sx_store_release(&v.owners[torn + 1], 0);
    }
}

int main(int argc, char **argv) {
    begin(argc, argv);
    create(&p, EXTENTS);
    keep_slots(&p, 70);
    join(&w, &p, sx_slot_reserve(&p, 1));
    keep_slots(&p, 134);
    join(&v, &p, sx_slot_reserve(&p, 1));
    CHECK(p.me->slot / 64 == 0 && w.me->slot / 64 == 1 && v.me->slot / 64 == 2);
    sx_name_t channel_name = alloc(&p, sizeof *channel);
    channel = calloc(1, sizeof *channel); /* one process: it may lie anywhere */
    sx_heap_release(&p, channel_name.block);
    channel->worker_slot = w.me->slot;

    run("F1 release against hold", hold_by_two, w_drops, p_holds_and_v_drops, p_still_has_it);
    run("release against a hold that may fail", hold_by_one, w_drops, p_tries_to_hold, p_has_it_or_not);
    run("alloc against sweep and a stale hold", x_is_gone_and_y_comes, w_allocates_y, p_sweeps, y_is_there);
    static const uint64_t sizes[] = {3 << 20, 2 * SX_PAGE_BYTES, HALF_EXTENT + 1, 2 * SX_EXTENT_BYTES};
    for (int i = 0; i < 4; i++) {
        trim_bytes = sizes[i];
        run("free by a stranger against trim", w_has_dirty_pages_that_v_holds, v_drops, p_trims, y_is_intact);
        run("trim against free and alloc", w_has_dirty_pages_that_v_holds, p_trims, v_drops_and_w_allocates_zeroed, y_is_intact);
        run("alloc against trim", v_has_dropped_dirty_pages, w_allocates_zeroed, p_trims, y_is_intact);
        run("trim against alloc", v_has_dropped_dirty_pages, p_trims, w_allocates_zeroed, y_is_intact);
        run("trim against trim", v_has_dropped_dirty_pages, p_trims, v_trims, y_is_intact);
        run("alloc against free and trim", w_has_dirty_pages_that_v_holds, w_allocates_zeroed, v_drops_and_p_trims, y_is_intact);
    }
    run("claim against claim", nothing, w_takes_extents, v_takes_extents, no_extent_has_two_owners);
    run("reap against free", a_process_has_died, p_reaps, v_drops_all, d_is_reaped_once);
    run("reap against free and alloc", a_process_has_died, p_reaps, v_drops_all_and_allocates, d_is_reaped_once);
    run("free against reap", a_process_has_died, v_drops_all, p_reaps, d_is_reaped_once);
    run("reap against reap", a_process_has_died, p_reaps, v_reaps, d_is_reaped_by_one);
    run("reap against reap by another thread", a_process_has_died, p_reaps, p_reaps_again, d_is_reaped_by_one);
    run("reap against trim", a_process_has_died, p_reaps, v_trims, d_is_reaped_with_others);
    run("trim against reap", a_process_has_died, v_trims, p_reaps, d_is_reaped_with_others);
    the_tail_of_a_torn_claim_is_given_up_once();
    run("sender's drop against reading", a_ticket_is_out, w_drops, p_reads_the_ticket, p_has_read_it);
    run("reading against sender's drop", a_ticket_is_out, p_reads_the_ticket, w_drops, p_has_read_it);
    run("reading against sweep", w_has_sent_and_dropped, p_reads_the_ticket, v_sweeps, p_has_read_it);
    run("issue and drop against hold and drop", hold_by_one, w_sends_and_drops, p_holds_and_drops, p_reads_it_at_last);
    run("hold and drop against issue and drop", hold_by_one, p_holds_and_drops, w_sends_and_drops, p_reads_it_at_last);
    max_steps = 40; /* it looks at all 4096 */
    run("drop all against reading", w_has_sent_and_dropped, drop_all_is_called, p_reads_if_it_is_there, p_drops_if_it_holds);
    max_steps = 1000;
    run("reading against drop all", w_has_sent_and_dropped, p_reads_if_it_is_there, drop_all_is_called, p_drops_if_it_holds);
    static const int payloads[] = {100, 20000};
    for (int i = 0; i < 2; i++) {
        payload = payloads[i];
        run("answer against reading", w_has_x, w_answers_once, p_reads_an_answer, everything_is_read);
        run("two answers against reading", w_has_x, w_answers_twice, p_reads_an_answer, everything_is_read);
        run("two answers against two readings", w_has_answered, w_answers_again_and_drops, p_reads_two_answers, everything_is_read);
        run("reading against a second answer", w_has_answered, p_reads_an_answer, w_answers_again_and_drops, everything_is_read);
        run("F2 cached answer against drop", p_has_the_cached_result, w_answers_again_and_drops, p_drops_x, everything_is_read);
        run("F2 drop against cached answer", p_has_the_cached_result, p_drops_x, w_answers_again_and_drops, everything_is_read);
    }
    run("a fork that fails against drop", p_holds_x_of_w, p_fails_to_fork, w_drops_and_sweeps, nothing);
    return 0;
}
