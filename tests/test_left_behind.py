"What a killed run leaves: swept by the next one, and only by whoever may; earlier results stay."

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from spacenet5_nb import core
from spacenet5_nb.base import temporary_names
from spacenet5_nb.base.temporary_names import sweep, temporary_folder, temporary_name
from spacenet5_nb.workflow import stage_scheduler
from spacenet5_nb.workflow.stage_table import STAGES, stamp_path

HOLD = """
import sys
from pathlib import Path
from spacenet5_nb.base.temporary_names import temporary_name
Path(sys.argv[1], temporary_name(".tif")).write_text("being written")
print("there", flush=True)
sys.stdin.read()
"""


def test_a_living_process_of_another_container_is_left_alone(tmp_path):
    "The same host name and another numbering of processes, as two containers of one machine have."
    inside = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable]
    if not shutil.which("unshare") or subprocess.run([*inside, "-c", ""], check=False).returncode:
        pytest.skip("this machine lets nobody make a container")
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen([*inside, "-c", HOLD, tmp_path], **pipes) as process:
        assert process.stdout.readline() == "there\n"
        assert sweep(tmp_path) == [] and len(list(tmp_path.iterdir())) == 1
        assert "1 unfinished files of another machine" in temporary_names.left_alone(tmp_path)
        process.stdin.close()
    assert sweep(tmp_path) == [], "nobody knows whether it has ended"


def test_a_process_that_is_hidden_from_us_is_left_alone(tmp_path, monkeypatch):
    "As /proc with hidepid shows other users nothing."
    path = tmp_path / temporary_name()
    path.touch()
    monkeypatch.setattr(temporary_names, "began_at", lambda pid: None)
    refused = PermissionError(1, "Operation not permitted")
    monkeypatch.setattr(os, "kill", lambda pid, number: (_ for _ in ()).throw(refused))
    assert sweep(tmp_path) == [] and path.exists()


def test_where_nothing_can_be_told_nothing_goes(tmp_path, monkeypatch):
    "A system without /proc: names are made, and none of them is ever called abandoned."
    monkeypatch.setattr(temporary_names, "place_now", lambda: temporary_names._NOWHERE)
    (tmp_path / temporary_name()).touch()
    (tmp_path / f".tmp-{temporary_names._NOWHERE}-999999-1-00000000").touch()
    assert sweep(tmp_path) == [] and len(list(tmp_path.iterdir())) == 2


def abandoned(folder: Path, suffix: str = "") -> Path:
    "A file whose process was another one of this number."
    path = folder / f".tmp-{temporary_names.place_now()}-{os.getpid()}-1-0123abcd{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half of it")
    return path


def test_the_first_file_of_a_process_finds_what_was_left(tmp_path):
    left = [abandoned(tmp_path, ".tif"), abandoned(tmp_path, ".gpkg-journal")]
    mine = [tmp_path / ".tmp-foo", tmp_path / ".tmp-notes-1-2-3", tmp_path / ".tmpfile"]
    for path in mine:
        path.touch()
    (tmp_path / ".tmp-folder").mkdir()
    core.write_text(tmp_path / "a.txt", "whole")
    assert not any(p.exists() for p in left) and all(p.exists() for p in mine)
    assert (tmp_path / ".tmp-folder").is_dir()


def test_links_are_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    kept = abandoned(elsewhere)
    (elsewhere / "keep.txt").touch()
    here = tmp_path / "here"
    here.mkdir()
    (here / abandoned(here).name).unlink()
    (here / kept.name).symlink_to(elsewhere)
    (here / "folder").symlink_to(elsewhere)
    assert sweep(here, below=True) == [here / kept.name]
    assert (elsewhere / "keep.txt").exists() and kept.exists()


@pytest.mark.slow
def test_a_killed_notebook_leaves_no_folder_of_its_kernel(tmp_path, monkeypatch):
    "SIGKILL while a cell runs: the next kernel's folder is made beside nothing."
    place, outputs = tmp_path / "t", tmp_path / "outputs"
    place.mkdir()
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("fold: int = 0")])
    nb.cells[0].metadata["tags"] = ["parameters"]
    wait = f"open({str(tmp_path / 'began')!r}, 'w').close(); import time; time.sleep(600)"
    nb.cells.append(nbformat.v4.new_code_cell(wait))
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(nb, tmp_path / "waits.ipynb")
    call = "from spacenet5_nb.workflow.notebook_runner import run_notebook as r; import sys; "
    call += "r(sys.argv[1], {}, sys.argv[2])"
    command = [sys.executable, "-c", call, str(tmp_path / "waits.ipynb"), f"{outputs}/w.ipynb"]
    own = os.environ | {"TMPDIR": str(place), "SPACENET5_OUTPUTS": str(outputs)}
    with subprocess.Popen(command, env=own) as process:
        while not (tmp_path / "began").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert list(place.glob(".tmp-*"))
    monkeypatch.setattr("tempfile.tempdir", str(place))
    temporary_names.sweep_once.cache_clear()
    with temporary_folder() as folder:
        assert list(place.glob(".tmp-*")) == [folder]


# --- earlier results ------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    "A run whose stages write files when they are told to."
    monkeypatch.setenv("SPACENET5_OUTPUTS", str(tmp_path / "outputs"))
    for name, value in {
        "check_parameters": lambda stage, values: dict(values),
        "check_reads": lambda r, stage, values: None,
        "stage_inputs": lambda r, stage, values, fold: "inputs",
    }.items():
        monkeypatch.setattr(stage_scheduler, name, value)

    def call(stage: str, notebook) -> core.Run:
        r = core.open_run("t", "small")
        monkeypatch.setattr(stage_scheduler, "run_notebook", lambda *a: notebook(mine()))
        stage_scheduler.run_stage(r, STAGES[stage], {})
        return r

    def mine() -> core.Run:
        return core.open_run("t", "small")  # as the notebook opens it

    return call


def written(r: core.Run, stage: str, text: str, *chips: str) -> None:
    kinds = {"02_masks": [r.mask], "05_ensemble": [r.prob], "06_vectorize": [r.graph]}
    files = [place(chip) for place in kinds[stage] for chip in chips]
    if stage == "06_vectorize":
        files += [r.solution, r.roads, *(r.graph(c).with_suffix(".graphml") for c in chips)]
    if stage == "02_masks":
        files += [r.folder / "masks.json"]
    for path in files:
        core.write_text(path, text)


def found(r: core.Run, stage: str) -> dict[str, str]:
    return {p.name: p.read_text() for p in STAGES[stage].writes(r, None) if p.is_file()}


@pytest.mark.parametrize("stage", ["02_masks", "05_ensemble", "06_vectorize"])
def test_earlier_results_stay_until_new_ones_are_whole(run, stage):
    r = run(stage, lambda mine: written(mine, stage, "old", "a", "b"))
    before = found(r, stage)
    assert set(before.values()) == {"old"} and stamp_path(r, STAGES[stage]).exists()

    def half(mine):
        written(mine, stage, "new", "b")
        there = found(r, stage)
        assert {k: v for k, v in there.items() if k != "masks.json"} == {
            k: v for k, v in before.items() if k != "masks.json"
        }
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(stage, half)
    assert set(found(r, stage)) == set(before) and not list(r.folder.rglob(".tmp-*"))
    assert not stamp_path(r, STAGES[stage]).exists(), "what is half-way is not done"
    run(stage, lambda mine: written(mine, stage, "new", "b", "c"))
    after = found(r, stage)
    assert set(after.values()) == {"new"} and not any(name.startswith("a.") for name in after)


def test_a_killed_second_run_leaves_the_first_ones_results(run, tmp_path):
    "Killed for good while it writes: what it wrote is swept, what was there is there."
    r = run("06_vectorize", lambda mine: written(mine, "06_vectorize", "old", "a"))
    child = os.fork()
    if not child:
        try:
            run("06_vectorize", lambda mine: (written(mine, "06_vectorize", "new", "b"),
                                              os.kill(os.getpid(), signal.SIGKILL)))  # fmt: skip
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert set(found(r, "06_vectorize").values()) == {"old"}
    assert list(r.folder.rglob(".tmp-*"))
    with stage_scheduler.only_one(r):
        assert not list(r.folder.rglob(".tmp-*"))
    assert set(found(r, "06_vectorize").values()) == {"old"}
