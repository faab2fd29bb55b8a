/* process.h - how a worker process notices the end of its owner, how it ends itself, and what it is called.
 *
 * Purpose: what must work when Python cannot: while another thread holds the GIL, inside a signal handler, after the last line
 * of Python has run.
 * Guarantees: nothing here calls Python, takes the GIL or waits for a lock. Threads that are started here block all signals,
 * are detached, and end with the process.
 * Assumptions: sx_watch_owner, sx_signal_bell and sx_exit_barrier are called by one thread, the process's main thread (after
 * fork(): the one that called it).
 *
 * All functions return 0 or -errno unless they do not return.
 */
#ifndef SX_PROCESS_H
#define SX_PROCESS_H

#include "atomics.h"

/* Starts a thread that waits until `owner_pidfd` says that the owner is dead, or `extra_fd` (-1: none) that nobody holds the other
 * end of a pipe any more. It then sends `signum` (0: none) to the calling thread, again and again, and calls _exit(code): after
 * `grace` seconds, or after `patience` seconds if the process has not begun its end by then. Both descriptors should stay open.
 * The thread also repeats a `signum` from whomever, if it has a bell, until the process begins its end: see sx_note_end. */
int sx_watch_owner(int owner_pidfd, int extra_fd, int signum, double patience, double grace, int code);

/* When nobody has the read end of this pipe any more, this process runs on if it has been stopped. To be called when the write end
 * that it has is its own alone: the setting is one of the open file. */
int sx_continue_without_reader(int pipe_fd);

/* When its parent dies (or the thread of it that has started this process), this process runs on if it has been stopped. */
int sx_continue_without_parent(void);

/* This process has begun its end: from now on nobody need ask it again. */
void sx_note_end(void);

/* _exit(code) in so many seconds, whatever the process is doing then. */
int sx_deadline(double seconds, int code);

/* exit(3). The caller may hold the GIL, and should: exit handlers of C libraries may call Python, daemon threads must not. */
_Noreturn void sx_exit_now(int code);

/* In a child of fork(): its exit handlers that are registered from now on run at exit(3); those that it inherited are its
 * parent's and do not. */
int sx_exit_barrier(void);

/* Writes out what is buffered in every FILE. May wait for a thread that is blocked inside a FILE. */
int sx_flush_all(void);

/* From now on the handler that is installed for `signum` at this moment is followed by a ring: *word is incremented and one who
 * sleeps on it is woken. `word` NULL: no ring any more. -EINVAL: there is no handler. A handler that is installed later
 * replaces both. */
int sx_signal_bell(int signum, sx_atomic32_t *word);

/* What ps and its like show of the calling thread; of the process, if that is its first: 15 bytes are kept. */
int sx_name_thread(const char *name);

/* What they show as the process's command line, cut to the length of that. What C code knows as the program's name stays. */
int sx_name_command(const char *title);

#endif
