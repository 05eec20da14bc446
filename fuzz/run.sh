#!/bin/sh
# Fuzz the reader: fuzz/run.sh SECONDS [FOLDER]. Four runs side by side: mutations of files' parts behind right checksums,
# and libFuzzer's own with checksums made right after; each with compiled kernels, and with kernels as Python, whose
# branches then count as coverage. PYTHON is an interpreter with atheris and dcformat's dependencies.
set -eu
seconds=$1
work=${2:-fuzz/work}
python=${PYTHON:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$root:$root/fuzz"
mkdir -p "$work"
"$python" "$root/fuzz/corpus.py" "$work/seeds"
run() { # name, target's option
    mkdir -p "$work/$1"
    "$python" "$root/fuzz/fuzz_reader.py" $2 -max_total_time="$seconds" -max_len=8192 -timeout=300 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$work/$1-" "$work/$1" "$work/seeds" > "$work/$1.log" 2>&1 || echo "$1 failed"
}
run compiled-parts "" &
run compiled-repaired --repair &
export NUMBA_DISABLE_JIT=1
run python-parts "" &
run python-repaired --repair &
wait
grep -H "stat::number_of_executed_units" "$work"/*.log
