/* handovers.c - who collects: two leaders, a collector and three workers, on the real words, with random delays at every step.
 *
 * Each of the leaders waits for answers to its own questions, one after the other, sometimes only for a while; nobody waits for the
 * answers to the others' questions: those are the collector's. An answer that nobody reads stops the program: no wait has
 * a time-out that could hide it, but those of the leaders that give up, and then come again.
 * As in the extension one mutex stands for the GIL: it is let go of for sleeps and spins.
 */
#include "harness.h"

#include "futex.h"
#include <sys/eventfd.h>

enum { WORKERS = 3, LEADERS = 2, OWNERS = LEADERS + 1 };

static sx_hub_t hub;
static sx_channel_t *channels[WORKERS];
static sx_heap_t heap;
static int event;
static pthread_mutex_t gil = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t followers = PTHREAD_COND_INITIALIZER;
static sx_crew_t crew = {&heap, channels, WORKERS};

static int holder;                       /* of the baton: 0 nobody, 1.. leaders, OWNERS the collector; under the mutex */
static uint64_t asked[OWNERS], got[OWNERS]; /* under the mutex */
static sx_atomic64_t questions[WORKERS][OWNERS], stop, handovers;
static sx_atomic32_t bells[WORKERS];

static void delay(void) {
    uint32_t kind = rnd(64);
    if (kind < 3)
        sched_yield();
    else if (kind == 3) {
        struct timespec nap = {0, (long)rnd(30000)};
        nanosleep(&nap, NULL);
    }
}

static void delay_at_steps(void) { delay(); }

static int take(int who) {
    if (holder)
        return 0;
    holder = who;
    sx_hub_take(&hub);
    return 1;
}

static void leave(void) {
    holder = 0;
    sx_hub_leave(&hub, &crew, event);
}

static void collect(void) {
    sx_message_t message;
    for (int i = 0; i < WORKERS; i++)
        while (sx_ring_peek(&heap, &channels[i]->answers, &message) == 1) {
            CHECK(message.call < OWNERS);
            got[message.call]++;
            sx_ring_pop(&channels[i]->answers, &message);
            atomic_fetch_add(&handovers, 1);
            pthread_cond_broadcast(&followers);
        }
}

static void ask(int who) {
    asked[who]++;
    int worker = (int)rnd(WORKERS);
    atomic_fetch_add(&questions[worker][who], 1);
    atomic_fetch_add(&bells[worker], 1);
    sx_futex_wake(&bells[worker], 1);
}

static void *work(void *which) {
    int me = (int)(intptr_t)which;
    start_random(100 + (uint64_t)me);
    for (;;) {
        uint32_t bell = atomic_load(&bells[me]);
        int found = 0;
        for (uint64_t who = 0; who < OWNERS; who++)
            if (atomic_load(&questions[me][who])) {
                sx_record_t *record;
                uint64_t position;
                found = 1;
                if (sx_ring_reserve(&channels[me]->answers, sizeof *record, &record, &position))
                    continue;
                atomic_fetch_sub(&questions[me][who], 1);
                delay();
                *record = (sx_record_t){.bytes = sizeof *record, .kind = 5, .call = who};
                sx_ring_publish(&channels[me]->answers, position, sizeof *record);
                delay();
                sx_hub_ring(&hub, event);
            }
        if (!found && atomic_load(&stop))
            return NULL;
        if (!found)
            sx_futex_wait(&bells[me], bell, -1);
    }
}

static void *leads(void *which) {
    int me = (int)(intptr_t)which;
    sx_spin_t spin = {0};
    start_random(200 + (uint64_t)me);
    pthread_mutex_lock(&gil);
    while (!atomic_load(&stop)) {
        ask(me);
        if (rnd(3) == 0)
            ask(0); /* nobody waits for this one */
        while (got[me] < asked[me]) {
            int patience = (int)rnd(8); /* looks, then it is called away, as by a signal handler that raises */
            if (!take(me)) {
                pthread_cond_wait(&followers, &gil);
                continue;
            }
            for (;;) {
                uint32_t seen = sx_hub_turn(&hub);
                collect();
                if (got[me] == asked[me] || patience-- == 0)
                    break;
                pthread_mutex_unlock(&gil);
                delay();
                int due = sx_hub_spin(&hub, &spin, &crew, 8, seen);
                pthread_mutex_lock(&gil);
                if (!due && !sx_hub_begin_sleep(&hub, &crew, seen)) {
                    pthread_mutex_unlock(&gil);
                    sx_hub_sleep(&hub, seen, rnd(4) ? -1 : (int64_t)rnd(50000));
                    pthread_mutex_lock(&gil);
                }
            }
            leave();
            if (got[me] < asked[me]) { /* away for a while: the others go on */
                pthread_mutex_unlock(&gil);
                delay();
                pthread_mutex_lock(&gil);
            }
        }
    }
    pthread_mutex_unlock(&gil);
    return NULL;
}

static void *collects(void *unused) {
    (void)unused;
    start_random(300);
    for (;;) {
        struct pollfd on = {.fd = event, .events = POLLIN};
        uint64_t count;
        CHECK(poll(&on, 1, -1) == 1 && read(event, &count, sizeof count) == sizeof count);
        delay();
        pthread_mutex_lock(&gil);
        if (take(OWNERS)) {
            collect();
            leave();
        }
        int over = atomic_load(&stop) == 2;
        pthread_mutex_unlock(&gil);
        if (over)
            return NULL;
    }
}

int main(int count, char **arguments) {
    pthread_t workers[WORKERS], leaders[LEADERS], collector;
    begin(count, arguments);
    create(&heap, 8);
    for (int i = 0; i < WORKERS; i++) {
        channels[i] = calloc(1, sizeof **channels);
        channels[i]->worker_slot = heap.me->slot; /* awake, as far as anybody can see */
    }
    event = eventfd(0, EFD_CLOEXEC);
    uint32_t seen = sx_hub_turn(&hub);
    sx_hub_pass(&hub);
    CHECK(sx_hub_turn(&hub) != seen, "who spins does not see that it is called away");
    sx_hub_leave(&hub, &crew, event);
    on_step = delay_at_steps;
    pthread_create(&collector, NULL, collects, NULL);
    for (int i = 0; i < WORKERS; i++)
        pthread_create(&workers[i], NULL, work, (void *)(intptr_t)i);
    for (int i = 0; i < LEADERS; i++)
        pthread_create(&leaders[i], NULL, leads, (void *)(intptr_t)(i + 1));
    for (double until = now() + seconds; now() < until;) {
        struct timespec nap = {0, 1000000};
        nanosleep(&nap, NULL);
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < LEADERS; i++)
        pthread_join(leaders[i], NULL);
    for (int i = 0; i < WORKERS; i++) {
        atomic_fetch_add(&bells[i], 1);
        sx_futex_wake(&bells[i], 1);
    }
    for (int i = 0; i < WORKERS; i++)
        pthread_join(workers[i], NULL);
    for (;;) { /* the collector reads what nobody waits for, by itself */
        pthread_mutex_lock(&gil);
        int all = got[0] == asked[0];
        pthread_mutex_unlock(&gil);
        if (all)
            break;
        sched_yield();
    }
    atomic_store(&stop, 2);
    sx_event_write(event);
    pthread_join(collector, NULL);
    CHECK(atomic_load(&hub.word) == SX_COLLECTOR && !holder);
    CHECK(atomic_load(&handovers) == asked[0] + asked[1] + asked[2] && asked[0] && asked[1]);
    if (seconds > 5)
        printf("%llu hand-overs\n", (unsigned long long)atomic_load(&handovers));
    return 0;
}
