/* futex.h - sleep until a 32-bit word changes, in this process or in another that maps it.
 *
 * Some facts about futex:
 *  - the kernel compares the word with `seen` and goes to sleep in one step: a change that comes before the sleep is not slept through;
 *  - a shared futex is found by the page behind the address, so the processes may map it at different addresses;
 *  - a wait may end without a wake, and always ends when a signal handler without SA_RESTART has run.
 *
 * What this means for us: whoever changes the word wakes afterwards; whoever wakes up looks at the word again. FUTEX_PRIVATE_FLAG
 * is not used: it would make the kernel look in this process alone.
 */
#ifndef SX_FUTEX_H
#define SX_FUTEX_H

#include "atomics.h"

/* Sleeps while *word == seen, at most `nanoseconds` (negative: for ever). 0: woken, or the word had changed already;
 * -EINTR: a signal handler has run; -ETIMEDOUT; another -errno is a fault of the caller's. */
int sx_futex_wait(sx_atomic32_t *word, uint32_t seen, int64_t nanoseconds);

/* Wakes at most `count` sleepers. The number of those that were woken, or -errno. Async-signal-safe, errno included. */
int sx_futex_wake(sx_atomic32_t *word, int count);

#endif
