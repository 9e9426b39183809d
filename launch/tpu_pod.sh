#!/bin/bash
# Trains on a Cloud TPU pod, and goes on when a spot pod was taken away:
#
#     launch/tpu_pod.sh create              # asks for the pod and waits until it is there
#     launch/tpu_pod.sh setup               # mounts the bucket and installs pnoise_jax on all hosts
#     launch/tpu_pod.sh train --config imagenet_vit --workdir /mnt/bucket/run
#     launch/tpu_pod.sh delete
#     launch/tpu_pod.sh follow --config imagenet_vit --workdir /mnt/bucket/run
#
# `follow` does all of it, again and again, until the run is finished. --dry-run as the first argument
# prints the commands. The pod is described by these variables:
#
#     NAME=pnoise  ZONE=us-central2-b  TYPE=v5litepod-16  RUNTIME=v2-alpha-tpuv5-lite  SPOT=1
#     BUCKET=my-bucket  PACKAGE='pnoise_jax[tpu] @ git+https://…'

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

state() {
  gcloud compute tpus queued-resources describe "$NAME" --zone="$ZONE" \
    --format='value(state.state)' 2>/dev/null || true
}

create() {
  [[ -z "$DRY_RUN" && "$(state)" == ACTIVE ]] && return
  gcloud_tpus queued-resources create "$NAME" --node-id="$NAME" --accelerator-type="$TYPE" \
    --runtime-version="$RUNTIME" ${SPOT:+--spot} || [[ -n "$(state)" ]] || return
  [[ -n "$DRY_RUN" ]] && return
  until [[ "$(state)" == ACTIVE ]]; do
    case "$(state)" in
      FAILED | SUSPEND*) echo "error: the request for $NAME is $(state)" >&2; return 1 ;;
    esac
    sleep "${WAIT:-30}"
  done
}

setup() {
  require BUCKET PACKAGE
  on_all_hosts "sudo mkdir -p /mnt/bucket && sudo chmod 777 /mnt/bucket && \
    (mountpoint -q /mnt/bucket || gcsfuse --implicit-dirs $BUCKET /mnt/bucket) && \
    python3 -m venv ~/pnoise && ~/pnoise/bin/pip install -q \"$PACKAGE\""
}

train() {  # flags of `pnoise train`
  if [[ $# -eq 0 ]]; then
    echo "error: give the flags of 'pnoise train', such as --config imagenet_vit" >&2
    exit 2
  fi
  # Google's firewall rule for v6e opens 8476, and not JAX's own port.
  on_all_hosts "JAX_COORDINATOR_PORT=8476 ~/pnoise/bin/pnoise train --multi_host $(printf '%q ' "$@")"
}

delete() { gcloud_tpus queued-resources delete "$NAME" --force --quiet; }

follow() {  # flags of `pnoise train`
  local try failures=0
  for ((try = 1; try <= TRIES; try++)); do
    create && setup && train "$@" && return
    [[ -n "$DRY_RUN" ]] && return
    if [[ "$(state)" == ACTIVE ]]; then  # the pod is there: the program has failed, or a host has
      failures=$((failures + 1))
      if [[ $failures -ge 3 ]]; then
        echo "error: it has failed three times on a pod that is there; '$0 delete' ends its cost" >&2
        return 1
      fi
    else
      failures=0
      delete || true  # a pod that was taken away cannot be started again
    fi
    echo "try $try of $TRIES has ended; starting anew in ${WAIT:-30} s" >&2
    sleep "${WAIT:-30}"
  done
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
