/* fork.h - os.fork() by anybody: the child's slot and bits are made before the fork. Called from Python's fork hooks.
 *
 * Some facts about fork
 *   - CPython runs after_in_parent after a fork that failed, too, and gives no pid
 *   - other libraries' hooks run between the fork and ours, and may drop arrays, in the parent's name as far as memory tells
 *   - they may take locks, and run Python: while we held the mutex between our hooks, a thread with the GIL or with such a lock
 *     could wait for it, for good. The handlers of pthread_atfork run around the system call, with nothing in between
 *   - a fork in C runs no Python hook at all
 * What this means for us: the identity lies in a page that fork wipes, so that until it has claimed its slot the child is nobody;
 * a lifeline pipe, close-on-exec, tells the parent: end-of-file while the slot is RESERVED means that there is no child, or one
 * that died or exec'ed before it claimed. The child's bits are set, and the mutex is held, in the handlers of pthread_atfork.
 * Releases in the child before its hook are put off. Who claims by compare-and-swap and fails was reaped with its parent, and exits.
 *
 * A child of a worker gets a private copy-on-write view instead: in a worker plain code's arrays lie in the heap without its
 * author knowing, and fork has always meant a copy.
 */
#ifndef SX_FORK_H
#define SX_FORK_H

#include "heap.h"

/* The next fork of this thread is a worker's, which will have this slot (reserved, guarded). 0: an ordinary one again. */
void sx_fork_expect(sx_heap_t *heap, uint32_t slot);
void sx_fork_before(sx_heap_t *heap);
void sx_fork_after_in_parent(sx_heap_t *heap);
int sx_fork_after_in_child(sx_heap_t *heap); /* 0; -EOWNERDEAD: it must _exit; other errors: the child has no part in the heap */
/* Which of the children made so far never came up? Their slots come back. Cheap; called now and then. */
void sx_fork_poll(sx_heap_t *heap);

#endif
