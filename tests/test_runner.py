"""The strict runner: nothing runs unless names, types, tags, keys and inputs are right; a failure
leaves its record."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from spacenet5_nb.core import (
    PresetError,
    SettingsError,
    StageError,
    WriteError,
    load_preset,
    load_settings,
    open_run,
)
from spacenet5_nb.workflow.notebook_runner import check_exported, check_parameters, run_notebook
from spacenet5_nb.workflow.stage_table import STAGES, check_reads

ROOT = Path(__file__).parents[1]


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("SPACENET5_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("SPACENET5_DATA", str(tmp_path / "data"))
    return tmp_path / "outputs"


def notebook(path, parameters, *code, tags=("parameters",)):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (parameters, *code)])
    nb.cells[0].metadata["tags"] = list(tags)
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    nbformat.write(nb, path)
    return path


def test_every_shipped_preset_is_valid():
    from spacenet5_nb.core import preset_names

    for name in preset_names():
        assert load_preset(name).name == name


def test_notebooks_and_package_agree():
    check_exported()


@pytest.mark.parametrize(
    "bad",
    [
        {"x; import os": "1"},
        {"__import__('os')": 1},
        {"fold": "two"},
        {"fold": "1.5"},
        {"fold": True},
        {"epoch": 3},
    ],
)
def test_undeclared_and_ill_typed_parameters_are_refused(bad):
    with pytest.raises(StageError) as e:
        check_parameters("04_train", bad)
    assert next(iter(bad)) in str(e.value)


def test_a_string_value_stays_a_string(outputs, tmp_path):
    evil = "'''\"; open('owned', 'w')  # \n\\"
    nb = notebook(tmp_path / "t.ipynb", 'text: str = ""', "print(repr(text))")
    out = run_notebook(nb, {"text": evil}, outputs / "r" / "t.ipynb")
    assert nbformat.read(out, 4).cells[-1].outputs[0].text.strip() == repr(evil)
    assert not (tmp_path / "owned").exists()


def test_a_failed_notebook_leaves_its_copy_and_traceback(outputs, tmp_path):
    nb = notebook(tmp_path / "t.ipynb", "fold: int = 0", "1/fold", "print('never')")
    out = outputs / "r" / "t.ipynb"
    with pytest.raises(StageError, match="ZeroDivisionError.*t.failed.ipynb"):
        run_notebook(nb, {}, out)
    assert not out.exists()
    kept = nbformat.read(out.with_suffix(".failed.ipynb"), 4)
    assert any(
        o.output_type == "error" and "ZeroDivisionError" in "".join(o.traceback)
        for c in kept.cells
        for o in c.get("outputs", [])
    )


HOLD = """
import threading
kernel = get_ipython().kernel
handlers, end = kernel.shell_handlers, kernel.do_shutdown
asked, answer = threading.Event(), handlers["kernel_info_request"]
async def slow(*message): await answer(*message); asked.wait(20)
async def stop(restart): asked.set(); return await end(restart)
handlers["kernel_info_request"], kernel.do_shutdown = slow, stop
"""


def test_a_kernel_that_is_still_leaving_its_last_request_is_not_interrupted(
    outputs, tmp_path, capfd
):
    "papermill's last question is kernel_info; an interrupt in its handler is logged as an error."
    run_notebook(
        notebook(tmp_path / "t.ipynb", "fold: int = 0", HOLD), {}, outputs / "r" / "t.ipynb"
    )
    out, err = capfd.readouterr()
    assert "KeyboardInterrupt" not in out + err


def test_a_cell_that_is_stopped_still_cleans_up(outputs, tmp_path):
    "Ctrl-C in the middle of a cell: the kernel is interrupted, so that its `finally` runs."
    there, gone = tmp_path / "there", tmp_path / "gone"
    cell = (
        f"import threading\ntry: open({str(there)!r}, 'w').close(); "
        f"threading.Event().wait(60)\nfinally: open({str(gone)!r}, 'w').close()"
    )
    nb = notebook(tmp_path / "t.ipynb", "fold: int = 0", cell)
    code = (
        "from spacenet5_nb.workflow.notebook_runner import run_notebook; "
        f"run_notebook({str(nb)!r}, {{}}, {str(outputs / 'r' / 't.ipynb')!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    while not there.exists():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(30) != 0 and gone.exists() and (outputs / "r" / "t.failed.ipynb").exists()


def test_the_executed_copy_stays_under_outputs(outputs, tmp_path):
    nb = notebook(tmp_path / "t.ipynb", "fold: int = 0")
    for out in (tmp_path / "t2.ipynb", outputs / ".." / "x.ipynb", outputs / "x.txt"):
        with pytest.raises(StageError, match="under"):
            run_notebook(nb, {}, out)
    assert not (tmp_path / "t2.ipynb").exists()


def test_a_missing_tag_is_an_error(tmp_path):
    with pytest.raises(StageError, match="tagged 'parameters'"):
        check_parameters(notebook(tmp_path / "t.ipynb", "fold: int = 0", tags=()), {})


@pytest.mark.parametrize("name", ["../x", "a/b", "", "."])
def test_a_run_name_is_one_folder(outputs, name):
    if name:
        with pytest.raises(StageError, match="run name"):
            open_run(name, "demo")
    else:
        assert open_run(name, "demo").name == "demo"


@pytest.mark.parametrize(
    "stage",
    [s for s in STAGES.values() if s.name not in ("01_explore", "03_model")],
    ids=lambda s: s.name,
)
def test_missing_inputs_name_the_stage_that_makes_them(outputs, stage):
    with pytest.raises(StageError, match=r"Run it first: spacenet5 run 0\d_"):
        check_reads(open_run("r", "demo"), stage, {})


def test_fold_out_of_range(outputs):
    r = open_run("r", "demo")
    r.folder.mkdir(parents=True)
    for path in (r.chips, r.folds, r.mask("a")):
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    with pytest.raises(StageError, match="fold=4.*folds 0 to 3"):
        check_reads(r, STAGES["04_train"], {"fold": 4})


def test_unknown_preset_key_and_settings_key(tmp_path):
    (tmp_path / "p.yaml").write_text("folds: []\nvectorise: {}\n")
    with pytest.raises(PresetError, match="p.yaml.*vectorise"):
        load_preset(tmp_path / "p.yaml")
    (tmp_path / "settings.ini").write_text("[workspace]\nseeed = 1\n")
    with pytest.raises(SettingsError, match="seeed"):
        load_settings(tmp_path / "settings.ini")
    (tmp_path / "settings.ini").write_text("[workspace]\nseed = one\n")
    with pytest.raises(SettingsError, match="'seed' must be int"):
        load_settings(tmp_path / "settings.ini")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["run", "04_train", "-p", "x; import os", "1"], "unknown parameter"),
        (["run", "04_train", "-p", "fold", "two"], "must be int"),
        (["run", "04_train", "-p", "run", "../../x"], "run name"),
        (["run", "99_nothing"], "not a stage"),
        (["pipeline", "--preset", "nope"], "is not a preset"),
        (
            ["pipeline", "--preset", "small", "--data-root", "/nowhere/at/all"],
            "not a folder of chips",
        ),
        (["pipeline", "--devices", "7"], "not a device"),
        (["pipeline", "--from", "07", "--to", "02"], "no stage to run"),
    ],
)
def test_the_command_line_refuses_before_anything_runs(
    outputs, tmp_path, program, arguments, words
):
    code, _, err = program(*arguments)
    assert code == 1 and words in err and len(err.strip().splitlines()) == 1, err
    assert not list(tmp_path.rglob("*.ipynb"))


def test_outputs_root_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    from spacenet5_nb.pipeline import check_writable

    with pytest.raises(WriteError, match="could not be written"):
        check_writable(tmp_path / "file" / "outputs")


def test_a_killed_pipeline_leaves_the_lock_to_the_fold_it_started(outputs):
    "The lock is free only when the last process that writes to the run has ended."
    from spacenet5_nb.workflow import stage_scheduler

    r = open_run("r", "demo")
    with stage_scheduler.only_one(r):
        child = subprocess.Popen(
            [sys.executable, "-c", "input()"],
            stdin=subprocess.PIPE,
            pass_fds=stage_scheduler._LOCKS,
        )
        with pytest.raises(StageError, match="is writing to this run"), stage_scheduler.only_one(r):
            pass
    with pytest.raises(StageError, match="is writing to this run"), stage_scheduler.only_one(r):
        pass
    child.communicate(b"\n")
    with stage_scheduler.only_one(r):
        pass


def test_a_schedulers_gpus_are_kept(monkeypatch):
    from spacenet5_nb.pipeline import visible_gpu

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert visible_gpu(1) == "5"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpu(1) == "1"


def test_a_named_preset_runs_itself_and_paths_start_at_the_preset(tmp_path, monkeypatch):
    import shutil

    from spacenet5_nb import core

    shutil.copytree(core.configs_folder(), tmp_path / "configs")
    (tmp_path / "nbs").mkdir()
    shutil.copy(ROOT / "settings.ini", tmp_path)
    shutil.copy(tmp_path / "configs/small.yaml", tmp_path / "configs/mine.yaml")
    monkeypatch.setenv("SPACENET5_ROOT", str(tmp_path))
    with pytest.raises(PresetError, match="mine.yaml.*calls itself 'small'"):
        load_preset("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.yaml").write_text(
        "base: demo\nfolds: [{encoder: resnet18, pretrained: weights/r18.pt}]\n"
    )
    (tmp_path / "elsewhere/b.yaml").write_text("base: a.yaml\n")
    assert load_preset(tmp_path / "elsewhere/b.yaml").folds[0].pretrained == str(
        tmp_path / "elsewhere/weights/r18.pt"
    )


def test_edited_folds_outlive_a_rerun_of_the_first_stage(outputs):
    from spacenet5_nb.workflow.stage_table import begin

    r = open_run("r", "demo")
    r.folder.mkdir(parents=True)
    for path in (r.chips, r.folds, r.report):
        path.write_text("x")
    begin(r, STAGES["01_explore"], "other inputs")
    assert r.folds.exists() and r.report.exists()


def test_files_that_are_no_data_do_not_wake_the_stages(tmp_path):
    from spacenet5_nb.workflow.stage_table import data_listing

    (tmp_path / "a.tif").write_bytes(b"x")
    before = data_listing(tmp_path)
    (tmp_path / "README.txt").write_text("notes")
    (tmp_path / "a.tif.aux.xml").write_text("<x/>")
    (tmp_path / "gone.tif").symlink_to(tmp_path / "nowhere")
    after = data_listing(tmp_path)
    (tmp_path / "gone.tif").unlink()
    assert after != before and data_listing(tmp_path) == before


def test_scoring_needs_neither_jupyter_nor_torch():
    code = (
        "import sys\nfor m in ('nbformat', 'papermill', 'torch', 'timm', "
        "'lightning', 'nbdev', 'IPython'): sys.modules[m] = None\n"
        "sys.argv = ['spacenet5', 'score', '--help']\nfrom spacenet5_nb.pipeline "
        "import main; main()"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT).returncode == 0
    )
