"Fixtures that several test files share."

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings


@pytest.fixture(scope="session")
def shared() -> Path:
    "The folder of real samples and reference results; tests that need it are skipped where it is absent."
    path = Path(
        os.environ.get("SPACENET5_SHARED") or Path(__file__).resolve().parents[1] / "../shared"
    ).resolve()
    if not path.is_dir():
        pytest.skip(f"no shared data at {path}; set SPACENET5_SHARED")
    return path


# a change is judged by the same examples each time; new ones are found on developers' machines
untimed = dict(
    deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # a busy machine is no failure
settings.register_profile("house", **untimed)
settings.register_profile("ci", derandomize=True, **untimed)
settings.load_profile("ci" if os.environ.get("CI") else "house")
