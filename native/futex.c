/* futex.c - futex.h on Linux. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "futex.h"

#include <assert.h>
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static_assert(sizeof(sx_atomic32_t) == sizeof(uint32_t), "the kernel reads the word as a plain 32-bit integer");
static_assert(ATOMIC_INT_LOCK_FREE == 2, "a lock inside the word could be held by the dead");

int sx_futex_wait(sx_atomic32_t *word, uint32_t seen, int64_t nanoseconds) {
    struct timespec limit = {.tv_sec = nanoseconds / 1000000000, .tv_nsec = nanoseconds % 1000000000};
    if (syscall(SYS_futex, word, FUTEX_WAIT, seen, nanoseconds < 0 ? NULL : &limit, NULL, 0) == 0) return 0;
    return errno == EAGAIN ? 0 : -errno;
}

int sx_futex_wake(sx_atomic32_t *word, int count) {
    int saved = errno;
    long woken = syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
    int result = woken < 0 ? -errno : (int)woken;
    errno = saved;
    return result;
}
