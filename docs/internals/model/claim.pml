/* claim.pml - the claim word of a task record: who may begin, withdraw, and judge a call.
 *
 * What is modelled, one Promela statement per atomic instruction on shared memory:
 *   rings     parent and NW workers; per worker a task ring and a result ring of SLOTS records.  A record is visible when
 *             head moves, consumed when tail moves.  A task record holds a call and a claim word.
 *   bell      the parent looks at rings and deaths only when its bell has rung (or its user submits or withdraws).
 *   crashes   a worker is SIGKILLed between any two statements.  Its death rings; the parent drains, judges, and starts
 *             a new worker on new rings.
 * The rules:
 *   C1  worker: CAS READY -> STARTED before it looks at anything else in the record; failed: skip it, tail, BELL.
 *   C2  the answer is published before the next record is claimed; then tail, then BELL (nothing that the parent waits for
 *       may come after the bell).
 *   C3  parent, worker alive: CAS READY -> WITHDRAWN; won: the call may go to another worker or end as cancelled.
 *   C4  certain death -> drain -> judge: a call without an answer has failed if STARTED, and goes elsewhere if READY.
 *   C5  the parent writes a record over another only when tail has passed that one AND its call has been answered or
 *       withdrawn.  Or, as the code has it (-DBYPOSITION, with -DTAILEARLY): when tail has passed that one; a worker is told
 *       of two calls at most; and who asks for the claim of a record that tail has passed is told STARTED, unread.
 *
 * Defines: NW workers (1|2), SLOTS (1|2) of a ring, CALLS in all, WITHDRAWS, KILLS.  -DTAILEARLY: tail moves right after the claim (sound, by C5).
 * Faults to switch on (each must give a counterexample):
 *   -DSTORE         C1 load and plain store               -DLOOKFIRST   C1 looks at the record, then claims it
 *   -DSILENTSKIP    C1 no bell after a skip               -DBELLFIRST   C2 bell, then tail
 *   -DCLAIMAHEAD    C2 claims, then publishes the last    -DPLAINWITHDRAW  C3 load and plain store
 *   -DJUDGEFIRST    C4 judge before drain                 -DREUSE       C5 tail alone (with -DTAILEARLY)
 * Checked: J1 no call's function begins twice; J2 each call ends once (answer, failure or cancel); J3 only a call that the
 * dead worker had claimed and not answered fails, one per death at most; J4 no call is lost: nothing sleeps for good while
 * one has not ended; J5 a worker never looks at a record whose call is withdrawn or over.
 */
#ifndef NW
#define NW 2
#endif
#ifndef CALLS
#define CALLS 3
#endif
#ifndef WITHDRAWS
#define WITHDRAWS 1
#endif
#ifndef KILLS
#define KILLS 1
#endif
#ifndef SLOTS
#define SLOTS 2
#endif
#define READY 0
#define STARTED 1
#define WITHDRAWN 2

/* shared memory; workers are 0 and 1; positions modulo 4 (64-bit and monotonic in reality) */
byte thead[2], ttail[2], rhead[2], rtail[2];
byte claim[4], task[4], result[4];
#define AT(w,pos) ((w)*2 + (pos)%SLOTS)
#define LEN(h,t)  (((h)+4-(t))%4)
bit  bell;

/* the parent's private memory: calls to place, and per position the call that is there (+1), 0 when over or withdrawn */
bit  waiting[CALLS]; byte at[8];
#define CALL(w,pos) at[(w)*4 + (pos)%4]

/* ghosts and the world */
bit  begun[CALLS], answered[CALLS], ended[CALLS]; byte by[CALLS]; bit off[CALLS];    /* off: withdrawn, not sent again */
bit  killed[2], dead[2]; byte submitted, withdraws, kills;

inline finish(c) { assert(!ended[c]); ended[c] = 1; by[c] = 0 }                        /* J2 */

#define UNREAD(w,pos) (LEN(pos, ttail[w]) < LEN(thead[w], ttail[w]))
#ifdef BYPOSITION
#define PASSED(w,pos) (!UNREAD(w,pos))
#define ROOM(w) (LEN(thead[w], ttail[w]) < SLOTS && !CALL(w,thead[w]) && (CALL(w,0)!=0)+(CALL(w,1)!=0)+(CALL(w,2)!=0)+(CALL(w,3)!=0) < 2)
#elif defined(REUSE)
#define PASSED(w,pos) 0
#define ROOM(w) (LEN(thead[w], ttail[w]) < SLOTS && !CALL(w,thead[w]))
#else
#define PASSED(w,pos) 0
#define ROOM(w) (LEN(thead[w], ttail[w]) < SLOTS && !CALL(w,thead[w]) && !CALL(w,(thead[w]+4-SLOTS)%4))       /* C5 */
#endif
inline drain(w) {
  do
  :: rhead[w] != rtail[w] ->
     d_step { c = result[AT(w,rtail[w])]; finish(c); s = 0;
       do :: s < 4 && CALL(w,s) == c+1 -> CALL(w,s) = 0 :: s < 4 && CALL(w,s) != c+1 -> s++ :: else -> break od; s = 0 };
     skip; d_step { result[AT(w,rtail[w])] = 0; rtail[w] = (rtail[w]+1)%4; c = 0; s = 0 }
  :: else -> break
  od
}
inline judge(w) {
  skip; d_step { s = 0; n = 0;
    do
    :: s < 4 && CALL(w,s) ->
       c = CALL(w,s) - 1; CALL(w,s) = 0;
       if
       :: PASSED(w,s) || claim[AT(w,s)] == STARTED -> n++; assert(by[c] == w+1 && !answered[c] && n == 1); finish(c)     /* J3: WorkerDied */
       :: else -> assert(claim[AT(w,s)] == READY); claim[AT(w,s)] = WITHDRAWN; waiting[c] = 1
       fi;
       s++
    :: s < 4 && !CALL(w,s) -> s++
    :: else -> break
    od; s = 0; c = 0; n = 0 }
}

proctype Worker(byte w) { byte p, c, q; bit ok, more;
start:
  atomic { p = 0; c = 0; q = 0; ok = 0; more = 0 };
  {
end: do
  :: thead[w] != ttail[w] ->
     p = ttail[w];
#ifdef CLAIMAHEAD
claimed:
     if :: more -> more = 0; p = q; goto begin :: else fi;
#endif
#ifdef LOOKFIRST
     c = task[AT(w,p)]; assert(!off[c] && !ended[c]);
#endif
#ifdef STORE
     ok = (claim[AT(w,p)] == READY);
     if :: ok -> d_step { claim[AT(w,p)] = STARTED; by[task[AT(w,p)]] = w+1 } :: else fi;
#else
     d_step { ok = (claim[AT(w,p)] == READY); if :: ok -> claim[AT(w,p)] = STARTED; by[task[AT(w,p)]] = w+1 :: else fi };
#endif
     if
     :: ok ->
begin:
        skip; d_step { c = task[AT(w,p)]; assert(!off[c] && !ended[c]) };   /* J5: looks at the record */
#ifdef TAILEARLY
        ttail[w] = (p+1)%4;
#endif
        d_step { assert(!begun[c]); begun[c] = 1 };                         /* J1 */
#ifdef CLAIMAHEAD
        q = (p+1)%4;
        if :: thead[w] != q -> d_step { more = (claim[AT(w,q)] == READY); if :: more -> claim[AT(w,q)] = STARTED; by[task[AT(w,q)]] = w+1 :: else fi } :: else fi;
#endif
        assert(LEN(rhead[w], rtail[w]) < SLOTS);                                /* there is always room, by C5 */
        d_step { result[AT(w,rhead[w])] = c; rhead[w] = (rhead[w]+1)%4; answered[c] = 1 };
#ifdef BELLFIRST
        bell = 1;
#endif
#ifndef TAILEARLY
        ttail[w] = (p+1)%4;
#endif
#ifndef BELLFIRST
        bell = 1;
#endif
     :: else ->
        ttail[w] = (p+1)%4;
#ifndef SILENTSKIP
        bell = 1;
#endif
     fi;
     d_step { p = 0; c = 0; ok = 0 };
#ifdef CLAIMAHEAD
     if :: more -> goto claimed :: else fi;
#endif
     goto end
  od
  } unless { atomic { killed[w] -> dead[w] = 1; p = 0; c = 0; q = 0; ok = 0; more = 0 } };
  bell = 1;                                                                 /* the death rings */
end_dead: d_step { !dead[w] -> killed[w] = 0 };
  goto start
}

proctype Parent() { byte w, c, s, n; bit ok;
end: do
  :: bell -> bell = 0; w = 0;
     do
     :: w < NW ->
        if
        :: dead[w] ->                                                       /* C4 */
#ifdef JUDGEFIRST
           judge(w); skip; drain(w); skip;
#else
           drain(w); judge(w);
#endif
           d_step { thead[w] = 0; ttail[w] = 0; rhead[w] = 0; rtail[w] = 0; dead[w] = 0;      /* a new worker */
                    claim[AT(w,0)] = 0; claim[AT(w,1)] = 0; task[AT(w,0)] = 0; task[AT(w,1)] = 0; result[AT(w,0)] = 0; result[AT(w,1)] = 0 }
        :: else -> drain(w)
        fi;
        w++
     :: else -> break
     od;
     goto dispatch
  :: submitted < CALLS -> d_step { waiting[submitted] = 1; submitted++ }; goto dispatch
  :: withdraws < WITHDRAWS && thead[0] != ttail[0] -> w = 0; goto withdraw
  :: withdraws < WITHDRAWS && thead[1] != ttail[1] -> w = 1; goto withdraw
  od;
withdraw:                                                                   /* C3: a record that has not been answered */
  withdraws++;
  if :: s = (thead[w]+3)%4 :: s = (thead[w]+2)%4 fi;
  if
  :: CALL(w,s) ->
     c = CALL(w,s) - 1;
     if :: PASSED(w,s) -> goto dispatch :: else fi;                         /* one load of tail; the claim is another */
#ifdef PLAINWITHDRAW
     ok = (claim[AT(w,s)] == READY);
     if :: ok -> claim[AT(w,s)] = WITHDRAWN; off[c] = 1 :: else fi;
#else
     d_step { ok = (claim[AT(w,s)] == READY); if :: ok -> claim[AT(w,s)] = WITHDRAWN; off[c] = 1 :: else fi };
#endif
     if
     :: ok -> CALL(w,s) = 0; if :: finish(c) :: waiting[c] = 1 fi           /* cancelled, or for another worker */
     :: else
     fi
  :: else
  fi;
dispatch:
  skip; d_step { c = 0; ok = 0; s = 0; w = 0; n = 0 };
  do
  :: n < CALLS && !waiting[n] -> n++
  :: n < CALLS && waiting[n] ->
     if                                                                     /* any worker with room, if there is one */
     :: ROOM(0) -> w = 0
     :: NW == 2 && submitted > 1 && ROOM(1) -> w = 1                        /* (the first: by symmetry) */
     :: else -> break
     fi;
     d_step { s = thead[w]; task[AT(w,s)] = n; claim[AT(w,s)] = READY; CALL(w,s) = n+1; waiting[n] = 0; off[n] = 0 };
     thead[w] = (s+1)%4; n++
  :: else -> break
  od;
  atomic { w = 0; s = 0; n = 0 };
  goto end
}
proctype Killer() {
end: do
  :: d_step { kills < KILLS && !killed[0] -> killed[0] = 1; kills++ }
  :: d_step { kills < KILLS && NW == 2 && !killed[1] -> killed[1] = 1; kills++ }
  od
}
proctype End() { byte c;                                                    /* J4 */
end: timeout -> do :: c < CALLS -> assert(ended[c]); c++ :: else -> break od }
init { atomic { run Parent(); run Worker(0); 
#if NW == 2
  run Worker(1);
#endif
#if KILLS > 0
  run Killer();
#endif
  run End() } }
