"""What the tests of pages share: a parser that is strict, what a search leaves, a browser."""

import json
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from shared import diagnosed

from prdarts_jax.run import architecture, reporting, settings

EVIL = "<script>alert('&')</script>"
VOID = {"meta", "link", "input", "br"}  # elements that have no end


class Page(HTMLParser):
    """What a page has; it fails where elements are not nested."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.links, self.texts, self.cells, self.tags = [], [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.open += [] if tag in VOID else [tag]
        self.tags.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes[name] for name in ("src", "href", "xlink:href") if name in attributes]
        self.cells += [attributes["data-value"]] if "data-value" in attributes else []

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open = self.open[:-1] if tag not in VOID else self.open

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)


def record(epoch, space):
    """Of a search in this space, whose cell changes after each epoch."""
    ops = [space.ops[(epoch + edge) % len(space.ops)] for edge in range(len(space.edges))]
    cell = [[ops[0], 0], [ops[1], 1]] * (space.nodes - space.inputs)
    concat = list(range(space.inputs, space.nodes))
    darts = {"normal": cell, "normal_concat": concat, "reduce": cell, "reduce_concat": concat}
    return diagnosed(epoch, space.cell_types) | {
        "genotype": {"ops": ops} if space.cell_types == ("normal",) else darts,
        "seconds": np.random.random(),
    }


def probabilities(epoch, seed, space):
    return {t: np.random.default_rng((epoch, seed)).random(space.shape) for t in space.cell_types}


def searched(config, workdir, epochs=3):
    """What a search of this config would have left."""
    space = settings.space_of(config)
    for number, folder in enumerate(settings.seed_folders(config, workdir)):
        lines = [reporting.json_bytes(record(epoch, space)) for epoch in range(epochs + number)]
        reporting.write_bytes(folder / "metrics.jsonl", b"".join(lines))
        for epoch in range(epochs + number):
            found = probabilities(epoch, number, space)
            architecture.save(folder, epoch, found, found)
        reporting.write_json(folder / "genotype.json", json.loads(lines[-1])["genotype"])
        reporting.write_json(folder / "doubts.json", [f"doubtful: {EVIL}"])


def opened(page, folder, script):
    """(DOM after a script has run in the page, what the browser's console says)."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip("no Chromium here: the page has not been opened in a browser")
    (folder / "page.html").write_text(page.replace("</body>", f"<script>{script}</script></body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    command = [browser, *options, f"--user-data-dir={folder}/profile", str(folder / "page.html")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return ended.stdout, [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
