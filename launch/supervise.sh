#!/bin/bash
# Keeps a run going until it is done: when it ends early, starts it again from its last checkpoint.
#
#     launch/supervise.sh --config imagenet_vit --workdir /shared/run
#
# What follows the script are the flags of `pnoise train`. With several hosts, start it on each of
# them: when one process of the run is lost the others end, and the scripts start all again. A
# signal to the script goes to the run, which saves and ends, and is not started again.
#
# Variables, with their defaults:
#   PROCESSES=1  processes of the run on this machine; more than one only if they are the whole run
#   TRIES=5      failures in a row, with no new checkpoint between them, after which it gives up
#   WAIT=10      seconds until it starts again after a failure; doubled each time, at most 640
#   GRACE=180    seconds until processes are killed that do not end after another one has failed

set -uo pipefail

PROCESSES=${PROCESSES:-1} TRIES=${TRIES:-5} WAIT=${WAIT:-10} GRACE=${GRACE:-180}
stopping='' pids=()

workdir=''
for ((i = 1; i <= $#; i++)); do
  next=$((i + 1))
  case "${!i}" in
    --workdir=* | -workdir=*) workdir=${!i#*=} ;;
    --workdir | -workdir) workdir=${!next:-} ;;
  esac
done
if [[ -z "$workdir" ]]; then
  echo "error: give the flags of 'pnoise train', such as --config imagenet_vit --workdir DIR" >&2
  exit 2
fi
for name in PROCESSES TRIES; do
  if ! [[ "${!name}" =~ ^[1-9][0-9]*$ ]]; then
    echo "error: $name=${!name}: give a whole number of at least 1" >&2
    exit 2
  fi
done

pass_on() {  # the name of a signal
  stopping=1
  [[ ${#pids[@]} -eq 0 ]] || kill -s "$1" "${pids[@]}" 2>/dev/null
}
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT

newest() {  # checkpoint
  find "$workdir/checkpoints" -mindepth 1 -maxdepth 1 -printf '%f\n' 2>/dev/null |
    grep -xE '[0-9]+' | sort -n | tail -n 1
}

start() {  # flags of `pnoise train`
  local index port=$((20000 + RANDOM % 10000))
  pids=()
  for ((index = 0; index < PROCESSES; index++)); do
    if [[ $PROCESSES -eq 1 ]]; then
      "${PNOISE:-pnoise}" train "$@" &
    else
      JAX_COORDINATOR_ADDRESS=127.0.0.1:$port JAX_NUM_PROCESSES=$PROCESSES \
        JAX_PROCESS_ID=$index "${PNOISE:-pnoise}" train "$@" &
    fi
    pids+=($!)
  done
}

await() {  # sets code: 0 if all are done, 75 if all that are not were stopped, else that of a failure
  local pid ended left failed_at=''
  code=0
  while [[ ${#pids[@]} -gt 0 ]]; do
    left=()
    for pid in "${pids[@]}"; do
      if kill -0 "$pid" 2>/dev/null; then
        left+=("$pid")
        continue
      fi
      wait "$pid"
      ended=$?
      [[ $ended -eq 0 || $code -ne 0 && $code -ne 75 ]] || code=$ended
      [[ $ended -eq 0 || $ended -eq 75 || -n "$failed_at" ]] || failed_at=$SECONDS
    done
    pids=("${left[@]}")
    if [[ -n "$failed_at" && $((SECONDS - failed_at)) -ge $GRACE && ${#pids[@]} -gt 0 ]]; then
      echo "supervise: killing ${pids[*]}: $GRACE s after a failure, not ended" >&2
      kill -KILL "${pids[@]}" 2>/dev/null
    fi
    [[ ${#pids[@]} -eq 0 ]] || sleep 0.5
  done
}

failures=0
while true; do
  before=$(newest)
  start "$@"
  [[ -z "$stopping" ]] || pass_on TERM  # the signal came while they were started
  await
  if [[ $code -eq 0 || $code -eq 130 || -n "$stopping" ]]; then
    exit "$code"
  fi
  after=$(newest)
  pause=0
  [[ "$after" == "$before" ]] || failures=0
  if [[ $code -ne 75 || "$after" == "$before" ]]; then
    failures=$((failures + 1))
    if [[ $failures -ge $TRIES ]]; then
      echo "supervise: $failures failures without a new checkpoint, the last with exit code" \
        "$code; giving up" >&2
      exit "$code"
    fi
    pause=$((failures > 6 ? 640 : WAIT << (failures - 1)))
    [[ $pause -le 640 ]] || pause=640
  fi
  echo "supervise: ended with exit code $code; starting again in $pause s, from" \
    "${after:+the checkpoint of step }${after:-the beginning}" >&2
  sleep "$pause" &
  wait $!  # which a signal interrupts
  if [[ -n "$stopping" ]]; then
    kill $! 2>/dev/null
    exit 75
  fi
done
