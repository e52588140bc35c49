#!/usr/bin/env bash
# Grades a benchmark on a TPU pod slice by queued resources: asks for it, waits, installs, grades on all hosts, gives it
# back. Run it again after a preemption or a crash: the run goes on where it was.
#
#   PROJECT=my-project ZONE=us-west4-a BENCH=gs://bucket/bench RUN=gs://bucket/runs/first ./tpu_pod.sh
#
# The service account of the TPU VMs must read BENCH and write RUN. KEEP=1 leaves the slice to you.
set -euo pipefail

: "${PROJECT:?}" "${ZONE:?}" "${BENCH:?gs:// folder of the benchmark}" "${RUN:?gs:// folder of the run}"
NAME=${NAME:-rocketjax}
TYPE=${TYPE:-v5litepod-256}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}
PACKAGE=${PACKAGE:-rocketjax[tpu,gcs]}
OPTIONS=${OPTIONS:---dtype bf16}
PRICE=${PRICE:---spot} # or --reserved, or --guaranteed

tpu=(--project "$PROJECT" --zone "$ZONE")

state() {
  gcloud compute tpus queued-resources describe "$NAME" "${tpu[@]}" --format 'value(state.state)' 2> /dev/null || echo NONE
}

delete() {
  gcloud compute tpus queued-resources delete "$NAME" "${tpu[@]}" --force --quiet
}

give_back() {
  [ -n "${KEEP:-}" ] || delete
}

case $(state) in
  SUSPENDED | SUSPENDING | FAILED) delete ;; # a slice that was preempted does not come back by itself
esac
if [ "$(state)" = NONE ]; then
  gcloud compute tpus queued-resources create "$NAME" "${tpu[@]}" \
    --node-id "$NAME" --accelerator-type "$TYPE" --runtime-version "$RUNTIME" "$PRICE"
fi
until [ "$(state)" = ACTIVE ]; do
  case $(state) in
    SUSPENDED | SUSPENDING | FAILED | NONE)
      echo "the slice was not given: $(state); run this script again" >&2
      exit 1
      ;;
  esac
  sleep 30
done

on_all_hosts() {
  gcloud compute tpus tpu-vm ssh "$NAME" "${tpu[@]}" --worker all --command "$1"
}

# uv brings a Python of its own: that of the VM's image may be older than 3.11.
on_all_hosts "pip install -q --user uv && ~/.local/bin/uv venv -q --allow-existing --seed --python 3.12 ~/rocketjax \
  && ~/rocketjax/bin/pip install -q '$PACKAGE'"
# Every host runs the same command; JAX finds the others by the pod's own metadata. Exit code 3 (items without a grade)
# is a finished run.
code=0
on_all_hosts "~/rocketjax/bin/rocketjax grade $BENCH -o $RUN --distributed --resume $OPTIONS" || code=$?
case $code in
  0 | 3) give_back ;;
  *) echo "ended with $code; run this script again to go on" >&2 ;;
esac
exit "$code"
