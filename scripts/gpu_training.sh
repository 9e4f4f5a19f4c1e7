#!/usr/bin/env bash
# Measure training on 2 GPUs: a short list of variants at the 3.1B shape, TRL without Ray on the same settings, and a
# bare matrix product. Writes one JSON line a variant and a log each to $OUT, prints a table.
#
#   OUT=out MODEL=path/to/smollm2 scripts/gpu_training.sh            # all variants, <= 8 minutes
#   OUT=out MODEL=… SHAPE=8b ONLY="a b" scripts/gpu_training.sh      # some, at another shape
#
# MODEL is any local model folder: only its tokenizer is carried along by TRL. Needs no network.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${OUT:?set OUT to a folder}"; : "${MODEL:=.cache/models/smollm2-135m-instruct}"
SHAPE=${SHAPE:-3b}; WORKERS=${WORKERS:-2}; LIMIT=${LIMIT:-100}; BUDGET=${BUDGET:-470}
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1 TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-9.0}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} RAY_DEDUP_LOGS=0 RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S=120
python=${PYTHON:-python3}
json=$OUT/training.jsonl; mkdir -p "$OUT"; : >"$json"
began=$SECONDS

# name | settings of train.*  (most telling first: the budget may end the list early)
variants() {
  if [[ $SHAPE == 8b ]]; then
    cat <<'LIST'
packed-8k|tokens_per_batch=8192
compile-8k|tokens_per_batch=8192 compile=inductor
compile-cudnn-8k|tokens_per_batch=8192 batching=bucketed attention=cudnn compile=inductor
TRL|tokens_per_batch=8192 batching=bucketed
bucketed-8k|tokens_per_batch=8192 batching=bucketed
selective-12k|tokens_per_batch=12288 recompute=selective
full-16k|tokens_per_batch=16384 recompute=full
LIST
    return
  fi
  cat <<'LIST'
packed-8k|tokens_per_batch=8192
packed-12k|tokens_per_batch=12288
compile-12k|tokens_per_batch=12288 compile=inductor
TRL|tokens_per_batch=8192 batching=bucketed
bucketed-8k|tokens_per_batch=8192 batching=bucketed
cudnn-12k|tokens_per_batch=12288 batching=bucketed attention=cudnn
compile-cudnn-16k|tokens_per_batch=16384 batching=bucketed attention=cudnn compile=inductor
selective-16k|tokens_per_batch=16384 recompute=selective
full-16k|tokens_per_batch=16384 recompute=full
no-blocks-8k|tokens_per_batch=8192 zero.block_granularity=false
LIST
}

"$python" benchmarks/training.py --matmul --name matmul --json "$json" >"$OUT/matmul.log" 2>&1 || true
while IFS='|' read -r name settings <&3; do
  [[ -z ${ONLY:-} || " $ONLY " == *" $name "* ]] || continue
  left=$((BUDGET - (SECONDS - began)))
  ((left > 45)) || { echo "$name: no time left" | tee -a "$OUT/skipped.txt"; continue; }
  limit=$((left < LIMIT ? left : LIMIT))
  common=(--shape "$SHAPE" --workers "$WORKERS" --name "$name" --json "$json" --set $settings)
  if [[ $name == TRL* ]]; then
    command=("$python" -m torch.distributed.run --nproc-per-node "$WORKERS" benchmarks/training_trl.py --tokenizer "$MODEL" "${common[@]}")
  else
    command=("$python" benchmarks/training.py "${common[@]}")
  fi
  start=$SECONDS
  timeout -k 10 "$limit" "${command[@]}" >"$OUT/$name.log" 2>&1 && state=ok || state="failed ($?)"
  echo "$name: $state, $((SECONDS - start)) s"
  [[ $state == ok ]] || grep -E "Error|error:|out of memory" "$OUT/$name.log" | tail -3 | cut -c1-300 || true
done 3< <(variants)
"$python" - "$json" <<'TABLE'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
print(f"{'variant':20} {'tok/s/GPU':>10} {'MFU':>7} {'GiB':>6} {'spread':>7}")
for row in rows:
    if "matmul_tflops" in row:
        print(f"matrix product 8192³ bf16: {row['matmul_tflops']} TFLOP/s, {row['matmul_tflops'] / 989:.3f} of 989")
    else:
        print(f"{row['name']:20} {row['tokens_per_second_per_gpu']:10.0f} {row.get('mfu', 0):7.4f} "
              f"{row.get('memory_gib', 0):6.1f} {row['spread']:7.3f}")
TABLE
