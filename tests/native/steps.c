/* steps.c - linked into the extension when the tests build it with SX_TEST_STEPS: a process that kills itself at its n-th step.
 *
 * The file that SHMEXEC_TEST_STEPS names is mapped by all processes of a test; tests/killed_at_step.py writes the plan into it. The
 * first process that comes to a step, but for one that is spared, is the victim.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sites.h"

typedef struct {
    _Atomic uint64_t kill_at; /* 0: nobody is killed */
    _Atomic uint64_t spared;  /* a pid */
    _Atomic uint64_t victim;  /* a pid, 0 at first */
    _Atomic uint64_t steps;   /* of the victim */
} plan_t;

static plan_t *plan;

__attribute__((constructor)) static void map_plan(void) {
    const char *path = getenv("SHMEXEC_TEST_STEPS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    plan = mapped == MAP_FAILED ? NULL : mapped;
}

void sx_step(const char *file, int line);

void sx_step(const char *file, int line) {
    note_site(file, line);
    if (!plan || !plan->kill_at)
        return;
    uint64_t me = (uint64_t)getpid(), nobody = 0;
    if (me == plan->spared)
        return;
    atomic_compare_exchange_strong(&plan->victim, &nobody, me);
    if (plan->victim == me && ++plan->steps == plan->kill_at)
        kill(getpid(), SIGKILL);
}
