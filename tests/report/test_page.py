"""The page is one well-formed file that shows what was run."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pandas as pd
import pytest

from drawn_study import change_study
from transferscope.claims.decide import decide_claims
from transferscope.claims.evidence import TaskResults
from transferscope.claims.registry import registered
from transferscope.experiment.plan import Plan
from transferscope.report.claims_table import claim_views, compared_kinds
from transferscope.report.page import code, ranges, units, write_markdown, write_page
from transferscope.tables.markdown import escape

Draw = Callable[..., dict[str, TaskResults]]
PROVENANCE = {"seed": 1, "plan_digest": "abc123", "versions": {"torch": "2.15.0"}, "durations": {"training": 61.5}}
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Checker(HTMLParser):
    """Collects what is open, ids, links, images' sources and all text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.alts: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.links += [values["href"] or ""] if "href" in values else []
        if tag == "img":
            self.sources.append(values["src"] or "")
            self.alts.append(values["alt"] or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


Make = Callable[..., str]


@pytest.fixture(scope="module")
def make(decided: tuple[pd.DataFrame, pd.DataFrame]) -> Make:
    """`make(plan, results, write)`; the claims are always those of the drawn results, decided once."""

    def make(plan: Plan, results: dict[str, TaskResults], write: Callable[..., str] = write_page) -> str:
        return write(plan, *decided, results, provenance=PROVENANCE)

    return make


@pytest.fixture(scope="module")
def page(plan: Plan, drawn: Draw, make: Make) -> str:
    return make(plan, drawn())


def test_well_formed_with_unique_ids_and_links_that_lead_somewhere(page: str) -> None:
    """Every element is closed, every id is there once, every link goes to an id of the page."""
    checker = read(page)
    assert len(checker.ids) == len(set(checker.ids))
    assert {link.removeprefix("#") for link in checker.links} <= set(checker.ids)
    assert all(link.startswith("#") for link in checker.links)


def test_the_kinds_that_claims_compare_are_named(page: str, plan: Plan, drawn: Draw, make: Make) -> None:
    """Of roles with several kinds, in page and summary; nothing of a study with one kind of each."""
    assert (
        "The claims compare of the fine-tuned runs P-T and not P-T large lr; of the runs from scratch RI-T and not"
        in read(page).text
    )
    assert "The claims compare of" in make(plan, drawn(), write_markdown)
    kinds = ("pt_large_lr", "rit_small_lr", "rit_wide")
    assert compared_kinds(change_study(**{f"runs__{kind}": None for kind in kinds})) == ""


def test_it_is_html_without_a_parse_error(page: str) -> None:
    """The HTML standard's parsing algorithm finds nothing to repair; in a page with a stray element it does."""
    import html5lib

    def parse(text: str) -> None:
        html5lib.HTMLParser(strict=True).parse(text)

    parse(page)
    with pytest.raises(html5lib.html5parser.ParseError):
        parse(page.replace("</table>", "<p></table>", 1))


def test_nothing_is_fetched(page: str) -> None:
    """Images are data URIs, and the page forbids itself every request."""
    assert all(source.startswith("data:") for source in read(page).sources)
    assert not re.search(r"https?://|url\(|@import|<link|<script src", page)
    assert "default-src 'none'" in page


def test_images_have_descriptions(page: str) -> None:
    """Every figure says in words what it is, of which task, and whether its images are drawn."""
    alts = [alt for alt in read(page).alts if alt]
    assert "Learning curves and optimization speed: learning curves, real, generated images" in alts
    assert any(alt.endswith("figure 19, cross domain, generated images") for alt in alts)
    assert any(alt.endswith("learning curves, chest") for alt in alts)


def test_claims_come_first_with_verdicts(page: str) -> None:
    """The table of claims stands before contents and figures, a verdict in words in each row."""
    assert page.index('id="claims"') < page.index('id="contents"') < page.index('id="figure_2"')
    rows = re.findall(r'<tr id="claim_(\w+)">.*?</tr>', page, re.DOTALL)
    not_drawn = ("one_basin", "one_basin_loss", "reuse_grows_less")  # which need three domains, and drawings
    assert rows == [name for name in registered() if name not in not_drawn]
    assert len(re.findall(r'<td><span class="verdict \w+">[✓✗?] [a-z ]+</span></td>', page)) == len(rows)


def test_every_number_of_the_paper_has_its_section(page: str) -> None:
    """All that was run is there under its number, with the paper's figures beside ours."""
    text = read(page).text
    for number in ("Figure 2", "Tables 3, 4, 5, 6", "Tables 1 and 7", "Table 8, Figure 11", "Figures 24 to 29"):
        assert number in text
    assert "Paper, Table 7: CKA, clipart" in text
    assert "Ours: clipart" in text
    assert "exchanged" in text, "the convention of Table 6"


def test_generated_images_are_flagged(plan: Plan, drawn: Draw, make: Make) -> None:
    """A union of drawn tasks is drawn; a task of real images is not called so; without drawn tasks nothing is."""
    checker = read(make(plan, drawn()))
    assert "The images of real, clipart, real_clipart are drawn" in checker.text
    real = {name: replace(result, facts={}) for name, result in drawn().items()}
    assert "drawn by the program" not in read(make(change_study(generated={}), real)).text


def test_markup_in_names_is_escaped(page: str) -> None:
    """A class named like a tag stays text."""
    assert "<class 1>" not in page
    assert "&lt;class 1&gt;" in page


def test_what_was_not_run_is_listed(plan: Plan, drawn: Draw, make: Make) -> None:
    """Sections without content are left out and named at the end; so are missing scenarios."""
    results = drawn()
    assert "Figures 20, 21, 23, 25, 26, 27, 29: these pairs" in read(make(plan, results)).text
    bare = {name: replace(result, tables={}, figures={}) for name, result in results.items() if name != "cross_domain"}
    page = make(plan, bare)
    assert "Figure 30: Module criticality" in read(page).text
    assert 'id="figure_30"' not in page


def test_runs_that_did_not_learn_stand_out(plan: Plan, drawn: Draw, make: Make) -> None:
    """They are named above the table of runs, and their rows are set apart."""
    results = drawn()
    runs = results["real"].tables["runs"].copy()
    runs["learned"] = runs["run"] != "rit_2"
    runs.loc[runs["run"] == "pt_1", "status"] = "diverged"
    changed = replace(results["real"], tables=results["real"].tables | {"runs": runs})
    page = make(plan, results | {"real": changed})
    assert "real.pt_1 (diverged), real.rit_2 (did not learn)" in read(page).text
    assert page.count('<tr class="bad">') == 2
    under_figures = re.findall(r"<figcaption>(\w+).*?</figcaption>", page)
    named = re.findall(r"<figcaption>(\w+)[^\n]*✗ diverged: real.pt_1</span></figcaption>", page)
    assert set(named) >= {"real"}
    assert "chest" in under_figures
    assert "chest" not in named


def test_claims_that_were_not_run_are_listed_at_the_end(plan: Plan, drawn: Draw) -> None:
    """Of two checkpoints without labels of the study: no empty table of claims, and what each claim needs."""
    results = {
        name: replace(result, tables={key: table for key, table in result.tables.items() if key == "splits"})
        for name, result in drawn().items()
    }
    page = write_page(plan, *decide_claims(plan, results), results, provenance={})
    assert '<tr id="claim_' not in page
    assert page.index(f"{len(registered())} of the study’s claims") > page.index('id="not_run"')
    assert read(page).text.count("not run: needs") == len(registered())
    assert len({link.removeprefix("#") for link in read(page).links} - set(read(page).ids)) == 0


def test_long_tables_are_folded(page: str) -> None:
    """Tables of every class and pair are closed until they are opened."""
    folded = re.findall(r"<details><summary>(.*?)</summary>", page)
    assert "real, every pair" in folded
    assert "chest, class by class" in folded


def test_text_is_set_for_reading(page: str) -> None:
    """Backticks become code, markup in them stays text; ranges go below their number; units stay with it."""
    assert "(<code>select_best_on</code>)" in page
    assert "120 images choose, and 280 others judge." in read(page).text
    assert "`" not in read(page).text
    assert code("a `<b>` c") == "a <code>&lt;b&gt;</code> c"
    assert ranges("18.2 % (17.9 % to 18.5 %) [15.1 %, 21.0 %]") == ["18.2 %", "(17.9 % to 18.5 %)", "[15.1 %, 21.0 %]"]
    assert ranges("no range") == ["no range"]
    assert units("real 78.4 % | 61.5 %, 2.4 points") == "real 78.4\u00a0% | 61.5\u00a0%, 2.4\u00a0points"


def test_provenance_is_shown(page: str) -> None:
    """Plain values first, then a group for each mapping."""
    text = read(page).text
    assert "abc123" in text
    assert "2.15.0" in text
    assert "61.5" in text


def test_same_input_same_page(plan: Plan, drawn: Draw, make: Make, page: str) -> None:
    """Nothing of the time or the place of writing gets in."""
    assert make(plan, drawn()) == page


def test_a_study_without_anything(plan: Plan) -> None:
    """Even with no results there is a page that says so."""
    results = {"real": TaskResults("real")}
    page = write_page(plan, *decide_claims(plan, results), results, provenance={})
    assert "not run: needs" in page
    read(page)


def test_what_the_plan_leaves_out_is_told_apart_from_what_made_nothing(plan: Plan) -> None:
    """An analysis that is not planned is named by its key."""
    results = {"real": TaskResults("real")}
    without = change_study(analyses={"mistakes": None, "landscape": {"basin": None}})
    text = read(write_page(without, *decide_claims(without, results), results, provenance={})).text
    assert "Figure 9: Uncommon mistakes (the plan has no analyses.mistakes)" in text
    assert "Definition 3.1: The basin of all models of a kind (the plan has no analyses.landscape.basin)" in text
    assert "Figure 33: Singular values below a threshold (spectrum made no figure or table of it)" in text
    assert "Figure 2: Learning curves and optimization speed (training made no figure or table of it)" in text


def test_scenarios_stand_where_their_tasks_say(drawn: Draw) -> None:
    """A scenario that is none of the paper's figures stands with the single domains, or with the combined ones."""
    plan = change_study(analyses__landscape__cross_domain=[
        {"figure": "ours", "evaluated_on": "real", "tasks": ["real", "clipart"]},
        {"figure": "ours_union", "evaluated_on": "real", "tasks": ["real_clipart", "clipart"]},
    ])  # fmt: skip
    results = drawn()
    png = results["cross_domain"].figures["figure_19"]
    across = replace(results["cross_domain"], figures={"ours": png, "ours_union": png}, tables={})
    results |= {"cross_domain": across}
    page = write_page(plan, *decide_claims(plan, results), results, provenance={})
    single, combined = page.index('id="figures_19_23"'), page.index('id="figures_24_29"')
    assert single < page.index("Ours <") < combined < page.index("Ours union <")


def test_claims_are_put_in_numbers(decided: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Means by task side by side, the effect with its interval; a difference has a sign, a height against a bound none."""
    views = {view.claim.id: view for view in claim_views(*decided, registered())}
    assert views["final_score"].sides == "P-T | RI-T"
    assert re.fullmatch(r"real 9\d\.\d % \| 8\d\.\d %", views["final_score"].ours[0])
    points = r"\+\d+\.\d points \[\+\d+\.\d, \+\d+\.\d\] \(12 comparisons, 3 tasks\)"
    assert re.fullmatch(points, views["final_score"].effect)
    assert re.fullmatch(r"0\.\d points \[-?0\.\d, 0\.\d\] \(3 values, 3 tasks\)", views["no_barrier_pt"].effect)
    coefficient = r"\+0\.\d{3} \[\+0\.\d{3}, \+0\.\d{3}\] \(12 comparisons, 3 tasks\)"
    assert re.fullmatch(coefficient, views["cka_mixed"].effect)
    assert re.fullmatch(r"\+19 \[\+19, \+19\] \(3 comparisons, 3 tasks\)", views["l2"].effect)
    assert views["union_basin"].effect == "0.0 points, no interval (2 values, 2 pairs of domains)"
    assert views["other_domain"].effect.endswith("(2 comparisons, 2 pairs of domains)")
    assert views["cka_p"].effect.endswith("(24 comparisons, 3 tasks)")


def test_a_verdict_is_explained_in_two_sentences(plan: Plan, drawn: Draw) -> None:
    """Where the interval lies and whom it covers; of an open one what would tell. The whole table's rate stands below.

    Also with runs that are left out, or not trained to the end, each with one colon at most.
    """
    results = drawn()
    for sense in (1, -1):
        failed = drawn(sense=sense)
        runs = failed["real"].tables["runs"]
        runs = runs.assign(learned=runs["run"] != "rit_2", still_rising=runs["run"] == "rit_1", last_rise=0.05)
        failed["real"] = replace(failed["real"], tables=failed["real"].tables | {"runs": runs})
        for view in claim_views(*decide_claims(plan, failed), registered()):
            sentences = re.split(r"(?<=\.) (?=[A-Z0-9])", view.why)
            assert len(sentences) <= (1 if view.verdict != "cannot tell" else 2), view.why
            assert all(sentence.count(": ") <= 1 for sentence in sentences), view.why
    claims, effects = decide_claims(plan, results)
    views = {view.claim.id: view for view in claim_views(claims, effects, registered())}
    assert views["speed"].why.startswith(
        "The 95 % interval lies above 0, for other runs on these 3 tasks, this P alone (shapes.p_1); left out: "
    )
    assert views["union_basin"].why.startswith("Nothing is repeated independently. To tell: 2 runs of each kind")
    page = write_page(plan, claims, effects, results, provenance={})
    tested = claims["p"].notna().sum()
    assert f"Each of the {tested} claims with an interval has a chance of at most 5 % of a false verdict" in page
    assert "After Holm" in page


def test_the_page_says_what_was_left_out(plan: Plan, drawn: Draw) -> None:
    """In the reason, as the table of comparisons has it, once."""
    results = drawn()
    runs = results["real"].tables["runs"].assign(learned=lambda table: table["run"] != "rit_2")
    results["real"] = replace(results["real"], tables=results["real"].tables | {"runs": runs})
    page = write_page(plan, *decide_claims(plan, results), results, provenance={})
    assert "; left out: real.rit_2 (not learned)" in page
    assert "Left out" not in page


def test_markdown(plan: Plan, drawn: Draw, make: Make) -> None:
    """The summary holds every claim and the tables beside the paper's, and no image; rows have as many cells as heads."""
    text = make(plan, drawn(), write_markdown)
    for claim in registered().values():
        assert escape(claim.text) in text
    assert "**Paper, Table 8: distance to initialisation**" in text
    assert "data:" not in text
    lines = text.splitlines()
    for above, below in pairwise(lines):
        if above.startswith("|") and below.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", above)) == len(re.findall(r"(?<!\\)\|", below))
