import base64
import hashlib
import re
from dataclasses import replace

import pytest

from analysis.find import find
from analysis.report.document import Runs
from analysis.report.drawing import ON_MAP
from analysis.report.page import INKS

SCRIPT = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def html(everything):
    folder, _, _ = everything
    return (folder / "analysis" / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html, parse):
    return parse(html)


def test_the_page_may_load_nothing_and_run_its_own_script_alone(html, page):
    def hashed(tag):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, flags=re.DOTALL)
        return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()

    assert (
        "meta",
        "content",
        f"default-src 'none'; style-src 'sha256-{hashed('style')}'; script-src 'sha256-{hashed('script')}';"
        " img-src data:; base-uri 'none'; form-action 'none'",
    ) in page.attributes
    assert {"link", "iframe", "object", "form", "base", "embed"}.isdisjoint(page.tags)
    assert page.tags.count("script") == page.tags.count("style") == 1
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]
    assert not re.search(r"https?:", html)


def test_every_link_stays_on_the_page_and_finds_its_place(page):
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    links = [value for _, name, value in page.attributes if name in ("href", "xlink:href")]
    assert {"#main", "#findings", "#topic-returns", "#runs"} <= set(links)
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert all(value.startswith("data:image/png;base64,") for value in page.values("img", "src"))


def test_figures_have_text_alternatives_and_tables_captions(page):
    labelled = page.values("svg", "aria-labelledby")
    assert len(labelled) == page.tags.count("svg") == 8  # levels, curse, four topics of five, curves, map
    assert len(page.values("img", "alt")) == page.tags.count("img") == 2
    assert page.tags.count("table") == page.tags.count("caption") == len(page.values("table", "role"))
    assert "50: 0.680 [0.655, 0.705]" in page.text  # .67, .68, .69 on test; 4.302653 * .01 / sqrt(3) = .0248


def test_every_colour_of_a_figure_is_one_that_the_page_knows_in_the_dark(html):
    outside_maps = [svg for svg in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL) if "map_" not in svg]
    bare = {colour for svg in outside_maps for colour in re.findall(r'(?:fill|stroke)="(#[0-9a-f]+)"', svg)}
    assert bare <= set(ON_MAP)
    dark = html.partition("prefers-color-scheme: dark")[2].partition("}")[0]
    assert all(f"--{name}:" in dark for name in INKS.values())


def test_every_topic_is_there_with_its_columns_values_and_verdicts(page, everything):
    _, _, findings = everything
    for topic in findings.topics:
        for text in (topic.title, topic.text, *topic.columns.values(), *(claim.verdict for claim in topic.claims)):
            assert text in page.text
    for value in ("12,346", "1.25", "yes", "3 of 9", "3 seeds", "test/miou per doubling"):
        assert value in page.text


def test_every_row_names_its_runs_and_long_lists_their_place(page, everything):
    _, _, findings = everything
    for level in (level for factor in findings.factors for level in factor.levels):
        assert ", ".join(level.run_ids) in page.text
    many = Runs([f"run-{i}" for i in range(10_000)], "factors[0].levels[1].run_ids")
    assert many.text.startswith("run-0, run-1, ")
    assert many.text.endswith("run-11 and 9988 more: findings.json, factors[0].levels[1].run_ids")


def test_what_brackets_mean_is_said_before_the_first_of_them(html, everything):
    folder, _, _ = everything
    for text in (html.partition("<h2")[2], (folder / "analysis" / "report.md").read_text().partition("## ")[2]):
        assert text.index("In brackets") < text.index("0.680")


def test_runs_that_all_rows_share_are_named_once(html, everything, parse):
    folder, _, findings = everything
    part = html.partition('<h3 id="topic-power"')[2].partition("<h3")[0]
    assert part.count(", ".join(findings.recommended.run_ids)) == 1
    assert "Runs behind every row:" in parse(part).text
    told = (folder / "analysis" / "report.md").read_text().partition("### Power of this study")[2].partition("###")[0]
    assert told.count(findings.recommended.run_ids[0]) == 1


def test_what_was_left_out_is_grouped_by_reason(page):
    assert "81 runs left out, each for a stated reason." in page.text
    assert "0 of 90 epochs; or with other numbers" in page.text
    assert "another study's" in page.text
    assert "demo-00000000000b and 68 more: findings.json, excluded, by this reason" in page.text


def test_gaps_between_trials_and_mirror_are_named(tmp_path, write, parse, make_runs):
    gaps = [f"trial {n}: no W&B run" for n in range(50)]
    text = parse(write(tmp_path, replace(make_runs(), gaps=gaps))["report.html"]).text
    assert "trial 39: no W&B run" in text
    assert "trial 40: no W&B run" not in text
    assert "and 10 more" in text


@pytest.mark.parametrize("is_confirmed", [False, True])
def test_hostile_names_stay_text(tmp_path, is_confirmed, write, parse, hostile_runs, confirm_all, add_topics):
    runs = confirm_all(hostile_runs) if is_confirmed else hostile_runs
    files = write(tmp_path, runs, add_topics(find(runs), SCRIPT))
    page = parse(files["report.html"])
    assert page.tags.count("script") == 1
    assert {"img", "b"}.isdisjoint(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert f"Study demo{SCRIPT}" in page.text
    assert "<" not in files["report.md"].replace("\\<", "")
    assert files["report.md"].count("\n# ") == 0  # the only first-level heading is the first line
    assert "\\| a \\|" in files["report.md"]  # no cell of a table ends early


def test_markdown_says_what_the_page_says(page, everything):
    folder, _, findings = everything
    text = (folder / "analysis" / "report.md").read_text()
    told = text.replace("\\", "").replace("&amp;", "&")
    for topic in findings.topics:
        assert f"### {topic.title}" in text
        assert all(claim.subject in told for claim in topic.claims)
    assert "![Test scene 7791, 1 of 2 by mIoU](panels/1.png)" in text
    pictures = re.findall(r"\]\((.*?)\)", text)
    assert len(pictures) == page.tags.count("svg") + page.tags.count("img")
    assert all((folder / "analysis" / path).is_file() for path in pictures)
