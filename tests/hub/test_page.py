"""The zoo as web pages: what they hold, that they let nothing in, and a browser that clicks."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dgl_deepgnn.cli import app
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.hub import ZooError, write_pages
from dgl_deepgnn.hub.page import _shown

NAME = "tiny.karate"
PACKAGED = Path(__file__).parents[2] / "zoo"


class Page(HTMLParser):
    """Elements with their attributes, and text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of the zoo that comes with the package."""
    return write_pages(tmp_path_factory.mktemp("pages") / "site", PACKAGED).parent


def test_the_table_is_the_index(site: Path) -> None:
    models = json.loads((PACKAGED / "index.json").read_text("utf-8"))["models"]
    page = Page(site / "index.html")
    links = [link["href"] for link in page.all("a")]
    assert links == [f"models/{name}.html" for name in sorted(models)]
    assert all((site / str(link)).is_file() for link in links)
    cells = [(cell["data-label"], cell["data-value"]) for cell in page.all("td") if len(cell) > 1]
    depths = [int(str(value)) for label, value in cells if label == "depth"]
    assert depths == [models[name]["depth"] for name in sorted(models)]
    scores = [float(str(value)) for label, value in cells if label == "score"]
    assert scores == [models[name]["mean"] for name in sorted(models)]
    assert f"{len(models)} of {len(models)} models" in page.text


def test_a_page_is_the_card_with_its_pictures(site: Path) -> None:
    page = Page(site / "models" / "resgcn64.digits.html")
    card = (PACKAGED / "resgcn64.digits" / "README.md").read_text("utf-8")
    for heading in re.findall(r"^#+ (.+)$", card, flags=re.MULTILINE):
        assert heading in page.text
    assert 'model = from_pretrained("resgcn64.digits")' in page.text
    assert "dgl-deepgnn evaluate resgcn64.digits" in page.text
    pictures = page.all("img")
    assert len(pictures) == 2
    assert all(
        str(picture["src"]).startswith("data:image/png;base64,iVBOR") for picture in pictures
    )


def test_curves_are_medians_of_the_record(site: Path) -> None:
    text = (site / "models" / "resgcn64.digits.html").read_text("utf-8")
    found = re.search(r'<script type="application/json" id="curve">(.*?)</script>', text)
    assert found is not None
    curve = json.loads(found[1])
    record = json.loads((PACKAGED / "resgcn64.digits" / "speedup.json").read_text("utf-8"))
    losses = record["arms"]["principled"]["losses"]
    assert list(curve) == list(record["arms"])
    assert curve["principled"][7] == sorted(seed[7] for seed in losses)[2]


def test_nothing_is_loaded_from_anywhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = Page(path)
        for attributes in (attributes for _, attributes in page.elements):
            assert not str(attributes.get("src", "data:")).startswith(("http", "//"))
        policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
        assert "default-src 'none'" in str(policy)
        assert not page.all("link")


def test_a_card_cannot_run_or_load_anything(
    zoo: Path, reindex: Callable[..., None], tmp_path: Path
) -> None:
    """Of a zoo whose publisher means harm."""
    (zoo / NAME / "README.md").write_text(
        "# Nice <script>alert(1)</script>\n\n<img src=x onerror=alert(1)>\n\n"
        "[here](javascript:alert(1)) ![far](http://evil/pixel.png) ![up](../../secret.png)\n"
        "![mine](loss.png)\n"
    )
    config = json.loads((zoo / NAME / "config.json").read_text())
    (zoo / NAME / "config.json").write_text(json.dumps(config))
    speedups = json.loads((zoo / NAME / "speedup.json").read_text())
    arms = speedups["arms"]
    arms["</script><script>alert(1)</script>"] = arms["stock"]
    (zoo / NAME / "speedup.json").write_text(json.dumps(speedups))
    reindex(zoo)
    content = json.loads((zoo / "index.json").read_text())
    content["models"][NAME]["data"] = '"><script>alert(1)</script>'
    (zoo / "index.json").write_text(json.dumps(content))
    index = write_pages(tmp_path / "site", zoo)
    for path in (index, index.parent / "models" / f"{NAME}.html"):
        page = Page(path)
        scripts = page.all("script")
        assert len(scripts) == (1 if path == index else 2), path
        assert "alert(1)" in path.read_text()
        sources = [str(picture["src"]) for picture in page.all("img")]
        assert all(source.startswith("data:image/png") for source in sources)
        assert len(sources) == (0 if path == index else 1)
        assert not [link for link in page.all("a") if "script" in str(link["href"])]
        assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]


def test_only_what_is_listed_is_shown(
    zoo: Path, reindex: Callable[..., None], tmp_path: Path
) -> None:
    """Of a zoo that was sent, whose card is a link to a file of the reader's."""
    (tmp_path / "secret").write_text("My secret words.")
    (zoo / NAME / "README.md").unlink()
    (zoo / NAME / "README.md").symlink_to(tmp_path / "secret")
    index = json.loads((zoo / "index.json").read_text())
    del index["models"][NAME]["files"]["README.md"]
    (zoo / "index.json").write_text(json.dumps(index))
    made = write_pages(tmp_path / "site", zoo).parent / "models" / f"{NAME}.html"
    assert "secret" not in made.read_text() and "There is no card" in made.read_text()
    del index["models"][NAME]["files"]["config.json"]
    (zoo / "index.json").write_text(json.dumps(index))
    with pytest.raises(ZooError, match=r"lists no file config\.json"):
        write_pages(tmp_path / "other", zoo)


def test_a_card_cannot_fill_the_memory(
    zoo: Path, reindex: Callable[..., None], tmp_path: Path
) -> None:
    card = zoo / NAME / "README.md"
    card.write_text("![](loss.png)\n\n" * 5000)
    reindex(zoo)
    made = write_pages(tmp_path / "one", zoo).parent / "models" / f"{NAME}.html"
    assert made.read_text().count("data:image") == 1
    card.write_text("![![" * 50_000)
    reindex(zoo)
    made = write_pages(tmp_path / "two", zoo).parent / "models" / f"{NAME}.html"
    assert "it is too long" in made.read_text()


def test_numbers_that_are_none_stay_out_of_the_curve(
    zoo: Path, reindex: Callable[..., None], tmp_path: Path
) -> None:
    path = zoo / NAME / "speedup.json"
    record = json.loads(path.read_text())
    losses = record["arms"]["stock"]["losses"]
    losses[0][0], losses[0][1], losses[1][2] = float("nan"), float("inf"), 1.7e308
    losses[0][2] = 1.7e308
    path.write_text(json.dumps(record))
    reindex(zoo)
    text = (write_pages(tmp_path / "one", zoo).parent / "models" / f"{NAME}.html").read_text()
    found = re.search(r'id="curve">(.*?)</script>', text)
    assert found is not None

    def refuse(name: str) -> None:
        raise AssertionError(name)

    curve = json.loads(found[1], parse_constant=refuse)
    assert curve["stock"][:3] == [None, None, None] and curve["stock"][3] > 0


def test_an_address_is_shown_without_its_password(zoo: Path) -> None:
    for place, shown in (
        ("https://me:secret@host:80/zoo", "https://host:80/zoo"),
        ("hf://user/repo@v1", "hf://user/repo@v1"),
    ):
        assert _shown(place) == shown


def test_what_cannot_be_written(zoo: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="has no model none"):
        write_pages(tmp_path / "site", zoo, "none")
    (tmp_path / "site").mkdir()
    with pytest.raises(UserError, match="exists"):
        write_pages(tmp_path / "site", zoo)
    (zoo / NAME / "README.md").write_text("changed")
    with pytest.raises(ZooError, match=r"README\.md is"):
        write_pages(tmp_path / "other", zoo)
    assert not (tmp_path / "other").exists()


def test_the_command(zoo: Path, tmp_path: Path) -> None:
    asked = ["models", "tiny*", "--zoo", str(zoo), "--html", str(tmp_path / "site")]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0 and result.stdout == f"Open {tmp_path}/site/index.html\n"
    page = Page(tmp_path / "site" / "index.html")
    assert [link["href"] for link in page.all("a")] == [f"models/{NAME}.html"]
    assert str(zoo.parent) not in (tmp_path / "site" / "index.html").read_text()


# --- in a browser ---


@pytest.fixture(params=[(1300, 900), (390, 844)], ids=["desktop", "phone"])
def browser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A window of Chromium, of a desk's or a phone's size."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("wants Debian's packages chromium and chromium-driver: make test-browser")
    webdriver = pytest.importorskip("selenium.webdriver", reason="make test-browser")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    width, height = request.param
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    # A desk's window has a least width; a phone's is emulated.
    options.add_experimental_option(
        "mobileEmulation",
        {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1.0, "touch": False}},
    )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield window
    window.quit()


def shown(browser: Any) -> list[str]:
    """Names of the models that can be seen, from top to bottom."""
    links = browser.find_elements("css selector", "table.models tbody a")
    return [link.text for link in links if link.is_displayed()]


def test_clicked(browser: Any, site: Path) -> None:
    models = json.loads((PACKAGED / "index.json").read_text("utf-8"))["models"]
    browser.get((site / "index.html").as_uri())
    assert shown(browser) == sorted(models)
    heads = {
        head.text: head for head in browser.find_elements("css selector", "table.models th button")
    }
    heads["depth"].click()
    depths = [models[name]["depth"] for name in shown(browser)]
    assert depths == sorted(depths)
    heads["depth"].click()
    assert [models[name]["depth"] for name in shown(browser)] == sorted(depths, reverse=True)
    pair = next(iter(models["resgcn64.digits"]["speedup"]))
    heads[f"speed-up {pair}"].click()
    ratios = [models[name]["speedup"][pair]["ratio"] for name in shown(browser)]
    known = [ratio for ratio in ratios if ratio is not None]
    assert ratios == sorted(known) + [None] * (len(ratios) - len(known))  # unknown last
    search = browser.find_element("id", "search")
    search.send_keys("cora")
    assert sorted(shown(browser)) == sorted(name for name in models if "cora" in name)
    search.clear()
    search.send_keys(" ")
    browser.find_element("css selector", "select[data-key=family]").send_keys("resgin")
    assert sorted(shown(browser)) == sorted(n for n in models if n.startswith("resgin"))
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= browser.execute_script("return window.innerWidth")
    browser.find_element("link text", shown(browser)[0]).click()
    assert browser.find_element("css selector", "svg.curve polyline").is_displayed()
    legend = browser.find_element("css selector", ".legend")
    before = legend.text
    svg = browser.find_element("css selector", "svg.curve")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", svg)
    from selenium.webdriver import ActionChains

    ActionChains(browser).move_to_element(svg).perform()
    assert re.search(r"step \d+", legend.text) and legend.text != before
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= browser.execute_script("return window.innerWidth")
    assert not [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    requests = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in requests
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert asked and all(url.startswith(("file:", "data:")) for url in asked)
