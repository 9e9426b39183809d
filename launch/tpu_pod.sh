#!/bin/bash
# Trains on a Cloud TPU pod, and resumes after a spot pod was preempted:
#
#     launch/tpu_pod.sh create              # requests the pod and waits until it is ready
#     launch/tpu_pod.sh setup               # mounts the bucket and installs pnoise_jax on all hosts
#     launch/tpu_pod.sh train --config imagenet_vit --workdir gs://my-bucket/run
#     launch/tpu_pod.sh delete
#     launch/tpu_pod.sh follow --config imagenet_vit --workdir gs://my-bucket/run
#
# `follow` does all of this: it recreates the pod after a preemption, and deletes it when the run is
# finished; after three other failures it stops, and the pod stays. --dry-run as the first argument
# prints the commands. These variables describe the pod:
#
#     NAME=pnoise  ZONE=us-west4-a  TYPE=v5litepod-16  RUNTIME=v2-alpha-tpuv5-lite  SPOT=1
#     BUCKET=my-bucket  PACKAGE='pnoise_jax[tpu,gcs] @ git+https://…'

set -euo pipefail

DRY_RUN=
if [[ "${1:-}" == --dry-run ]]; then
  DRY_RUN=1
  shift
fi
action=${1:-}
shift || true
: "${NAME:=pnoise}" "${TYPE:=v5litepod-16}" "${RUNTIME:=v2-alpha-tpuv5-lite}" "${TRIES:=100}"

require() {  # names of variables
  local name
  for name in "$@"; do
    if [[ -z "${!name:-}" ]]; then
      echo "error: set $name; see the top of $0" >&2
      exit 2
    fi
  done
}

run() {
  if [[ -n "$DRY_RUN" ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

gcloud_tpus() { run gcloud compute tpus "$@" --zone="$ZONE"; }

on_all_hosts() {  # a command
  gcloud_tpus tpu-vm ssh "$NAME" --worker=all --command="$1"
}

state() {  # of the request: ACTIVE, …; ABSENT; or UNKNOWN if Google cannot be reached
  local answer
  if answer=$(gcloud compute tpus queued-resources describe "$NAME" --zone="$ZONE" \
    --format='value(state.state)' 2>&1); then
    echo "${answer:-UNKNOWN}"
  elif [[ "$answer" == *NOT_FOUND* ]]; then
    echo ABSENT
  else
    echo UNKNOWN
  fi
}

create() {
  local wait unknown=0
  [[ -z "$DRY_RUN" && "$(state)" == ACTIVE ]] && return
  gcloud_tpus queued-resources create "$NAME" --node-id="$NAME" --accelerator-type="$TYPE" \
    --runtime-version="$RUNTIME" ${SPOT:+--spot} || [[ "$(state)" != ABSENT ]] || return
  [[ -n "$DRY_RUN" ]] && return
  while true; do
    wait=$(state)
    case "$wait" in
      ACTIVE) return ;;
      FAILED | SUSPEND* | ABSENT) echo "error: the request for $NAME is $wait" >&2; return 1 ;;
      UNKNOWN) unknown=$((unknown + 1)) ;;
      *) unknown=0 ;;
    esac
    if [[ $unknown -ge 20 ]]; then
      echo "error: the state of $NAME could not be read 20 times in a row" >&2
      return 1
    fi
    sleep "${WAIT:-30}"
  done
}

setup() {
  require BUCKET PACKAGE
  on_all_hosts "sudo mkdir -p /mnt/bucket && sudo chmod 777 /mnt/bucket && \
    (mountpoint -q /mnt/bucket || gcsfuse --implicit-dirs $BUCKET /mnt/bucket) && \
    python3 -m venv ~/pnoise && ~/pnoise/bin/pip install -q \"$PACKAGE\""
}

require_flags() {
  if [[ $# -eq 0 ]]; then
    echo "error: give the flags of 'pnoise train', such as --config imagenet_vit" >&2
    exit 2
  fi
}

train() {  # flags of `pnoise train`
  require_flags "$@"
  # Google's firewall rule for v6e opens port 8476, and not JAX's default port.
  on_all_hosts "JAX_COORDINATOR_PORT=8476 ~/pnoise/bin/pnoise train --multi_host $(printf '%q ' "$@")"
}

delete() { gcloud_tpus queued-resources delete "$NAME" --force --quiet; }

follow() {  # flags of `pnoise train`
  local try failures=0
  require BUCKET PACKAGE  # before anything costs money
  require_flags "$@"
  for ((try = 1; try <= TRIES; try++)); do
    if create && setup && train "$@"; then
      delete
      return
    fi
    case "$(state)" in
      FAILED | SUSPEND*) failures=0; delete || true ;;  # such a request cannot be restarted
      ABSENT) failures=0 ;;
      *)  # the pod exists, or may exist: the program or a host has failed
        failures=$((failures + 1))
        if [[ $failures -ge 3 ]]; then
          echo "error: the run has failed three times, and $NAME may still cost money: see" \
            "'gcloud compute tpus queued-resources list', and '$0 delete'" >&2
          return 1
        fi
        ;;
    esac
    echo "try $try of $TRIES has ended; restarting in ${WAIT:-30} s" >&2
    sleep "${WAIT:-30}"
  done
  echo "error: $TRIES tries have ended; '$0 delete' deletes $NAME" >&2
  return 1
}

case "$action" in
  create | setup | train | delete | follow)
    require ZONE
    "$action" "$@"
    ;;
  *)
    echo "error: give create, setup, train, follow or delete; see the top of $0" >&2
    exit 2
    ;;
esac
