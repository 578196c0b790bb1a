"""A headless browser without a network, for tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
# Every visible element with text of its own: its size in pixels and its contrast with what is behind it.
TEXTS = """() => {
  const rgba = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const over = ([r, g, b, a = 1], under) => [r, g, b].map((x, i) => a * x + (1 - a) * under[i]);
  const behind = (element) => {
    const chain = [];
    for (let at = element; at; at = at.parentElement) chain.unshift(rgba(getComputedStyle(at).backgroundColor));
    return chain.reduce((under, colour) => over(colour, under), [255, 255, 255]);
  };
  const light = (colour) => colour.map((x) => x / 255)
    .map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4))
    .reduce((sum, x, i) => sum + x * [0.2126, 0.7152, 0.0722][i], 0);
  const own = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  return [...document.body.querySelectorAll("*")]
    .filter((element) => own(element) && element.checkVisibility() && !element.closest("script, option"))
    .map((element) => {
      const style = getComputedStyle(element), back = behind(element);
      const [a, b] = [light(over(rgba(style.color), back)), light(back)].sort((x, y) => y - x);
      return { text: element.textContent.trim().slice(0, 40), size: parseFloat(style.fontSize),
               contrast: (a + 0.05) / (b + 0.05), light: light(rgba(style.color).slice(0, 3)) };
    });
}"""


def executable() -> str:
    """The browser on PATH; skips the test where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser on PATH: none of {', '.join(NAMES)}")
    return found


@contextmanager
def opened(path: Path, width: int, height: int, scheme: str = "light", javascript: bool = True) -> Iterator[Any]:
    """The page of a file, offline; fails on errors of the console or of scripts, and on any request beyond the page.

    Yields:
        playwright's `Page`.
    """
    binary = executable()
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    complaints: list[str] = []

    def refuse(route: Any) -> None:
        complaints.append(f"requested {route.request.url}")
        route.abort()

    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=binary, args=list(FLAGS))
        try:
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme=scheme,
                offline=True,
                java_script_enabled=javascript,
            )
            page = context.new_page()
            page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.route(lambda url: not url.startswith(("data:", path.as_uri())), refuse)
            page.goto(path.as_uri())
            yield page
        finally:
            browser.close()
    assert not complaints
