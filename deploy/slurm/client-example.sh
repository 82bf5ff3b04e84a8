#!/bin/bash
# client-example.sh [PROBLEM]: what a client of forerun.sbatch does: as its COMMAND, or on a login node beside it (then it
# waits for the endpoint that the cluster writes into FORERUN_STATE). The job is submitted first and watched then, so it
# goes on in the cluster when this client is killed.
set -eu
bin=${FORERUN_BIN:+$FORERUN_BIN/}
state=${FORERUN_STATE:-$PWD/forerun-state}
problem=${1:-"Take the number 193. (1) Multiply it by 4. (2) Multiply by 8. (3) Halve it. What is the result?"}

if [ -z "${FORERUN_CONNECT:-}" ]; then
    until [ -s "$state/endpoint" ]; do sleep 1; done
    FORERUN_CONNECT=$(head -n 1 "$state/endpoint")
fi
export FORERUN_CONNECT
job=$("${bin}forerun" submit --policy token "$problem")
echo "job $job at $FORERUN_CONNECT; to see it from elsewhere: forerun watch --connect $FORERUN_CONNECT $job"
exec "${bin}forerun" watch "$job"
