#!/usr/bin/env bash
# Starts MLflow's server on the head of a cluster, in the background: serve_mlflow.sh ARTIFACTS_FOLDER
#
# Runs are stored in a SQLite database on this machine's disk (SQLite does not work on shared
# storage), or in the database that MLFLOW_BACKEND_STORE_URI names; artifacts are stored on the shared
# storage. The server ends when Ray's head on this machine has ended. If a server runs already, a
# second call has no effect. Anyone who reaches the port may read and change runs:
# MLFLOW_HOST=127.0.0.1 restricts it to this machine.
set -euo pipefail

artifacts=$1
own=$HOME/mlflow
store=${MLFLOW_BACKEND_STORE_URI:-sqlite:///$own/mlflow.db}
port=${MLFLOW_PORT:-5000}

while_ray_runs() {
    mlflow server --backend-store-uri "$store" --artifacts-destination "$artifacts" \
        --host "${MLFLOW_HOST:-0.0.0.0}" --port "$port" --workers 1 &
    server=$!
    trap 'kill -- -$$' EXIT  # the server and its workers share our process group
    while pgrep -u "$(id -u)" -x gcs_server > /dev/null && kill -0 "$server" 2> /dev/null; do
        sleep 2
    done
}

if [ "${2:-}" = --stay ]; then
    exec 9> "$own/lock"
    flock -w 30 9  # an earlier server may be about to end with the previous Ray
    while_ray_runs 9>&-
else
    mkdir -p "$own" "$artifacts"
    export MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
    setsid nohup bash "$0" "$artifacts" --stay >> "$own/server.log" 2>&1 < /dev/null &
    echo "MLflow: http://$(hostname -I | cut -d' ' -f1):$port, its log is $own/server.log"
fi
