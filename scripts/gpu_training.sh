#!/usr/bin/env bash
# Measure training on the GPUs of this machine: variants at one model shape, TRL without Ray on the same settings, and a
# bare matrix product. Writes one JSON line a variant and a log each to $OUT, prints a table. A variant that fails or
# runs out of time is noted, and the next one starts.
#
#   OUT=out MODEL=path/to/smollm2 scripts/gpu_training.sh                       # the 3.1B list, <= 9 minutes
#   OUT=out MODEL=… SHAPE=8b scripts/gpu_training.sh                            # the 8B list, by the GPUs' memory
#   OUT=out ONLY="compile-16k TRL" scripts/gpu_training.sh                      # some of a list, in its order
#   OUT=out PROFILE="flash4-12k" scripts/gpu_training.sh                        # and where that one's step goes
#   OUT=out SHAPE=tiny EXTRA="--cpu --sequence 64 --steps 3 --warmup 1" scripts/gpu_training.sh    # the script itself
#
# MODEL is any local model folder: only its tokenizer is carried along by TRL. Needs no network.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/gpu_steps.sh
: "${OUT:?set OUT to a folder}"; : "${MODEL:=.cache/models/smollm2-135m-instruct}"
SHAPE=${SHAPE:-3b}; WORKERS=${WORKERS:-2}; BUDGET=${BUDGET:-540}; EXTRA=${EXTRA:-}; ONLY=${ONLY:-}; PROFILE=${PROFILE:-}
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1 TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-9.0}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} RAY_DEDUP_LOGS=0 RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S=120
MEMORY=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null | sort -n | head -1 || true)
MEMORY=${MEMORY:-0} # MiB of the smallest GPU
python=${PYTHON:-python3}
json=$OUT/training.jsonl; mkdir -p "$OUT/logs"; : >"$json"; : >"$OUT/notes.txt"
began=$SECONDS

# name | seconds at most | settings of train.*  (what was never measured first: the budget may end the list early).
# Compiled variants start with a minute or more of compiling; those after them find its results on disk.
variants() {
  case $SHAPE in
  8b-half) cat <<'LIST'
half-8k-x4|120|tokens_per_batch=8192 accumulation=4 grad_dtype=bf16
LIST
    ;;
  8b) if ((MEMORY > 100000)); then cat <<'LIST'
flash4-8k-x4|170|tokens_per_batch=8192 accumulation=4
flash4-12k-x4|170|tokens_per_batch=12288 accumulation=4
compile-12k-x4|260|tokens_per_batch=12288 accumulation=4 compile=inductor
LIST
    else cat <<'LIST'
full-8k-x4|150|tokens_per_batch=8192 recompute=full accumulation=4 grad_dtype=bf16 zero.max_live=1000000000
full-8k|150|tokens_per_batch=8192 recompute=full zero.max_live=1000000000
selective-8k|150|tokens_per_batch=8192 recompute=selective zero.max_live=1000000000
packed-8k|150|tokens_per_batch=8192
compile-full-8k|300|tokens_per_batch=8192 recompute=full zero.max_live=1000000000 compile=inductor
cudnn-full-8k|150|tokens_per_batch=8192 recompute=full zero.max_live=1000000000 batching=bucketed attention=cudnn
full-16k|150|tokens_per_batch=16384 recompute=full
TRL-full-8k|150|tokens_per_batch=8192 recompute=full batching=bucketed
compile-full-8k-x4|240|tokens_per_batch=8192 recompute=full accumulation=4 grad_dtype=bf16 zero.max_live=1000000000 compile=inductor
LIST
    fi
    ;;
  *) cat <<'LIST'
varlen-12k|110|tokens_per_batch=12288 attention=varlen
flash4-12k|110|tokens_per_batch=12288
flash4-16k|110|tokens_per_batch=16384
flash4-12k-x4|110|tokens_per_batch=12288 accumulation=4
compile-16k|240|tokens_per_batch=16384 compile=inductor
compile-16k-x4|150|tokens_per_batch=16384 compile=inductor accumulation=4
compile-20k-x4|150|tokens_per_batch=20480 compile=inductor accumulation=4
compile-varlen-16k-x4|150|tokens_per_batch=16384 compile=inductor accumulation=4 attention=varlen
cudnn-12k|110|tokens_per_batch=12288 batching=bucketed attention=cudnn
TRL|110|tokens_per_batch=8192 batching=bucketed
bucketed-8k|110|tokens_per_batch=8192 batching=bucketed
packed-8k|110|tokens_per_batch=8192
full-16k|110|tokens_per_batch=16384 recompute=full
no-blocks-8k|110|tokens_per_batch=8192 zero.block_granularity=false
LIST
    ;;
  esac
}

"$python" benchmarks/training.py --matmul --name matmul --json "$json" >"$OUT/logs/matmul.log" 2>&1 || note "matmul: failed"
while IFS='|' read -r name limit settings <&3; do
  [[ -z $ONLY || " $ONLY " == *" $name "* ]] || continue
  left=$((BUDGET - (SECONDS - began)))
  ((left > 45)) || { note "$name: no time left"; continue; }
  limit=$((left < limit ? left : limit))
  # shellcheck disable=SC2206  # both are lists of words
  common=(--shape "$SHAPE" --workers "$WORKERS" --name "$name" --json "$json" $EXTRA --set $settings)
  if [[ $name == TRL* ]]; then
    command=("$python" -m torch.distributed.run --nproc-per-node "$WORKERS" benchmarks/training_trl.py --tokenizer "$MODEL" "${common[@]}")
  else
    command=("$python" benchmarks/training.py "${common[@]}")
    [[ " $PROFILE " != *" $name "* ]] || command+=(--profile "$OUT/$name.trace.json.gz")
  fi
  settle "$name"
  start=$SECONDS; code=0
  timeout -k 10 "$limit" "${command[@]}" >"$OUT/logs/$name.log" 2>&1 3<&- || code=$?
  case $code in
  0) echo "$name: ok, $((SECONDS - start)) s" ;;
  124 | 137) note "$name: stopped after its $limit s" ;;
  *)
    note "$name: failed ($code) after $((SECONDS - start)) s"
    why "$OUT/logs/$name.log"
    ;;
  esac
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
        if "kernels_ms" in row:
            print("   GPU ms of one step:", ", ".join(f"{name} {ms:.0f}" for name, ms in row["kernels_ms"].items()))
TABLE
