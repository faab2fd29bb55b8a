/* takeback.pml - block descriptors that are recycled for other ranges of memory: take-back, trim, hints, full scans.
 *
 * What is modelled, one Promela statement per atomic instruction on shared memory:
 *   state words  of 2 descriptors: st, gen, the trimmer's slot ts, and an ideal epoch.  ll[p,d]==1 stands for "the epoch has
 *                not moved since p loaded the word".  Only alloc and attach move the epoch; FREE -> TRIM -> FREE gives
 *                the very same word back, and a CAS that compares with it succeeds, as in reality.
 *   ranges       2 ranges of memory.  The owner (0) keeps the free ones in a private list and gives any of them to any IDLE
 *                descriptor.
 *   others       1 holds, releases and attaches under names that may be stale by then; 2 trims (and 1 too with -DTRIM2).
 *                Both may be SIGKILLed between any two statements; 3 reaps them.  0 and 3 live.
 * The rules:
 *   T1  IDLE -> LIVE  owner: own bit; birth and range by plain stores; CAS with epoch+1, again while the epoch moves.
 *   T2  LIVE -> FREE  anybody: try_free, then the hint: fetch_or AFTER the CAS.
 *   T3  FREE -> IDLE  owner, by CAS, again while the epoch moves, not out of TRIM.  Only then is the range in the list.
 *   T4  FREE -> TRIM(me) -> FREE  anybody, both by CAS; range read and madvise in between; then the hint again.
 *   T5  hints: the owner exchanges the word to 0, then looks at the hinted descriptors.
 *   T6  reaping: clear the bits in every descriptor whatever its state; TRIM(dead) -> FREE; try_free; THEN set the owner's
 *       rescan flag, whether or not anything was found; slot FREE last.  The owner clears the flag, then looks at all.
 *
 * Defines: ALLOCS, ATTACHES, TRIMS, KILLS: how often in all.
 * Faults to switch on (each must give a counterexample):
 *   -DPLAINBACK   T3 by load and plain store              -DIGNORETRIM  T3 out of TRIM too
 *   -DREUSE       T3 range listed while still FREE        -DNOLOOP      T3 one CAS, not repeated
 *   -DTRIMONCE    T4 CAS back not repeated                -DTRIMNOHINT  T4 no hint afterwards
 *   -DTRIMLATE    T4 madvise after the CAS back           -DHINTFIRST   T2 hint before the CAS
 *   -DHINTLATE    T5 looks, then clears the word          -DNORESCAN    T6 no rescan flag
 *   -DRESCANFIRST T6 flag set before TRIM -> FREE         -DRESCANFOUND T6 flag only if a bit or a TRIM was found
 *   -DFLAGLATE    T6 owner looks, then clears the flag    -DANYTRIM     T6 reaper ends TRIM of any slot (with -DTRIM2)
 *   -DLIVEBITS    T6 bits cleared in LIVE descriptors only
 * Not a fault: -DTRIMPEEK (T4: the range read before the CAS: the word compared vouches for it).
 * Checked: S1 a range is in one LIVE block at most, and no block is freed under a holder; S2 madvise never hits a range of a
 * LIVE block; S3 at every quiet moment each range is in the owner's list or in a LIVE block that somebody holds.
 */
#ifndef ALLOCS
#define ALLOCS 3
#endif
#ifndef ATTACHES
#define ATTACHES 2
#endif
#ifndef TRIMS
#define TRIMS 1
#endif
#ifndef KILLS
#define KILLS 2
#endif
#define IDLE 0
#define LIVE 1
#define FREE 2
#define TRIM 3

/* shared memory */
byte st[2] = IDLE, ts[2], gen[2], birth[2], rng[2];
bit  ll[8]; bit hb[4];
#define LL(p,d) ll[(p)*2+(d)]
#define HB(p,d) hb[(p)*2+(d)]                        /* holder bits of 0 and 1, in words of their own */
byte hint; bit rescan;

/* the owner's private memory; ghosts and the world */
bit  listed[2] = 1; bit given[2];
bit  bel[4], busy[3], killed[3], dead[3], reaped[3];
byte allocs, attaches, trims, kills;
#define BEL(p,d) bel[(p)*2+(d)]                      /* p rightly believes that it holds d */

#define BUMP(d) LL(0,d)=0; LL(1,d)=0; LL(2,d)=0; LL(3,d)=0
#define IN_LIVE(r) ((st[0]==LIVE && rng[0]==(r)) || (st[1]==LIVE && rng[1]==(r)))
#define SOMEWHERE(r) (listed[r] + (st[0]==LIVE && rng[0]==(r)) + (st[1]==LIVE && rng[1]==(r)) == 1)
#define STILL(p) (reaped[p] || (!killed[p] && !busy[p]))

inline quiet() {                                     /* S3 */
  if
  :: !busy[0] && STILL(1) && STILL(2) && hint == 0 && !rescan ->
       assert(HB(0,0)==BEL(0,0) && HB(0,1)==BEL(0,1) && HB(1,0)==BEL(1,0) && HB(1,1)==BEL(1,1));
       assert(st[0]==IDLE || given[0] || (st[0]==LIVE && (BEL(0,0) || BEL(1,0))));
       assert(st[1]==IDLE || given[1] || (st[1]==LIVE && (BEL(0,1) || BEL(1,1))));
       assert(SOMEWHERE(0) && SOMEWHERE(1))
  :: else
  fi
}

inline try_free(me, d) {                             /* T2 */
  do
  :: atomic { LL(me,d) = 1; z = (st[d] == LIVE) };
     if :: z -> z = !HB(0,d) :: else fi;             /* one load each */
     if :: z -> z = !HB(1,d) :: else fi;
#ifdef HINTFIRST
     if :: z -> hint = hint | (1 << d) :: else fi;
#endif
     if
     :: !z -> break
     :: z -> atomic { if
          :: st[d] == LIVE && LL(me,d) -> st[d] = FREE; z = 0; f = 1;
             assert(!BEL(0,d) && (!BEL(1,d) || killed[1]))          /* S1 */
          :: st[d] != LIVE -> z = 0
          :: else                                                   /* the epoch moved: scan again */
          fi };
#ifndef HINTFIRST
          if :: f -> hint = hint | (1 << d) :: else fi;
#endif
          if :: !z -> break :: else fi
     fi
  od;
  atomic { f = 0; z = 0; LL(me,d) = 0 }
}

#ifdef ANYTRIM
#define OFSLOT(me,slot,d) (ts[d] == slot || me == 3)
#else
#define OFSLOT(me,slot,d) (ts[d] == slot)
#endif
inline untrim(me, slot, d) {                         /* CAS TRIM(slot) -> FREE */
  do
  :: atomic { LL(me,d) = 1; z = (st[d] == TRIM && OFSLOT(me,slot,d)) };
     if
     :: !z -> break
     :: z -> atomic { if
          :: LL(me,d) && st[d] == TRIM && OFSLOT(me,slot,d) -> st[d] = FREE; ts[d] = 0; f = 1; z = 0
          :: else
#ifdef TRIMONCE
             -> z = 0
#endif
          fi };
          if :: !z -> break :: else fi
     fi
  od;
  atomic { z = 0; LL(me,d) = 0 }
}
inline trim(me, d) {                                 /* T4 */
  atomic { busy[me] = 1; LL(me,d) = 1; z = (st[d] == FREE) };
  if
  :: z ->
#ifdef TRIMPEEK
     x = rng[d];
#endif
     atomic { if :: LL(me,d) && st[d] == FREE -> st[d] = TRIM; ts[d] = me :: else -> z = 0 fi; LL(me,d) = 0 };
     if
     :: z ->
#ifndef TRIMPEEK
        x = rng[d];
#endif
#ifndef TRIMLATE
        assert(!IN_LIVE(x));                         /* S2: madvise */
#endif
        untrim(me, me, d);
#ifdef TRIMLATE
        assert(!IN_LIVE(x));
#endif
#ifndef TRIMNOHINT
        if :: f -> hint = hint | (1 << d) :: else fi
#endif
     :: else
     fi
  :: else
  fi;
  atomic { busy[me] = 0; z = 0; x = 0; f = 0; LL(me,d) = 0; quiet() }
}

inline take_back(d) {                                /* T3; owner only */
#ifdef REUSE
  if :: st[d] == FREE && !given[d] -> d_step { given[d] = 1; listed[rng[d]] = 1 } :: else fi
#else
  do
  :: atomic { LL(0,d) = 1; s = st[d] };
     if
#ifdef IGNORETRIM
     :: s == FREE || s == TRIM ->
#else
     :: s == FREE ->
#endif
        atomic { if
#ifdef PLAINBACK
        :: true ->
#else
        :: st[d] == s && LL(0,d) ->                  /* CAS */
#endif
           st[d] = IDLE; s = IDLE; assert(!listed[rng[d]]); listed[rng[d]] = 1; rng[d] = 0      /* (fewer states) */
#ifndef PLAINBACK
        :: else
#endif
#ifdef NOLOOP
           -> s = IDLE
#endif
        fi };
        if :: s == IDLE -> break :: else fi
     :: else -> break
     fi
  od;
  atomic { s = 0; LL(0,d) = 0 }
#endif
}

proctype Owner() { byte d, r, s, h; bit z, f;
end: do
  :: allocs < ALLOCS && st[0] == IDLE && (listed[0] || listed[1]) -> d = 0; goto alloc
  :: allocs < ALLOCS && allocs > 0 && st[1] == IDLE && (listed[0] || listed[1]) -> d = 1; goto alloc
  :: BEL(0,0) -> d = 0; goto drop
  :: BEL(0,1) -> d = 1; goto drop
  :: hint != 0 -> goto look
  :: rescan -> goto scan
#ifdef REUSE
  :: given[0] && st[0] == FREE -> d_step { st[0] = IDLE; given[0] = 0 }
  :: given[1] && st[1] == FREE -> d_step { st[1] = IDLE; given[1] = 0 }
#endif
  od;
alloc:                                               /* T1 */
  if :: listed[0] -> r = 0 :: allocs > 0 && listed[1] -> r = 1 fi;                   /* (the first alloc: by symmetry) */
  skip; d_step { busy[0] = 1; allocs++; listed[r] = 0; HB(0,d) = 1 };
  birth[d]++; rng[d] = r;
  do
  :: LL(0,d) = 1;                                    /* load */
     assert(st[d] == IDLE);
     atomic { if
       :: LL(0,d) -> assert(!IN_LIVE(r));            /* S1 */
          st[d] = LIVE; gen[d] = birth[d]; BUMP(d); BEL(0,d) = 1; break
       :: else
       fi }
  od;
  goto done;
drop:
  skip; d_step { busy[0] = 1; BEL(0,d) = 0; HB(0,d) = 0 }; try_free(0, d); goto done;
look:                                                /* T5 */
#ifdef HINTLATE
  skip; d_step { busy[0] = 1; h = hint };
#else
  skip; d_step { busy[0] = 1; h = hint; hint = 0 };
#endif
  if :: h & 1 -> take_back(0) :: else fi;
  if :: h & 2 -> take_back(1) :: else fi;
#ifdef HINTLATE
  hint = 0;
#endif
  goto done;
scan:                                                /* T6 */
  busy[0] = 1;
#ifndef FLAGLATE
  rescan = 0;
#endif
  take_back(0); take_back(1);
#ifdef FLAGLATE
  rescan = 0;
#endif
done:
  atomic { busy[0] = 0; d = 0; r = 0; h = 0; z = 0; f = 0; quiet() };
  goto end
}

proctype Other() { byte d, nm, x; bit z, f, ok;
  {
end: do
  :: attaches < ATTACHES && st[0] == LIVE && !BEL(1,0) -> d_step { d = 0; nm = gen[0]; attaches++ }; goto attach    /* gets a name */
  :: attaches < ATTACHES && st[1] == LIVE && !BEL(1,1) -> d_step { d = 1; nm = gen[1]; attaches++ }; goto attach
  :: BEL(1,0) -> d = 0; goto drop
  :: BEL(1,1) -> d = 1; goto drop
#ifdef TRIM2
  :: trims < TRIMS -> trims++; if :: d = 0 :: d = 1 fi; trim(1, d)
#endif
  od;
attach:
  skip; d_step { busy[1] = 1; HB(1,d) = 1 };         /* ... and uses it at any later time */
  d_step { ok = (st[d] == LIVE && gen[d] == nm); BUMP(d); BEL(1,d) = ok };
  if :: !ok -> HB(1,d) = 0; try_free(1, d) :: else fi;             /* StaleName */
  goto done;
drop:
  skip; d_step { busy[1] = 1; BEL(1,d) = 0; HB(1,d) = 0 }; try_free(1, d);
done:
  atomic { busy[1] = 0; ok = 0; nm = 0; d = 0; LL(1,0) = 0; LL(1,1) = 0; quiet() };
  goto end
  } unless { atomic { killed[1] -> dead[1] = 1; d = 0; nm = 0; x = 0; z = 0; f = 0; ok = 0; LL(1,0) = 0; LL(1,1) = 0 } };
end_dead: false
}

proctype Trimmer() { byte d, x; bit z, f;
  {
end: do
  :: trims < TRIMS && st[0] == FREE -> trims++; d = 0; trim(2, d); d = 0
  :: trims < TRIMS && st[1] == FREE -> trims++; d = 1; trim(2, d); d = 0
  od
  } unless { atomic { killed[2] -> dead[2] = 1; d = 0; x = 0; z = 0; f = 0; LL(2,0) = 0; LL(2,1) = 0 } };
end_dead: false
}

proctype Reaper() { byte v; bit z, f, found;
end: do
  :: dead[1] && !reaped[1] -> v = 1; goto reap
  :: dead[2] && !reaped[2] -> v = 2; goto reap
  od;
reap:
#ifdef RESCANFIRST
  rescan = 1;
#endif
  if
  :: v == 1 ->
#ifdef LIVEBITS
     d_step { if :: st[0] == LIVE -> HB(1,0) = 0; BEL(1,0) = 0 :: else fi };
     d_step { if :: st[1] == LIVE -> HB(1,1) = 0; BEL(1,1) = 0 :: else fi }
#else
     d_step { found = HB(1,0); HB(1,0) = 0; BEL(1,0) = 0 };
     d_step { found = found || HB(1,1); HB(1,1) = 0; BEL(1,1) = 0 }
#endif
  :: else
  fi;
  untrim(3, v, 0); untrim(3, v, 1);
  atomic { found = found || f; f = 0 };
  try_free(3, 0); try_free(3, 1);
#ifdef RESCANFOUND
  if :: found -> rescan = 1 :: else fi;
#endif
#if !defined(NORESCAN) && !defined(RESCANFIRST) && !defined(RESCANFOUND)
  rescan = 1;
#endif
  atomic { reaped[v] = 1; v = 0; found = 0; quiet() };
  goto end
}

proctype Killer() {
end: do
  :: d_step { kills < KILLS && !killed[1] && (busy[1] || BEL(1,0) || BEL(1,1)) -> killed[1] = 1; kills++ }
  :: d_step { kills < KILLS && !killed[2] && busy[2] -> killed[2] = 1; kills++ }
  od                                                 /* (killing one that has nothing to lose is no different from stopping it) */
}
init { atomic { run Owner(); run Other(); run Trimmer();
#if KILLS > 0
  run Reaper(); run Killer()
#endif
} }
