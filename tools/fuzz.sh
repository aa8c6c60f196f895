#!/usr/bin/env bash
# Fuzzes the readers of files from outside under AddressSanitizer and UBSan, two at a time:
#   tools/fuzz.sh [-seconds N] [-runs N] [target ...]
# Without clang it says so and ends well. What it finds lies in build-fuzz/found.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
seconds=60 runs=-1
while [ "${1:-}" = -seconds ] || [ "${1:-}" = -runs ]; do
  [ "$1" = -seconds ] && seconds=$2 || { runs=$2; seconds=0; }
  shift 2
done
cxx=$(command -v clang++ clang++-14 clang++-15 clang++-16 | head -1) || true
if [ -z "$cxx" ] || ! echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' |
  "$cxx" -x c++ -fsanitize=fuzzer,address -o /dev/null - 2>/dev/null; then
  echo "fuzz: skipped, there is no clang with libFuzzer here (Debian: tools/packages-test.txt)"
  exit 0
fi
. tools/setup.sh
mkdir -p .cache
choose_python
cmake -S . -B build-fuzz -G Ninja -DCMAKE_CXX_COMPILER="$cxx" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSEER_FUZZ=ON -DSEER_PYTHON="$PYTHON" \
  -DSEER_CUDA=OFF -DSEER_TORCH=OFF >.cache/fuzz-build.log 2>&1 || { tail -5 .cache/fuzz-build.log; exit 1; }
ninja -C build-fuzz fuzz >.cache/fuzz-build.log 2>&1 || { tail -20 .cache/fuzz-build.log; exit 1; }
"$PYTHON" tests/fuzz/make_seeds.py build-fuzz/seeds
mkdir -p build-fuzz/found build-fuzz/logs
[ $# -gt 0 ] || set -- $(cd build-fuzz && ls -- *_fuzz | sed 's/_fuzz$//')
one() {
  mkdir -p "build-fuzz/corpus/$1"
  ASAN_OPTIONS=allocator_may_return_null=1 "build-fuzz/$1_fuzz" -max_total_time="$2" -runs="$3" -timeout=10 \
    -rss_limit_mb=2048 -max_len=65536 -verbosity=0 -print_final_stats=1 -dict="build-fuzz/seeds/$1.dict" \
    -artifact_prefix="build-fuzz/found/$1-" "build-fuzz/corpus/$1" "build-fuzz/seeds/$1" \
    >"build-fuzz/logs/$1" 2>&1 || { echo "fuzz $1: FAILED, see build-fuzz/logs/$1"; grep -m3 -E 'ERROR|SUMMARY|what\(\)' "build-fuzz/logs/$1"; return 1; }
  echo "fuzz $1: $(sed -n 's/stat::number_of_executed_units: *//p' "build-fuzz/logs/$1") inputs, nothing found"
}
export -f one
printf '%s\n' "$@" | xargs -P 2 -I{} bash -c "one {} $seconds $runs"
