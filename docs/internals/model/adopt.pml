/* adopt.pml - a block is freed while its extent changes owner: is it missed?
 *
 * One extent of 2 descriptors, one freer for each.  The owner is dead from the start; A adopts the extent and may be killed at
 * any point of that; B, A's reaper, then adopts it from the dead owner or from A.  An owner looks at the extent's hints only when
 * its slot's `look` flag is set, in a second thread, which looks only at the extents that are in the process's own list.
 *
 * Stores go through store buffers, in order (bell.pml): also those of a CAS or a fetch_or, as ARM and the C11 orders below seq_cst
 * allow; a later CAS on the same word waits for them.  (On x86 each locked instruction is a fence as well.)  A killed process's
 * buffered stores reach memory before its death can be noticed.
 *
 *   freer     A1 CAS LIVE -> FREE; A2 hint bit; A3 FENCE; A4 read the owner word; A5 set that slot's look flag.
 *             (Whoever ends a TRIM does the same after TRIM -> FREE, and so does a reaper's try_free.)
 *   adopter   A6 CAS owner word dead -> me; A7 FENCE; A8 look at all descriptors' states, take back the FREE ones.
 *             A6 to A8 and the entry in the own list under the process-private mutex that looking takes too; or, with
 *             -DSELFSCAN (sound), without it, and the own rescan flag is set after the entry in the list.
 *   owner     A9 exchange look to 0; A10 exchange the hints to 0; A11 look at the hinted states.
 *   reaper of a freer  A12 certain death; read the owner word; set that slot's rescan flag.  Rescan: A9, then all states.
 * Defines: KILLS (freers and A).  Not a fault: -DTESTLOOK (A5 stores only if it reads 0).
 * Faults to switch on (each must give a counterexample):
 *   -DNOFENCE_F  no A3              -DNOFENCE_A  no A7            -DOWNERFIRST  A4 before A1
 *   -DSCANFIRST  A8 before A6       -DHINTFIRST  A2 before A1     -DLOOKFIRST   A5 before A2 (the owner read before it)
 *   -DLOOKLATE   A9 after A11       -DNOMUTEX    no mutex in A6 to A8
 *   -DSELFLOOK   as -DSELFSCAN, but sets the own look flag: a rescan asked for before the entry in the list is lost
 *   -DNORESCAN   no A12             -DRESCANOLD  A12 asks the owner that was read before the death
 * Checked: when all is over, no descriptor is FREE.
 */
#ifndef KILLS
#define KILLS 1
#endif
#define DEAD 0             /* slots: 0 the dead owner, 1 A, 2 B */
#define LIVE 0
#define FREE 1
#define IDLE 2
byte st[2] = LIVE; bit hint[2]; byte owner = DEAD; bit look[3], rescan[3];
bit  spend[2], hpend[2], lpend[2]; byte lto[2];      /* freers' buffers: FREE, the hint, the look flag of slot lto */
bit  opend[3];                                       /* adopters' buffers: owner word = me */
bit  mutex[3], mine[3];                              /* private to a process: its mutex, "the extent is in my list" */
bit  killed[2], dead[2], reaped[2], killedA, deadA; byte kills;

#ifdef HINTFIRST
#define FIFO(f) !hpend[f]
#define ORDER(f) true
#else
#define FIFO(f) true
#define ORDER(f) !spend[f]
#endif
active proctype Hardware() {
end: do
  :: d_step { spend[0] && FIFO(0) -> spend[0] = 0; st[0] = FREE }
  :: d_step { spend[1] && FIFO(1) -> spend[1] = 0; st[1] = FREE }
  :: d_step { hpend[0] && ORDER(0) -> hpend[0] = 0; hint[0] = 1 }
  :: d_step { hpend[1] && ORDER(1) -> hpend[1] = 0; hint[1] = 1 }
  :: d_step { lpend[0] && !spend[0] && !hpend[0] -> lpend[0] = 0; look[lto[0]] = 1; lto[0] = 0 }
  :: d_step { lpend[1] && !spend[1] && !hpend[1] -> lpend[1] = 0; look[lto[1]] = 1; lto[1] = 0 }
  :: d_step { opend[1] -> opend[1] = 0; owner = 1 }
  :: d_step { opend[2] -> opend[2] = 0; owner = 2 }
  od
}

proctype Freer(byte f) { byte o;
  {
#ifdef OWNERFIRST
  o = owner;                                         /* A4 */
#endif
#ifdef HINTFIRST
  d_step { hpend[f] = 1; spend[f] = 1 };             /* A2, A1: the hint leaves first */
#else
  spend[f] = 1;                                      /* A1 */
#ifdef LOOKFIRST
  !spend[f]; o = owner; look[o] = 1;                 /* A3, A4, A5 */
#endif
  hpend[f] = 1;                                      /* A2 */
#endif
#ifndef NOFENCE_F
  !spend[f] && !hpend[f];                            /* A3 */
#endif
#ifndef LOOKFIRST
#ifndef OWNERFIRST
  o = owner;                                         /* A4 */
#endif
#ifdef TESTLOOK
  if :: look[o] -> goto over :: else fi;
#endif
  d_step { lpend[f] = 1; lto[f] = o };               /* A5 */
#endif
over: o = 0;
end: false
  } unless { killed[f] };
  atomic { !spend[f] && !hpend[f] && !lpend[f] -> o = 0; dead[f] = 1 }
}
inline take(d) { if :: d_step { st[d] == FREE -> st[d] = IDLE } :: else fi }      /* load, CAS */
inline lock(me)   { d_step { !mutex[me] -> mutex[me] = 1 } }
inline scan() { take(0); take(1) }

inline adopt(me) {
#if !defined(NOMUTEX) && !defined(SELFLOOK) && !defined(SELFSCAN)
  lock(me);
#endif
#ifdef SCANFIRST
  scan();
#endif
  opend[me] = 1;                                     /* A6 (the former owner is dead, A and B are not rivals here) */
#ifndef NOFENCE_A
  !opend[me];                                        /* A7 */
#endif
#ifndef SCANFIRST
  scan();                                            /* A8 */
#endif
  mine[me] = 1;
#ifdef SELFSCAN
  rescan[me] = 1;
#endif
#ifdef SELFLOOK
  look[me] = 1;
#endif
#if !defined(NOMUTEX) && !defined(SELFLOOK) && !defined(SELFSCAN)
  mutex[me] = 0
#endif
}
inline looking(me) {                                 /* the second thread, one round */
  lock(me);
  if
  :: rescan[me] -> rescan[me] = 0;
     if :: mine[me] -> scan() :: else fi
  :: look[me] ->
#ifndef LOOKLATE
     look[me] = 0;                                   /* A9 */
#endif
     if
     :: mine[me] ->
        d_step { h0 = hint[0]; h1 = hint[1]; hint[0] = 0; hint[1] = 0 };          /* A10 */
        if :: h0 -> take(0) :: else fi;              /* A11 */
        if :: h1 -> take(1) :: else fi;
        d_step { h0 = 0; h1 = 0 }
     :: else
     fi;
#ifdef LOOKLATE
     look[me] = 0
#endif
  fi;
  mutex[me] = 0
}

proctype A()     { { adopt(1); end: false } unless { killedA }; atomic { !opend[1] -> deadA = 1 } }
proctype ALook() { bit h0, h1;
  {
end: do :: look[1] || rescan[1] -> looking(1) od
  } unless { atomic { killedA -> h0 = 0; h1 = 0 } }
}
proctype B()     {
end: deadA; adopt(2) }
proctype BLook() { bit h0, h1;
end: do :: look[2] || rescan[2] -> looking(2) od
}

proctype Reaper() { byte o;                          /* A12: of the freers */
end: do
  :: dead[0] && !reaped[0] -> reaped[0] = 1; goto ask
  :: dead[1] && !reaped[1] -> reaped[1] = 1; goto ask
#ifdef RESCANOLD
  :: o == 0 -> o = owner + 1
#endif
  od;
ask:
#ifdef NORESCAN
  skip;
#else
#ifndef RESCANOLD
  o = owner + 1;
#endif
  if :: o > 0 -> rescan[o-1] = 1 :: else fi;
#endif
  o = 0;
  goto end
}
proctype Killer() {
end: do
  :: d_step { kills < KILLS && !killed[0] -> killed[0] = 1; kills++ }
  :: d_step { kills < KILLS && !killed[1] -> killed[1] = 1; kills++ }
  :: d_step { kills < KILLS && !killedA -> killedA = 1; kills++ }
  od
}
proctype End() {
end: timeout -> assert(st[0] != FREE && st[1] != FREE) }
init { atomic { run Freer(0); run Freer(1); run A(); run ALook(); run B(); run BLook();
#if KILLS > 0
  run Reaper(); run Killer();
#endif
  run End() } }
