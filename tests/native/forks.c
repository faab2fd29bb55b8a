/* forks.c - the hooks around fork: who holds what afterwards, whoever fails, is killed, execs or forks without them. */
#include "harness.h"

enum { EXTENTS = 24 };

static sx_heap_t heap;
static uint32_t kept_free;

static void nothing_is_left(void) {
    WAIT_UNTIL((sx_fork_poll(&heap), sx_slot_reap_dead(&heap), free_slots(&heap) == kept_free));
    expect_quiet(&heap, 0);
    CHECK(heap.forked_count == 0);
}

static int descriptors(void) {
    int count = 0;
    for (int fd = 0; fd < 200; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* ---- forks that go well ---------------------------------------------------------------------------------------------------- */

static void a_child_holds_what_its_parent_held(void) {
    gate_t go = make_gate();
    sx_name_t names[300];
    for (int i = 0; i < 300; i++) {
        names[i] = alloc(&heap, 700);
        paint(sx_heap_start(&heap, names[i].block), 700, pattern_of(names[i]));
    }
    sx_heap_hold_again(&heap, names[0].block);
    sx_fork_before(&heap);
    pid_t pid = fork();
    if (!pid) {
        CHECK(sx_fork_after_in_child(&heap) == 0);
        pass_gate(go);
        for (int i = 0; i < 300; i++) {
            CHECK(is_there(&heap, names[i]) && sx_heap_count(&heap, names[i].block) == (i ? 1 : 2));
            CHECK(is_painted(sx_heap_start(&heap, names[i].block), 700, pattern_of(names[i])));
        }
        for (int i = 1; i < 300; i += 2) {
            sx_heap_release(&heap, names[i].block);
            CHECK(!is_there(&heap, names[i]));
        }
        sx_name_t own = alloc(&heap, 700);
        CHECK(own.block / SX_EXTENT_BLOCKS != names[0].block / SX_EXTENT_BLOCKS, "the extents are the parent's");
        sx_heap_release(&heap, names[0].block);
        CHECK(is_there(&heap, names[0]), "held twice");
        _exit(0);
    }
    sx_fork_after_in_parent(&heap);
    for (int i = 0; i < 300; i++)
        sx_heap_release(&heap, names[i].block);
    CHECK(sx_heap_count(&heap, names[0].block) == 1);
    sx_heap_release(&heap, names[0].block);
    for (int i = 0; i < 300; i++)
        CHECK(is_there(&heap, names[i]), "the child holds it");
    open_gate(go);
    expect_clean_exit(pid);
    nothing_is_left();
}

static void a_grandchild_is_a_member_too(void) {
    sx_name_t x = alloc(&heap, 700);
    sx_fork_before(&heap);
    pid_t pid = fork();
    if (!pid) {
        CHECK(sx_fork_after_in_child(&heap) == 0);
        sx_fork_before(&heap);
        pid_t grandchild = fork();
        if (!grandchild) {
            CHECK(sx_fork_after_in_child(&heap) == 0);
            CHECK(sx_heap_count(&heap, x.block) == 1 && has_bit(&heap, x, heap.me->slot));
            alloc(&heap, SX_EXTENT_BYTES);
            _exit(0);
        }
        sx_fork_after_in_parent(&heap);
        expect_clean_exit(grandchild);
        _exit(0);
    }
    sx_fork_after_in_parent(&heap);
    expect_clean_exit(pid);
    sx_heap_release(&heap, x.block);
    nothing_is_left();
}

static void a_worker_that_is_forked_has_the_slot_that_was_kept(void) {
    sx_name_t x = alloc(&heap, 700);
    uint32_t slot = sx_slot_reserve(&heap, 1);
    sx_fork_expect(&heap, slot);
    sx_fork_before(&heap);
    pid_t pid = fork();
    if (!pid) {
        CHECK(sx_fork_after_in_child(&heap) == 0 && heap.me->slot == slot);
        CHECK(has_bit(&heap, x, slot) && sx_heap_count(&heap, x.block) == 1);
        _exit(0);
    }
    sx_fork_after_in_parent(&heap);
    CHECK(heap.forked_count == 0, "its pool watches it");
    expect_clean_exit(pid);
    CHECK(sx_slot_reap(&heap, slot) == 1);
    sx_heap_release(&heap, x.block);
    nothing_is_left();
}

static void a_process_may_have_two_heaps(void) {
    sx_heap_t second;
    sx_name_t x = alloc(&heap, 700);
    create(&second, 4);
    sx_name_t y = alloc(&second, 700);
    uint32_t slot = sx_slot_reserve(&heap, 1);
    for (int fails = 1; fails >= 0; fails--) {
        if (!fails)
            sx_fork_expect(&heap, slot);
        sx_fork_before(&heap);
        sx_fork_before(&second);
        pid_t pid = fails ? -1 : fork();
        if (!pid) {
            sx_heap_release(&second, y.block); /* a hook drops */
            CHECK(sx_fork_after_in_child(&heap) == 0 && sx_fork_after_in_child(&second) == 0);
            CHECK(heap.me->slot == slot && second.me->slot && second.me->slot != 2);
            CHECK(has_bit(&heap, x, slot) && sx_heap_count(&heap, x.block) == 1);
            CHECK(!has_bit(&second, y, second.me->slot) && sx_heap_count(&second, y.block) == 0);
            alloc(&second, 100);
            alloc(&heap, 100);
            _exit(0);
        }
        sx_fork_after_in_parent(&heap);
        sx_fork_after_in_parent(&second);
        if (pid > 0)
            expect_clean_exit(pid);
    }
    CHECK(sx_slot_reap(&heap, slot) == 1);
    sx_heap_release(&heap, x.block);
    sx_heap_release(&second, y.block);
    WAIT_UNTIL((sx_fork_poll(&second), sx_slot_reap_dead(&second), free_slots(&second) == kept_free));
    expect_quiet(&second, 0);
    sx_segment_close(&second.segment);
    nothing_is_left();
}

/* ---- forks that fail ------------------------------------------------------------------------------------------------------- */

static void a_fork_that_fails_leaves_nothing(void) {
    int before = descriptors();
    sx_name_t x = alloc(&heap, 700);
    for (int i = 0; i < 20; i++) {
        sx_fork_before(&heap);
        sx_fork_after_in_parent(&heap);
    }
    sx_heap_release(&heap, x.block);
    sx_fork_poll(&heap);
    CHECK(!is_there(&heap, x) && free_slots(&heap) == kept_free);
    CHECK(descriptors() == before);
    sx_fork_after_in_parent(&heap); /* without a before: nothing */
    CHECK(sx_fork_after_in_child(&heap) == 0);
    nothing_is_left();
}

static void a_child_without_a_slot_is_private(void) {
    sx_name_t x = alloc(&heap, 700);
    memset(sx_heap_start(&heap, x.block), 1, 700);
    while (sx_slot_reserve(&heap, 1))
        ;
    sx_fork_before(&heap);
    pid_t pid = fork();
    if (!pid) {
        CHECK(sx_fork_after_in_child(&heap) == 0 && heap.is_private);
        _exit(0);
    }
    sx_fork_after_in_parent(&heap);
    expect_clean_exit(pid);
    for (uint32_t slot = 2; slot < SX_SLOTS; slot += 2)
        sx_slot_reap(&heap, slot);
    sx_heap_release(&heap, x.block);
    nothing_is_left();
}

/* P, a process between us and the child, is killed before the child claims: the child is reaped with it, and must exit. */
static void a_child_whose_parent_was_reaped_has_no_part(void) {
    gate_t up = make_gate(), go = make_gate(), over = make_gate();
    sx_name_t x = alloc(&heap, 700);
    pid_t pid = spawn();
    if (!pid) {
        sx_heap_t p;
        join(&p, &heap, 0);
        CHECK(sx_heap_hold(&p, x) == 0);
        alloc(&p, 5000);
        sx_fork_before(&p);
        if (!fork()) {
            pass_gate(go);
            sx_heap_release(&p, x.block); /* a hook drops */
            int code = sx_fork_after_in_child(&p);
            CHECK(code == -EOWNERDEAD, "%d", code);
            sx_heap_release(&p, x.block);
            sx_name_t name;
            char *start;
            CHECK(sx_heap_alloc(&p, 10, 0, &name, &start) == -EPERM && sx_heap_hold(&p, x) == -EPERM);
            open_gate(over);
            _exit(0);
        }
        sx_fork_after_in_parent(&p);
        open_gate(up);
        for (;;)
            pause();
    }
    pass_gate(up);
    CHECK(sx_slot_reap_dead(&heap) == 0);
    kill_and_wait(pid);
    WAIT_UNTIL((sx_slot_reap_dead(&heap), free_slots(&heap) == kept_free));
    sx_heap_release(&heap, x.block);
    CHECK(!is_there(&heap, x) && living(&heap) == 0);
    sx_name_t newcomer = alloc(&heap, 700);
    open_gate(go);
    pass_gate(over);
    CHECK(waitpid(-1, NULL, 0) > 0);
    CHECK(is_there(&heap, newcomer));
    sx_heap_release(&heap, newcomer.block);
    nothing_is_left();
}

/* The child is killed at each step of its coming up; its parent lives, or is killed after it. */
static void a_child_that_dies_while_it_comes_up_leaves_nothing(int parent_dies) {
    int killed = 1;
    uint32_t *was_killed = shared(sizeof *was_killed);
    for (uint64_t at = 1; killed; at++) {
        sx_name_t x = alloc(&heap, 700);
        pid_t pid = spawn();
        if (!pid) {
            sx_heap_t p;
            join(&p, &heap, 0);
            CHECK(sx_heap_hold(&p, x) == 0);
            sx_fork_before(&p);
            pid_t child = fork();
            if (!child) {
                kill_at = at;
                on_step = kill_at_step;
                CHECK(sx_fork_after_in_child(&p) == 0);
                SX_STEP();
                _exit(0);
            }
            sx_fork_after_in_parent(&p);
            int status = status_of(child);
            CHECK(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
            *was_killed = WIFSIGNALED(status);
            if (!parent_dies) {
                sx_fork_poll(&p);
                sx_slot_reap_dead(&p);
                CHECK(p.forked_count == 0 && members(&p) == 2, "killed at step %llu", (unsigned long long)at);
                sx_heap_release(&p, x.block);
            }
            _exit(0);
        }
        expect_clean_exit(pid);
        killed = (int)*was_killed;
        WAIT_UNTIL((sx_slot_reap_dead(&heap), free_slots(&heap) == kept_free));
        sx_heap_release(&heap, x.block);
        nothing_is_left();
    }
}

static void a_child_that_execs_before_it_claims_leaves_nothing(void) {
    sx_name_t x = alloc(&heap, 700);
    gate_t live = make_gate();
    CHECK(fcntl(live.ends[0], F_SETFD, 0) == 0);
    sx_fork_before(&heap);
    pid_t pid = fork();
    if (!pid) {
        CHECK(dup2(live.ends[0], 0) == 0);
        execl("/bin/cat", "cat", (char *)NULL);
        _exit(1);
    }
    sx_fork_after_in_parent(&heap);
    sx_heap_release(&heap, x.block);
    WAIT_UNTIL((sx_fork_poll(&heap), !is_there(&heap, x))); /* though the child lives */
    CHECK(free_slots(&heap) == kept_free && waitpid(pid, NULL, WNOHANG) == 0);
    kill_and_wait(pid);
    close(live.ends[0]), close(live.ends[1]);
    nothing_is_left();
}

/* ---- between the hooks ------------------------------------------------------------------------------------------------------- */

static void another_hook_may_drop_arrays_on_either_side(void) {
    sx_name_t in_parent = alloc(&heap, 700), in_child = alloc(&heap, 700), in_both = alloc(&heap, 700), before = alloc(&heap, 700);
    gate_t looked = make_gate(), child_up = make_gate();
    sx_fork_before(&heap);
    sx_heap_release(&heap, before.block); /* one copy of it is dropped here, before the fork: there is none in the child */
    pid_t pid = fork();
    if (!pid) {
        sx_heap_release(&heap, in_child.block);
        sx_heap_release(&heap, in_both.block);
        CHECK(has_bit(&heap, in_child, 2), "this is the parent's bit");
        CHECK(sx_fork_after_in_child(&heap) == 0);
        CHECK(sx_heap_count(&heap, in_parent.block) == 1 && sx_heap_count(&heap, in_child.block) == 0);
        CHECK(sx_heap_count(&heap, in_both.block) == 0 && sx_heap_count(&heap, before.block) == 0);
        CHECK(!has_bit(&heap, in_child, heap.me->slot) && !has_bit(&heap, in_both, heap.me->slot));
        open_gate(child_up);
        pass_gate(looked);
        _exit(0);
    }
    sx_heap_release(&heap, in_parent.block);
    sx_heap_release(&heap, in_both.block);
    sx_fork_after_in_parent(&heap);
    pass_gate(child_up);
    CHECK(is_there(&heap, in_parent) && is_there(&heap, in_child));
    CHECK(!is_there(&heap, in_both) && !is_there(&heap, before));
    CHECK(sx_heap_count(&heap, in_parent.block) == 0 && sx_heap_count(&heap, in_child.block) == 1);
    open_gate(looked);
    expect_clean_exit(pid);
    sx_heap_release(&heap, in_child.block);
    nothing_is_left();
}

/* The forking thread between the hooks: nothing that it may do hangs. */
static void the_forking_thread_may_use_the_heap_between_the_hooks(void) {
    pid_t pid = spawn();
    if (!pid) {
        sx_heap_t mine;
        sx_name_t name, x;
        char *start;
        join(&mine, &heap, 0);
        x = alloc(&mine, 100);
        alarm(20);
        sx_fork_before(&mine);
        sx_heap_trim(&heap); /* nobody here: no request */
        sx_add_acq_rel(&heap.header->trim_requests, 1);
        if (sx_heap_alloc(&mine, 100, 0, &name, &start) == 0)
            sx_heap_release(&mine, name.block);
        if (sx_heap_hold(&mine, x) == 0)
            sx_heap_release(&mine, x.block);
        sx_heap_sweep(&mine);
        sx_heap_trim(&mine);
        sx_ticket_drop_all(&mine);
        sx_fork_after_in_parent(&mine);
        CHECK(sx_heap_count(&mine, x.block) == 1);
        _exit(0);
    }
    int status = status_of(pid);
    CHECK(!(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM), "the forking thread waits for itself");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    sx_slot_reap_dead(&heap);
    nothing_is_left();
}

/* Another hook that runs between ours takes a lock (logging's, say); its holder is about to allocate. */
static _Atomic int asked, answered;

static void *allocates_with_the_other_lock_held(void *member) {
    while (!atomic_load(&asked))
        sched_yield();
    sx_name_t name;
    char *start;
    if (sx_heap_alloc(member, 100, 0, &name, &start) == 0)
        sx_heap_release(member, name.block);
    atomic_store(&answered, 1);
    return NULL;
}

static void other_threads_may_use_the_heap_between_the_hooks(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, allocates_with_the_other_lock_held, &heap) == 0);
    sx_fork_before(&heap);
    atomic_store(&asked, 1);
    WAIT_UNTIL(atomic_load(&answered));
    sx_fork_after_in_parent(&heap);
    pthread_join(thread, NULL);
    nothing_is_left();
}

/* Threads that allocate and drop, and some that fork meanwhile: each child's table is whole, and its bits fit to it. */
static _Atomic int stop;

static void *allocates_and_drops(void *member) {
    start_random((uint64_t)(uintptr_t)pthread_self());
    while (!atomic_load(&stop)) {
        sx_name_t names[5];
        for (int i = 0; i < 5; i++)
            names[i] = alloc(member, rnd(3000));
        for (int i = 0; i < 5; i++)
            sx_heap_release(member, names[i].block);
    }
    return NULL;
}

static void *forks(void *member) {
    sx_heap_t *mine = member;
    start_random((uint64_t)(uintptr_t)pthread_self());
    while (!atomic_load(&stop)) {
        sx_name_t x = alloc(mine, 500);
        sx_fork_before(mine);
        if (rnd(2))
            sched_yield();
        pid_t pid = rnd(8) ? fork() : -1;
        if (!pid) {
            CHECK(sx_fork_after_in_child(mine) == 0);
            for (uint32_t i = 0; i < mine->table.capacity; i++) {
                sx_entry_t entry = mine->table.entries[i];
                if (!entry.key)
                    continue;
                sx_name_t name = {entry.birth, entry.key - 1};
                CHECK(is_there(mine, name) && has_bit(mine, name, mine->me->slot), "a child without its bit");
            }
            CHECK(sx_heap_count(mine, x.block) == 1);
            sx_heap_release(mine, x.block);
            sx_name_t own = alloc(mine, 500);
            sx_heap_release(mine, own.block);
            _exit(0);
        }
        sx_fork_after_in_parent(mine);
        if (pid > 0)
            expect_clean_exit(pid);
        sx_fork_poll(mine);
        sx_slot_reap_dead(mine);
        CHECK(is_there(mine, x));
        sx_heap_release(mine, x.block);
    }
    return NULL;
}

static void threads_may_fork_at_the_same_time(double until) {
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    int before = descriptors();
    atomic_store(&stop, 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, i % 2 ? allocates_and_drops : forks, &heap) == 0);
    while (now() < until)
        sched_yield();
    atomic_store(&stop, 1);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    nothing_is_left();
    CHECK(descriptors() == before, "descriptors are lost");
}

/* ---- forks without hooks ------------------------------------------------------------------------------------------------------ */

static void a_raw_fork_is_nobody(void) {
    sx_name_t x = alloc(&heap, 700), y = alloc(&heap, SX_EXTENT_BYTES), gone = alloc(&heap, 10);
    sx_heap_release(&heap, gone.block);
    uint32_t entry, seq;
    pid_t pid = fork();
    if (!pid) {
        sx_name_t name;
        char *start = sx_heap_start(&heap, x.block);
        CHECK(sx_heap_alloc(&heap, 10, 0, &name, &start) == -EPERM);
        CHECK(sx_heap_hold(&heap, x) == -EPERM && sx_heap_post(&heap, x) == -EPERM);
        CHECK(sx_ticket_issue(&heap, x.block, &entry, &seq) == -EPERM);
        CHECK(!sx_heap_find(&heap, sx_heap_start(&heap, x.block), sx_heap_start(&heap, x.block), &name));
        sx_heap_hold_again(&heap, x.block);
        for (int i = 0; i < 3; i++) {
            sx_heap_release(&heap, x.block);
            sx_heap_release(&heap, y.block);
        }
        sx_heap_unpost(&heap, 2, x.block);
        sx_heap_sweep(&heap);
        sx_heap_trim(&heap);
        sx_heap_answer_trim(&heap);
        CHECK(sx_heap_count(&heap, x.block) == 0);
        CHECK(sx_slot_reap_dead(&heap) == 0 && sx_slot_reap(&heap, 2) == 0);
        sx_fork_before(&heap); /* and its children */
        pid_t grandchild = fork();
        if (!grandchild) {
            CHECK(sx_fork_after_in_child(&heap) == 0);
            sx_heap_release(&heap, x.block);
            _exit(0);
        }
        sx_fork_after_in_parent(&heap);
        expect_clean_exit(grandchild);
        _exit(0);
    }
    expect_clean_exit(pid);
    CHECK(is_there(&heap, x) && is_there(&heap, y) && has_bit(&heap, x, 2) && has_bit(&heap, y, 2));
    CHECK(sx_heap_count(&heap, x.block) == 1);
    sx_heap_release(&heap, x.block);
    sx_heap_release(&heap, y.block);
    nothing_is_left();
}

static void a_child_of_a_worker_has_a_private_copy(void) {
    uint32_t slot = sx_slot_reserve(&heap, 1);
    pid_t pid = spawn();
    if (!pid) {
        sx_heap_t worker;
        join(&worker, &heap, slot);
        worker.is_worker = 1;
        sx_name_t x = alloc(&worker, 100000), y;
        char *data = sx_heap_start(&worker, x.block), *start;
        memset(data, 7, 100000);
        sx_fork_before(&worker);
        pid_t child = fork();
        if (!child) {
            sx_heap_release(&worker, x.block);
            CHECK(sx_fork_after_in_child(&worker) == 0 && worker.is_private);
            CHECK(data[0] == 7 && data[99999] == 7);
            memset(data, 8, 100000);
            CHECK(sx_heap_alloc(&worker, 10, 0, &y, &start) == -EPERM && sx_heap_hold(&worker, x) == -EPERM);
            sx_heap_release(&worker, x.block);
            sx_heap_trim(&worker);
            sx_heap_sweep(&worker);
            sx_fork_before(&worker);
            pid_t grandchild = fork();
            if (!grandchild) {
                CHECK(sx_fork_after_in_child(&worker) == 0);
                CHECK(data[5] == 8);
                memset(data, 9, 100000);
                sx_heap_release(&worker, x.block);
                _exit(0);
            }
            sx_fork_after_in_parent(&worker);
            expect_clean_exit(grandchild);
            CHECK(data[5] == 8);
            _exit(0);
        }
        sx_fork_after_in_parent(&worker);
        expect_clean_exit(child);
        CHECK(data[0] == 7 && data[99999] == 7, "the child's writes reach its parent");
        CHECK(is_there(&worker, x) && has_bit(&worker, x, slot) && worker.forked_count == 0);
        _exit(0);
    }
    expect_clean_exit(pid);
    CHECK(sx_slot_reap(&heap, slot) == 1);
    nothing_is_left();
}

int main(int argc, char **argv) {
    begin(argc, argv);
    create(&heap, EXTENTS);
    CHECK(heap.me->slot == 2);
    kept_free = free_slots(&heap);
    a_child_holds_what_its_parent_held();
    a_grandchild_is_a_member_too();
    a_worker_that_is_forked_has_the_slot_that_was_kept();
    a_process_may_have_two_heaps();
    a_fork_that_fails_leaves_nothing();
    a_child_without_a_slot_is_private();
    a_child_whose_parent_was_reaped_has_no_part();
    a_child_that_dies_while_it_comes_up_leaves_nothing(0);
    a_child_that_dies_while_it_comes_up_leaves_nothing(1);
    a_child_that_execs_before_it_claims_leaves_nothing();
    another_hook_may_drop_arrays_on_either_side();
    a_raw_fork_is_nobody();
    a_child_of_a_worker_has_a_private_copy();
    the_forking_thread_may_use_the_heap_between_the_hooks();
    other_threads_may_use_the_heap_between_the_hooks();
    threads_may_fork_at_the_same_time(began + (seconds > 2 ? seconds : 2));
    expect_usable(&heap);
    return 0;
}
