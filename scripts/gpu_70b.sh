#!/usr/bin/env bash
# The paper's size on the GPUs of one machine, in parts of at most 10 minutes. Appends JSON lines to $OUT/70b.jsonl, keeps
# the logs in $OUT/logs.tar.gz, prints a table.
#
#   a  a judge of the 70B shape over all GPUs (dummy weights) judges 512 real pairs in both orders; bare vLLM beside it
#   b  what is left of it on the machine
#   c  10 ZeRO-3 steps of the deepest 70B-wide shape that fits without offload, and 8B at its best settings
#   d  exports that deepest shape, serves the export over all GPUs, hands the GPUs to training and takes them back
#   e  two iterations of ray_app.iterate with 8B-sized models that judge as SmolLM2 does (benchmarks/padding.py)
#
#   OUT=out MODEL=path/to/smollm2 DATA=path/to/data scripts/gpu_70b.sh a b       one call; then c; then d; then e
#   OUT=out MODEL=… DATA=… SIZE=tiny scripts/gpu_70b.sh                          a rehearsal, all parts: any GPUs, or none
#
# DATA holds eval/*.jsonl (pairwise files) and prompts.jsonl. What parts share lies in WORK: models, runs, 150 GB at size.
# d and e go on where an earlier call was stopped. With EXPORT_ONLY=1 d ends with its export; a later call goes on from there.
# GPUS: how many to use, 0 for processors. Needs no network.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/gpu_steps.sh
: "${OUT:?set OUT to a folder}"; : "${DATA:?set DATA to the folder of prompts.jsonl and eval/}"
: "${MODEL:=.cache/models/smollm2-135m-instruct}"
found=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null | wc -l || true)
GPUS=${GPUS:-$found}; WORK=${WORK:-${TMPDIR:-/tmp}/ste-70b}; BUDGET=${BUDGET:-570}
if ((GPUS)); then DEVICE=cuda SIZE=${SIZE:-paper} AT_ONCE=$GPUS; else DEVICE=cpu SIZE=tiny AT_ONCE=${AT_ONCE:-2}; fi
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1 TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-9.0} RAY_DEDUP_LOGS=0
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} VLLM_USE_FLASHINFER_SAMPLER=${VLLM_USE_FLASHINFER_SAMPLER:-0}
# NVLink multicast stays off unless told otherwise: on hosts whose GPUs others share it can take them out of service.
export NCCL_NVLS_ENABLE=${NCCL_NVLS_ENABLE:-0} NVSHMEM_DISABLE_NVLS=${NVSHMEM_DISABLE_NVLS:-1}
export TORCH_SYMM_MEM_DISABLE_MULTICAST=${TORCH_SYMM_MEM_DISABLE_MULTICAST:-1}
export VLLM_ALLREDUCE_USE_SYMM_MEM=${VLLM_ALLREDUCE_USE_SYMM_MEM:-0}
# On machines whose memory grows as it is used, Ray would take a little for nearly all, and kill workers.
export RAY_memory_monitor_refresh_ms=${RAY_memory_monitor_refresh_ms:-0}
python=${PYTHON:-python3}
json=$OUT/70b.jsonl; logs=$WORK/logs; mkdir -p "$OUT" "$logs"; touch "$json"
began=$SECONDS
GIB=$(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null | sort -n | head -1 | awk '{print $1 / 1024}' || true)
GIB=${GIB:-16} # of the smallest GPU; without one, enough for the tiny shape

if [[ $SIZE == paper ]]; then
  judge=${JUDGE_SHAPE:-70b} padded=${PADDED_SHAPE:-8b-smollm2} small=8b sequence=4096 config=configs/smollm2-135m-evidence.yaml
  judging="pairs=512 samples=1 repeats=2 max_tokens=256 max_model_len=8192 max_num_seqs=256"
  fits="--tokens 8192 --max-live 2000000000" large_set="tokens_per_batch=8192 recompute=full zero.max_live=2000000000"
  small_tokens=16384 prompts=${PROMPTS:-1000}
else
  judge=${JUDGE_SHAPE:-tiny-70b} padded=${PADDED_SHAPE:-tiny-8b} small=tiny sequence=128 config=configs/smollm2-135m-evidence.yaml
  judging="pairs=${PAIRS:-8} samples=1 repeats=1 max_tokens=16 max_model_len=2048 max_num_seqs=16 cpu_threads=1"
  fits="--tokens 256 --max-live 1000000" large_set="tokens_per_batch=256 recompute=full zero.max_live=1000000"
  small_tokens=512 prompts=${PROMPTS:-24}
fi
small_set="tokens_per_batch=$small_tokens recompute=none accumulation=4"
[[ $DEVICE == cuda ]] || config=configs/smollm2-135m-cpu.yaml
[[ $DEVICE == cuda ]] && cpu=() || cpu=(--cpu)

# step NAME LIMIT command …: run it within the budget, its output to a log. Fails where it fails or has no time.
step() {
  local name=$1 limit=$2 left=$((BUDGET - (SECONDS - began))) start=$SECONDS code=0
  shift 2
  ((left > 20)) || { note "$name: no time left"; return 1; }
  limit=$((left < limit ? left : limit))
  settle "$name"
  timeout --signal=INT -k 40 "$limit" "$@" >>"$logs/$name.log" 2>&1 || code=$?
  tar -C "$WORK" -czf "$OUT/logs.tar.gz" logs
  case $code in
  0) echo "$name: ok, $((SECONDS - start)) s" ;;
  124 | 137) note "$name: stopped after its $limit s" ;;
  *) note "$name: failed ($code) after $((SECONDS - start)) s"; why "$logs/$name.log" ;;
  esac
  return "$code"
}

# folder NAME empty|padded SHAPE: a model folder, made once.
folder() {
  [[ ! -e $WORK/$1.made ]] || return 0
  rm -rf "${WORK:?}/$1"
  step "folder-$1" 240 "$python" benchmarks/model_folders.py "$2" --shape "$3" --like "$MODEL" --output "$WORK/$1" &&
    touch "$WORK/$1.made"
}

judge_with() { # NAME LIMIT part, then fields of Spec
  local name=$1 limit=$2 part=$3
  shift 3
  # shellcheck disable=SC2086  # a list of words
  step "$name" "$limit" "$python" benchmarks/judging.py "$part" --label "$name" --json "$json" \
    --set "device=$DEVICE" "tensor_parallel=$AT_ONCE" "data=$DATA/eval" $judging "$@"
}

train_with() { # NAME LIMIT SHAPE settings, then options of benchmarks/training.py
  local name=$1 limit=$2 shape=$3 settings=$4
  shift 4
  # shellcheck disable=SC2086  # a list of words
  step "$name" "$limit" "$python" benchmarks/training.py --shape "$shape" --workers "$AT_ONCE" --sequence "$sequence" \
    --name "$name" --json "$json" "${cpu[@]}" "$@" --set $settings
}

deepest() { # of layers × $1 / 8
  # shellcheck disable=SC2086  # a list of words
  "$python" benchmarks/memory.py --shape "$judge" --gpus "$AT_ONCE" --gib "$GIB" $fits --deepest |
    awk -F, -v OFS=, -v share="$1" '{$1 = int($1 * share / 8); print}'
}

expected() { # NAME SHAPE options: what the sum says of a shape, as a JSON line
  local name=$1 shape=$2
  shift 2
  "$python" benchmarks/memory.py --shape "$shape" --gpus "$AT_ONCE" --gib "$GIB" "$@" |
    sed "s/^{/{\"name\": \"$name expected\", /" >>"$json"
}

# A part is called where its failure does not end the script, so what needs the line above it says so.
part_a() {
  folder judge empty "$judge" || return
  judge_with a-judge 540 compare "model=$WORK/judge" "vllm={load_format: dummy}"
}

part_b() {
  "$python" - "$json" <<'LEFT'
import json, sys
sys.path.insert(0, "benchmarks")
from judge_bench.held import gpu_mib
rows = [json.loads(line) for line in open(sys.argv[1])]
judged = [row for row in rows if row.get("label") == "a-judge"]
if not judged:
    sys.exit("b follows a: nothing was judged")
told = judged[-1]["app"][-1]["machine"]
now = gpu_mib()
with open(sys.argv[1], "a") as file:
    file.write(json.dumps({"name": "b-left", "machine": told, "now_mib": now}) + "\n")
print("b: held while serving", told["serving"], "- closed, Ray alive", told["closed"], "- now", now)
sys.exit(any(told["closed"]["gpu_mib"]) or told["closed"]["engine_processes"] or any(now))
LEFT
}

part_c() {
  local share shape failed=1
  for share in 8 7; do # the sum is no measurement: with an eighth fewer layers where it was too hopeful
    shape=$(deepest "$share")
    # shellcheck disable=SC2086  # a list of words
    expected "c-large-$share" "$shape" $fits
    if train_with "c-large-$share" 300 "$shape" "$large_set"; then failed=0; break; fi
  done
  expected c-8b "$small" --tokens "$small_tokens" --recompute none --grad-bytes 4
  train_with c-8b 150 "$small" "$small_set" || failed=1
  # Inductor needs a compiler on processors.
  [[ $DEVICE == cpu ]] || train_with c-8b-compiled 240 "$small" "$small_set compile=inductor" || failed=1
  return "$failed"
}

part_d() {
  folder large empty "${EXPORT_SHAPE:-$(deepest 7)}" || return
  if [[ ! -e $WORK/export/config.json ]]; then
    train_with d-export 540 "$judge" "$large_set" --steps 3 --warmup 1 --export "$WORK/large" "$WORK/export" || return
  fi
  [[ -z ${EXPORT_ONLY:-} ]] || return 0
  judge_with d-handover 540 handover "model=$WORK/export" && rm -rf "${WORK:?}/export"
}

part_e() {
  folder padded padded "$padded" || return
  local options=(--name at-size --runs "$WORK/runs" --iterations 2 --limit "$prompts" --train.workers "$AT_ONCE")
  options+=(--generator.model "$WORK/padded" --judge.model "$WORK/padded" --instructions.source "$DATA/prompts.jsonl")
  options+=(--evaluation.validation "validation=$DATA/eval/llmbar_casestudy.jsonl" --evaluation.test "[]")
  if [[ $DEVICE == cuda ]]; then
    for role in generator judge; do options+=("--$role.replicas" "$AT_ONCE" "--$role.max_num_seqs" 256); done
    # What is shown is the size; the small model's own settings would be in the way of few prompts and of sharding.
    options+=(--judging.min_explanation 0 --judging.must_name false --judging.must_agree false)
    # Few rows leave few steps to warm up in: the first one at 5e-4 took the loss from 1.6 to 7, and every verdict.
    options+=(--train.lr 1.0e-4 --train.lr_min 1.0e-5)
    options+=(--train.zero.stage 3 --train.epochs 1 --evaluation.baseline_prompts "[]" --train.tokens_per_batch 8192 --evaluation.limit 128)
  else
    options+=(--evaluation.limit 6 --train.max_steps 2 --judging.samples 4)
  fi
  local code=0
  # shellcheck disable=SC2086  # a list of words
  step e-iterate 560 "$python" -m ray_app.iterate --config "$config" "${options[@]}" ${ITERATE:-} || code=$?
  [[ ! -e $WORK/runs/at-size/metrics.jsonl ]] || cp "$WORK/runs/at-size/metrics.jsonl" "$OUT/e-metrics.jsonl"
  ((code)) || "$python" benchmarks/handoff.py --output "$OUT/e-account.json" account "$WORK/runs/at-size" >/dev/null
  return "$code"
}

parts=("${@:-a}"); [[ $# -gt 0 ]] || parts=(a b c d e)
failed=0
for part in "${parts[@]}"; do
  [[ $part == [a-e] ]] || { echo "unknown part $part"; exit 2; }
  "part_$part" || failed=1
done
"$python" benchmarks/at_size_table.py "$json"
exit "$failed"
