/* process.c - process.h on Linux. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "futex.h"

#define ASK_SECONDS 0.05 /* between two signals to a process that is to end */

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

/* Some facts: a signal that comes between Python's last look for one and a system call that waits is slept through; Python looks
 * again when the system call returns, as the next signal makes it.
 * The user may close all descriptors, and have others under their numbers; a poll that is under way has the old ones.
 * What this means for us: whoever is to end is asked again and again, until it has begun. A number is looked at before it is used.
 */
typedef struct {
    int fd; /* -1: none */
    dev_t device;
    ino_t inode;
} known_fd_t;

static known_fd_t know(int fd) {
    struct stat about;
    if (fd < 0 || fstat(fd, &about) != 0) return (known_fd_t){.fd = -1};
    return (known_fd_t){.fd = fd, .device = about.st_dev, .inode = about.st_ino};
}

static int is_still(const known_fd_t *known) {
    struct stat about;
    return known->fd >= 0 && fstat(known->fd, &about) == 0 && about.st_dev == known->device && about.st_ino == known->inode;
}

static int watched_signum;
static _Atomic int end_has_begun;
static known_fd_t asked_fd = {.fd = -1}; /* an eventfd: the signal has come. Constant while the handler is installed */

void sx_note_end(void) {
    atomic_store_explicit(&end_has_begun, 1, memory_order_relaxed); /* orders nothing: a look too early asks once more */
}

/* In a signal handler. */
static void note_asked(void) {
    uint64_t one = 1;
    if (is_still(&asked_fd) && write(asked_fd.fd, &one, sizeof one) < 0) {}
}

enum { OWNER, EXTRA, ASKED, ENDS };

typedef struct {
    known_fd_t known[ENDS];
    pthread_t main_thread;
    int signum;
    double patience;
    double grace;
    int code;
} watch_t;

static void ask(const watch_t *w) {
    if (w->signum != 0) pthread_kill(w->main_thread, w->signum);
}

static int has_begun(void) {
    return atomic_load_explicit(&end_has_begun, memory_order_relaxed); /* as in sx_note_end */
}

static void *watch(void *argument) {
    watch_t w = *(watch_t *)argument;
    free(argument);
    sx_name_thread("shmexec-owner");
    struct pollfd ends[ENDS]; /* poll passes over a negative descriptor */
    for (int dead = 0, asked = 0; !dead;) {
        asked = asked && !has_begun();
        if (asked) ask(&w);
        for (int i = 0; i < ENDS; i++) {
            if (!is_still(&w.known[i])) w.known[i].fd = -1;
            ends[i] = (struct pollfd){.fd = w.known[i].fd, .events = POLLIN};
        }
        int ready = poll(ends, ENDS, asked ? (int)(ASK_SECONDS * 1000) : -1);
        if (ready < 0) {
            if (errno != EINTR) nap(1.0); /* no memory in the kernel, or RLIMIT_NOFILE was set to nothing */
            continue;
        }
        for (int i = 0; i < ENDS; i++) {
            uint64_t times;
            if (ends[i].revents == 0 || ends[i].revents & POLLNVAL) continue; /* closed just now: that is no death */
            if (i != ASKED) dead = 1;
            else if (is_still(&w.known[i]) && read(ends[i].fd, &times, sizeof times) == sizeof times) asked = 1;
        }
        if (asked && ready > 0 && !dead) nap(ASK_SECONDS); /* the signal itself may do */
    }
    for (double past = 0; past < w.grace && (past < w.patience || has_begun()); past += ASK_SECONDS) {
        ask(&w);
        nap(w.grace - past < ASK_SECONDS ? w.grace - past : ASK_SECONDS);
    }
    _exit(w.code); /* then insist, GIL or no GIL */
}

/* Some facts: a process that is stopped runs no thread; SIGCONT, from whomever, lets it run, and to others is nothing. The kernel
 * sends PR_SET_PDEATHSIG when the process's present parent dies: a worker whose fork server is dead is a child of init, which stays.
 * A descriptor with O_ASYNC sends its signal, F_SETSIG, when the last reader of the pipe has gone, to the process that F_SETOWN
 * names and to none that has got its pid since.
 * What this means for us: a worker asks for both. Rejected: PR_SET_CHILD_SUBREAPER in the owner, which would get all orphans of the
 * user's own programs, too.
 */
int sx_continue_without_reader(int pipe_fd) {
    int flags = fcntl(pipe_fd, F_GETFL);
    if (flags < 0 || fcntl(pipe_fd, F_SETOWN, getpid()) != 0 || fcntl(pipe_fd, F_SETSIG, SIGCONT) != 0) return -errno;
    return fcntl(pipe_fd, F_SETFL, flags | O_ASYNC) == 0 ? 0 : -errno;
}

int sx_continue_without_parent(void) { return prctl(PR_SET_PDEATHSIG, SIGCONT) == 0 ? 0 : -errno; }

int sx_watch_owner(int owner_pidfd, int extra_fd, int signum, double patience, double grace, int code) {
    sx_continue_without_parent(); /* refused: nobody can do more */
    watch_t *w = malloc(sizeof *w);
    if (w == NULL) return -ENOMEM;
    known_fd_t asked = know(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); /* none left: then nobody is asked twice */
    *w = (watch_t){.known = {know(owner_pidfd), know(extra_fd), asked},
                   .main_thread = pthread_self(),
                   .signum = signum,
                   .patience = patience,
                   .grace = grace,
                   .code = code};
    atomic_store_explicit(&end_has_begun, 0, memory_order_relaxed);
    asked_fd = asked;
    watched_signum = signum;
    return start_thread(watch, w);
}

typedef struct {
    double seconds;
    int code;
} deadline_t;

static void *wait_deadline(void *argument) {
    deadline_t d = *(deadline_t *)argument;
    free(argument);
    sx_name_thread("shmexec-end");
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
    int is_ours = getpid() == bell->pid; /* a forked child rings nobody's bell */
    if (word != NULL && is_ours) {
        SX_STEP();
        sx_add_acq_rel(word, 1);
        sx_futex_wake(word, INT_MAX);
    }
    if (is_ours && signum == watched_signum && !has_begun()) note_asked();
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

/* ---- names ----
 *
 * Some facts: the kernel reads a command line where it put the arguments of exec, from arg_start to arg_end (fields 48 and 49 of
 * /proc/self/stat), and stops at arg_end as long as the byte before is 0. The environment follows. The C library's names of the
 * program point there.
 * What this means for us: the text is written in place, and cut; those names get a copy first.
 */

int sx_name_thread(const char *name) { return prctl(PR_SET_NAME, name) == 0 ? 0 : -errno; }

static char full_name[256], short_name[64]; /* of the program, for what C libraries say */

static void keep_name(char **name, char *kept, size_t size) {
    if (*name == NULL || *name == kept) return;
    strncpy(kept, *name, size - 1);
    *name = kept;
}

static int find_arguments(char **start, char **end) {
    char text[2048];
    int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -errno;
    ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    text[size < 0 ? 0 : size] = 0;
    const char *at = strrchr(text, ')'); /* field 2 ends here, whatever the name has in it */
    for (int field = 2; at != NULL && field < 48; field++)
        at = strchr(at + 1, ' ');
    unsigned long from, to;
    if (at == NULL || sscanf(at, "%lu %lu", &from, &to) != 2 || from == 0 || to <= from) return -ENOTSUP; /* a sandbox */
    *start = (char *)from;
    *end = (char *)to;
    return 0;
}

int sx_name_command(const char *title) {
    char *start, *end;
    int code = find_arguments(&start, &end);
    if (code != 0) return code;
    keep_name(&program_invocation_name, full_name, sizeof full_name);
    keep_name(&program_invocation_short_name, short_name, sizeof short_name);
    size_t room = (size_t)(end - start), length = strlen(title);
    if (length > room - 1) length = room - 1;
    memcpy(start, title, length);
    memset(start + length, 0, room - length);
    return 0;
}
