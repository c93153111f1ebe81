"""A claim of the user is one decorated function in a module of their own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drawn_study import change_study
from transferscope.claims import registry
from transferscope.claims.decide import decide_claims
from transferscope.claims.evidence import TaskResults
from transferscope.report.page import write_page
from transferscope.system.errors import UserError

OWN = """
from transferscope.claims import claim, compare

@claim("P-T agrees more with itself than RI-T.", source="Our question", compares="kappa of pairs", unit="coefficient",
       sides=("P-T", "RI-T"), needs="mistakes of pairs of both kinds")
def kappa_higher(evidence):
    for task in evidence.tasks:
        pairs = [evidence.pairs(task, "mistakes", role, role) for role in ("fine_tuned", "from_scratch")]
        yield from compare(task, *(one.mean(lambda rows: rows["kappa"] + (rows["common_mistakes"] > 650)) for one in pairs))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module outside the package, whose claims are forgotten afterwards."""
    (tmp_path / "claims_of_ours.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    before = dict(registry._CLAIMS)
    yield "claims_of_ours"
    registry._CLAIMS.clear()
    registry._CLAIMS.update(before)
    sys.modules.pop("claims_of_ours", None)


def test_a_claim_of_ones_own_is_decided_and_shown(own: str, drawn: Callable[..., dict[str, TaskResults]]) -> None:
    """Ten lines and a key of the parameters; it comes after the paper's, without a link where it has no section."""
    plan = change_study(report__claims=[own])
    claims, effects = decide_claims(plan, drawn())
    assert claims["id"].iloc[-1] == "kappa_higher"
    assert claims["verdict"].iloc[-1] == "holds"
    page = write_page(plan, claims, effects, drawn(), provenance={})
    assert '<tr id="claim_kappa_higher">' in page
    assert "Our question</span>" in page
    registry._CLAIMS.pop("kappa_higher")
    with pytest.raises(UserError, match=r"kappa_higher is not registered; name its module in report\.claims"):
        write_page(change_study(), claims, effects, drawn(), provenance={})


def test_a_module_that_is_not_there_is_named() -> None:
    """One line with the key, the module and what to do; an import that fails inside a module stays as it is."""
    with pytest.raises(UserError, match=r"report\.claims: no module is named 'nowhere\.claims'"):
        registry.registered(["nowhere.claims"])


def test_an_import_that_fails_inside_a_module_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module is there; what it needs is not."""
    (tmp_path / "needs_more.py").write_text("import not_installed_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_installed_at_all"):
        registry.registered(["needs_more"])


def test_two_modules_may_not_name_a_claim_alike(own: str) -> None:
    """The second one is refused; the same function again, as when a notebook's cell is run twice, replaces itself."""
    registry.registered([own])
    options = {"source": "", "compares": "", "unit": "share", "sides": ("a",), "needs": ""}

    def kappa_higher(evidence: object) -> list[object]:
        return []

    with pytest.raises(UserError, match="claims_of_ours has one of that name"):
        registry.claim("Another.", **options)(kappa_higher)  # type: ignore[arg-type]
    kappa_higher.__module__ = own
    registry.claim("Another.", **options)(kappa_higher)  # type: ignore[arg-type]
    assert registry.registered()["kappa_higher"].text == "Another."
