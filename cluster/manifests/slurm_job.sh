# The rest is the same for every study.

set -euo pipefail
export work="$SLURM_SUBMIT_DIR/.canopoint-$SLURM_JOB_ID" # every node sees it
# Ray's nodes show each other a token. It is in a file that nobody else can read: never in a command line, and never in
# the environment, which Ray would prefer to the file.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$work/token" RAY_USAGE_STATS_ENABLED=0
unset RAY_AUTH_TOKEN RAY_ADDRESS
up="Ray runtime started."

free_port() {
  python -c 'import socket; found = socket.socket(); found.bind(("127.0.0.1", 0)); print(found.getsockname()[1])'
}

# Ray's part of one node, until it is asked to end. Ports are free ones and the folder is the node's own, as other jobs may
# run on the same machine.
run_node() {
  local scratch="/tmp/canopoint-$SLURM_JOB_ID-$SLURM_NODEID" log="$work/node-$SLURM_NODEID.log" # short, for sockets' paths
  local address ray
  if [ "$SLURM_NODEID" = 0 ]; then
    address=(--head --port=0 "--ray-client-server-port=$(free_port)" --include-dashboard=false)
  else
    until [ -s "$work/address" ]; do sleep 0.2; done
    address=("--address=$(cat "$work/address")")
  fi
  # Ray lets everybody write into its folder, and anybody may have made one of that name before us.
  if ! { rm -rf -- "$scratch" && mkdir -m 700 "$scratch"; } >"$log" 2>&1; then
    echo "canopoint: $(hostname) has a $scratch that is not ours; remove it, or sbatch --exclude that node" >>"$log"
    touch "$work/node-$SLURM_NODEID.ended"
    return 1
  fi
  ray start --block "${address[@]}" "--temp-dir=$scratch/r" "--num-cpus=$SLURM_CPUS_PER_TASK" \
    "--num-gpus=${SLURM_GPUS_ON_NODE:-0}" "--dashboard-agent-listen-port=$(free_port)" >"$log" 2>&1 &
  ray=$!
  # shellcheck disable=SC2064 # as it is now: a trap outlives local variables
  trap "kill -TERM $ray 2>/dev/null || true" TERM
  if [ "$SLURM_NODEID" = 0 ]; then
    while kill -0 "$ray" 2>/dev/null && ! [ -s "$scratch/r/ray_current_cluster" ]; do sleep 0.2; done
    # Whole or not at all: others wait for it.
    cp "$scratch/r/ray_current_cluster" "$work/address.new" 2>/dev/null && mv "$work/address.new" "$work/address"
  fi
  while kill -0 "$ray" 2>/dev/null; do wait "$ray" || true; done
  rm -rf -- "$scratch"
  touch "$work/node-$SLURM_NODEID.ended" 2>/dev/null || true
}

# Ends what this script has started, by its id; what should be left Slurm ends with the job.
end_nodes() {
  trap - EXIT
  kill -TERM "$nodes" 2>/dev/null || true
  for _ in $(seq 100); do
    kill -0 "$nodes" 2>/dev/null || break
    sleep 0.2
  done
  kill -KILL "$nodes" 2>/dev/null || true
  rm -rf -- "$work"
}

if [ "${1:-}" = node ]; then
  run_node
  exit
fi

if ! command -v canopoint >/dev/null || ! command -v ray >/dev/null; then
  echo "canopoint: not installed here; activate its environment, then sbatch this file again" >&2
  exit 2
fi
rm -rf -- "$work" # of this very job, before it was requeued
mkdir -m 700 "$work"
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$work/token")
cp -- "$0" "$work/job.sh" # Slurm's own copy is on this node alone
printf '%s' "$study" >"$work/study.yaml"

srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --overlap --no-kill \
  --kill-on-bad-exit=0 bash "$work/job.sh" node &
nodes=$!
trap end_nodes EXIT
num_up=0
for _ in $(seq 600); do # 5 minutes
  num_up=$(cat "$work"/node-*.log 2>/dev/null | grep -c "$up" || true)
  if [ "$num_up" -ge "$SLURM_JOB_NUM_NODES" ] || compgen -G "$work/node-*.ended" >/dev/null; then break; fi
  if ! kill -0 "$nodes" 2>/dev/null; then break; fi
  sleep 0.5
done
if [ "$num_up" -lt "$SLURM_JOB_NUM_NODES" ]; then
  tail -n 20 "$work"/node-*.log >&2 || true
  echo "canopoint: Ray came up on $num_up of $SLURM_JOB_NUM_NODES nodes; mend that, then sbatch this file again" >&2
  exit 1
fi

# TERM: the job is cancelled or preempted. USR1: its time is nearly over, and it comes back. Both end the run cleanly.
canopoint run "$work/study.yaml" --address "$(cat "$work/address")" &
driver=$!
comes_back=false
trap 'kill -TERM "$driver" 2>/dev/null || true' TERM
trap 'comes_back=true; kill -TERM "$driver" 2>/dev/null || true' USR1
code=0
wait "$driver" || code=$?
while [ "$code" -gt 128 ] && kill -0 "$driver" 2>/dev/null; do # the wait was interrupted, not the driver
  code=0
  wait "$driver" || code=$?
done
end_nodes
if $comes_back && [ "$code" != 0 ] && [ "$code" != 2 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 100 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
