#!/usr/bin/env bash
# The contest's contract: test.sh <data folder> ... <solution.csv> writes the roads of all chips. RUN (contest) names the training.
set -euo pipefail
[ $# -gt 1 ] || { echo "usage: test.sh <data folder> ... <solution.csv>" >&2; exit 2; }
root="$(cd "$(dirname "$0")/.." && pwd)"
outputs="${SPACENET5_OUTPUTS:-$root/outputs}"
export PATH="$root/.venv/bin:$PATH"
solution="${*: -1}"
exec spacenet5 submit "${@:1:$#-1}" --members "$outputs/${RUN:-contest}/folds" --out "$solution"
