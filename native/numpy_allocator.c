/* numpy_allocator.c - NumPy's allocator over the heap; see numpy_allocator.h. */
#include "numpy_allocator.h"

#include <string.h>

#define NOT_CACHED ((size_t)1024) /* from this size on NumPy's functions need no GIL */

char sx_numpy_asked[1];

static sx_heap_t *heap; /* set once, before the functions are known to anybody */
static sx_allocator_t numpy;
static sx_atomic64_t threshold;
static sx_atomic32_t running; /* relaxed: a thread that sees it late allocates elsewhere, which costs a copy */
static __thread uint64_t refused;

void sx_numpy_open(sx_heap_t *of, const sx_allocator_t *own, uint64_t from) {
    sx_store_relaxed(&threshold, from);
    if (!heap) {
        numpy = *own;
        heap = of;
    }
}

void sx_numpy_task(int change) {
    atomic_fetch_add_explicit(&running, (uint32_t)change, memory_order_relaxed);
}

uint64_t sx_numpy_refused(void) {
    uint64_t bytes = refused;
    refused = 0;
    return bytes;
}

static int is_ours(const void *context, size_t bytes) {
    return bytes >= sx_load_relaxed(&threshold) && (context || sx_load_relaxed(&running)) && !heap->is_private && heap->me->slot;
}

static void *block(const void *context, size_t bytes, int zero) {
    sx_name_t name;
    char *start;
    if (sx_heap_alloc(heap, bytes, (zero ? SX_ZERO : 0) | (context ? 0 : SX_PLAIN), &name, &start)) {
        refused = context ? bytes : refused;
        return NULL;
    }
    return start;
}

void *sx_numpy_malloc(void *context, size_t bytes) {
    void *start = NULL;
    if (is_ours(context, bytes) && ((start = block(context, bytes, 0)) || context))
        return start;
    return numpy.malloc(numpy.context, bytes);
}

void *sx_numpy_calloc(void *context, size_t count, size_t bytes) {
    size_t all;
    void *start = NULL;
    if (__builtin_mul_overflow(count, bytes, &all))
        return NULL;
    if (is_ours(context, all) && ((start = block(context, all, 1)) || context))
        return start;
    return numpy.calloc(numpy.context, count, bytes);
}

void sx_numpy_free(void *context, void *start, size_t bytes) {
    uint32_t number;
    (void)context;
    if (!start)
        return;
    if (!sx_heap_has(heap, start))
        numpy.free(numpy.context, start, bytes);
    else if (!heap->is_private && sx_heap_block_at(heap, start, &number))
        sx_heap_release(heap, number);
}

/* A block of the heap to another size. In place if it fits, is not half empty then, and nobody else sees it: what others hold is
 * theirs as it is. (A name that is resolved meanwhile finds the same run, whatever size is noted.) */
static void *resize(void *context, void *start, size_t bytes) {
    uint32_t number;
    sx_place_t place;
    if (!sx_heap_block_at(heap, start, &number) || sx_heap_place(heap, number, &place) || (char *)start != place.start)
        return NULL;
    uint64_t room = place.size, had = place.bytes;
    if (bytes <= room && bytes >= room / 2 && sx_heap_is_sole(heap, number)) {
        SX_STEP();
        sx_store_relaxed(&sx_block_of(heap, number)->bytes, bytes);
        return start;
    }
    void *moved = is_ours(context, bytes) ? block(context, bytes, 0) : NULL;
    if (!moved)
        moved = numpy.malloc(numpy.context, bytes < NOT_CACHED ? NOT_CACHED : bytes);
    if (!moved)
        return NULL;
    memcpy(moved, start, had < bytes ? had : bytes);
    sx_numpy_free(context, start, had);
    return moved;
}

void *sx_numpy_guard_realloc(void *context, void *start, size_t bytes) {
    if (start && sx_heap_has(heap, start))
        return resize(context, start, bytes);
    return numpy.realloc(numpy.context, start, bytes);
}

void *sx_numpy_realloc(void *context, void *start, size_t bytes) {
    if (!start)
        return sx_numpy_malloc(context, bytes);
    if (sx_heap_has(heap, start))
        return resize(context, start, bytes);
    void *grown = numpy.realloc(numpy.context, start, bytes); /* the size that it had is not known: it grows there first */
    if (!grown || bytes < NOT_CACHED || !is_ours(context, bytes))
        return grown;
    void *moved = block(context, bytes, 0);
    if (!moved)
        return grown;
    memcpy(moved, grown, bytes);
    numpy.free(numpy.context, grown, bytes);
    return moved;
}
