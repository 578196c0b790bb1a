"""The report in a browser: what is seen first, how long it is, on phones and on dark screens."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from browser import TEXTS, opened
from figure_tables import SETUPS, fill
from PIL import Image
from small_report import few_coarse_figures

from pipeline.report import write


@pytest.fixture(autouse=True, scope="module")
def _few_coarse_figures() -> Iterator[None]:
    with few_coarse_figures():
        yield


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(fill(tmp_path_factory.mktemp("outputs")))


def test_the_first_screen_shows_effects_beside_a_figure_and_the_page_is_short(path: Path) -> None:
    with opened(path, 1280, 800) as page:
        first, figure = (page.locator(f"#answer {part}").first.bounding_box() for part in ("li", "img"))
        assert first["y"] > 0 and first["y"] + first["height"] < 800
        assert figure["y"] + figure["height"] < 800 and figure["x"] >= first["x"] + first["width"]
        assert page.evaluate("document.scrollingElement.scrollHeight") < 10 * 800


def test_a_link_to_a_folded_figure_unfolds_it(path: Path) -> None:
    with opened(path, 1280, 800) as page:
        folded = page.locator("#fig05_orthogonal_magnitude img")
        assert not folded.is_visible()
        page.locator(".contents.wide a[href='#fig05_orthogonal_magnitude']").click()
        folded.wait_for(state="visible")


def test_pictures_stay_on_a_light_card_on_a_dark_page(path: Path) -> None:
    with opened(path, 1280, 800, "dark") as page:
        picture = page.locator("#answer img")
        picture.evaluate("async one => { one.loading = 'eager'; await one.decode(); }")
        with Image.open(BytesIO(picture.screenshot())) as shown:
            values = shown.convert("L").histogram()
    paper = max(range(256), key=lambda value: values[value])
    assert 190 < paper < 240  # bright enough for dark ink, not as bright as a white page
    assert min(value for value in range(256) if values[value]) < 60


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone_and_is_legible(path: Path, scheme: str) -> None:
    with opened(path, 360, 740, scheme) as page:
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 360
        page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
        assert page.evaluate("document.scrollingElement.scrollWidth") <= 360
        texts = page.evaluate(TEXTS)
        assert len(texts) > 500
        assert min(text["size"] for text in texts) >= 12
        assert [text for text in texts if text["contrast"] < 4.5] == []
        ink = next(text["light"] for text in texts if text["text"].startswith("Does pruning retain"))
        assert ink > 0.7 if scheme == "dark" else ink < 0.05


def test_pictures_prompts_and_sorting_in_a_browser(path: Path) -> None:
    with opened(path, 1280, 900) as page:
        widths = page.locator("figure img").evaluate_all(
            "async all => { for (const one of all) { one.loading = 'eager'; await one.decode(); }"
            " return all.map(one => one.naturalWidth); }"
        )
        assert widths == [270, 270, 270]  # a page in print at forty dots

        assert page.locator(".prompt:visible h3").all_inner_texts() == ["choice-1 choice"]
        page.locator("#prompt").select_option(label="open-1")
        assert page.locator(".prompt:visible h3").all_inner_texts() == ["open-1 open"]
        marks = page.locator(".prompt:visible .mark")
        assert marks.all_inner_texts() == len(SETUPS) * ["step 4"]
        assert marks.first.is_visible()

        def column(table: str, place: int) -> list[str]:
            return page.locator(f"#{table} tbody:last-child tr > :nth-child({place})").evaluate_all(
                "all => all.map(one => one.dataset.value)"
            )

        for table, place, count in (("scores-table", 3, 3), ("deviations-table", 5, len(SETUPS))):
            head = page.locator(f"#{table} thead tr:last-child > :nth-child({place})")
            for order, sign in (("ascending", 1), ("descending", -1)):
                head.locator("button").click()
                assert head.get_attribute("aria-sort") == order
                values = [sign * float(text) for text in column(table, place)]
                assert values == sorted(values) and len(values) == count
        assert page.locator("#scores-table tbody").first.locator("tr").last.inner_text().startswith("mean")

        page.locator(".enlarge").first.click()
        assert page.locator("dialog img").is_visible()
        page.keyboard.press("Escape")
        assert not page.locator("dialog").is_visible()


def test_without_scripts_every_prompt_is_there(path: Path) -> None:
    with opened(path, 1280, 900, javascript=False) as page:
        assert page.locator(".prompt:visible").count() == 4
        assert not page.locator("#prompt").is_visible()
        assert page.locator(".enlarge").first.get_attribute("href") == "../figures/fig01_score_vs_sparsity.png"
