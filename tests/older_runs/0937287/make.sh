#!/usr/bin/env bash
# Makes the run folders and the expected texts beside this file anew; README.md says what they are.
#
#   bash make.sh CODE [PYTHON]
#
# CODE is a clean checkout of commit 0937287, PYTHON an interpreter that has its packages.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
code=$(cd "$1" && pwd)
python=${2:-python}
test "$(git -C "$code" rev-parse --short=7 HEAD)" = 0937287
test -z "$(git -C "$code" status --porcelain)"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# The embedded model as one of the hub, in a cache of its own: no spec holds a path of this machine.
revision=0937287000000000000000000000000000000000
cache=hub_home/hub/models--embedded--small
mkdir -p "$cache/refs" "$cache/snapshots/$revision"
printf %s "$revision" > "$cache/refs/main"
cp "$code"/base_models/small/* "$cache/snapshots/$revision/"
export HF_HOME=$work/hub_home HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1
export PYTHONPATH=$code PYTHONUNBUFFERED=1

sweep() { # the command line whose runs these are; `exec`: a signal meets the driver itself
  cp "$here/$1.yaml" .
  exec "$python" -m orchestrator.sweep "$1.yaml" --name "$1" \
    --storage runs --tracking-uri sqlite:///mlflow.db --address local
}

# A sweep to its end.
(sweep finished)

# Another until a trial and a baseline have ended and another trial, judged at half of its budget
# (step 120 of 240), has trained on to step 160: then SIGTERM, which is as Ctrl-C.
(sweep interrupted) &
driver=$!
until [ "$(ls runs/interrupted/trials/*/summary.json 2> /dev/null | wc -l)" -ge 2 ] \
  && ls -d runs/interrupted/trials/*/checkpoints/step-0000016* > /dev/null 2>&1; do
  kill -0 "$driver"
  sleep 0.02
done
kill -TERM "$driver"
wait "$driver" && exit 1 || test $? = 130

# What neither a report nor a resumed sweep reads stays behind, and what names the machine.
for name in finished interrupted; do
  rm -rf "runs/$name/predictions" "runs/$name/study.db" "runs/$name"/*.png "runs/$name/report.md"
  rm -f "runs/$name"/trials/*/worker.log "runs/$name"/trials/*/owner.json
  rm -rf "${here:?}/$name"
  cp -rp "runs/$name" "$here/$name"
done
rm -f mlflow.db*

# What the commands say of them. Paths below $work are written relative to it, as the test does.
say() { "$python" -m "orchestrator.$1" "runs/$2" "${@:3}" | sed "s|$work/||g"; }
say report finished > "$here/expected_report.txt"
sed "s|$work/||g" runs/finished/report.md > "$here/expected_report.md"
say status finished > "$here/expected_status.txt"
say ask finished --gpu-memory 12GiB > "$here/expected_ask.txt"
say report interrupted > "$here/expected_interrupted_report.txt"
sed "s|$work/||g" runs/interrupted/report.md > "$here/expected_interrupted_report.md"
say status interrupted > "$here/expected_interrupted_status.txt"

# The trials in the order in which they were planned, which a folder tells by the times of its
# files only; and all those of the interrupted sweep once this commit has ended it.
(sweep interrupted)
"$python" - "$here" <<'PYTHON'
import json
import sys
from pathlib import Path

here = Path(sys.argv[1])


def planned(run: Path) -> list[str]:
    specs = run.glob("trials/*/spec.json")
    return [spec.parent.name for spec in sorted(specs, key=lambda file: file.stat().st_mtime_ns)]


planned_trials = {
    "finished": planned(here / "finished"),
    "interrupted": planned(here / "interrupted"),
    "interrupted, then ended": planned(Path("runs/interrupted")),
}
(here / "trials.json").write_text(json.dumps(planned_trials, indent=2) + "\n")
PYTHON
