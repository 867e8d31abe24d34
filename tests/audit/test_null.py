"""A small version of benchmarks/audit_null.py: clean images alarm nothing, planted ones do."""

import importlib.util
import sys
from pathlib import Path

import pytest
from scipy.stats import binom

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "audit_null.py"
RUNS = 12


@pytest.fixture(scope="module")
def null():
    spec = importlib.util.spec_from_file_location("audit_null", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(SCRIPT.parent))
    spec.loader.exec_module(module)
    sys.path.remove(str(SCRIPT.parent))
    return module


@pytest.mark.parametrize("test", ["baselines", "sources", "attention", "framing"])
def test_clean_runs_alarm_no_more_often_than_one_in_twenty(null, test):
    verdicts = [null.TESTS[test](null.simulate(number)).verdict for number in range(RUNS)]
    alarms = sum(verdict in ("suspicious", "shortcut") for verdict in verdicts)
    # More than this has a probability below 1 % where one in twenty alarms.
    assert alarms <= binom.ppf(0.99, RUNS, 0.05), verdicts
    assert "clear" in verdicts


@pytest.mark.parametrize(
    ("test", "row"),
    [
        ("baselines", "marker, strong"),
        ("baselines", "exposure, strong"),
        ("attention", "marker, strong"),
        ("framing", "framing, strong"),
        ("leak", "copies in test: 6"),
        ("faithfulness", "maps 12 of 32 px away"),
    ],
)
def test_what_every_run_of_the_benchmark_finds_is_found(null, test, row):
    assert null.TESTS[test](null.makers(test, 15)[row](0)).verdict in ("suspicious", "shortcut")
