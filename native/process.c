/* process.c - process.h on Linux. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "process.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "futex.h"

#define ASK_SECONDS 0.05 /* between two signals to a process that has lost its owner */

static void nap(double seconds) {
    struct timespec left = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {}
}

/* ---- threads that never need the GIL ---- */

static int create_detached(size_t stack_size, void *(*run)(void *), void *argument) {
    pthread_attr_t attributes;
    pthread_t thread;
    int code = pthread_attr_init(&attributes);
    if (code != 0) return -code;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (stack_size != 0) pthread_attr_setstacksize(&attributes, stack_size);
    code = pthread_create(&thread, &attributes, run, argument);
    pthread_attr_destroy(&attributes);
    return -code;
}

/* Takes over `argument`, which came from malloc. */
static int start_thread(void *(*run)(void *), void *argument) {
    size_t stack_size = 64 * 1024;
    if (stack_size < (size_t)PTHREAD_STACK_MIN) stack_size = (size_t)PTHREAD_STACK_MIN;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* inherited: the process's signals are never handled on this thread */
    int code = create_detached(stack_size, run, argument);
    /* glibc takes the thread-local variables of all libraries out of the stack: with some libraries a small one is refused */
    if (code == -EINVAL) code = create_detached(0, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code != 0) free(argument);
    return code;
}

typedef struct {
    struct pollfd ends[2];
    nfds_t count;
    pthread_t main_thread;
    int signum;
    double grace;
    int code;
} watch_t;

static void *watch(void *argument) {
    watch_t w = *(watch_t *)argument;
    free(argument);
    for (;;) {
        int ready = poll(w.ends, w.count, -1);
        if (ready < 0) {
            if (errno != EINTR) nap(1.0); /* no memory in the kernel, or RLIMIT_NOFILE was set to nothing */
            continue;
        }
        int dead = 0;
        for (nfds_t i = 0; i < w.count; i++) {
            if (w.ends[i].revents & POLLNVAL) w.ends[i].fd = -1; /* the user closed it: that is no death */
            else if (w.ends[i].revents != 0) dead = 1;
        }
        if (dead) break;
    }
    /* Ask, so that Python cleans up when it can. Again and again: a signal that comes between Python's last look for one and
     * a system call that waits is slept through. */
    for (double left = w.grace; left > 0; left -= ASK_SECONDS) {
        if (w.signum != 0) pthread_kill(w.main_thread, w.signum);
        nap(left < ASK_SECONDS ? left : ASK_SECONDS);
    }
    _exit(w.code); /* then insist, GIL or no GIL */
}

int sx_watch_owner(int owner_pidfd, int extra_fd, int signum, double grace, int code) {
    prctl(PR_SET_PDEATHSIG, SIGCONT); /* one that is stopped could not see it; to others SIGCONT is nothing */
    watch_t *w = malloc(sizeof *w);
    if (w == NULL) return -ENOMEM;
    *w = (watch_t){.ends = {{.fd = owner_pidfd, .events = POLLIN}, {.fd = extra_fd, .events = POLLIN}},
                   .count = 2, /* poll passes over a negative descriptor */
                   .main_thread = pthread_self(),
                   .signum = signum,
                   .grace = grace,
                   .code = code};
    return start_thread(watch, w);
}

typedef struct {
    double seconds;
    int code;
} deadline_t;

static void *wait_deadline(void *argument) {
    deadline_t d = *(deadline_t *)argument;
    free(argument);
    nap(d.seconds);
    _exit(d.code);
}

int sx_deadline(double seconds, int code) {
    deadline_t *d = malloc(sizeof *d);
    if (d == NULL) return -ENOMEM;
    *d = (deadline_t){.seconds = seconds, .code = code};
    return start_thread(wait_deadline, d);
}

/* ---- the end ---- */

void sx_exit_now(int code) { exit(code); }

int sx_flush_all(void) { return fflush(NULL) == 0 ? 0 : -errno; }

/* Weak: it is there when this extension was compiled for coverage. The linker needs -Wl,-u,__gcov_dump to take it from its library. */
extern void __gcov_dump(void) __attribute__((weak));

static pid_t barrier_pid;

/* exit(3) runs handlers last in, first out: all that the child registered have run when this one does. _exit, because what comes next
 * is the parent's. fflush(NULL) only writes: unlike the end of exit(3) it does not move the offset of a file that the parent reads. */
static void barrier(int status, void *unused) {
    (void)unused;
    if (getpid() != barrier_pid) return; /* a child that the worker's own code forked ends as any other */
    fflush(NULL);
    if (__gcov_dump) __gcov_dump();
    _exit(status);
}

int sx_exit_barrier(void) {
    barrier_pid = getpid();
    return on_exit(barrier, NULL) == 0 ? 0 : -ENOMEM;
}

/* ---- signals ---- */

typedef struct {
    struct sigaction before; /* written before the ring is installed, constant while it is */
    _Atomic(sx_atomic32_t *) word;
    pid_t pid;
} bell_t;

static bell_t bells[NSIG];

static void ring(int signum, siginfo_t *info, void *context) {
    int saved = errno;
    bell_t *bell = &bells[signum];
    if (bell->before.sa_flags & SA_SIGINFO) bell->before.sa_sigaction(signum, info, context);
    else bell->before.sa_handler(signum);
    sx_atomic32_t *word = sx_load_acquire(&bell->word);
    if (word != NULL && getpid() == bell->pid) { /* a forked child rings nobody's bell */
        sx_add_acq_rel(word, 1);
        sx_futex_wake(word, INT_MAX);
    }
    errno = saved;
}

int sx_signal_bell(int signum, sx_atomic32_t *word) {
    struct sigaction now;
    if (signum <= 0 || signum >= NSIG) return -EINVAL;
    if (sigaction(signum, NULL, &now) != 0) return -errno;
    int installed = (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == ring;
    if (!installed) {
        if (!(now.sa_flags & SA_SIGINFO) && (now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN)) return -EINVAL;
        bells[signum].before = now;
    }
    bells[signum].pid = getpid();
    sx_store_release(&bells[signum].word, word); /* read by `ring`, on whatever thread the signal is handled */
    if (installed) return 0;
    now.sa_flags |= SA_SIGINFO;
    now.sa_sigaction = ring;
    return sigaction(signum, &now, NULL) == 0 ? 0 : -errno;
}
