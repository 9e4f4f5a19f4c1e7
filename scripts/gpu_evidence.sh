#!/usr/bin/env bash
# One arm of the evidence in docs/results.md, on one GPU: the whole loop from the committed config, continued by the same
# command where it was stopped. Leaves metrics.jsonl, run.json, alarms.json, every set's summary and the log in $OUT/NAME.
#
#   OUT=out MODEL=path/to/smollm2 DATA=path/to/data RUNS=runs scripts/gpu_evidence.sh ARM [option of iterate …]
#   arms: neighbour, modified-mirror, modified
#         neighbour-words (no couple that the instructions' words tell both ways), neighbour-bare (verdicts alone will do),
#         neighbour-previous (from the checkpoint before), neighbour-all (all N judgments drawn), neighbour-dpo (SFT, then
#         DPO); ARM@name runs an arm again, as ARM.name (seeds)
#   LIMIT_S stops it after so many seconds, to go on in another call
#
# DATA holds prompts.jsonl and eval/*.jsonl (docs/results.md says which). Needs no network.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${OUT:?set OUT to a folder}"; : "${DATA:?set DATA to the folder of prompts.jsonl and eval/}"
: "${MODEL:=.cache/models/smollm2-135m-instruct}"; : "${RUNS:=runs}"; : "${LIMIT_S:=100000}"
arm=${1:?usage: gpu_evidence.sh ARM [option …]}; shift
name=${arm/@/.} # of the run and of its folder in OUT: with a dot, for other arms have none
export HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1 VLLM_USE_FLASHINFER_SAMPLER=${VLLM_USE_FLASHINFER_SAMPLER:-0}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
case ${arm%%@*} in # a name behind @ tells runs of one arm apart (seeds)
  neighbour) options=() ;;
  neighbour-words) options=(--pairs.beyond_words true --instructions.heldout_fraction 0.3) ;; # a fifth of the pairs is left
  neighbour-bare) options=(--judging.min_explanation 0 --judging.must_name false --judging.must_agree false) ;;
  neighbour-previous) options=(--train.start previous) ;;
  neighbour-all) options=(--judging.sampling all) ;;
  neighbour-dpo) options=(--then_dpo.judging.must_name false --then_dpo.judging.must_agree false --then_dpo.train.tokens_per_batch 32768 --then_dpo.train.lr 5.0e-6) ;;
  modified-mirror) options=(--pairs.strategy modified_instruction) ;;
  modified) options=(--pairs.strategy modified_instruction --pairs.mirror false) ;;
  *) echo "unknown arm $arm"; exit 2 ;;
esac
tests=$(for file in "$DATA"/eval/*.jsonl; do test_set=$(basename "$file" .jsonl); [[ $test_set == llmbar_casestudy ]] || printf '"%s=%s",' "$test_set" "$file"; done)
mkdir -p "$OUT/$name"
code=0
timeout --signal=INT --kill-after=60 "$LIMIT_S" "${PYTHON:-python3}" -m ray_app.iterate --config configs/smollm2-135m-evidence.yaml \
  --name "$name" --runs "$RUNS" --generator.model "$MODEL" --judge.model "$MODEL" \
  --instructions.source "$DATA/prompts.jsonl" --evaluation.validation "validation=$DATA/eval/llmbar_casestudy.jsonl" \
  --evaluation.test "[${tests%,}]" "${options[@]}" "$@" 2>&1 | tee -a "$OUT/$name/log.txt" || code=$?
run=$RUNS/$name
for file in metrics.jsonl run.json alarms.json report.html; do [[ ! -e $run/$file ]] || cp "$run/$file" "$OUT/$name/"; done
for file in "$run"/iter_*/evaluation/*/summary.json; do
  [[ ! -e $file ]] || { to=$OUT/$name/${file#"$run/"}; mkdir -p "$(dirname "$to")"; cp "$file" "$to"; }
done
exit "$code"
