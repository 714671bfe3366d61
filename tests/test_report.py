"""The report of a run: every figure from its files, no sentence that they do not carry, safe and whole pages."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from string import Formatter

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from run_folder import PICTURES, batches, epochs, facts, metrics, options, several, updates, write_csv, write_run

from gradnorm_plugin.report import blocks, compose
from gradnorm_plugin.report.blocks import LANGUAGES, Wording, catalogue
from gradnorm_plugin.report.compose import main, write_report
from gradnorm_plugin.report.run_files import ReportError
from gradnorm_plugin.run_folder import EXPLAINED_PICTURES, output_picture
from gradnorm_plugin.training.plots import best_row

FILES = ("opt.yaml", "hyp.yaml", "run.json", "joint_metrics.json", "joint_results.csv", "gradnorm.csv", "batches.csv")
HOSTILE = "<script>alert(1)</script>|\"'&amp; `x` *y* __z__ [a](b) $q$\n# {0}"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """What a browser would see: balanced elements, their attributes, the text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.text = ""
        self.cells: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in {"td", "th"}:
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> inside {self.open}"
        self.open.pop()

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
            if {"td", "th"} & set(self.open):
                self.cells[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes, _ in self.elements if name == tag]


def texts(run: Path, lang: str = "en") -> tuple[str, str]:
    """The Markdown without its escapes, and the text of the page; both in single spaces."""
    markdown, html = (file.read_text(encoding="utf-8") for file in write_report(run, lang, run.parent / f"out-{lang}"))
    markdown = re.sub(r"\\(.)", r"\1", markdown).replace("`", "").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return tuple(" ".join(text.split()) for text in (markdown, Page(html).text))


def says(run: Path, *sentences: str) -> None:
    for text in texts(run):
        for sentence in sentences:
            assert sentence in text, f"not said: {sentence}"


def never_says(run: Path, *words: str) -> None:
    for text in texts(run):
        for word in words:
            assert word not in text, f"said: {word}"


def edit(contents: dict, path: str, value: object) -> dict:
    """A deep copy of `contents` with the value at `a.b.0` replaced."""
    copy = json.loads(json.dumps(contents))
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
    place = copy
    for part in parents:
        place = place[part]
    place[last] = value
    return copy


def test_sentences_are_computed_from_the_files(tmp_path):
    says(
        write_run(tmp_path / "run"),
        "The detection weight rose from 1 to 3.982 over 12 measurements (batches 10 to 120); it was between 1 and 3.982.",
        "The classification weight rose from 0.01 to 0.018 over 12 measurements",
        "The two weights summed to 1.01 at the first measurement and to 4 at all later ones.",
        "The detection weight was at neither end of its range 1 to 4 in the 11 measurements after the first.",
        "The classification weight was at the lower end of its range 0.018 to 0.4 in 1 of the 11 measurements after the first, "
        "at the upper end in 0.",
        # 0.7303 is the mean of 2.8 / 3.972 and 3 / 3.97, the middle ones of 12
        "was 100 times that of detection (median). With the weights it was 0.7303 times: the weights brought the two nearer",
        "above it in 3 of 12 measured steps (25.0 %); its median was 8.",
        "In 4 of 12 measured steps (33.3 %) the cosine between the gradients of the two tasks was below 0",
        "The mean cosine was 0.03333: on average the tasks were nearly orthogonal",
        "The classification head has 100,000 parameters, 5.0 % of all.",
        "Most frequent image class in training: PLAX (555 images); rarest: A4C (111).",
        "Most frequent box class in training: AR (1,250 boxes); rarest: PR (84).",
        "Highest mAP50-95: AR (0.620); lowest: PR (0.490).",
        "Accuracy 0.978 is above that of always naming PLAX, the most frequent class (0.536).",
        "Balanced accuracy 0.982 is above that of always naming PLAX, the most frequent class (0.333).",
        "4 of 183 images were given a wrong class; most often: PLAX taken for A4C (images: 3).",
        "Fewer than 30 boxes to measure on: PR (14).",
        "Fewer than 30 images to measure on: A4C (19).",
        "One run with one seed (7).",
        "not a medical device",
        "1,000 resamples of the measured images (seed 0)",
        "95 % interval: 0.899 to 0.948",
        "1 h 2 min",
        "train_joint_gradnorm_fixed.py --name 'two words'",
        "3 of 3",
        "0.0123",
    )


def test_the_confusion_table_is_turned_as_the_picture_of_it(tmp_path):
    """PLAX was taken for A4C three times, never the other way round: the figure stands below PLAX, in the row of A4C."""
    (md, html) = write_report(write_run(tmp_path / "run"))
    lines = md.read_text().splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("| Predicted"))
    assert lines[head].split(" | ")[1:] == ["PSAX", "PLAX", "A4C |"]
    assert lines[head + 2 : head + 5] == ["| PSAX | 65 | 0 | 0 |", "| PLAX | 1 | 95 | 0 |", "| A4C | 0 | 3 | 19 |"]
    assert "--share:0.985" in html.read_text()


@pytest.mark.parametrize(("name", "value"), [("temperature", "2.0"), ("c", "0.4"), ("alpha", "1.5")])
def test_settings_of_every_balancer_are_told(tmp_path, name, value):
    run = write_run(tmp_path / "run", run=facts(balancing={"balancer": "x", name: float(value)}))
    assert f"| Balancing: `{name}` | {value} |" in write_report(run)[0].read_text()


def test_the_time_of_a_run_that_ended_in_its_first_epoch_is_not_known(tmp_path):
    run = write_run(tmp_path / "run", run=facts(seconds=0.0, finished=None))
    text = write_report(run)[0].read_text()
    assert "0 min" not in text and re.search(r"\| [^|]*[Tt]ime[^|]* \| – \|", text)


def test_of_equally_good_epochs_the_last_one_is_best_as_in_the_picture(tmp_path):
    columns = epochs(4, fitness=[0.3, 0.5, 0.5, 0.4])
    run = write_run(tmp_path / "run", joint_results=columns, joint_metrics=None)
    assert "2 (highest fitness)" in write_report(run)[0].read_text().replace("\\", "")
    assert best_row(pd.DataFrame(columns))["epoch"] == 2


def test_an_interval_without_width_is_none(tmp_path):
    run = write_run(tmp_path / "run", joint_metrics=edit(metrics(), "classification.intervals.accuracy", [1.0, 1.0]))
    assert "1.000 to 1.000" not in write_report(run)[0].read_text()


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        ({"gradnorm": updates(cosine=[-0.3] * 12)}, "The mean cosine was -0.3: on average the tasks pulled"),
        ({"gradnorm": updates(cosine=[0.1001] * 12)}, "The mean cosine was 0.1001: on average the tasks pulled"),
        ({"gradnorm": updates(cosine=[-0.3] * 12)}, "pulled the last shared layer in opposite directions"),
        ({"gradnorm": updates(cosine=[0.1001] * 12)}, "pulled the last shared layer in similar directions"),
        ({"gradnorm": updates(detection_weight=[2.0] * 12)}, "The detection weight ended where it began, 2 and 2"),
        ({"gradnorm": updates(classification_weight=[0.4] * 11 + [0.2])}, "The classification weight fell from 0.4 to 0.2"),
        ({"gradnorm": updates(classification_norm=[0.5] * 12)}, "the weights did not bring the two nearer"),
        ({"joint_metrics": edit(metrics(), "detection.mAP50", 0.123)}, "0.123"),
        ({"joint_metrics": edit(metrics(), "classification.confusion.0.2", 7)}, "11 of 190 images were given a wrong"),
        ({"joint_metrics": edit(metrics(), "classification.confusion.0.2", 3)}, "PSAX taken for A4C, PLAX taken for A4C (im"),
        ({"joint_metrics": edit(metrics(), "detection.classes.0.mAP50-95", 0.25)}, "mAP50-95: PR (0.490); lowest: AR (0.25"),
        ({"run": edit(facts(), "data.train.image_classes", [9, 7, 7])}, "training: PSAX (9 images); rarest: PLAX, A4C (7)."),
        ({"joint_metrics": edit(metrics(), "classification.intervals.accuracy", [0.5, 0.6])}, "0.978 cannot be distinguished"),
        ({"joint_metrics": edit(metrics(), "classification.intervals.accuracy", [0.1, 0.2])}, "Accuracy 0.978 is below that of"),
        ({"joint_metrics": edit(metrics(), "bootstrap.level", 0.9)}, "90 % interval: 0.899 to 0.948"),
        ({"run": facts(finished=None)}, "run.json has no end time"),
        ({"run": edit(facts(), "data.train.image_classes.0", 777)}, "Most frequent image class in training: PSAX (777 images)"),
        ({"opt": options(epochs=40)}, "3 of the 40 epochs that were asked for"),
        ({"opt": options(weights="yolov5n.pt")}, "yolov5n.pt"),
        ({"joint_results": epochs(train_box_loss=[1.0, 2.0, 3.0])}, "Rose from the first to the last epoch: box (training)."),
        ({"joint_results": epochs(train_box_loss=[1.0, 2.0, 1.005])}, "Ended about where they began: box (training)."),
        ({"joint_results": epochs(val_box_loss=[2.0, 0.5, 1.0])}, "box (validation) was lowest in epoch 1 and 100.0 % higher"),
        ({"joint_results": epochs(val_box_loss=["nan", 0.5, 0.25])}, "0.5 (epoch 1)"),
    ],
)  # fmt: skip
def test_another_value_in_a_file_is_another_text(tmp_path, contents, sentence):
    changed = write_run(tmp_path / "changed", **contents)
    says(changed, sentence)
    never_says(write_run(tmp_path / "usual"), sentence)


def test_words_follow_the_figures_whichever_way_they_go(tmp_path):
    rising = [1.0, 2.0, 3.0]
    losses = {f"{split}_{part}_loss": rising for split in ("train", "val") for part in ("box", "obj", "cls", "classification")}
    never_says(write_run(tmp_path / "run", joint_results=epochs(**losses)), "Fell from", "Ended about where they began:")


def test_the_last_lines_of_the_first_epoch_only(tmp_path):
    says(write_run(tmp_path / "run"), "4 of 4 lines that the screen showed in epoch 0", "4.5")
    never_says(write_run(tmp_path / "run"), "8.5")  # a total of the second epoch
    says(write_run(tmp_path / "many", batches=batches(100)), "20 of 100 lines")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_one_line(tmp_path, name):
    run = write_run(tmp_path / "run", **{Path(name).stem: None})
    says(run, f"{name} is not in the folder; what it would say is left out.")


@pytest.mark.parametrize("name", FILES)
def test_a_single_file_is_enough(tmp_path, name):
    absent = {Path(other).stem: None for other in FILES if other != name}
    run = write_run(tmp_path / "run", pictures=(), **absent)
    says(run, "not a medical device", *(f"{other} is not in the folder" for other in FILES if other not in {name, "hyp.yaml"}))
    never_says(run, "nan", "None")


def test_nothing_is_said_of_what_is_missing(tmp_path):
    run = write_run(tmp_path / "run", joint_metrics=None, gradnorm=None, run=None)
    never_says(run, "interval:", "cosine was", "weight rose", "always naming", "parameters, ")
    says(run, "Epoch 1 of joint_results.csv: the highest fitness", "0.512", "0.711")


def test_plain_yolov5_run(tmp_path):
    """A run of upstream's own `train.py`: its `results.csv` alone, with spaces around the names."""
    run = tmp_path / "run"
    run.mkdir()
    metric = {"metrics/precision": 0.4, "metrics/recall": 0.3, "metrics/mAP_0.5": 0.25, "metrics/mAP_0.5:0.95": 0.125}
    losses = {f"{split}/{part}_loss": 0.75 for split in ("train", "val") for part in ("box", "obj", "cls")}
    write_csv(run / "results.csv", {f"   {name}": [f"  {value}"] * 2 for name, value in {"epoch": 0, **metric, **losses}.items()})
    says(run, "joint_results.csv is not in the folder", "Epoch 0 of results.csv, the last one", "0.125", "0.75")
    never_says(run, "Accuracy 0", "highest fitness", "checkpoint was chosen")


def test_one_epoch_and_one_measurement(tmp_path):
    run = write_run(tmp_path / "run", joint_results=epochs(1), gradnorm=updates(1), opt=options(epochs=1))
    says(run, "There is one epoch only (0), so there is no change to report.", "A single measurement, at batch 10: detection")
    never_says(run, "rose from", "fell from", "First third")


@pytest.mark.parametrize("gradnorm", [None, updates(0)], ids=["no file", "no row"])
def test_fixed_weights(tmp_path, gradnorm):
    run = write_run(
        tmp_path / "run",
        opt=options(balancer="fixed"),
        gradnorm=gradnorm,
        run=facts(balancing={"balancer": "fixed", "weights": [1.0, 0.01]}),
        joint_results=epochs(detection_weight=[1.0] * 3, classification_weight=[0.01] * 3),
    )
    says(run, "The task weights were fixed (--balancer fixed), so no gradients were measured.")
    says(run, "The detection weight was 1 in all 3 epochs.", "The classification weight was 0.01 in all 3 epochs.")
    never_says(run, "Conflicting steps", "cosine was", "gradnorm.csv is not", "gradnorm.csv has no row")


def test_gradnorm_without_a_row_yet(tmp_path):
    says(write_run(tmp_path / "run", gradnorm=updates(0)), "gradnorm.csv has no row; what it would say is left out.")


def test_figures_that_are_null(tmp_path):
    empty = edit(metrics(bootstrap=None), "classification.accuracy", None)
    for part, names in (("detection", ("mAP50", "mAP50-95", "precision")), ("classification", ("loss", "calibration_error"))):
        for name in names:
            empty = edit(empty, f"{part}.{name}", None)
        empty = edit(empty, f"{part}.intervals", {})
    run = write_run(tmp_path / "run", joint_metrics=empty)
    says(run, "Accuracy")
    assert "| Accuracy | – |" in texts(run)[0]
    never_says(run, "None", "nan", "95 % interval", "resamples", "Accuracy 0.978")


def test_hostile_names_stay_text(tmp_path):
    named = edit(edit(metrics(), "classification.classes.1.name", HOSTILE), "detection.classes.0.name", HOSTILE)
    data = edit(edit(facts(command=[HOSTILE]), "data.names.0", HOSTILE), "data.classification_names.1", HOSTILE)
    run = write_run(tmp_path / "a <b>&'q' |x| [1](2)", joint_metrics=named, run=data, opt=options(data=HOSTILE))
    for lang in LANGUAGES:
        markdown, html = (file.read_text(encoding="utf-8") for file in write_report(run, lang, tmp_path / "out"))
        page = Page(html)
        assert not {tag for tag, _, _ in page.elements} & {"script", "b", "em", "iframe"}
        shown = HOSTILE.replace("\n", " ")
        assert sum(shown in cell for cell in page.cells) >= 5 and shown in page.text
        assert "<script" not in markdown and "<b>" not in markdown
        check_tables(markdown)
        assert not re.search(r"(?<!\\)\[a(?<!\\)\]\(b\)", markdown)
        for link in re.findall(r"^!\[.*\]\((.*)\)$", markdown, re.MULTILINE):
            assert not set(link) & set(" <>()|[]&'"), link


def check_tables(markdown: str) -> int:
    """Every row of a table has as many cells as its heading; the line under the heading is right."""
    tables = re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE)
    for table in tables:
        rows = [len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()]
        assert len(rows) >= 3 and len(set(rows)) == 1, table
        assert re.fullmatch(r"\|(-{3}:?\|)+", table.splitlines()[1]), table
    blank = re.findall(r"^[^|\n].*\n\|", markdown, re.MULTILINE)
    assert not blank, f"a table needs an empty line above it: {blank}"
    return len(tables)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_markdown_tables_are_valid(tmp_path, lang):
    markdown = write_report(write_run(tmp_path / "run"), lang)[0].read_text(encoding="utf-8")
    assert check_tables(markdown) >= 14
    assert "\n\n\n\n" not in markdown and "{" not in markdown.replace("{label}", "")
    for link in re.findall(r"^!\[.*\]\((.*)\)$", markdown, re.MULTILINE):
        assert (tmp_path / "run" / link).is_file()


@pytest.mark.parametrize("lang", LANGUAGES)
def test_page_holds_everything_itself(tmp_path, lang):
    html = write_report(write_run(tmp_path / "run"), lang)[1].read_text(encoding="utf-8")
    page = Page(html)
    allowed = {
        "lang", "charset", "http-equiv", "content", "name", "class", "aria-label", "aria-hidden", "aria-labelledby", "style",
        "id", "href", "role", "tabindex", "scope", "src", "width", "height", "alt",
    }  # fmt: skip
    assert {name for _, attributes, _ in page.elements for name in attributes} <= allowed
    assert not page.all("script") and not page.all("link") and "url(" not in html and "@import" not in html
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    assert len(page.all("img")) == len(PICTURES)
    for tag, attributes, parents in page.elements:
        href = attributes.get("href")
        if href and not href.startswith("#"):
            assert tag == "a" and "footer" in parents
    policy = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


@pytest.mark.parametrize(("lang", "tag"), [("en", "en"), ("zh-TW", "zh-Hant-TW")])
def test_page_is_accessible(tmp_path, lang, tag):
    page = Page(write_report(write_run(tmp_path / "run"), lang)[1].read_text(encoding="utf-8"))
    assert page.all("html")[0]["lang"] == tag
    levels = [int(name[1]) for name, _, _ in page.elements if re.fullmatch(r"h[1-6]", name)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in zip(levels, levels[1:], strict=False))
    assert all(image["alt"] for image in page.all("img"))
    assert len(page.all("caption")) == len(page.all("table")) >= 12
    identifiers = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    for _, attributes, _ in page.elements:
        assert attributes.get("aria-labelledby", identifiers[0]) in identifiers
        href = attributes.get("href") or ""
        assert not href.startswith("#") or href[1:] in identifiers


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2)."""
    channels = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    linear = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_colours_have_contrast(tmp_path):
    html = write_report(write_run(tmp_path / "run"))[1].read_text(encoding="utf-8")
    schemes = [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", html, re.DOTALL)]
    assert len(schemes) == 3  # light, dark, print
    pairs = [("ink", "paper"), ("ink", "card"), ("soft", "paper"), ("soft", "card"), ("accent", "paper"), ("warn", "warn-paper")]
    for colours in schemes:
        for front, back in [*pairs, ("ink", "warn-paper")]:
            low, high = sorted((luminance(colours[front]), luminance(colours[back])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (front, back, colours)


def placeholders(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in Formatter().parse(text) if name is not None)


def test_languages_have_the_same_texts():
    english, chinese = (catalogue(lang) for lang in LANGUAGES)
    assert english.keys() == chinese.keys() and len(english) > 150
    for key in english:
        assert placeholders(english[key]) == placeholders(chinese[key]), key
        assert english[key].count("`") == chinese[key].count("`") and english[key].count("`") % 2 == 0, key
        assert re.search(r"[一-鿿]|^[\W\dA-Za-z-]*$", chinese[key].format(**dict.fromkeys(placeholders(chinese[key]), ""))), key
    assert not re.search(r"[一-鿿]", "".join(english.values()))


def variants(folder: Path) -> list[Path]:
    """Runs that between them call for every text."""
    orthogonal, fixed = {"gradnorm": None}, {"balancing": {"balancer": "fixed", "weights": [1, 0.01]}}
    changes = [
        {},
        {"pictures": (*PICTURES, "classification_confusion_matrix.png", *EXPLAINED_PICTURES.values()), "joint_metrics": None,
         "run": facts(finished=None)},
        {"joint_results": None, "run": facts(seconds=61)},
        {"pictures": ("results.png",), "gradnorm": updates(0), "run": edit(facts(), "model.weights", "yolov5n.pt")},
        {"gradnorm": updates(0), "opt": options(balancer="fixed"), "run": facts(**fixed),
         "joint_results": epochs(classification_weight=[0.1, 0.2, 0.2])},
        {"gradnorm": None, "opt": options(balancer="fixed", data=""),
         "joint_results": epochs(detection_weight=[1.0] * 3, classification_weight=[0.1] * 3)},
        {"gradnorm": updates(1), "joint_results": epochs(1), "opt": options(epochs=9),
         "joint_metrics": edit(metrics(), "classification.confusion", [[64, 1, 1], [1, 96, 1], [0, 0, 19]])},
        {"gradnorm": updates(cosine=[0.5] * 12, detection_weight=[3.0] * 12, classification_norm=[0.5] * 12),
         "joint_metrics": edit(edit(edit(metrics(), "classification.confusion", [[66, 0, 0], [0, 98, 0], [0, 0, 19]]),
                                    "classification.intervals.accuracy", [0.1, 0.2]), "bootstrap.level", None)},
        {"gradnorm": updates(cosine=[-0.5] * 12, classification_weight=[0.4] * 11 + [0.1]), "opt": None,
         "joint_metrics": edit(edit(metrics(), "classification.intervals.accuracy", [0.5, 0.6]), "detection.intervals", {})},
        {"gradnorm": updates(cosine=["nan"] * 12), "joint_results": epochs(train_box_loss=[1, 2, 3], train_obj_loss=[1, 1, 1],
                                                                           val_box_loss=["nan", 0.5, 1])},
        {"opt": options(backbone="dual", balancer="fixed"), "gradnorm": None,
         "run": edit(edit(facts(), "model.backbone_parameters", 4_000_000), "model.total_parameters", 6_000_000)},
        {"joint_metrics": edit(edit(metrics(), "detection.trained", False), "classification.trained", False)},
        {"run": edit(facts(), "data.test", {"images": 5, "boxes": [1, 2], "image_classes": [1, 2, 2]}), **orthogonal},
        several(),
        {**several(1), "pictures": ("view_confusion_matrix.png", "view_reliability.png", "finding.png",
                                     *(output_picture("finding", name) for name in EXPLAINED_PICTURES.values())),
         "joint_metrics": edit(several()["joint_metrics"], "outputs.view.confusion", []),
         "run": edit(several()["run"], "model.backbone_parameters", 4_000_000), "opt": options(backbone="dual")},
        {**several(), "joint_metrics": edit(several()["joint_metrics"], "outputs.grade.trained", False)},
        {**several(), "joint_metrics": edit(edit(several()["joint_metrics"], "outputs.grade.unit", None),
                                            "outputs.grade", {"MAE": 2.5, "R2": -0.5, "predicted_mean": 1.5, "mean": 3.5}),
         "gradnorm": several()["gradnorm"] | {"view_norm": [0.5] * 12}},
    ]  # fmt: skip
    return [write_run(folder / f"run{index}", **change) for index, change in enumerate(changes)]


def test_every_text_is_used_and_says_the_same_figures_in_every_language(tmp_path, monkeypatch):
    used: set[str] = set()
    original = Wording.__call__

    def noted(self: Wording, key: str, **values: object) -> object:
        other = f"{key}_outputs"
        used.add(other if self.several and other in catalogue("en") else key)
        return original(self, key, **values)

    monkeypatch.setattr(Wording, "__call__", noted)
    plain = tmp_path / "plain"
    plain.mkdir()
    columns = {"metrics/precision": 0.4, "metrics/recall": 0.3, "metrics/mAP_0.5": 0.25, "metrics/mAP_0.5:0.95": 0.125}
    columns |= {f"{split}/{part}_loss": 0.75 for split in ("train", "val") for part in ("box", "obj", "cls")}
    write_csv(plain / "results.csv", {"epoch": [0, 1], **{name: [value] * 2 for name, value in columns.items()}})
    (plain / "PR_curve.png").write_bytes(b"no picture")
    for run in [*variants(tmp_path), plain]:
        english, chinese = (re.findall(r"\d[\d,.]*\d|\d", texts(run, lang)[0]) for lang in LANGUAGES)
        assert sorted(english) == sorted(chinese)
    unused = {key for key in catalogue("en").keys() - used if not key.startswith("compare")}  # those have a test of their own
    assert unused == {"missing.too_large"}  # see the test of large pictures


def test_wording_refuses_a_missing_value():
    with pytest.raises(KeyError, match="name"):
        Wording("en")("page.title")


def test_an_unknown_language_is_refused(tmp_path):
    with pytest.raises(ValueError, match="lang is 'de', expected one of en, zh-TW"):
        write_report(write_run(tmp_path / "run"), "de")


def test_a_wide_picture_is_scaled_down(tmp_path):
    run = write_run(tmp_path / "run", pictures=())
    for name, mode in (("gradnorm.png", "RGBA"), ("labels.jpg", "L"), ("PR_curve.png", "P")):
        Image.new(mode, (3200, 100)).save(run / name)
    images = Page(write_report(run)[1].read_text(encoding="utf-8")).all("img")
    assert [(image["width"], image["height"]) for image in images] == [("1600", "50")] * 3
    for image in images:
        with Image.open(BytesIO(base64.b64decode(image["src"].split(",", 1)[1]))) as embedded:
            assert embedded.size == (1600, 50) and image["src"].startswith(f"data:image/{embedded.format.lower()};")


def test_pictures_that_would_make_the_page_too_large_are_named(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run", pictures=())
    noise = np.random.default_rng(0).integers(0, 256, (60, 1000, 3), dtype=np.uint8)
    for name in PICTURES:
        Image.fromarray(noise).save(run / name)
    assert sum((run / name).stat().st_size for name in PICTURES) > 900_000
    monkeypatch.setattr(compose, "PICTURE_BYTES", 150_000)
    html = write_report(run)[1].read_text(encoding="utf-8")
    page = Page(html)
    assert len(html) < 150_000 * 4 / 3 + 40_000
    assert {int(image["width"]) for image in page.all("img")} == {compose.PICTURE_WIDTHS[-1]}
    left_out = re.findall(r"(\S+) is left out here to keep this page small", page.text)
    shown = [re.search(r"Picture (\S+):", image["alt"])[1] for image in page.all("img")]
    assert left_out and shown and sorted(left_out + shown) == sorted(PICTURES)


def test_limit_of_all_pictures_keeps_a_page_below_5_mb():
    assert compose.PICTURE_BYTES * 4 / 3 < 4_500_000


def test_small_pictures_are_embedded_as_they_are(tmp_path):
    run = write_run(tmp_path / "run")
    sources = [image["src"] for image in Page(write_report(run)[1].read_text(encoding="utf-8")).all("img")]
    embedded = [base64.b64decode(source.split(",", 1)[1]) for source in sources]
    assert sorted(embedded) == sorted((run / name).read_bytes() for name in PICTURES)


def test_a_broken_picture_is_named_and_the_rest_goes_on(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "gradnorm.png").write_bytes(b"not a picture")
    (run / "labels.jpg").write_bytes((run / "labels.jpg").read_bytes()[:200])
    page = Page(write_report(run)[1].read_text(encoding="utf-8"))
    assert " object at 0x" not in page.text
    assert "gradnorm.png cannot be read as a picture" in page.text and "labels.jpg cannot be read as a picture" in page.text
    assert len(page.all("img")) == len(PICTURES) - 2


@pytest.mark.parametrize(("task", "told"), [("detection", "Detection was not"), ("classification", "The classification was not")])
def test_a_task_that_was_never_trained_is_said_to_be_so(tmp_path, task, told):
    run = write_run(tmp_path / "run", joint_metrics=edit(metrics(), f"{task}.trained", False))
    text = write_report(run)[0].read_text(encoding="utf-8")
    assert f"{told} trained (its weight was 0), so it has no figures" in text


def test_image_outputs_of_every_kind_are_shown(tmp_path):
    """`grade` is of a kind that the report has never heard of: its figures are those that the files name."""
    run = write_run(tmp_path / "run", pictures=("view_reliability.png", "finding.png"), **several())
    says(
        run,
        "view: Balanced accuracy",
        "finding: Macro-F1",
        "grade: kappa 2",
        "3.982 : 0.25 : 0.25 : 0.25",
        "detection : view : finding : grade",
        "1,035 of 1,042: finding of all sorts",
        "Fewer than 30 images to measure view on: A4C (19).",
        "Fewer than 30 images to measure finding on: effusion (12).",
        "Fewer than 30 images to measure grade on: grade (18).",
        "The finding weight ended where it began, 0.25 and 0.25",
        "Unweighted, the gradient of grade at the last shared layer was 10 times that of detection (median)",
        "Fell from the first to the last epoch: box (training), objectness (training), class of the box (training), view (tr",
        "On average in opposite directions: detection and view, detection and finding.",
        "On average nearly orthogonal: detection and grade, view and finding.",
        "On average in similar directions: view and grade, finding and grade.",
        "view, 183 images with a label",
        "view: Accuracy 0.978 is above that of always naming PLAX, the most frequent class (0.536).",
        "4 of 183 images were given a wrong class; most often: PLAX taken for A4C (images: 3).",
        "grade, in steps, 18 images with a label",
        "How often the predicted class of view is right, by its probability",
        "finding: answers against labels",
    )
    markdown = texts(run)[0]
    for row in (
        "| detection and view | 12 | -0.5 | -0.5 | -0.5 | -0.5 | 12 | 100.0 % |",
        "| finding and grade | 12 | 0.5 | 0.5 | 0.5 | 0.5 | 0 | 0.0 % |",
        "| kappa 2 | -12.38 | -15.5 to -1.25 |",
        "| Macro-F1 | 0.627 | 0.451 to 0.763 |",
        "| effusion | 12 | 0.632 | 0.643 |",
        "| PLAX | 98 | 0.990 | 0.969 | 0.979 |",
    ):
        assert row in markdown, row
    never_says(run, "classification", "None", "nan", "the two tasks", "Images of class")
    page = Page(write_report(run)[1].read_text(encoding="utf-8"))
    bars = [attributes["style"] for tag, attributes, _ in page.elements if tag == "span" and "style" in attributes]
    assert len(bars) == 4  # none for a figure that is no share


def test_image_outputs_are_known_without_run_json(tmp_path):
    run = write_run(tmp_path / "run", **{**several(), "run": None})
    says(run, "run.json is not in the folder", "detection : view : finding : grade", "view and grade", "effusion")


def test_an_output_of_the_class_and_others_are_told_apart(tmp_path):
    contents, usual = several(), metrics()["classification"]
    contents["run"]["image_outputs"][0] = {
        "name": "class", "task": "classification", "kind": "classes", "headline": "balanced_accuracy",
        "columns": ["accuracy", "balanced_accuracy", "macro_F1"],
    }  # fmt: skip
    for name in ("joint_results", "gradnorm", "batches"):
        contents[name] = {
            key.replace("view_", "").replace("_view", "_classification") if "acc" in key or "_F1" in key
            else key.replace("view", "classification"): value
            for key, value in contents[name].items()
        }  # fmt: skip
    contents["joint_metrics"]["classification"] = usual
    del contents["joint_metrics"]["outputs"]["view"]
    says(
        write_run(tmp_path / "run", **contents),
        "detection : classification : finding : grade",
        "Classification, 183 images with a class",
        "Accuracy 0.978 is above that of always naming PLAX",
        "finding, 171 images with a label",
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gradnorm.csv", "step,cosine\n10,abc\n", "gradnorm.csv has no column `detection_weight`"),
        ("joint_results.csv", "epoch,fitness\n0,0.5\n1\n", "joint_results.csv:3 has 1 values, the header 2: mend or remove"),
        ("run.json", "{", "run.json cannot be read"),
        ("run.json", "[1]", "run.json holds no mapping"),
        ("run.json", '{"seconds": "long"}', "run.json: `seconds` is 'long', expected a number"),
        ("run.json", '{"model": 3}', "run.json: `model` is 3, expected a mapping"),
        ("run.json", '{"balancing": {"weight_ranges": [1, 2]}}', "`balancing.weight_ranges[0]` is 1, expected [low, high]"),
        ("joint_metrics.json", '{"detection": {"mAP50": "x"}}', "`detection.mAP50` is 'x', expected a number"),
        ("joint_metrics.json", '{"detection": {"mAP50": 0.5, "intervals": {"mAP50": [1]}}}', "mAP50` is [1], expected"),
        ("joint_metrics.json", '{"classification": {"classes": [7]}}', "`classification.classes` has 7, expected a mapping"),
        ("joint_metrics.json", '{"classification": {"confusion": [[1]]}}', "confusion` is not 0 rows of 0 counts"),
        ("opt.yaml", "a: [", "opt.yaml cannot be read"),
        ("hyp.yaml", b"\xff\xfe\x00", "hyp.yaml cannot be read"),
    ],
)
def test_a_wrong_file_is_named_and_nothing_is_written(tmp_path, name, content, message):
    run = write_run(tmp_path / "run")
    (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ReportError) as error:
        write_report(run)
    assert message in str(error.value)
    assert not list(run.glob("report*"))


def test_a_number_that_is_none_is_named_with_its_line(tmp_path):
    run = write_run(tmp_path / "run", gradnorm=updates(cosine=[0.1] * 11 + ["abc"]))
    with pytest.raises(ReportError, match=r"gradnorm\.csv:13: `cosine` is 'abc', expected a number"):
        write_report(run)


def test_command(tmp_path, capsys):
    run, out = write_run(tmp_path / "run"), tmp_path / "deep" / "out"
    main([str(run), "--lang", "zh-TW", "-o", str(out)])
    assert capsys.readouterr().out.splitlines() == [str(out / "report.md"), str(out / "report.html")]
    assert (out / "report.md").read_text(encoding="utf-8").startswith("# 訓練報告：run\n")
    assert sorted(file.name for file in out.iterdir()) == ["report.html", "report.md"]
    assert not list(run.glob("report*"))


@pytest.mark.parametrize(("make", "message"), [(False, "is not a folder"), (True, "holds none of opt.yaml, hyp.yaml, run.json")])
def test_command_on_no_run(tmp_path, capsys, make, message):
    folder = tmp_path / "nothing"
    if make:
        folder.mkdir()
    with pytest.raises(SystemExit) as end:
        main([str(folder)])
    error = capsys.readouterr().err
    assert end.value.code == 1 and error.startswith("ERROR: ") and message in error and error.count("\n") == 1


def test_the_same_run_gives_the_same_bytes_and_leaves_no_rest(tmp_path):
    run = write_run(tmp_path / "run")
    before = {file.name for file in run.iterdir()}
    first = [file.read_bytes() for file in write_report(run)]
    assert [file.read_bytes() for file in write_report(run)] == first
    assert {file.name for file in run.iterdir()} - before == {"report.md", "report.html"}


def test_numbers_are_written_as_on_the_screen():
    assert (blocks.count(7030417), blocks.score(0.92749), blocks.figure(0.0216342)) == ("7,030,417", "0.927", "0.02163")
    assert {blocks.count(None), blocks.score(float("nan")), blocks.figure(None)} == {blocks.NONE}
    assert Wording("en").change(-0.5) == "-50.0\u00a0%" and Wording("zh-TW").change(0.5) == "+50.0%"
