"""A real browser opens the report: Debian's Chromium, driven by Playwright. CI installs it."""

import os
import re
import shutil

import pytest
from playwright.sync_api import sync_playwright

from analysis.find import find
from analysis.report.write import write_report

CHROMIUM = shutil.which("chromium")
SCRIPT = "</script><script>alert(1)</script>"
IMAGE = '"><img src=x onerror=alert(1)>'
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 900}

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="no chromium on this machine: apt-get install chromium"
)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", *QUIET])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(everything):
    folder, _, _ = everything
    return folder / "analysis" / "report.html"


@pytest.fixture
def visit(browser):
    """A function that opens a page; at the end of the test nothing was asked for but its file, and nothing went wrong.

    Violations of the security policy are errors in the console.
    """
    seen = []

    def opened(path, **options):
        page = browser.new_page(**{"viewport": DESK, **options})
        page.on("request", lambda request: seen.append(("request", request.url)))
        page.on("console", lambda message: seen.append(("console", message.text)))
        page.on("pageerror", lambda error: seen.append(("error", str(error))))
        page.on("dialog", lambda dialog: (seen.append(("dialog", dialog.message)), dialog.dismiss()))
        page.goto(path.as_uri(), wait_until="load")
        pages.append((page, path.as_uri()))
        return page

    pages = []
    yield opened
    expected = [("request", url) for _, url in pages]
    found = [event for event in seen if not event[1].startswith("data:")]
    for page, _ in pages:
        page.close()
    assert found == expected


@pytest.mark.parametrize("viewport", [PHONE, DESK])
def test_the_page_fits_and_its_figures_are_there(visit, report, viewport):
    page = visit(report, viewport=viewport)
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]
    figures = page.locator("figure svg")
    assert figures.count() == 8
    for i in range(figures.count()):
        box = figures.nth(i).bounding_box()
        assert box["width"] > 300
        assert box["height"] > 60
        assert box["x"] + box["width"] <= viewport["width"]
    pictures = page.locator("figure img")
    sizes = [picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") for picture in pictures.all()]
    assert sizes == [[192, 64], [192, 64]]


@pytest.mark.parametrize("viewport", [PHONE, DESK])
def test_nothing_reaches_over_the_edge_where_all_is_unfolded(visit, report, viewport):
    page = visit(report, viewport=viewport)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]


def test_figures_and_pictures_have_names_for_a_screen_reader(visit, report):
    page = visit(report)
    names = [line for line in page.locator("main").aria_snapshot().splitlines() if 'img "' in line]
    assert len(names) == 10
    assert 'img "test/miou by points per image. Dots: seeds.' in names[0]
    assert any('img "Test scene 7791, 1 of 2 by mIoU: mIoU 0.500. The image' in name for name in names)
    assert 'button "verdict"' in page.locator("table").first.aria_snapshot()  # without the arrow beside it
    landmarks = page.locator("body").aria_snapshot()
    assert all(role in landmarks for role in ("- banner:", '- navigation "Contents":', "- main:", "- contentinfo:"))


def column(page, caption, place):
    rows = page.locator("table", has=page.locator("caption", has_text=caption)).locator("tbody tr")
    return [row.locator("th, td").nth(place).inner_text().split()[0] for row in rows.all()]


@pytest.mark.parametrize("viewport", [PHONE, DESK])
def test_tables_are_sorted_by_keyboard_and_mouse(visit, report, viewport):
    page = visit(report, viewport=viewport)
    caption = "test/miou by points per image"
    table = page.locator("table", has=page.locator("caption", has_text=caption))
    assert column(page, caption, 0) == ["2", "10", "50"]  # by number: as text, 10 would come first
    first, mean = table.locator("thead button").nth(0), table.locator("thead button").nth(2)
    first.focus()
    page.keyboard.press("Enter")
    assert table.locator("thead th").nth(0).get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Space")
    assert table.locator("thead th").nth(0).get_attribute("aria-sort") == "descending"
    assert column(page, caption, 0) == ["50", "10", "2"]
    mean.click()
    states = [heading.get_attribute("aria-sort") for heading in table.locator("thead th").all()]
    assert states == ["none", "none", "ascending", "none", "none"]
    assert column(page, caption, 2) == ["0.520", "0.600", "0.680"]


def test_everything_is_reached_by_keyboard(visit, report):
    page = visit(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the findings"
    assert page.locator(".skip").bounding_box()["x"] >= 0  # it shows while it has the focus
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for _ in range(2):  # the first table's first heading, the second
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "verdict"
    summary = page.locator(".trace summary").first
    assert not page.locator(".trace .ids").first.is_visible()
    summary.focus()
    page.keyboard.press("Enter")
    assert page.locator(".trace .ids").first.is_visible()
    assert "confirm-demo-" in page.locator(".trace .ids").first.inner_text()


def test_only_what_scrolls_is_a_stop_for_the_keyboard(visit, report):
    page = visit(report)
    assert page.locator("[tabindex='0']").count() == 0  # all fit on a desk
    page.set_viewport_size({"width": 640, "height": 900})
    page.wait_for_selector(".scroll[tabindex='0']")
    stops = page.locator("[tabindex='0']")
    assert 0 < stops.count() < page.locator(".scroll").count()
    assert all(stop.evaluate("each => each.scrollWidth > each.clientWidth") for stop in stops.all())
    assert {stop.get_attribute("role") for stop in stops.all()} == {"region"}
    assert stops.first.get_attribute("aria-label") == stops.first.locator("caption").inner_text()


@pytest.mark.parametrize("viewport", [PHONE, DESK])
def test_what_is_to_be_touched_is_large_enough_for_a_finger(visit, report, viewport):
    """At least 24 pixels a side, as WCAG 2.2 has it (2.5.8)."""
    page = visit(report, viewport=viewport)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    sizes = page.evaluate("""() => [...document.querySelectorAll('nav a, button, summary')]
        .filter((each) => each.checkVisibility())
        .map((each) => [each.textContent, each.getBoundingClientRect()])
        .map(([text, box]) => [text, box.width, box.height])""")
    assert len(sizes) > 60
    assert [each for each in sizes if min(each[1:]) < 24] == []


def test_the_contents_are_folded_on_a_phone_and_beside_the_findings_on_a_desk(visit, report):
    page = visit(report, viewport=PHONE)
    assert not page.get_by_role("link", name="Protocol").is_visible()
    page.locator("nav summary").click()
    assert page.get_by_role("link", name="Protocol").is_visible()
    lefts = {box["x"] for each in page.locator("nav details > ul > li").all() if (box := each.bounding_box())}
    assert len(lefts) == 1  # one column
    desk = visit(report)
    assert desk.get_by_role("link", name="Protocol").is_visible()
    assert not desk.locator("nav summary").is_visible()


def test_no_column_is_clipped_on_a_desk_and_text_is_no_wider_for_that(visit, report):
    page = visit(report)
    page.evaluate("for (const each of document.querySelectorAll('details.folded')) each.open = true")
    clipped = "[...document.querySelectorAll('.scroll')].filter((each) => each.scrollWidth > each.clientWidth).length"
    assert page.evaluate(clipped) == 0
    widths = page.evaluate("[...document.querySelectorAll('main p')].map((each) => each.clientWidth)")
    assert max(widths) <= 48 * 16
    tables = page.evaluate("[...document.querySelectorAll('.scroll')].map((each) => each.clientWidth)")
    assert max(tables) > 48 * 16


def test_without_scripts_the_tables_are_plain(browser, report):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert page.locator("thead button").count() == 0
    assert page.locator("thead th").first.inner_text() == "points per image"
    assert page.locator("tbody tr").first.inner_text().split()[0] == "2"
    context.close()


# Colours --------------------------------------------------------------------------------------------------------------

COLOURS = """() => {
  const texts = 'h1, h2, p, li, th, td > span, small, figcaption, summary, nav a';
  const isClear = (each) => getComputedStyle(each).backgroundColor === 'rgba(0, 0, 0, 0)';
  return [...document.querySelectorAll(texts)].map((each) => {
    let below = each;
    while (isClear(below) && below.parentElement) below = below.parentElement;
    return [each.tagName + '.' + each.className, getComputedStyle(each).color, getComputedStyle(below).backgroundColor];
  });
}"""
INKS = "() => [...document.querySelectorAll('figure svg use')].map((each) => getComputedStyle(each).fill)"


def luminance(colour):
    """Of `rgb(r, g, b)`, by WCAG 2.2."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(ink, paper):
    low, high = sorted((luminance(ink), luminance(paper)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_the_light_and_in_the_dark(visit, report, scheme):
    page = visit(report, color_scheme=scheme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(paper) < 0.05) == (scheme == "dark")
    found = page.evaluate(COLOURS)
    assert len(found) > 100
    assert [each for each in found if contrast(each[1], each[2]) < 4.5] == []
    inks = page.evaluate(INKS)
    letters = "rgb(230, 235, 232)" if scheme == "dark" else "rgb(28, 35, 33)"
    assert inks.count(letters) > 100  # letters of the figures follow the page


def test_print_is_dark_on_white_and_leaves_out_what_is_for_a_screen(visit, report):
    page = visit(report, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(28, 35, 33)"
    assert not page.locator("nav").is_visible()
    assert page.locator("h1").is_visible()
    assert page.pdf().startswith(b"%PDF")


# Hostile names --------------------------------------------------------------------------------------------------------


def test_hostile_names_stay_text_in_a_browser(visit, tmp_path, hostile_runs, confirm_all, add_topics, add_panels):
    runs = confirm_all(hostile_runs)
    findings = add_topics(find(runs), f" {SCRIPT}{IMAGE}")
    add_panels(tmp_path, findings.recommended.trial_ids[0], f"{SCRIPT}{IMAGE}")
    page = visit(write_report(tmp_path, runs, findings)["report.html"])
    assert page.locator("script").count() == 1
    assert page.locator("img").count() == 2  # the panels
    assert page.locator("h1").inner_text() == f"Study demo{SCRIPT}"
    assert page.title() == f"Study demo{SCRIPT}"
    assert f"Test scene {SCRIPT}{IMAGE}" in page.locator("figure.panel").first.inner_text()
    assert page.locator("[onerror], [onload], [onclick]").count() == 0
    page.locator("thead button").first.click()


def test_the_policy_stops_what_escaping_would_have_missed(browser, report, tmp_path):
    """The last line of defence: a script, a style and a picture from elsewhere, put into the page by hand."""
    bad = (
        '<script>alert(1)</script><style>h1 {display: none}</style><img src="http://127.0.0.1:9/x" onerror="alert(2)">'
    )
    path = tmp_path / "bad.html"
    path.write_text(report.read_text().replace("<h1>", f"{bad}<h1>"))
    page, dialogs, refused = browser.new_page(), [], []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda message: refused.append(message.text))
    page.goto(path.as_uri())
    assert dialogs == []
    assert page.locator("h1").is_visible()
    assert len([text for text in refused if "Content Security Policy" in text]) >= 3
    page.close()
