#!/usr/bin/env bash
# Proves the GPU side of amstel in one command of ten minutes, without a network:
#
#   benchmarks/gpu_day.sh WHEELS DATA OUT [--only REGEX] [--sanitize] [--dry]
#
# WHEELS  a folder with the wheel of amstel and of whatever this machine's Python lacks (pytest, pytest-benchmark,
#         pytest-xdist, torchvision, torch_geometric, deepinv), or - for what is installed
# DATA    the folder of real graphs and files (AMSTEL_DATA), or - for generated ones
# OUT     a folder; every figure is written there as it comes: info.txt tests.log tests.xml bench.log lines.jsonl
#         compile.log cuda.json kernels.txt summary.txt
# --only      regular expression: groups of the suites, such as 'spmm|roi_pool-backward'; tests are left out
# --sanitize  instead: memcheck, racecheck, initcheck and synccheck over every kernel at small shapes
# --dry       walks all of it on the CPU at tiny shapes
set -uo pipefail
fail() { echo "gpu_day: $*" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
only="" sanitize="" dry="" places=()
while [ $# -gt 0 ]; do
  case $1 in
    --only) [ $# -ge 2 ] || fail "--only: expected a regular expression, got nothing"; only=$2; shift ;;
    --sanitize) sanitize=1 ;;
    --dry) dry=--dry ;;
    -h | --help) sed -n '2,16s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --*) fail "unknown option $1; expected --only REGEX, --sanitize or --dry" ;;
    *) places+=("$1") ;;
  esac
  shift
done
[ ${#places[@]} -eq 3 ] || fail "expected three folders, WHEELS DATA OUT, got ${#places[@]}"
python=${PYTHON:-python3} wheels=${places[0]} data=${places[1]} out=${places[2]} began=$SECONDS
command -v "$python" >/dev/null || fail "found no $python; set PYTHON to a Python with torch"
[ "$data" = - ] || [ -d "$data" ] || fail "DATA: expected a folder or -, got $data"
mkdir -p "$out" 2>/dev/null || fail "OUT: cannot make the folder $out"
"$python" "$root/benchmarks/gpu_day.py" check "$wheels" $dry --only "$only" || exit 2
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ "$data" = - ] && export AMSTEL_DATA=$work/none || export AMSTEL_DATA=$(cd "$data" && pwd)
export PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore CUDA_MODULE_LOADING=LAZY TORCHINDUCTOR_CACHE_DIR=$work/inductor
if [ "$wheels" != - ]; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --target "$work/site" "$wheels"/*.whl ||
    fail "WHEELS: pip could not install the wheels of $wheels"
  export PYTHONPATH=$work/site
fi
cd "$root"
export PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}$root
"$python" -m benchmarks.gpu_day ready $dry || exit 2
say() { echo "== $* ($((SECONDS - began)) s)"; }

if [ -n "$sanitize" ]; then
  tool=$(command -v compute-sanitizer || ls /usr/local/cuda*/bin/compute-sanitizer 2>/dev/null | tail -1)
  [ -n "$tool$dry" ] || fail "--sanitize: found no compute-sanitizer in PATH or /usr/local/cuda*/bin"
  status=0
  for check in memcheck racecheck initcheck synccheck; do
    say "$check"
    run=("$tool" --tool "$check" --error-exitcode 7 --kernel-name-exclude regex:at::)
    [ -n "$dry" ] && run=()
    ${run[@]+"${run[@]}"} "$python" -m benchmarks.gpu_day kernels --tiny $dry ${only:+--only "$only"} >"$out/$check.log" 2>&1 || status=1
    tail -1 "$out/$check.log"
  done
  exit $status
fi

{ nvidia-smi -q -d CLOCK,MEMORY 2>/dev/null | head -40; "$python" -m amstel.info; } >"$out/info.txt" 2>&1
tail -10 "$out/info.txt"
: >"$out/lines.jsonl"
# What torch.compile makes for the suites comes from its cache then; it is made beside the tests, on the other cores.
bench=(-m pytest benchmarks -q -p no:cacheprovider -m cuda $dry --only "$only")
spread=() chosen=(-m cuda tests) compiling=
if [ -n "$dry" ]; then
  chosen=(tests/test_cuda_use.py -k cpu)
elif "$python" -c 'import xdist' 2>/dev/null; then
  spread=(-n 6)
  timeout -k 5 120 "$python" "${bench[@]}" --compile-only -n 8 >"$out/compile.log" 2>&1 &
  compiling=$!
fi
if [ -z "$only" ]; then
  say "tests"
  # SIGINT, so that a run that is too long still says what failed
  timeout -s INT -k 10 150 "$python" -m pytest -q -p no:cacheprovider ${spread[@]+"${spread[@]}"} --maxfail=60 --durations=12 --junitxml="$out/tests.xml" "${chosen[@]}" >"$out/tests.log" 2>&1
  grep -E "^(FAILED|ERROR)|passed|failed" "$out/tests.log" | cut -c1-160 | tail -20
fi
[ -z "$compiling" ] || wait $compiling
say "suites"
timeout -s INT -k 10 260 "$python" "${bench[@]}" --deadline 235 --lines "$out/lines.jsonl" \
  --benchmark-json="$out/cuda.json" --benchmark-quiet >"$out/bench.log" 2>&1
grep -E "^(FAILED|ERROR)|passed|failed" "$out/bench.log" | cut -c1-160 | tail -20
say "kernels"
counters=gpu__time_duration.sum,dram__bytes.sum,lts__t_bytes.sum,dram__throughput.avg.pct_of_peak_sustained_elapsed,lts__throughput.avg.pct_of_peak_sustained_elapsed,sm__throughput.avg.pct_of_peak_sustained_elapsed,sm__warps_active.avg.pct_of_peak_sustained_active,launch__registers_per_thread,launch__grid_size,launch__waves_per_multiprocessor,smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio,l1tex__average_t_sectors_per_request_pipe_lsu_mem_global_op_ld.ratio
if command -v ncu >/dev/null && [ -z "$dry" ]; then
  timeout 110 ncu --profile-from-start off --clock-control none --kernel-name-base demangled -k 'regex:amstel' --csv --page raw \
    --metrics "$counters" "$python" -m benchmarks.gpu_day kernels ${only:+--only "$only"} >"$out/kernels.txt" 2>&1
else
  timeout 110 "$python" -m benchmarks.gpu_day kernels --profile $dry ${only:+--only "$only"} >"$out/kernels.txt" 2>&1
fi
[ $? -eq 0 ] || tail -3 "$out/kernels.txt"
say "summary"
"$python" -m benchmarks.gpu_day summary "$out" | tee "$out/summary.txt"
[ "${PIPESTATUS[0]}" -eq 0 ]
