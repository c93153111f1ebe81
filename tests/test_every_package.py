"""Tests that are skipped for want of a package fail in CI."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

HOOKS = "from every_package import pytest_collectreport, pytest_runtest_logreport, pytest_sessionfinish"

TESTS = {
    "needs_a_package": "import pytest\npytest.importorskip('no_such_package')\ndef test_a(): pass",
    "needs_one_inside": "import pytest\ndef test_a(): pytest.importorskip('no_such_package')",
    "has_a_mark": "import pytest\n@pytest.mark.skip(reason='onnx is not installed')\ndef test_a(): pass",
    "needs_permissions": "import pytest\ndef test_a(): pytest.skip('this user may read everything, as root may')",
    "needs_nothing": "def test_a(): pass",
}


def test_a_skip_for_want_of_a_package_fails_where_every_package_is_promised(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With EVERY_PACKAGE, as in CI, in one process and in several; without it, or for another reason, no skip fails."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    pytester.makeconftest(HOOKS)
    pytester.makepyfile(**{f"test_{name}": code for name, code in TESTS.items()})
    for promised, processes in (("1", 0), ("1", 1), ("", 1)):
        monkeypatch.setenv("EVERY_PACKAGE", promised)
        result = pytester.runpytest_subprocess("-n", str(processes))
        result.assert_outcomes(passed=1, skipped=4)
        named = [line for line in result.outlines if line.startswith("skipped for want of a package: ")]
        assert result.ret == len(named) == bool(promised)
        for line in named:
            assert sorted(line.partition(": ")[2].split(", ")) == [
                "test_has_a_mark.py::test_a",
                "test_needs_a_package.py",
                "test_needs_one_inside.py::test_a",
            ]
    monkeypatch.setenv("EVERY_PACKAGE", "1")
    assert pytester.runpytest_subprocess("-n", "0", "test_needs_permissions.py", "test_needs_nothing.py").ret == 0
