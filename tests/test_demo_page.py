"""The page of `amstel demo`: self-contained, with the code that ran, and looked at in a browser where there is one."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
import torch

from amstel.apps import demo, demo_page
from amstel.media import images
from tests import command


def sample(x: int) -> str:
    """Not shown."""

    # Shown & "quoted" <so>.
    return f"{x} < 2"


class Sample:
    """Not shown."""

    def method(self) -> int:
        """Not shown either."""
        return 1


class Elements(HTMLParser):
    """Every reference to a file, and the tags that are open."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "data", "poster")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_source_is_what_ran():
    assert demo_page.source(sample).splitlines()[0] == "def sample(x: int) -> str:"
    assert "return" in demo_page.source(sample) and "Not shown" not in demo_page.source(sample)
    shown = demo_page.source(Sample)
    assert "def method" in shown and "Not shown" not in shown
    namespace = {}
    exec(shown, namespace)
    assert namespace["Sample"]().method() == 1


def test_highlighting_changes_no_character():
    import html

    for code in (
        demo_page.source(sample),
        demo_page.source(Sample),
        "x = 1",
        "f(\n  1,\n)\n\n\nclass A: ...",
    ):
        marked = demo_page.highlighted(code)
        assert html.unescape(re.sub(r"<[^>]*>", "", marked)) == code.rstrip("\n")
    assert '<span class="k">def</span>' in demo_page.highlighted(demo_page.source(sample))
    assert "<so>" not in demo_page.highlighted(demo_page.source(sample))


def _page(folder, missing=()):
    picture = folder / "a.png"
    images.write(picture, torch.randint(255, (40, 60, 3), dtype=torch.uint8).numpy())
    exhibit = demo.Exhibit("Title <1>", "93%", "of all & more", [picture], [sample])
    show = demo.Show(folder, missing=list(missing), exhibits=[exhibit])
    return demo_page.write(folder / "index.html", {"graphs": show, "tracking": show}, 12.3)


def test_page_is_self_contained(tmp_path):
    text = _page(tmp_path, ['no x.gif: needs av: pip install "amstel[video]"']).read_text()
    elements = Elements(text)
    assert not elements.open and len(elements.found) == 2
    assert all(reference.startswith("data:image/png;base64,") for reference in elements.found)
    assert (
        "Title &lt;1&gt;" in text
        and "of all &amp; more" in text
        and "pip install &quot;amstel[video]" in text
    )
    assert "http" not in re.sub(r'src="[^"]*"', "", text) and "12 s in total" in text


def test_page_in_a_browser(tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no headless browser is installed")
    page, picture = _page(tmp_path), tmp_path / "screenshot.png"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1280,900",
        f"--screenshot={picture}",
    ]
    subprocess.run([browser, *options, page.as_uri()], capture_output=True, timeout=120, check=True)
    pixels = images.read(picture)
    assert pixels.shape[:2] == (900, 1280) and pixels.std() > 3


@pytest.mark.parametrize(
    "words, families",
    [
        (["track"], ["tracking"]),
        (["restoration", "graphs"], ["graphs", "restoration"]),
        ([], list(demo.FAMILIES)),
    ],
)
def test_families(capsys, monkeypatch, tmp_path, words, families):
    seen = []
    for name in demo.FAMILIES:
        monkeypatch.setattr(f"amstel.apps.{name}.demo.run", lambda show, name=name: seen.append(name))
    status, out, err = command.run(capsys, "demo", *words, "--output", tmp_path)
    assert status == 0 and err == "" and seen == families
    assert f"[{len(families)}/{len(families)}]" in out and (tmp_path / "index.html").is_file()


def test_no_such_family(capsys):
    command.is_refused(
        capsys, ["demo", "chess"], "should be one of graphs, video, track, restore, got 'chess'"
    )


def test_a_page_of_ones_own_is_kept(capsys, tmp_path):
    own = tmp_path / "index.html"
    own.write_text("<title>mine</title>")
    command.is_refused(
        capsys, ["demo", "graphs", "-o", tmp_path], "is another page: -o DIR names another folder"
    )
    assert own.read_text() == "<title>mine</title>" and list(tmp_path.iterdir()) == [own]
    own.write_text("<head>\n<title>amstel demo</title>")
    assert demo_page.is_one(own)
