"""Damaged and hostile files for every reader: nothing may come out but this workspace's own errors.

    .venv/bin/python -m tests.fuzz                       # every kind of file, 200 examples each
    .venv/bin/python -m tests.fuzz member preset --examples 5000 --seed 7

Each kind has a process of its own with a limit of memory and of time; the file at hand lies on disk
before it is read, so that one which ends the process is known, too. What is found is printed with
the file's name: mend it, and keep the file as a case in tests/test_hostile_files.py.
"""

import argparse
import faulthandler
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFUSED = ("pickle", "objects")  # kinds whose valid file is refused, too
SECONDS, GIGABYTES = 20.0, 3.0  # an example; a process beside what it takes at its start


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("kinds", nargs="*")
    p.add_argument("--examples", type=int, default=200)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--child", default="")
    a = p.parse_args()
    if a.child:
        return fuzz_here(a.kinds[0], a.examples, a.seed, Path(a.child))
    from tests.fuzz.readers import KINDS

    failed = [k for k in a.kinds or KINDS if not fuzz_kind(k, a.examples, a.seed)]
    print(f"failed: {', '.join(failed)}" if failed else "nothing but typed errors")
    return bool(failed)


def fuzz_kind(kind: str, examples: int, seed: int) -> bool:
    "One kind of file in a process of its own; False where something was found."
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{kind}-"))
    command = [sys.executable, "-m", "tests.fuzz", kind, "--examples", str(examples)]
    command += ["--seed", str(seed), "--child", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 0:
        print(f"{kind}: {examples} examples", flush=True)
        return True
    print(f"{kind}: exit {done.returncode}; the file: {folder}", flush=True)
    print(done.stdout[-3000:] + done.stderr[-6000:], flush=True)
    return False


def fuzz_here(kind: str, examples: int, seed: int, folder: Path) -> int:
    "Read so many mutations of a valid file; what is not a typed error is raised, shrunk."
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded

    from spacenet5_nb.core import WorkspaceError
    from tests.fuzz.mutations import edited
    from tests.fuzz.readers import KINDS, check_words

    k = KINDS[kind]
    path = folder / f"AOI_7_Moscow_chip1{k.ending}"
    k.make(path)
    if kind not in REFUSED:
        k.read(path)
    whole = path.read_bytes()
    limit_memory()
    phases = (Phase.generate, Phase.shrink)
    options = dict(max_examples=examples, deadline=None, database=None, phases=phases)

    @seeded(seed)
    @settings(suppress_health_check=list(HealthCheck), **options)
    @given(edited(whole, kind, k.is_text))
    def look(data: bytes) -> None:
        path.write_bytes(data)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            k.read(path)
        except WorkspaceError as e:
            check_words(e)
        finally:
            faulthandler.cancel_dump_traceback_later()

    look()
    return 0


def limit_memory() -> None:
    "Refuse this process more than so many gigabytes beside what it has."
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + int(GIGABYTES * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    sys.exit(main())
