#!/usr/bin/env bash
# On a worker of a cluster of own machines: ends Ray's log monitor when its raylet has ended.
#
# `ray down` stops Ray on the head only. A worker's raylet ends by itself when its head has gone, but
# its log_monitor.py waits for ever. Call this script after each `ray start`; it continues in the
# background. It identifies the two processes by id and leaves those of a later `ray start` alone.
set -euo pipefail

newest() { pgrep -n -u "$(id -u)" "$@"; }

if [ "${1:-}" = --stay ]; then
    raylet=$2 monitor=$3
    while kill -0 "$raylet" 2> /dev/null; do sleep 2; done
    if pgrep -u "$(id -u)" -f _private/log_monitor.py | grep -qx "$monitor"; then
        kill "$monitor"
    fi
else
    raylet=$(newest -x raylet) monitor=$(newest -f _private/log_monitor.py)
    setsid nohup bash "$0" --stay "$raylet" "$monitor" > /dev/null 2>&1 < /dev/null &
fi
