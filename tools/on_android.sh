#!/usr/bin/env bash
# Time a model on an Android device: tools/on_android.sh MODEL.tflite|MODEL.onnx [THREADS]
#
# The last line says median_us=..., over REPEATS runs of the benchmark program on pinned cores; docs/search.md has the
# steps from a new phone to a search. Needs adb and, for the device's processor, TFLite's benchmark_model or ONNX
# Runtime's onnxruntime_perf_test. Settings are environment variables:
#
#   BENCHMARK   the program's file on this machine (sent once); default: benchmark_model or onnxruntime_perf_test here
#   SERIAL      the device, as `adb devices` lists it; default: the only one
#   CORES       mask of cores to run on, hexadecimal, such as 80 for core 7; default: the device's fastest core
#   REPEATS     runs of the program, whose median counts (5);  RUNS, WARM_UP  calls in each (50, 10)
#   MAX_C       highest temperature of the battery at the start of a run, in degrees (38);  COOL_S  longest wait (300)
set -euo pipefail

fail() { echo "on_android.sh: $*" >&2; exit 1; }
device() { "${ADB:-adb}" ${SERIAL:+-s "$SERIAL"} "$@"; }
shell() { device shell "$@" </dev/null | tr -d '\r'; }

MODEL=${1:?usage: on_android.sh MODEL [THREADS]}
THREADS=${2:-1}
[ -f "$MODEL" ] || fail "$MODEL is not there"
case $MODEL in
  *.tflite) KIND=tflite BENCHMARK=${BENCHMARK:-benchmark_model} ;;
  *.onnx) KIND=onnx BENCHMARK=${BENCHMARK:-onnxruntime_perf_test} ;;
  *) fail "$MODEL is neither .tflite nor .onnx" ;;
esac
[ "$(device get-state 2>/dev/null || true)" = device ] || fail "no device answers; adb devices has to list it as device"

PLACE=/data/local/tmp/mindcv_mnasnet
SENT=$PLACE/model-$$.${MODEL##*.}
PROGRAM=$PLACE/$(basename "$BENCHMARK")
cleanup() { device shell "rm -f $SENT" </dev/null >/dev/null 2>&1 || true; }
trap cleanup EXIT

fastest_core() {
  shell 'for c in /sys/devices/system/cpu/cpu[0-9]*; do
    echo "$(cat $c/cpufreq/cpuinfo_max_freq 2>/dev/null || echo 0) ${c##*cpu}"; done' | sort -n | tail -1 | cut -d' ' -f2
}
temperature() { shell dumpsys battery | sed -n 's/^ *temperature: *\([0-9]*\).*/\1/p' | head -1; } # tenths of a degree
megahertz() { shell "cat /sys/devices/system/cpu/cpu$1/cpufreq/scaling_cur_freq 2>/dev/null" | sed 's/...$//'; }

wait_until_cool() {
  local end=$((SECONDS + ${COOL_S:-300})) now
  while now=$(temperature) && [ -n "$now" ] && [ "$now" -gt $((10 * ${MAX_C:-38})) ]; do
    [ "$SECONDS" -lt "$end" ] || fail "the battery still has $((now / 10)) degrees, above MAX_C ${MAX_C:-38}"
    sleep "${POLL_S:-5}"
  done
}

run_once() { # microseconds
  local output runs=${RUNS:-50} warm=${WARM_UP:-10}
  if [ $KIND = tflite ]; then
    output=$(shell "taskset $CORES $PROGRAM --graph=$SENT --num_threads=$THREADS --num_runs=$runs --warmup_runs=$warm" \
      "--min_secs=0 --use_xnnpack=true 2>&1") || fail "the benchmark ended with an error: $(tail -c 200 <<<"$output")"
    sed -n 's/.*Inference (avg): *\([0-9.e+]*\).*/\1/p' <<<"$output" | tail -1
  else
    output=$(shell "taskset $CORES $PROGRAM -e cpu -I -m times -r $runs -x $THREADS -y 1 $SENT 2>&1") ||
      fail "the benchmark ended with an error: $(tail -c 200 <<<"$output")"
    sed -n 's/.*Average inference time cost[a-z ]*: *\([0-9.]*\) ms.*/\1/p' <<<"$output" | tail -1 |
      awk '{ print 1000 * $1 }'
  fi
}

shell "mkdir -p $PLACE"
if ! shell "test -x $PROGRAM && echo there" | grep -q there; then
  FOUND=$(command -v "$BENCHMARK" || true)
  [ -n "$FOUND" ] || fail "$BENCHMARK is neither on the device nor here; BENCHMARK names its file"
  device push "$FOUND" "$PROGRAM" >/dev/null </dev/null || fail "$FOUND cannot be sent"
  shell "chmod 755 $PROGRAM"
fi
device push "$MODEL" "$SENT" >/dev/null </dev/null || fail "$MODEL cannot be sent"

CORE=$(fastest_core)
CORES=${CORES:-$(printf %x $((1 << ${CORE:-0})))}
TIMES=
for _ in $(seq "${REPEATS:-5}"); do
  wait_until_cool
  ONE=$(run_once)
  [ -n "$ONE" ] || fail "the benchmark's output has no time that is known here"
  TIMES="$TIMES $ONE"
done
WARM=$(temperature)
# shellcheck disable=SC2086
printf '%s\n' $TIMES | sort -n | awk -v tenths="${WARM:-0}" -v mhz="$(megahertz "${CORE:-0}")" -v cores="$CORES" '
  { t[NR] = $1 }
  END {
    middle = NR % 2 ? t[(NR + 1) / 2] : (t[NR / 2] + t[NR / 2 + 1]) / 2
    printf "median_us=%.1f least_us=%.1f most_us=%.1f repeats=%d cores=%s temperature_c=%.1f mhz=%s\n",
      middle, t[1], t[NR], NR, cores, tenths / 10, mhz
  }'
