# What the measuring scripts share; sourced by them. Needs OUT.

note() { echo "$*" | tee -a "$OUT/notes.txt"; }

# Engines and workers that have ended, or were stopped, may still hold memory: wait until the GPUs have it back.
settle() {
  command -v nvidia-smi >/dev/null || return 0
  for _ in $(seq 20); do
    local used
    used=$(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | sort -n | tail -1) || return 0
    ((${used:-0} > 2000)) || return 0
    sleep 1
  done
  note "$1: starts with $used MiB of GPU memory taken"
}

# The last words of a log that tell what went wrong.
why() { grep -E "Error|error:|out of memory" "$1" | tail -3 | cut -c1-300 | tee -a "$OUT/notes.txt" || true; }
