/* owner.h - which process is it, and is it certainly dead? A pid alone says neither: pids are used again. */
#ifndef SX_OWNER_H
#define SX_OWNER_H

#include <stdint.h>

/* Start time of a process in clock ticks since boot; 0 if it cannot be read: no such process, no /proc, no descriptor left. */
uint64_t sx_process_start_time(uint32_t pid);

/* 1 only if it is certain: no such pid, another start time (0: not known), or all its threads have ended (a zombie leader alone is
 * no death). */
int sx_process_is_dead(uint32_t pid, uint64_t start_time);

uint64_t sx_machine_memory(void); /* bytes: the smaller of physical memory and the cgroup's limit */

#endif
