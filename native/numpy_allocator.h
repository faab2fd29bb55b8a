/* numpy_allocator.h - NumPy's allocator (NEP 49) over the heap: what a handler's four functions are.
 *
 * Purpose: while a task runs, or inside shared_allocation(), what NumPy allocates lies in the heap.
 * Guarantees: any function may be called from any thread, with or without the GIL, at interpreter exit, and in a forked child; no
 *   function calls Python; an address outside the heap goes to NumPy's own functions, one inside never does.
 * Assumptions: the heap is never unmapped. NumPy frees with the handler that the array remembers, or with the default one, whose
 *   `free` and `realloc` are guarded by ours.
 *
 * Some facts about NumPy's calls
 *   - realloc is called without the GIL (np.fromfile with sep, np.fromstring); NumPy's own functions keep small blocks (under
 *     1024 bytes) in a cache that only the GIL protects
 *   - the size given to free may be wrong; free(NULL) happens; realloc is how fromiter and loadtxt grow
 *   - arrays may be freed after everything else of the interpreter is gone, or never
 * What this means for us: the size of a block comes from its descriptor. Inside realloc NumPy's functions are never asked for less
 * than 1024 bytes, but for a block that came from them. A block of theirs that grows over the threshold moves into the heap.
 */
#ifndef SX_NUMPY_ALLOCATOR_H
#define SX_NUMPY_ALLOCATOR_H

#include "heap.h"

typedef struct {
    void *context;
    void *(*malloc)(void *context, size_t bytes);
    void *(*calloc)(void *context, size_t count, size_t bytes);
    void *(*realloc)(void *context, void *start, size_t bytes);
    void (*free)(void *context, void *start, size_t bytes);
} sx_allocator_t; /* as NumPy's PyDataMemAllocator */

/* Once a process, before any function below is given to NumPy. `own`: NumPy's own functions. Later calls change the threshold. */
void sx_numpy_open(sx_heap_t *heap, const sx_allocator_t *own, uint64_t threshold);
/* Whether tasks allocate in the heap now. Counted: nested switches work. */
void sx_numpy_task(int change);

/* The context of shared_allocation(): always in the heap, or not at all. NULL is that of tasks: in the heap while one runs, elsewhere
 * when it is full. */
extern char sx_numpy_asked[1];
uint64_t sx_numpy_refused(void); /* bytes that this thread asked for in vain since the last call */

void *sx_numpy_malloc(void *context, size_t bytes);
void *sx_numpy_calloc(void *context, size_t count, size_t bytes);
void *sx_numpy_realloc(void *context, void *start, size_t bytes);
void sx_numpy_free(void *context, void *start, size_t bytes);
/* The guard of NumPy's default handler: as its own function, but blocks of the heap are known. Nothing moves into the heap: the
 * array would go on to claim that it is NumPy's. */
void *sx_numpy_guard_realloc(void *context, void *start, size_t bytes);

#endif
