"""SIGKILL in the middle of every stage, training included: all processes of the command die at
once, before or after a file gets its name. What is run again gives the same bytes, takes nothing of
a stranger's and leaves no temporary file."""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_workspace import command, environment, results

from spacenet5_nb.base.temporary_names import temporary_name

pytestmark = pytest.mark.slow
SEED = int(os.environ.get("SPACENET5_KILL_SEED", "5"))  # another seed, other moments

# Every Python process of the command loads it and notes itself. The one that gives the k-th file
# with a certain part in its name that name ends them all: before the rename, or after it.
KILLER = """
import os, signal

box, part, number, when = (os.environ[f"KILL_{n}"] for n in ("BOX", "PART", "NUMBER", "WHEN"))

def began(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[19]
    except OSError:
        return None

def end_all():
    own = os.getpid()
    for name in os.listdir(f"{box}/running"):
        pid, start = name.split("-")
        if int(pid) != own and began(pid) == start:
            os.kill(int(pid), signal.SIGKILL)
    os.kill(own, signal.SIGKILL)

def note(folder, name):
    os.close(os.open(f"{box}/{folder}/{name}", os.O_CREAT | os.O_WRONLY))

def replaced(source, target, **options):
    is_counted = part in os.fspath(target)
    if is_counted:
        note("seen", f"{os.getpid()}-{len(os.listdir(f'{box}/seen'))}")
    is_last = is_counted and len(os.listdir(f"{box}/seen")) >= int(number)
    if is_last and when == "before":
        end_all()
    replace(source, target, **options)
    if is_last:
        end_all()

replace, os.replace = os.replace, replaced
note("running", f"{os.getpid()}-{began(os.getpid())}")
os.register_at_fork(after_in_child=lambda: note("running", f"{os.getpid()}-{began(os.getpid())}"))
"""
# what is written in the order of stages, and how many of them there are at least
MOMENTS = (
    ("chips.parquet", 1),
    ("/masks/", 8),
    ("/cache/", 6),
    ("folds/0/resume", 2),
    ("folds/1/", 4),
    ("/probs/", 3),
    ("/graphs/", 4),
    ("scores.csv", 1),
    ("map.html", 1),
)


class Killing:
    "Commands in a workspace whose processes are ended at a moment."

    def __init__(self, home: Path, outputs: str, box: Path):
        self.home, self.outputs, self.box = home, outputs, box
        for folder in ("site", "tmp"):
            (box / folder).mkdir()
        (box / "site/sitecustomize.py").write_text(KILLER)

    def run(self, arguments: tuple[str, ...], part: str, number: int, when: str) -> int:
        "The exit status of a command; it ends at the `number`-th file with `part` in its name."
        for folder in ("running", "seen"):
            shutil.rmtree(self.box / folder, ignore_errors=True)
            (self.box / folder).mkdir()
        moment = {"BOX": self.box, "PART": part, "NUMBER": number, "WHEN": when}
        own = {f"KILL_{name}": str(value) for name, value in moment.items()}
        own |= {"PYTHONPATH": str(self.box / "site"), "TMPDIR": str(self.box / "tmp")}
        process = subprocess.run(
            command(*arguments),
            cwd=self.home,
            env=environment(self.home, self.outputs) | own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.returncode in (0, -signal.SIGKILL), process.stdout[-3000:]
        return process.returncode


def strangers(made: Path) -> dict[Path, bytes]:
    "Files of somebody else in a run's folders; one is being written by a process that is alive."
    names = ("notes.txt", "folds/mine.txt", "masks/.tmp-mine", "graphs/own.qgz")
    found = [made / name for name in names] + [made / "probs" / temporary_name(".tif")]
    for path in found:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
    return {path: path.read_bytes() for path in found}


def left_behind(*folders: Path) -> list[Path]:
    """Temporary files of the workspace. Not looked into: folders of Python's `tempfile` in the
    system's place for such, where notebooks' own checks were ended."""
    found = [p for f in folders for p in f.rglob("*") if ".tmp-" in p.name or ".running" in p.name]
    return [
        p
        for p in found
        if not any(q.name.startswith("tmp") and q.parent.name == "tmp" for q in p.parents)
    ]


def test_killed_in_every_stage_it_ends_at_the_same_bytes(world, tmp_path):
    "The whole demo, ended nine times on its way."
    made, moments = world.home / "killed/demo", random.Random(SEED)
    mine = strangers(made)
    killing, ended = Killing(world.home, "killed", tmp_path), []
    arguments = ("pipeline", "--preset", "demo", "--devices", "cpu")
    for part, most in MOMENTS:
        when = moments.choice(("before", "after"))
        if killing.run(arguments, part, moments.randint(1, most), when):
            ended.append(part)
    assert len(ended) >= len(MOMENTS) - 1, ended
    assert killing.run(arguments, "nothing of that name", 1, "before") == 0
    again = results(world.home, "killed")
    assert [name for name in world.made if again.get(name) != world.made[name]] == []
    assert {path: path.read_bytes() for path in mine} == mine, "a stranger's"
    assert [p for p in left_behind(made, tmp_path / "tmp") if p not in mine] == []


@pytest.mark.parametrize("name", ["stitch", "extract", "submit"])
def test_killed_commands_end_at_the_same_bytes(world, tmp_path, name):
    "Cities out of chips, roads of an image, a competitor's file: ended at some of their files."
    image = next((world.home / "data/demo").rglob("*PS-MS*.tif"))
    members = str(world.home / "outputs/demo/folds/1/last.safetensors")
    arguments, parts = {
        "stitch": (("stitch", "--run", "demo", "--out"), ["cities"]),
        "extract": (
            ("extract", str(image), "--members", members, "--tta", "none", "--out"),
            ["cell_", "_probs.tif", ".gpkg", ".html"],
        ),
        "submit": (
            ("submit", str(image.parent), "--members", members, "--tta", "none", "--out"),
            ["parts", "solution.csv"],
        ),
    }[name]
    last = {"stitch": "cities", "extract": "roads.gpkg", "submit": "solution.csv"}[name]
    killing, moments, made = Killing(world.home, "outputs", tmp_path), random.Random(SEED), {}
    for place in ("whole", "killed"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "mine.txt").write_text("mine")
        call = (*arguments, str(tmp_path / place / last))
        for part in parts if place == "killed" else ():
            when = moments.choice(("before", "after"))
            assert killing.run(call, part, 1, when) == -signal.SIGKILL, part
        assert killing.run(call, "nothing of that name", 1, "before") == 0
        assert left_behind(tmp_path) == []
        found = [p for p in (tmp_path / place).rglob("*") if p.is_file()]
        made[place] = {p.relative_to(tmp_path / place): p.read_bytes() for p in found}
    assert made["killed"] == made["whole"] and Path("mine.txt") in made["whole"]


def test_the_killer_kills(tmp_path):
    "The test's own test: parent and child end at the moment that was asked for, and not before."
    for folder in ("site", "running", "seen"):
        (tmp_path / folder).mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(KILLER)
    code = (
        "import os, subprocess, sys\n"
        "for k in range(5):\n"
        "    open('a', 'w').close(); os.replace('a', f'part{k}')\n"
    )
    moment = {"BOX": tmp_path, "PART": "part", "NUMBER": 3}
    for when, left in (("before", ["a", "part0", "part1"]), ("after", ["part0", "part1", "part2"])):
        for folder in ("running", "seen"):
            shutil.rmtree(tmp_path / folder)
            (tmp_path / folder).mkdir()
        place = tmp_path / when
        place.mkdir()
        own = {f"KILL_{n}": str(v) for n, v in (moment | {"WHEN": when}).items()}
        env = os.environ | own | {"PYTHONPATH": str(tmp_path / "site")}
        done = subprocess.run([sys.executable, "-c", code], cwd=place, env=env)
        assert done.returncode == -signal.SIGKILL
        assert sorted(p.name for p in place.iterdir()) == left
