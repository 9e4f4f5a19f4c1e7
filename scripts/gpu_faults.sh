#!/usr/bin/env bash
# Real vLLM killed, stopped and poisoned on one GPU, two engines on it; after each test nothing of them may be left in its
# memory. About 9 minutes on an H200 (stopped alone: 3 min 45 s). Needs pytest.
#
#   OUT=out scripts/gpu_faults.sh [option of pytest …]    # -k quarantined: the row that ends every engine alone
set -uo pipefail
cd "$(dirname "$0")/.."
: "${OUT:?set OUT to a folder}"
mkdir -p "$OUT"
nvidia-smi --query-gpu=name,memory.used --format=csv,noheader >"$OUT/before.txt"
${PYTHON:-python3} -m pytest -v -p no:cacheprovider --durations=0 "$@" tests/integration/engine/test_real_faults.py \
  2>&1 | tee "$OUT/test_real_faults.txt"
code=${PIPESTATUS[0]}
nvidia-smi --query-gpu=name,memory.used --format=csv,noheader >"$OUT/after.txt"
exit "$code"
