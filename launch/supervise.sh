#!/bin/bash
# Keeps a run going until it is done: if it ends early, restarts it from its last checkpoint.
#
#     launch/supervise.sh --config imagenet_vit --workdir /shared/run
#
# The arguments of the script are the flags of `pnoise train`. With several hosts, start it on each:
# if one process of the run is lost, the others end, and the scripts restart them all. SIGTERM or
# Ctrl-C stops the script and its run, which saves first; with several hosts, stop the script on
# each, or the others restart the run and wait for this host. Some exit codes are not retried: 64, a
# command that would fail again, such as a wrong flag or config; 126 and 127, if pnoise cannot be
# started; and 130, a run that a second Ctrl-C ended at once. For --workdir gs://BUCKET/FOLDER the
# script lists the checkpoints with gcloud.
#
# Variables, with their defaults:
#   PROCESSES=1  processes of the run on this machine; more than one only if they are the whole run
#   TRIES=5      give up after this many failures in a row without a new checkpoint between them
#   WAIT=10      seconds before a restart after a failure; doubled each time, at most 640
#   GRACE=180    once a process has ended, seconds after which the others are killed

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
workdir=${workdir/#\~\//$HOME/}  # as the program reads it
if [[ -z "$workdir" ]]; then
  echo "error: give the flags of 'pnoise train', such as --config imagenet_vit --workdir DIR" >&2
  exit 2
fi
for name in PROCESSES TRIES WAIT GRACE; do
  least=$([[ $name == WAIT || $name == GRACE ]] && echo 0 || echo 1)
  if ! [[ "${!name}" =~ ^(0|[1-9][0-9]*)$ && ${!name} -ge $least ]]; then
    echo "error: $name=${!name}: give a whole number of at least $least" >&2
    exit 2
  fi
done

stop() {
  stopping=1  # Ctrl-C also sends SIGTERM to the run, because bash starts it with SIGINT ignored
  [[ ${#pids[@]} -eq 0 ]] || kill -TERM "${pids[@]}" 2>/dev/null
}
trap stop TERM INT

names() {  # of the files in the checkpoint directory; in a bucket, of the complete checkpoints
  if [[ "$workdir" == gs://* ]]; then
    gcloud storage ls "${workdir%/}/checkpoints/*/commit_success.txt" 2>/dev/null |
      sed -E 's#.*/([^/]+)/commit_success\.txt$#\1#'
  else
    find "$workdir/checkpoints" -mindepth 1 -maxdepth 1 -printf '%f\n' 2>/dev/null
  fi
}

newest() {  # checkpoint
  names | grep -xE '[0-9]+' | sort -n | tail -n 1
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

await() {  # sets code: 0 if all are done, 75 if signals stopped the others, else a failure's code
  local pid ended left ended_at=''
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
      ended_at=${ended_at:-$SECONDS}
    done
    pids=("${left[@]}")
    if [[ -n "$ended_at" && $((SECONDS - ended_at)) -ge $GRACE && ${#pids[@]} -gt 0 ]]; then
      echo "supervise: killing ${pids[*]}, still running $GRACE s after another process ended" >&2
      kill -KILL "${pids[@]}" 2>/dev/null
    fi
    [[ ${#pids[@]} -eq 0 ]] || sleep 0.5
  done
}

failures=0 pause=0
while true; do
  before=$(newest)
  start "$@"
  [[ -z "$stopping" ]] || stop  # the signal came while the processes were started
  await
  if [[ $code -eq 0 || $code -eq 130 || -n "$stopping" ]]; then
    exit "$code"
  fi
  if [[ $code -eq 64 || $code -eq 126 || $code -eq 127 ]]; then
    echo "supervise: the same command would fail again; not restarting it" >&2
    exit "$code"
  fi
  after=$(newest)
  [[ "$after" == "$before" ]] || failures=0
  if [[ $failures -eq 0 ]]; then pause=0; fi
  if [[ $code -ne 75 || "$after" == "$before" ]]; then
    failures=$((failures + 1))
    if [[ $failures -ge $TRIES ]]; then
      echo "supervise: $failures failures without a new checkpoint, the last with exit code" \
        "$code; giving up" >&2
      exit "$code"
    fi
    pause=$((pause > 0 ? 2 * pause : WAIT))
    [[ $pause -le 640 ]] || pause=640
  fi
  echo "supervise: ended with exit code $code; restarting in $pause s, from" \
    "${after:+the checkpoint of step }${after:-the beginning}" >&2
  sleep "$pause" &
  wait $!  # a signal interrupts `wait`
  if [[ -n "$stopping" ]]; then
    kill $! 2>/dev/null
    exit 75
  fi
done
