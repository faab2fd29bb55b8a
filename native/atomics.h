/* atomics.h - atomic operations with the memory order in their name, and the step hook of the tests.
 *
 * C11 atomics only: no instruction of one processor. Where an order is weaker than acquire/release, the caller says why that
 * is enough; each release/acquire pair carries the same SYNC POINT label at both ends.
 */
#ifndef SX_ATOMICS_H
#define SX_ATOMICS_H

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint64_t sx_atomic64_t;
typedef _Atomic uint32_t sx_atomic32_t;

/* Tests compile with -DSX_TEST_STEPS and define sx_step(): it is called before every store to shared memory, and kills,
 * yields or counts. In the extension it is nothing. */
#ifdef SX_TEST_STEPS
void sx_step(const char *file, int line);
#define SX_STEP() sx_step(__FILE__, __LINE__)
#else
#define SX_STEP() ((void)0)
#endif

#define sx_load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define sx_load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define sx_store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define sx_store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define sx_or_acq_rel(p, v) atomic_fetch_or_explicit((p), (v), memory_order_acq_rel)
#define sx_add_acq_rel(p, v) atomic_fetch_add_explicit((p), (v), memory_order_acq_rel)
#define sx_and_seq_cst(p, v) atomic_fetch_and_explicit((p), (v), memory_order_seq_cst)
#define sx_exchange_acq_rel(p, v) atomic_exchange_explicit((p), (v), memory_order_acq_rel)
/* strong; *expected is what was found when it fails */
#define sx_cas_acq_rel(p, expected, v)                                                                                 \
    atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acq_rel, memory_order_acquire)
#define sx_fence_seq_cst() atomic_thread_fence(memory_order_seq_cst)

static inline void sx_relax(void) { /* tell the core that this is a spin */
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ volatile("yield");
#endif
}

#endif
