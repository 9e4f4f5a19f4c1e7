#!/bin/sh
# Says in one line what this machine lacks, before anything is installed. Usage: check_platform.sh PYTHON
python=$1
fail() { echo "error: $1" >&2; exit 2; }
[ "$(uname -s)" = Linux ] || fail "this project runs on Linux only (this is $(uname -s))"
[ "$(uname -m)" = x86_64 ] || fail "the pinned wheels are for x86-64 (this is $(uname -m))"
[ -n "$python" ] || fail "python3 is not installed (Debian: apt-get install python3 python3-venv)"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' ||
  fail "Python 3.11 or 3.12 is needed ($python is $("$python" -V 2>&1)); set PYTHON=/path/to/python3.11"
"$python" -c 'import ensurepip, venv' 2>/dev/null || fail "the venv module is missing (Debian: apt-get install python3-venv)"
