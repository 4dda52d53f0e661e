#!/usr/bin/env bash
# The contest's contract: train.sh <data folder> ... trains every fold on the chips of all folders. PRESET (faithful) and RUN (contest) may be set.
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: train.sh <data folder> ..." >&2; exit 2; }
root="$(cd "$(dirname "$0")/.." && pwd)"
outputs="${SPACENET5_OUTPUTS:-$root/outputs}"
export PATH="$root/.venv/bin:$PATH"
together="$outputs/${RUN:-contest}-data"
if ! mkdir -p "$together" 2>/dev/null || ! [ -w "$together" ]; then
    echo "error: $together: user $(id -u) may not write there. Change the owner or the rights of $outputs (in Docker: of the folder that is mounted), or set SPACENET5_OUTPUTS." >&2
    exit 1
fi
for folder in "$@"; do
    [ -d "$folder" ] || { echo "error: $folder: no such folder of chips" >&2; exit 1; }
    ln -sfn "$(cd "$folder" && pwd)" "$together/$(basename "$folder")"
done
exec spacenet5 pipeline --preset "${PRESET:-faithful}" --run "${RUN:-contest}" --data-root "$together" --to 04_train
