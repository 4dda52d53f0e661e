"""How long commands take until they work, beside `import torch` alone: processor time of fresh
processes in turns, which other programs on the machine hardly change.

    .venv/bin/python benchmarks/startup.py [--rounds 5] [--other OTHER/.venv/bin/python]

`extract` is that of the real sample (650 x 500 px) with one of the members that come with the
workspace, one view, with its map. One thread; what is compiled once was compiled before. With
--other a second installation is measured in the same turns.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

ASSETS = Path(__file__).parents[1] / "spacenet5_nb/assets"
COMMAND = "import sys; sys.argv[0] = 'spacenet5'; from spacenet5_nb.pipeline import main; main()"
SAMPLE, MEMBER = ASSETS / "sample/las_vegas.tif", ASSETS / "world/0.safetensors"
WORK = {
    "import torch": ["-c", "import torch"],
    "spacenet5 --help": ["-c", COMMAND, "--help"],
    "import spacenet5_nb.ensemble": ["-c", "import spacenet5_nb.ensemble"],
    "import spacenet5_nb.extract": ["-c", "import spacenet5_nb.extract"],
    "spacenet5 extract": [
        *("-c", COMMAND, "extract", str(SAMPLE), "--members", str(MEMBER)),
        *("--tta", "none", "--out", "OUT"),
    ],
}


def spent_by(python: str, arguments: list[str | Path]) -> tuple[float, float]:
    """Seconds of processors of a fresh process and its children, and its peak memory in GB; what it
    says is not shown."""
    with tempfile.TemporaryDirectory() as folder:
        given = [str(a).replace("OUT", f"{folder}/roads.gpkg") for a in arguments]
        actions = [
            (
                os.POSIX_SPAWN_OPEN,
                k,
                f"{folder}/said",
                os.O_WRONLY | os.O_CREAT | os.O_APPEND,
                0o600,
            )
            for k in (1, 2)
        ]
        pid = os.posix_spawn(python, [python, *given], os.environ, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        if status:
            raise SystemExit(f"{python} {given}: {Path(folder, 'said').read_text()}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--other", default="", help="python of a second installation")
    given = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", SPACENET5_THREADS="1", SPACENET5_WORKERS="1")
    pythons = [sys.executable, *filter(None, [given.other])]
    found = {(p, name): [] for p in pythons for name in WORK}
    for k in range(given.rounds + 1):
        for (python, name), seconds in found.items():
            s, _ = spent_by(python, WORK[name])
            seconds += [s] * (k > 0)  # the first round fills caches
    for python in pythons:
        torch = statistics.median(found[python, "import torch"])
        print(f"{python}\n| | processor time, s | times `import torch` |\n|---|---|---|")
        for name in WORK:
            s = statistics.median(found[python, name])
            print(f"| `{name}` | {s:.2f} | {s / torch:.2f} |")


if __name__ == "__main__":
    main()
