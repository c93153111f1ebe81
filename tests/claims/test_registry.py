"""A claim of the user is one decorated function in a module of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drawn_study import change_study
from tiny_project import ROOT
from transferscope.claims import registry
from transferscope.claims.decide import decide_claims
from transferscope.claims.evidence import TaskResults
from transferscope.report.page import write_page
from transferscope.system.errors import UserError

PAGE = (ROOT / "docs" / "extending.md").read_text()
(OWN,) = re.findall(r"```\{code-block\} python\n:caption: src/my_claims.py\n\n(.*?)```", PAGE, re.DOTALL)
"""The claim that the page shows."""

Draw = Callable[..., dict[str, TaskResults]]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module outside the package, whose claims are forgotten afterwards."""
    (tmp_path / "my_claims.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    before = dict(registry._CLAIMS)
    yield "my_claims"
    registry._CLAIMS.clear()
    registry._CLAIMS.update(before)
    sys.modules.pop("my_claims", None)


def agreeing(results: dict[str, TaskResults]) -> dict[str, TaskResults]:
    """The drawn study with more agreement of fine-tuned runs."""
    for task in ("real", "clipart", "chest"):
        table = results[task].tables["mistakes"]
        noise = np.random.default_rng(len(task)).uniform(-0.01, 0.01, len(table))
        table = table.assign(kappa=np.where(table["pair_kind"] == "P-T & P-T", 0.8, 0.3) + noise)
        results[task] = replace(results[task], tables=results[task].tables | {"mistakes": table})
    return results


def test_a_claim_of_ones_own_is_decided_and_shown(own: str, drawn: Draw) -> None:
    """As docs/extending.md has it: at most ten lines and a key of the parameters.

    It comes after the paper's, without a link where it has no section.
    """
    assert len(OWN.strip().splitlines()) <= 10
    plan = change_study(report__claims=[own])
    claims, effects = decide_claims(plan, agreeing(drawn()))
    assert claims["id"].iloc[-1] == "agreement"
    assert claims["verdict"].iloc[-1] == "holds"
    page = write_page(plan, claims, effects, drawn(), provenance={})
    assert '<tr id="claim_agreement">' in page
    assert "Our question</span>" in page
    registry._CLAIMS.pop("agreement")
    with pytest.raises(UserError, match=r"agreement is not registered; name its module in report\.claims"):
        write_page(change_study(), claims, effects, drawn(), provenance={})


def test_a_module_that_is_not_there_is_named() -> None:
    """One line with the key, the module and what to do; an import that fails inside a module stays as it is."""
    with pytest.raises(UserError, match=r"report\.claims: no module is named 'nowhere\.claims'"):
        registry.registered(["nowhere.claims"])


def test_an_import_that_fails_inside_a_module_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module is there, and the package that it needs is named."""
    (tmp_path / "needs_more.py").write_text("import not_installed_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="needs_more needs the package not_installed_at_all, which is not installed"):
        registry.registered(["needs_more"])


def test_two_modules_may_not_name_a_claim_alike(own: str) -> None:
    """The second one is refused; the same function again, as when a notebook's cell is run twice, replaces itself."""
    registry.registered([own])
    options = {"source": "", "compares": "", "unit": "share", "sides": ("a",), "needs": ""}

    def agreement(evidence: object) -> list[object]:
        return []

    with pytest.raises(UserError, match="my_claims has one of that name"):
        registry.claim("Another.", **options)(agreement)  # type: ignore[arg-type]
    agreement.__module__ = own
    registry.claim("Another.", **options)(agreement)  # type: ignore[arg-type]
    assert registry.registered()["agreement"].text == "Another."


def test_claims_are_decided_without_the_library_that_draws() -> None:
    """No module of the room, nor what it reads, imports matplotlib, so claims can be decided where nothing is drawn."""
    names = sorted(path.stem for path in Path(registry.__file__).parent.glob("*.py") if path.stem != "__init__")
    imports = "".join(f"import transferscope.claims.{name}\n" for name in names)
    subprocess.run([sys.executable, "-c", f"import sys\n{imports}assert 'matplotlib' not in sys.modules"], check=True)
