#!/usr/bin/env bash
# Measure judging on one GPU: bare vLLM against ray_app, and what binds an engine. Appends one JSON line a variant to
# $OUT/judging.jsonl, all output to $OUT/judging.log, prints a table.
#
#   OUT=out MODEL=path/to/smollm2 scripts/gpu_judging.sh                   # most telling first, until BUDGET s are spent
#   OUT=out MODEL=… ONLY="cost reload" BUDGET=200 scripts/gpu_judging.sh   # some
#
# Needs no network. FlashInfer's sampler is left off unless VLLM_USE_FLASHINFER_SAMPLER says otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${OUT:?set OUT to a folder}"; : "${MODEL:=.cache/models/smollm2-135m-instruct}"
DEVICE=${DEVICE:-cuda}; LIMIT=${LIMIT:-210}; BUDGET=${BUDGET:-470}; SCALE=${SCALE:-1}
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1 VLLM_USE_FLASHINFER_SAMPLER=${VLLM_USE_FLASHINFER_SAMPLER:-0}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
python=${PYTHON:-python3}
json=$OUT/judging.jsonl; log=$OUT/judging.log; mkdir -p "$OUT"; : >"$json"; : >"$log"
began=$SECONDS

# name | part | fields of Spec (benchmarks/judge_bench/work.py). 8,192 or 4,096 requests of mixed lengths.
variants() {
  cat <<LIST
share4|compare|replicas=4 replicas_per_gpu=4 max_num_seqs=256 pairs=$((2048 / SCALE)) samples=2 repeats=3
one|compare|max_num_seqs=1024 pairs=$((1024 / SCALE)) samples=2 repeats=3
one-unseeded|bare|max_num_seqs=1024 pairs=$((1024 / SCALE)) samples=2 repeats=2 seeded=false
one-v1-runner|bare|max_num_seqs=1024 pairs=$((1024 / SCALE)) samples=2 repeats=1 env={VLLM_USE_V2_MODEL_RUNNER:\ '0'}
one-sync|bare|max_num_seqs=1024 pairs=$((1024 / SCALE)) samples=2 repeats=1 vllm={async_scheduling:\ false}
one-eager|bare|max_num_seqs=1024 pairs=$((1024 / SCALE)) samples=2 repeats=1 vllm={enforce_eager:\ true}
reload|reload|max_num_seqs=256 pairs=$((64 / SCALE)) samples=2 repeats=2
cost|cost|max_num_seqs=1024 pairs=$((512 / SCALE)) samples=15 repeats=1
share2|compare|replicas=2 replicas_per_gpu=2 max_num_seqs=512 pairs=$((2048 / SCALE)) samples=2 repeats=3
share4-unseeded|compare|replicas=4 replicas_per_gpu=4 max_num_seqs=256 pairs=$((2048 / SCALE)) samples=2 repeats=3 seeded=false
LIST
}

while IFS='|' read -r -u 3 name part fields; do
  [[ -z ${ONLY:-} || " $ONLY " == *" $name "* ]] || continue
  left=$((BUDGET - (SECONDS - began)))
  ((left > 45)) || { echo "$name: no time left"; continue; }
  limit=$((left < LIMIT ? left : LIMIT))
  common=("model=$MODEL" "device=$DEVICE" max_tokens=512)
  IFS=$'\x1f' read -r -a own <<<"$(sed 's/\\ /\x1e/g; s/ /\x1f/g; s/\x1e/ /g' <<<"$fields")"
  start=$SECONDS; echo "=== $name" >>"$log"
  timeout -k 10 "$limit" "$python" benchmarks/judging.py "$part" --label "$name" --json "$json" \
    --set "${common[@]}" "${own[@]}" >>"$log" 2>&1 && state=ok || state="failed ($?)"
  echo "$name: $state, $((SECONDS - start)) s"
  [[ $state == ok ]] || tail -40 "$log" | grep -E "Error|error:|out of memory" | tail -3 | cut -c1-300 || true
done 3< <(variants)
"$python" - "$json" <<'TABLE'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
print(f"{'variant':18} {'requests':>9} {'bare tok/s':>11} {'app tok/s':>11} {'ratio':>6} {'first unit s':>13} {'app s':>7}")
for row in rows:
    if "median" not in row:
        shown = {k: v for k, v in row.items() if not isinstance(v, (list, dict)) and k not in ("part", "label")}
        print(f"{row['label']:18}", row.get("reload") or {**shown, **row.get("tokens_per_kept", {})})
        continue
    app = row.get("app") or [{}]
    middle = sorted(app, key=lambda r: r.get("seconds", 0))[len(app) // 2]
    cells = [row["median"].get("bare"), row["median"].get("app"), row["ratio"], middle.get("first_unit_s"), middle.get("seconds")]
    text = [f"{v:,.3f}" if v and v < 100 else f"{v:,.0f}" if v else "-" for v in cells]
    print(f"{row['label']:18} {row['requests']:>9,} {text[0]:>11} {text[1]:>11} {text[2]:>6} {text[3]:>13} {text[4]:>7}")
TABLE
