"""The page in a real browser: it loads in silence, figures are linked, filters filter, hostile text stays text."""

import json
import re
from pathlib import Path

import pytest
from selenium.common.exceptions import JavascriptException

from entrostat.report import build_report, read_run
from entrostat.runs import Run

from .browser import LAPTOP, PHONE, chromium, complaints, show
from .conftest import a_finding, make_run

HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror='window.pwned=2'><!--<script>"


@pytest.fixture(scope="module")
def driver():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    make_run(root / "falls", steps=30, tokens=True)
    make_run(root / "holds", steps=40, tokens=True, strategy="id", collapse=False)
    make_run(root / "little", steps=0, splits=())
    return {path.name: path for path in root.iterdir()}


@pytest.fixture
def page(driver, folders, tmp_path: Path):
    """Opens the report of the named runs and hands it over."""

    def open_report(*names: str, size: tuple[int, int] = LAPTOP, scheme: str = "light") -> Path:
        out = build_report([folders[name] for name in names], tmp_path / "report.html")
        show(driver, out, size, scheme)
        return out

    yield open_report
    assert complaints(driver) == []


def all_of(driver, selector: str):
    return [each for each in driver.find_elements("css selector", selector) if each.is_displayed()]


def texts(driver, selector: str) -> list[str]:
    return [each.text for each in all_of(driver, selector)]


def choose(driver, control: str, label: str) -> None:
    options = driver.find_elements("css selector", f"#{control} option")
    next(option for option in options if option.text == label or option.text.startswith(f"{label} (")).click()


def press(driver, selector: str) -> None:
    button = all_of(driver, selector)[0]
    driver.execute_script("arguments[0].scrollIntoView({ block: 'center' })", button)
    button.click()


def point(driver, figure: int, *shares: float, kinds=("pointerdown", "pointerup")) -> None:
    """Pointer events in the middle of a figure, at shares of the way from step 0 to its last step."""
    driver.execute_script(
        """
        const [number, shares, kinds] = arguments;
        const figure = document.querySelectorAll("figure[data-frame]")[number];
        const svg = figure.querySelector("svg");
        svg.setPointerCapture = () => {};
        svg.scrollIntoView({ block: "center" });
        const box = svg.getBoundingClientRect();
        const [left, right] = figure.dataset.frame.split(" ").map(Number);
        kinds.forEach((kind, index) => svg.dispatchEvent(new PointerEvent(kind, {
          bubbles: true, button: 0, pointerId: 1,
          clientX: box.left + box.width * (left + (right - left) * shares[Math.min(index, shares.length - 1)]),
          clientY: box.top + box.height / 2,
        })));
        """,
        figure,
        shares,
        kinds,
    )


def marks(driver) -> list[float]:
    """Where the marks that show stand, in pixels from the left; a line has no width, so the driver calls it hidden."""
    return driver.execute_script(
        "return [...document.querySelectorAll('.mark')].filter((mark) => mark.style.display !== 'none')"
        ".map((mark) => mark.getBoundingClientRect().x)"
    )


@pytest.mark.parametrize("names", [("falls",), ("falls", "holds"), ("falls", "holds", "little"), ("little",)])
@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_its_screen_and_follows_light_and_dark(driver, page, names, size, scheme):
    page(*names, size=size, scheme=scheme)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= size[0]
    ground = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 25, 29)")
    for table in all_of(driver, "table"):
        assert table.rect["x"] + table.rect["width"] <= size[0]


def test_a_step_pointed_at_in_one_figure_is_marked_in_all_where_their_axes_say(driver, page):
    page("falls", "holds")
    point(driver, 0, 0.5, kinds=("pointermove",))
    assert texts(driver, "#place") == ["step 20"]
    ticks = driver.find_elements("xpath", "//figure[@data-frame]//*[starts-with(@id, 'xtick_')]//*[text()='20']")
    places = marks(driver)
    figures = driver.find_elements("css selector", "figure[data-frame]")
    assert len(places) == len(figures) == len(ticks)
    for mark, tick in zip(places, ticks, strict=True):
        assert mark == pytest.approx(tick.rect["x"] + tick.rect["width"] / 2, abs=2.0)
    point(driver, 0, 0.5, kinds=("pointerleave",))
    assert marks(driver) == []
    assert not all_of(driver, "#bar")


def test_the_bar_reads_what_the_run_logged_at_the_step(driver, page, folders):
    page("falls", "holds")
    point(driver, 3, 0.5)
    line = next(line for line in read_run(folders["falls"], "").steps if line["step"] == 20)
    told = texts(driver, ".reading")
    assert [text.split()[0] for text in told] == ["falls", "holds"]
    found = re.search(r"entropy ([\d.e-]+)", told[0]).group(1)
    assert float(found) == pytest.approx(line["entropy"], rel=0.01)


def test_a_click_shows_that_steps_samples_and_escape_lets_go(driver, page):
    page("falls")
    point(driver, 2, 0.5)
    assert set(texts(driver, ".card .step")) == {"step 15"}
    assert texts(driver, "#jump") == ["4 samples"]
    press(driver, "#after")
    assert set(texts(driver, ".card .step")) == {"step 16"}
    assert texts(driver, "#place") == ["step 16"]
    driver.find_element("tag name", "body").send_keys("\ue00c")
    assert len(set(texts(driver, ".card .step"))) > 1
    assert not all_of(driver, "#bar")


def test_a_drag_holds_a_range_in_every_figure_and_in_the_samples(driver, page):
    page("falls")
    point(driver, 1, 0.2, 0.5, 0.5, kinds=("pointerdown", "pointermove", "pointerup"))
    assert texts(driver, "#place") == ["steps 6\u201315"]
    assert len(all_of(driver, ".range")) == len(driver.find_elements("css selector", "figure[data-frame]"))
    while all_of(driver, ".more"):
        press(driver, ".more")
    assert {int(text.split()[1]) for text in texts(driver, ".card .step")} == set(range(6, 16))
    press(driver, "#clear")
    assert not all_of(driver, ".range")


def test_a_figure_is_reached_and_read_by_keyboard(driver, page):
    page("falls")
    svg = driver.find_element("css selector", "figure svg")
    assert (svg.get_attribute("tabindex"), svg.get_attribute("role")) == ("0", "img")
    words = svg.get_attribute("aria-label")
    assert words.startswith("pass@1. ")
    assert re.search(r"report: [\d.]+ at step 0, [\d.]+ at step 30, between", words)
    right, left, end, shift = "\ue014", "\ue012", "\ue010", "\ue008"
    svg.send_keys(right, right, right)
    assert texts(driver, "#place") == ["step 2"]
    svg.send_keys(left)
    assert texts(driver, "#place") == ["step 1"]
    svg.send_keys(shift + right + right)
    assert texts(driver, "#place") == ["steps 1\u20133"]
    svg.send_keys(end)
    assert texts(driver, "#place") == ["step 30"]


KEEP_WHAT_IS_SAVED = """
window.saved = [];
const made = URL.createObjectURL.bind(URL);
URL.createObjectURL = (blob) => { window.blob = blob; return made(blob); };
HTMLAnchorElement.prototype.click = function () { window.saved.push([this.download, window.blob]); };
"""
READ_WHAT_IS_SAVED = """
const done = arguments[0];
const [name, blob] = window.saved.at(-1) ?? [null, null];
if (!name) done(null);
else if (blob.type === "image/png") blob.arrayBuffer().then((b) => done([name, blob.type, b.byteLength]));
else blob.text().then((text) => done([name, blob.type, text]));
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_figure_is_saved_as_it_looks_and_with_its_data(driver, page, folders, scheme):
    page("falls", scheme=scheme)
    driver.execute_script(KEEP_WHAT_IS_SAVED)
    figure = driver.find_elements("css selector", "figure[data-frame]")[1]
    found = {}
    for number, button in enumerate(figure.find_elements("css selector", ".save button"), 1):
        driver.execute_script("arguments[0].click()", button)
        for _ in range(100):
            if driver.execute_script("return window.saved.length") == number:
                break
            driver.execute_async_script("setTimeout(arguments[0], 20)")
        name, kind, content = driver.execute_async_script(READ_WHAT_IS_SAVED)
        found[name] = (kind, content)
    assert list(found) == ["entropy.svg", "entropy.png", "entropy.csv"]
    assert "var(--" not in found["entropy.svg"][1]
    assert ("#ffffff" if scheme == "light" else "#16191d") in found["entropy.svg"][1]
    assert found["entropy.png"][1] > 5000
    rows = found["entropy.csv"][1].splitlines()
    logged = {line["step"]: line["entropy"] for line in read_run(folders["falls"], "").steps}
    assert rows[0] == "step,entropy"
    assert {int(step): float(value) for step, value in (row.split(",") for row in rows[1:])} == {
        step: pytest.approx(value, rel=1e-3) for step, value in logged.items()
    }


def test_samples_are_found_by_what_they_say(driver, page, folders):
    page("falls")
    everything = [sample["completion"] for sample in Run.open(folders["falls"]).samples()]
    some = next(text for text in everything if "> 3]" in text)
    driver.find_element("id", "search").send_keys("XS IF X > 3]")
    shown = all_of(driver, ".card")
    assert shown
    assert all("xs if x > 3]" in card.text.lower() for card in shown), some
    driver.find_element("id", "search").send_keys("no sample says this")
    assert not all_of(driver, ".card")


@pytest.mark.parametrize("size", [LAPTOP, PHONE], ids=["laptop", "phone"])
def test_a_finding_leads_to_its_figure_and_marks_its_steps_in_all(driver, folders, tmp_path: Path, size):
    out = build_report([folders["falls"]], tmp_path / "report.html", [[a_finding("Length")]])
    show(driver, out, size)
    press(driver, ".finding a")
    figure = driver.find_element("css selector", driver.execute_script("return location.hash"))
    assert figure.find_element("tag name", "h3").text == "Length"
    top = driver.execute_script("return arguments[0].getBoundingClientRect().top", figure)
    assert 0 <= top < size[1]
    assert texts(driver, "#place") == ["steps 20\u201330"]
    assert len(all_of(driver, ".range")) == len(driver.find_elements("css selector", "figure[data-frame]"))
    assert complaints(driver) == []


def test_filters_show_exactly_the_samples_that_the_run_folder_has(driver, page, folders):
    page("falls")
    choose(driver, "split", "report")
    choose(driver, "verdict", "wrong")
    choose(driver, "step", "4")
    samples = Run.open(folders["falls"]).samples()
    wanted = [
        (sample["task"], sample["completion"].strip())
        for sample in samples
        if (sample["split"], sample["step"], sample["outcome"]) == ("report", 4, "wrong")
    ]
    assert wanted
    assert set(texts(driver, ".card b")) == {"wrong"}
    assert list(zip(texts(driver, ".card summary"), texts(driver, ".card > pre"), strict=True)) == sorted(wanted)


def test_two_runs_are_browsed_beside_each_other_and_can_be_exchanged(driver, page):
    page("falls", "holds")
    left, right = all_of(driver, ".column")
    assert left.rect["y"] == right.rect["y"]
    assert left.rect["x"] < right.rect["x"]
    before = driver.execute_script("return arguments[0].querySelector('.cards').innerText", left)
    next(each for each in left.find_elements("tag name", "option") if each.text == "holds").click()
    after = driver.execute_script("return arguments[0].querySelector('.cards').innerText", left)
    assert after == driver.execute_script("return arguments[0].querySelector('.cards').innerText", right) != before


def test_tokens_are_coloured_by_polarity_and_tell_their_numbers(driver, page, folders):
    page("falls")
    choose(driver, "step", "10")
    sample = next(s for s in Run.open(folders["falls"]).samples() if s["step"] == 10 and s["split"] == "train")
    polarity = [sample["advantage"] * value for value in sample["tokens"]["sensitivity"]]
    card = all_of(driver, ".card")[0]
    tokens = card.find_elements("css selector", ".token")
    assert [token.get_attribute("textContent") for token in tokens] == sample["tokens"]["text"]
    for token, value in zip(tokens, polarity, strict=True):
        colour = driver.execute_script("return getComputedStyle(arguments[0]).backgroundColor", token)
        red, _, blue = (float(part) for part in re.findall(r"[\d.]+", colour.replace("srgb", ""))[:3])
        if abs(value) > 0.05:
            assert (red > blue) == (value > 0), (value, colour)
    tokens[1].click()
    assert f"polarity {polarity[1]:.3g}" in card.find_element("css selector", ".about").text
    choose(driver, "measure", "entropy")
    assert texts(driver, "#low") == ["0"]
    choose(driver, "measure", "none")
    assert not all_of(driver, "#legend")


def test_what_a_hostile_model_wrote_is_read_and_does_nothing(driver, tmp_path: Path):
    run = make_run(tmp_path / "run", steps=3)
    tokens = {"text": [HOSTILE, "<b>"], **{name: [-1.0, 1.0] for name in ("logp", "entropy", "sensitivity")}}
    line = {"task": HOSTILE, "prompt": HOSTILE, "completion": HOSTILE, "outcome": HOSTILE}
    run.log_samples(3, "report", [line])
    run.log_samples(3, "train", [{**line, "advantage": 1.0, "tokens": tokens}])
    show(driver, build_report([run.path], tmp_path / "report.html"))
    choose(driver, "split", "all")
    choose(driver, "step", "3")
    shown = [each.get_attribute("textContent") for each in all_of(driver, ".card pre")]
    assert HOSTILE in shown
    assert f"{HOSTILE}<b>" in shown
    all_of(driver, ".token")[0].click()
    assert driver.execute_script("return window.pwned") is None
    assert driver.execute_script("return [document.scripts.length, document.images.length]") == [2, 0]
    assert complaints(driver) == []


def test_even_markup_that_got_into_the_page_could_not_run_or_reach_anything(driver, folders, tmp_path: Path):
    page = build_report([folders["falls"]], tmp_path / "report.html")
    attack = "<script>window.pwned=1</script><img src='http://127.0.0.1:9/x' onerror='window.pwned=2'>"
    page.write_text(page.read_text().replace("<main>", f"<main>{attack}"))
    show(driver, page)
    refused = " ".join(complaints(driver))
    assert "script-src" in refused
    assert "img-src" in refused or "default-src" in refused
    attempts = (
        "document.body.innerHTML = '<b>x</b>'",
        "document.body.setAttribute('onclick', 'window.pwned = 3')",
        "document.body.append(Object.assign(document.createElement('script'), { text: 'window.pwned = 4' }))",
    )
    for attempt in attempts:
        with pytest.raises(JavascriptException, match="Trusted"):
            driver.execute_script(attempt)
    assert driver.execute_script("return window.pwned") is None
    complaints(driver)


def test_the_embedded_data_are_what_the_page_shows_without_a_network(driver, page, folders):
    out = page("falls", "holds")
    names = driver.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)",
    )
    assert names == []
    data = json.loads(re.search(r'id="data">(.*?)</script>', out.read_text(), re.DOTALL).group(1))
    assert [run["name"] for run in data["runs"]] == ["falls", "holds"]
