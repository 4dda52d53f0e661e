"Fixtures that several test files share."

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from reference_cases import CHOICE, SHARED
from small_workspace import copy_workspace, results, run

# a shell that starts the tests with & ignores Ctrl-C for them and all they start, which tests send
signal.signal(signal.SIGINT, signal.default_int_handler)

REFERENCES = [pytest.param(CHOICE, id="choice")]
if (SHARED / "reference").is_dir():
    marks = (pytest.mark.shared, pytest.mark.slow)
    REFERENCES.append(pytest.param(SHARED / "reference", id="full", marks=marks))


def pytest_report_header() -> str:
    found = f"at {SHARED}" if len(REFERENCES) > 1 else f"not at {SHARED}; set SPACENET5_SHARED"
    return f"reference cases: a choice in tests/data; the full sets are {found}"


@pytest.fixture(scope="session")
def shared() -> Path:
    "The folder of real samples and reference results; tests that need it are skipped without it."
    if not SHARED.is_dir():
        pytest.skip(f"no shared data at {SHARED}; set SPACENET5_SHARED")
    return SHARED


@pytest.fixture(scope="session", params=REFERENCES)
def reference(request) -> Path:
    "Results of the originals: the choice in tests/data, and the full sets where they are at hand."
    return request.param


class World(NamedTuple):
    "A small workspace whose demo has run through: its folder, what was said, what was made."

    home: Path
    said: str
    made: dict[str, bytes]


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    "One complete run, which several files look at; two folds side by side on the CPU."
    home = tmp_path_factory.mktemp("world")
    copy_workspace(home)
    said = run(home, "pipeline", "--preset", "demo", "--devices", "cpu,cpu")
    return World(home, said, results(home))


@pytest.fixture
def program(monkeypatch, capsys) -> Iterator[Callable[..., tuple[int, str, str]]]:
    "`spacenet5` in this process: its exit code, stdout and stderr."
    from spacenet5_nb import pipeline

    before = signal.getsignal(signal.SIGTERM)

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["spacenet5", *map(str, arguments)])
        monkeypatch.setattr(sys, "stderr", sys.stderr)
        monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
        with pytest.raises(SystemExit) as e:
            pipeline.main()
        return (e.value.code, *capsys.readouterr())

    yield call
    signal.signal(signal.SIGTERM, before)


# a change is judged by the same examples each time; new ones are found on developers' machines
untimed = dict(
    deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # a busy machine is no failure
settings.register_profile("house", **untimed)
settings.register_profile("ci", derandomize=True, **untimed)
settings.load_profile("ci" if os.environ.get("CI") else "house")
