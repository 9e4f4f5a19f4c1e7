#!/usr/bin/env bash
# Changing hands on one GPU, whole: the evidence run; what its account says; a copy of it that judges again with engines
# that never sleep, and how alike both are; the test of sleeping engines. On an H200 22 (four iterations), 5 and 3 minutes.
#
#   OUT=out MODEL=path/to/smollm2 DATA=path/to/data RUNS=runs scripts/gpu_handoff.sh [option of iterate …]
#   PARTS="run sleep"      leaves the comparison out
#
# Started once in the background it goes on between the calls of a lent machine; everything lies flat in $OUT, and
# $OUT/ended tells that nothing is to come. The test is run where pytest is installed.
set -uo pipefail
cd "$(dirname "$0")/.."
: "${OUT:?set OUT to a folder}"; : "${DATA:?set DATA to the folder of prompts.jsonl and eval/}"
: "${PARTS:=run fresh sleep}"; : "${RUNS:=runs}"; : "${MODEL:=.cache/models/smollm2-135m-instruct}"
python=${PYTHON:-python3} run=$RUNS/neighbour fresh=$RUNS/fresh
export OUT RUNS MODEL DATA PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$OUT" "$fresh"

# What the GPU holds and does, every two seconds: seconds since 1970, MiB, percent.
watched() {
  while true; do
    echo "$(date +%s) $(nvidia-smi --query-gpu=memory.used,utilization.gpu --format=csv,noheader,nounits)"
    sleep 2
  done
}
watched >>"$OUT/gpu.txt" 2>&1 & # a second call, of other parts, goes on with it
watcher=$!
trap 'kill $watcher 2>/dev/null' EXIT

iterate() { # RUNS_FOLDER LOG option …
  local folder=$1 told=$2
  shift 2
  RUNS=$folder OUT=$folder/out scripts/gpu_evidence.sh neighbour --ray.dashboard false "$@" >"$OUT/$told" 2>&1
  echo "exit $?" >>"$OUT/$told"
}

the_run() {
  iterate "$RUNS" run.txt "$@"
  nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits >"$OUT/mib_after_run.txt"
  cp "$run/metrics.jsonl" "$OUT/"
  "$python" benchmarks/handoff.py --output "$OUT/account.json" account "$run" >/dev/null 2>"$OUT/account.txt"
}

# The last evaluation before the last iteration, and that iteration's judgments, again. SIGTERM ends it before it trains:
# what a shell starts in the background ignores SIGINT.
with_fresh_engines() {
  local last before
  last=$(basename "$(ls -d "$run"/iter_* | tail -1)") before=$(basename "$(ls -d "$run"/iter_* | tail -2 | head -1)")
  cp -r "$run" "$fresh/"
  rm -rf "$fresh/neighbour/$before/evaluation" "$fresh/neighbour/$last"
  {
    until [[ -e $fresh/neighbour/$last/train_set/stage.json ]]; do sleep 1; done
    pkill -TERM -f -- "^[^ ]*python[^ ]* -m ray_app.iterate .*$fresh" # not `timeout`, which would pass it on a second time
  } &
  iterate "$fresh" fresh.txt "$@" --pools.sleep never --pools.standby never
  "$python" benchmarks/handoff.py --output "$OUT/compare.json" compare "$run" "$fresh/neighbour" >/dev/null 2>"$OUT/compare.txt"
}

asked() { [[ " $PARTS " == *" $1 "* ]]; }

asked run && the_run "$@"
asked fresh && with_fresh_engines "$@"
if asked sleep && "$python" -c 'import pytest' 2>/dev/null; then
  "$python" -m pytest -v -p no:cacheprovider tests/gpu/engine/test_sleep.py >"$OUT/test_sleep.txt" 2>&1
fi
date >"$OUT/ended"
