"""The recipe's limits, the learning rate, and the configuration of a study."""

import itertools
from pathlib import Path

import pytest
import yaml

from senet_lib.errors import RecipeError, UnknownNameError
from senet_lib.models import check_name
from senet_lib.recipe import Recipe, learning_rate, load_study

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": 0}, {"epochs": 1.5}, {"epochs": True}, {"batch_size": 0}, {"lr": 0.0},
        {"lr": float("nan")}, {"lr": "0.1"}, {"schedule": (225, 150)}, {"schedule": (0, 150)},
        {"schedule": (1.5,)}, {"schedule": (5, 5)}, {"gamma": 1.5}, {"warmup": 1.0},
        {"momentum": 1.0}, {"nesterov": True, "momentum": 0.0}, {"weight_decay": -1e-4},
        {"padding": -1}, {"flip": 1.1}, {"label_smoothing": 1.0}, {"lr": 1e300}, {"lr": 10**400},
        {"weight_decay": 1e300}, {"padding": 1_000_000}, {"epochs": 1_000_000_000},
        {"epochs": 16**6000}, {"lr_policy": ["step"]}, {"weight_decay": "small"},
        {"lr_policy": "onecycle"}, {"ema": 1.0}, {"cutout": -1},
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(fields):
    with pytest.raises((RecipeError, UnknownNameError), match=next(iter(fields))):
        Recipe.from_dict(fields)


def test_a_recipe_survives_its_dictionary():
    recipe = Recipe(epochs=7, schedule=(3, 5), lr=1)
    again = Recipe.from_dict(recipe.to_dict())
    assert again == recipe
    assert again.id == recipe.id != Recipe().id
    assert Recipe.from_dict({"weight_decay": "1e-4"}).weight_decay == 1e-4  # text, to YAML
    with pytest.raises(UnknownNameError, match="did you mean batch_size"):
        Recipe.from_dict({"batchsize": 3})


def test_step_policy_falls_at_epochs_150_and_225():
    rates = [learning_rate(Recipe(), epoch * 390, 390) for epoch in (0, 149, 150, 224, 225, 299)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert learning_rate(Recipe(), 150 * 390 - 1, 390) == pytest.approx(0.1)


def test_one_cycle_rises_linearly_and_falls_to_zero():
    recipe = Recipe(lr_policy="one_cycle", epochs=2, warmup=0.25, lr=0.4)
    rates = [learning_rate(recipe, step, 50) for step in range(100)]
    assert rates[0] == pytest.approx(0.4 / 25)
    assert rates[24] == pytest.approx(0.4)
    assert rates[:25] == pytest.approx([0.4 * (k + 1) / 25 for k in range(25)])
    assert all(b <= a for a, b in itertools.pairwise(rates[24:]))
    assert rates[62] == pytest.approx(0.4 * 0.5, rel=0.05)
    assert 0 < rates[99] < 0.4 * 0.001


def test_one_cycle_that_has_no_step_to_fall_in_ends_at_its_peak():
    for warmup, steps in ((0.95, 10), (0.99, 10), (0.999, 100), (0.5, 1), (0.25, 1)):
        recipe = Recipe(lr_policy="one_cycle", epochs=1, warmup=warmup, lr=0.4)
        assert learning_rate(recipe, steps - 1, steps) == pytest.approx(0.4)
    half = Recipe(lr_policy="one_cycle", epochs=1, warmup=0.5, lr=0.4)
    rates = [learning_rate(half, step, 3) for step in range(3)]
    assert rates == pytest.approx([0.4 / 1.5, 0.3, 0.3])  # a sixth of a cosine before and after


STUDIES = sorted(path for path in CONFIGS.glob("*.yaml") if path.stem != "sweep")


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_shipped_studies_load(path):
    study = load_study(path)
    for model in study.models:
        check_name(model)
    assert study.study == path.stem  # from which `make study` prints the report's path
    if path.stem == "paper":  # which is the second source's, and the default
        assert study.recipe == Recipe(
            epochs=300, batch_size=128, lr=0.1, lr_policy="step", schedule=(150, 225), gamma=0.1,
            momentum=0.9, nesterov=False, weight_decay=1e-4, padding=4, flip=0.5,
            label_smoothing=0.0, cutout=0, ema=0.0, train_images=0,
        )  # fmt: skip


GOOD = {"study": "s", "protocol": "p", "data": "shapes", "models": ["resnet20"], "seeds": [0]}


def test_a_study_takes_every_value_of_a_networks_settings():
    names = ["resnet20+shortcut=A", "se_res2net29+gate_at=last_from_z", "se_resnet20+stages=2,3"]
    study = load_study({**GOOD, "models": names})
    study.check_models()
    assert list(study.models) == names


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"modles": ["resnet20"]}, "did you mean models"), ({"models": []}, "models"),
        ({"models": "resnet20"}, "models"), ({"models": ["resnet20", "resnet20"]}, "once"),
        ({"models": [["resnet20"]]}, "models"), ({"models": ["../resnet20"]}, "models"),
        ({"models": ["ResNet20"]}, "a name of small letters"),
        ({"seeds": [-1]}, "seeds"), ({"seeds": ["0"]}, "seeds"), ({"seeds": [0, 0]}, "once"),
        ({"seeds": [2**63]}, "seeds"), ({"study": 2026}, "study"), ({"threads": "x"}, "threads"),
        ({"threads": 2**31}, "threads"), ({"threads": 99_999}, "threads"),
        ({"precision": "fp16"}, "precision"), ({"test_every": 0}, "test_every"),
        ({"axes": "reduction"}, "axes"), ({"axes": ["reductoin"]}, "did you mean reduction"),
        ({"recipe": {"epoch": 3}}, "did you mean epochs"), ({"recipe": {"epochs": 0}}, "epochs"),
        ({"recipe": 3}, "recipe"), ({"recipe": ["epochs"]}, "mapping"),
        *(({"study": name}, "study of") for name in ("../../x", "..", "a\n", "a/b", "a" * 101)),
        ({"protocol": "two\nlines"}, "protocol"), ({3: 4}, "unknown key"),
        ({"gradcam": "resnet20"}, "gradcam"), ({"grids": 0}, "grids"),
        ({"recipe": {"lr": "1.2.3e-4"}}, "lr is"),
    ],
)  # fmt: skip
def test_mistakes_in_a_study_are_named(change, says):
    with pytest.raises((RecipeError, UnknownNameError), match=says):
        load_study({**GOOD, **change})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("study: s\nrecipe: {epochs: 1, lr: 1.0, epochs: 2}\n", "epochs twice, in lines 2 and 2"),
        ("study: s\ndata: x\nstudy: t\n", "study twice, in lines 1 and 3"),
        ("study: s\nrecipe: &r {epochs: 1}\nx: {<<: *r}\n", "merges"),
        ("study: caf\xe9\n".encode("latin-1"), "UTF-8 .line 1."),
        ("\ufeffstudy: s".encode("utf-16"), "UTF-8"),
        ("[" * 5000, "nested"), ("a: " + "{a: " * 5000, "nested"), ("x" * 200_000, "100,000"),
        ("study: s\nrecipe: {epochs: 2024-13-45}", "YAML"),
        ("study: s\nthreads: " + "9" * 5000, "YAML"), ("study: \x00", "YAML"),
        ("study: !!bool s", "YAML"), ("study: !!timestamp s", "YAML"),
        ("threads: !!int ''", "YAML"),
        ("? [a]\n: b", "YAML"), ("", "mapping"), ("- a\n", "mapping"), ("study: [", "YAML"),
        (None, "No such file"),
    ],
    ids=lambda value: repr(value[:30]) if isinstance(value, str) else None,
)  # fmt: skip
def test_study_files_that_cannot_be_meant(tmp_path, content, says):
    path = tmp_path / "study.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecipeError, match=says) as caught:
        load_study(path)
    line = str(caught.value)
    assert "study.yaml" in line
    assert len(line) < 300


def test_a_text_that_would_unfold_to_gigabytes_is_refused_in_a_line(tmp_path):
    levels = "".join(f"a{k + 1}: &a{k + 1} [{', '.join([f'*a{k}'] * 9)}]\n" for k in range(9))
    path = tmp_path / "study.yaml"
    path.write_text(f"a0: &a0 [x]\n{levels}", encoding="utf-8")
    with pytest.raises(UnknownNameError, match="unknown key") as caught:
        load_study(path)
    assert len(str(caught.value)) < 400
    path.write_text(f"study: *a9\nmodels: *a9\n{levels}", encoding="utf-8")
    with pytest.raises((RecipeError, UnknownNameError)):
        load_study(path)
    names = "study: s\nprotocol: p\ndata: d\nseeds: [0]\n"
    path.write_text(f"{names}models:\n- &b [x]\n- &c [*b, *b]\n- [*c, *c]\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="models of"):
        load_study(path)


def test_off_and_on_need_no_quotes(tmp_path):
    for text, compiled in (("off", "off"), ("on", "on"), ("'off'", "off")):
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(GOOD) + f"compile: {text}\n")
        assert load_study(tmp_path / "s.yaml").compile == compiled


def test_some_models_can_have_further_seeds():
    study = {**GOOD, "models": ["resnet20", "resnet32"], "seeds": [0, 1]}
    study |= {"more_seeds": [1, 5], "more_seeds_of": ["resnet32"]}
    runs = [("resnet20", 0), ("resnet20", 1), ("resnet32", 0), ("resnet32", 1), ("resnet32", 5)]
    assert load_study(study).runs == runs
    with pytest.raises(UnknownNameError, match="resnet44"):
        load_study({**study, "more_seeds_of": ["resnet44"]}).check_models()
    with pytest.raises(RecipeError, match="more_seeds_of"):
        load_study({**GOOD, "more_seeds": [5]}).check_models()


def test_only_models_of_the_study_can_be_explained():
    load_study({**GOOD, "gradcam": ["resnet20"]}).check_models()
    study = load_study({**GOOD, "excitation": ["se_resnet20"]})
    with pytest.raises(UnknownNameError, match="'se_resnet20'"):
        study.check_models()
