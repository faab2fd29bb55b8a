/* hub.c - see hub.h. */
#define _GNU_SOURCE
#include "hub.h"

#include "futex.h"
#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

void sx_event_write(int event_fd) {
    uint64_t one = 1;
    while (write(event_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

int sx_timer_create(void) {
    int timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    return timer_fd < 0 ? -errno : timer_fd;
}

void sx_timer_set(int timer_fd, uint64_t nanoseconds) {
    struct itimerspec when = {.it_value.tv_nsec = (long)nanoseconds};
    timerfd_settime(timer_fd, 0, &when, NULL);
}

int sx_crew_has_answer(const sx_crew_t *crew) {
    for (uint32_t i = 0; i < crew->count; i++)
        if (!sx_ring_is_empty(&crew->channels[i]->answers))
            return 1;
    return 0;
}

uint32_t sx_hub_ring(sx_hub_t *hub, int event_fd) {
    sx_fence_seq_cst(); /* SYNC POINT doorbell */
    uint32_t word = sx_load_relaxed(&hub->word);
    SX_STEP();
    if (word == SX_AWAKE || !sx_cas_acq_rel(&hub->word, &word, SX_AWAKE))
        return SX_AWAKE; /* swapped by another worker, which wakes, or by the parent, which looks */
    SX_STEP();
    if (word == SX_LEADER)
        sx_hub_kick(hub);
    else
        sx_event_write(event_fd);
    return word;
}

void sx_hub_take(sx_hub_t *hub) {
    SX_STEP();
    sx_exchange_acq_rel(&hub->word, SX_AWAKE);
}

void sx_hub_leave(sx_hub_t *hub, const sx_crew_t *crew, int event_fd) {
    SX_STEP();
    sx_store_relaxed(&hub->word, SX_COLLECTOR);
    sx_fence_seq_cst(); /* SYNC POINT doorbell */
    if (sx_crew_has_answer(crew) && (SX_STEP(), 1) && sx_exchange_acq_rel(&hub->word, SX_AWAKE) == SX_COLLECTOR)
        sx_event_write(event_fd);
}

uint32_t sx_hub_turn(const sx_hub_t *hub) {
    return sx_load_acquire(&((sx_hub_t *)hub)->turn);
}

typedef struct {
    const sx_hub_t *hub;
    const sx_crew_t *crew;
    uint32_t seen;
} sx_looked_for_t;

static int is_due(const void *of) {
    const sx_looked_for_t *it = of;
    return sx_crew_has_answer(it->crew) || sx_hub_turn(it->hub) != it->seen;
}

int sx_hub_spin(sx_hub_t *hub, sx_spin_t *spin, const sx_crew_t *crew, uint32_t cores, uint32_t seen) {
    sx_looked_for_t it = {hub, crew, seen};
    uint32_t awake = spin->extra > 0; /* just woken */
    spin->leaves = 0;
    for (uint32_t i = 0; i < crew->count; i++) {
        if (!sx_channel_is_awake(crew->heap, crew->channels[i]))
            continue;
        awake++;
        if (!spin->longest) /* a glance is over sooner than a move */
            spin->leaves |= (uint32_t)sx_channel_is_here(crew->heap, crew->channels[i]);
    }
    return awake && awake < cores && sx_spin(spin, is_due, &it);
}

int sx_hub_begin_sleep(sx_hub_t *hub, const sx_crew_t *crew, uint32_t seen) {
    SX_STEP();
    sx_store_relaxed(&hub->word, SX_LEADER);
    sx_fence_seq_cst(); /* SYNC POINT doorbell */
    if (!sx_crew_has_answer(crew) && sx_hub_turn(hub) == seen)
        return 0;
    SX_STEP();
    sx_exchange_acq_rel(&hub->word, SX_AWAKE);
    return 1;
}

int sx_hub_sleep(sx_hub_t *hub, uint32_t seen, int64_t nanoseconds) {
    int code = sx_futex_wait(&hub->turn, seen, nanoseconds);
    SX_STEP();
    sx_exchange_acq_rel(&hub->word, SX_AWAKE);
    return code;
}

int sx_hub_leader_sleeps(const sx_hub_t *hub) {
    return sx_load_acquire(&((sx_hub_t *)hub)->word) == SX_LEADER;
}

void sx_hub_kick(sx_hub_t *hub) {
    SX_STEP();
    sx_add_acq_rel(&hub->turn, 1);
    SX_STEP();
    sx_futex_wake(&hub->turn, 1);
}

void sx_hub_pass(sx_hub_t *hub) {
    SX_STEP();
    sx_add_acq_rel(&hub->turn, 1);
}
