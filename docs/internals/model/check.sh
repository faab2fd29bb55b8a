#!/bin/bash
# check.sh [full]: verifies takeback.pml, adopt.pml and claim.pml, and shows that each fault gives a counterexample.
# About 2 minutes.  Needs spin and gcc; builds in a temporary directory; two runs at a time, under 4 GB each.  Exits 1 on any surprise.
here=$(cd "$(dirname "$0")" && pwd); tmp=$(mktemp -d) || exit 2; trap 'rm -rf "$tmp"' EXIT
n=0
verify() {                       # verify NUMBER ok|bad MODEL [-Dflag ...]: writes its line to $tmp/NUMBER.line
  local id=$1 want=$2 m=$3 d=$tmp/$1 err states got=FAIL; shift 3
  mkdir "$d"; cp "$here/$m" "$d/"; cd "$d" || return
  spin -a "$@" "$m" >spin.log 2>&1 && gcc $([ $want = ok ] && echo -O2 || echo -O0) -DCOLLAPSE -DSAFETY -DMEMLIM=4000 -w -o pan pan.c 2>gcc.log && ./pan -m1000000 >log 2>&1
  err=$(grep -o 'errors: [0-9]*' log 2>/dev/null | cut -d' ' -f2); states=$(awk '/states, stored/{print $1}' log 2>/dev/null)
  if [ $want = ok ]; then
    [ "$err" = 0 ] && ! grep -q 'Search not completed\|max search depth too small\|out of memory' log && got=PASS
  else
    [ "$err" = 1 ] && grep -q 'assertion violated' log && got=PASS
  fi
  printf '%s  %-5s  %-12s %-52s errors=%s states=%s\n' $got "$([ $want = ok ] && echo sound || echo fault)" "$m" "$*" "${err:-?}" "${states:-?}" >"$tmp/$id.line"
  rm -rf "$d"
}
run() { n=$((n+1)); verify $n "$@" & while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done; }

T="-DALLOCS=2 -DATTACHES=1"
run ok takeback.pml -DALLOCS=3 -DATTACHES=1 -DKILLS=0
run ok takeback.pml $T -DKILLS=2
run ok takeback.pml $T -DKILLS=0 -DTRIMPEEK
for f in PLAINBACK IGNORETRIM REUSE NOLOOP TRIMONCE TRIMNOHINT TRIMLATE HINTFIRST HINTLATE; do run bad takeback.pml $T -DKILLS=0 -D$f; done
for f in NORESCAN RESCANFIRST RESCANFOUND LIVEBITS; do run bad takeback.pml $T -DKILLS=1 -D$f; done
run bad takeback.pml $T -DKILLS=2 -DFLAGLATE
run bad takeback.pml $T -DKILLS=1 -DTRIM2 -DTRIMS=2 -DANYTRIM

run ok adopt.pml -DKILLS=0; run ok adopt.pml -DKILLS=2; run ok adopt.pml -DKILLS=1 -DSELFSCAN; run ok adopt.pml -DKILLS=1 -DTESTLOOK
for f in NOFENCE_F NOFENCE_A OWNERFIRST SCANFIRST HINTFIRST LOOKFIRST LOOKLATE NOMUTEX; do run bad adopt.pml -DKILLS=0 -D$f; done
for f in NORESCAN RESCANOLD SELFLOOK; do run bad adopt.pml -DKILLS=1 -D$f; done

run ok claim.pml -DNW=2 -DCALLS=3 -DWITHDRAWS=1 -DKILLS=1
run ok claim.pml -DNW=1 -DCALLS=3 -DWITHDRAWS=2 -DKILLS=2
run ok claim.pml -DNW=1 -DCALLS=3 -DWITHDRAWS=2 -DKILLS=2 -DTAILEARLY
run ok claim.pml -DNW=1 -DSLOTS=1
run ok claim.pml -DNW=1 -DCALLS=3 -DWITHDRAWS=2 -DKILLS=2 -DTAILEARLY -DBYPOSITION
run ok claim.pml -DNW=2 -DCALLS=3 -DWITHDRAWS=1 -DKILLS=1 -DTAILEARLY -DBYPOSITION
for f in STORE LOOKFIRST CLAIMAHEAD PLAINWITHDRAW JUDGEFIRST; do run bad claim.pml -DNW=1 -D$f; done
run bad claim.pml -DNW=1 -DTAILEARLY -DREUSE
run bad claim.pml -DNW=1 -DWITHDRAWS=2 -DKILLS=0 -DSILENTSKIP
run bad claim.pml -DNW=1 -DSLOTS=1 -DKILLS=0 -DBELLFIRST
if [ "$1" = full ]; then         # about 8 minutes more
  run ok takeback.pml -DALLOCS=3 -DATTACHES=2 -DKILLS=0
  run ok takeback.pml -DALLOCS=2 -DATTACHES=2 -DKILLS=1
  run ok adopt.pml -DKILLS=2 -DSELFSCAN; run ok adopt.pml -DKILLS=2 -DTESTLOOK; run ok takeback.pml $T -DKILLS=1 -DTRIMPEEK
  run ok takeback.pml $T -DKILLS=1 -DTRIM2 -DTRIMS=2
  run ok takeback.pml -DALLOCS=3 -DATTACHES=1 -DKILLS=1
  run ok claim.pml -DNW=2 -DCALLS=2 -DWITHDRAWS=2 -DKILLS=2
fi
wait
rc=0
for i in $(seq $n); do
  cat "$tmp/$i.line" 2>/dev/null || echo "FAIL  run $i left no result"
  grep -q '^PASS' "$tmp/$i.line" 2>/dev/null || rc=1
done
[ $rc = 0 ] && echo "PASS  all $n" || echo "FAIL  see above"
exit $rc
