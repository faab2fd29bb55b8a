/* hub.h - who in the parent reads the answers, and whom a worker wakes for them.
 *
 * Whoever has the BATON alone reads the answer rings of a pool: the LEADER, a thread that waits for a result, or the collector,
 * the pool's own thread, which sleeps in poll() on an event descriptor and the workers' pidfds. Who has it is the parent's own
 * affair (its lock); here is the one word that the workers look at:
 *
 *   AWAKE      whoever has the baton is awake, and looks at the rings before it sleeps
 *   COLLECTOR  the baton is free: write to the event
 *   LEADER     the leader sleeps: move `turn`, wake who waits on it
 *
 *   worker     publish; fence; word is not AWAKE? compare-and-swap it to AWAKE: the one that succeeds pays for the wake
 *   take       exchange the word to AWAKE. No system call: the collector sleeps on
 *   sleep      read `turn`; word = LEADER; fence; look at the rings; wait on `turn`; exchange the word to AWAKE
 *   leave      word = COLLECTOR; fence; look at the rings; an answer? exchange the word to AWAKE, and if it was COLLECTOR still, write
 *              to the event oneself
 *   kick       (the leader is wanted elsewhere, or its future is done) move `turn`, wake
 *
 * What is no answer (a worker has skipped tasks that were taken back: its ring has room) a leader would not see: for that a worker
 * writes to the event, whoever has the baton.
 *
 * Invariant: while the baton is free the word is COLLECTOR, or whoever swapped it has written to the event or is about to.
 * SYNC POINT doorbell: who stores the word looks at the rings behind a fence, who publishes looks at the word behind a fence:
 * one of them sees the other.
 *
 * A worker is killed ...              and then
 *   before it publishes                 its pidfd wakes the collector, which asks for the baton, reads the ring, judges the death
 *   between publishing and the swap     the same; the answer is read
 *   between the swap and the wake       the same; the leader is kicked by the collector
 */
#ifndef SX_HUB_H
#define SX_HUB_H

#include "ring.h"

enum { SX_AWAKE = 0, SX_COLLECTOR = 1, SX_LEADER = 2 };

typedef struct {
    sx_atomic32_t word;
    uint32_t unused[15];
    sx_atomic32_t turn; /* counts; the futex that a leader sleeps on */
    uint32_t unused2[15];
    sx_atomic64_t waiting, waiting_since; /* the parent writes, for who looks: board.h */
    uint64_t unused3[6];
} sx_hub_t;

/* The workers of a pool, as the thread with the baton sees them. */
typedef struct {
    sx_heap_t *heap;
    sx_channel_t *const *channels;
    uint32_t count;
} sx_crew_t;

int sx_crew_has_answer(const sx_crew_t *crew);

void sx_event_write(int event_fd);
int sx_timer_create(void); /* a descriptor that can be read when its time is over; or -errno */
void sx_timer_set(int timer_fd, uint64_t nanoseconds); /* from now, once */
uint32_t sx_hub_ring(sx_hub_t *hub, int event_fd); /* a worker, after publishing an answer; who had to be woken, or AWAKE */

void sx_hub_take(sx_hub_t *hub);
void sx_hub_leave(sx_hub_t *hub, const sx_crew_t *crew, int event_fd);
/* The leader reads `turn`, then looks at everything, then: looks at the rings for a while, if some worker is awake and there is a
 * core left (1: something is there), and goes to sleep: 0, or -ETIMEDOUT, -EINTR. Begin is called by who keeps others from
 * adding workers; it returns 1 if there is something to look at, and no sleep must follow. */
uint32_t sx_hub_turn(const sx_hub_t *hub);
int sx_hub_spin(sx_hub_t *hub, sx_spin_t *spin, const sx_crew_t *crew, uint32_t cores, uint32_t seen);
int sx_hub_begin_sleep(sx_hub_t *hub, const sx_crew_t *crew, uint32_t seen);
int sx_hub_sleep(sx_hub_t *hub, uint32_t seen, int64_t nanoseconds);
int sx_hub_leader_sleeps(const sx_hub_t *hub);
void sx_hub_kick(sx_hub_t *hub);
void sx_hub_pass(sx_hub_t *hub); /* a kick for one who only spins */

#endif
