"""The recipe's limits, the learning rate, and the configuration of a study."""

import itertools
from pathlib import Path

import pytest

from senet_lib.errors import RecipeError, UnknownNameError
from senet_lib.models import check_name
from senet_lib.recipe import Recipe, learning_rate, load_study

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, r"epochs is 0; it must be a whole number in \[1, 100000\]"),
        ({"epochs": 1.5}, "epochs is 1.5; it must be a whole number"),
        ({"epochs": True}, "epochs is True; it must be a whole number"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"lr": 0.0}, r"lr is 0.0; it must be a number in \(0, "),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": "0.1"}, "lr is '0.1'; it must be a number"),
        ({"schedule": (225, 150)}, "schedule is 225 150.*strictly increasing"),
        ({"schedule": (0, 150)}, "schedule is 0"),
        ({"schedule": (1.5,)}, "whole numbers"),
        ({"gamma": 1.5}, r"gamma is 1.5; it must be a number in \(0, 1\]"),
        ({"warmup": 1.0}, "warmup"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov needs"),
        ({"weight_decay": -1e-4}, "weight_decay"),
        ({"padding": -1}, "padding"),
        ({"flip": 1.1}, "flip"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"lr": 1e300}, "lr is 1e\\+300"),
        ({"lr": 10**400}, "lr is 1000"),
        ({"weight_decay": 1e300}, "weight_decay"),
        ({"padding": 1_000_000}, "padding is 1000000"),
        ({"epochs": 1_000_000_000}, "epochs is 1000000000"),
        ({"epochs": 16**6000}, "a number of thousands of digits"),
        ({"lr_policy": ["step"]}, "unknown lr_policy"),
        ({"schedule": (5, 5)}, "there once"),
        ({"weight_decay": "small"}, "weight_decay is 'small'"),
        ({"batchsize": 3}, "did you mean batch_size"),
        ({"lr_policy": "onecycle"}, "one_cycle"),
    ],
)
def test_values_out_of_range_are_refused(fields, message):
    with pytest.raises((RecipeError, UnknownNameError), match=message):
        Recipe.from_dict(fields)


def test_a_recipe_survives_its_dictionary():
    recipe = Recipe(epochs=7, schedule=(3, 5), lr=1)
    again = Recipe.from_dict(recipe.to_dict())
    assert again == recipe
    assert again.id == recipe.id != Recipe().id
    assert Recipe.from_dict({"weight_decay": "1e-4"}).weight_decay == 1e-4  # text, to YAML


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


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_studies_load(path):
    study = load_study(path)
    for model in study.models:
        check_name(model)
    if path.stem == "paper":  # which is the second source's, and the default
        assert study.recipe == Recipe(
            epochs=300, batch_size=128, lr=0.1, lr_policy="step", schedule=(150, 225), gamma=0.1,
            momentum=0.9, nesterov=False, weight_decay=1e-4, padding=4, flip=0.5,
            label_smoothing=0.0, cutout=0, ema=0.0, train_images=0,
        )  # fmt: skip


GOOD = {"study": "s", "protocol": "p", "data": "shapes", "models": ["resnet20"], "seeds": [0]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modles": ["resnet20"]}, "did you mean models"),
        ({"models": []}, "does not say models"),
        ({"models": "resnet20"}, "models of the study is .resnet20.; it must be a list"),
        ({"seeds": [-1]}, "seeds of the study is -1"),
        ({"seeds": ["0"]}, "seeds of the study is '0'"),
        ({"study": 2026}, "study of the study is 2026; it must be text"),
        ({"threads": "x"}, "threads"),
        ({"precision": "fp16"}, "unknown precision 'fp16'"),
        ({"test_every": 0}, "test_every of the study is 0"),
        ({"axes": "reduction"}, "axes of the study is .reduction.; it must be a list"),
        ({"axes": ["reductoin"]}, "unknown axes 'reductoin'; did you mean reduction"),
        ({"recipe": {"ema": 1.0}}, r"ema is 1.0; it must be a number in \[0, 1\)"),
        ({"recipe": {"cutout": -1}}, "cutout is -1"),
        ({"recipe": {"epoch": 3}}, "did you mean epochs"),
        ({"recipe": {"epochs": 0}}, "epochs is 0"),
        ({"recipe": 3}, "recipe of the study is 3; it must be a mapping"),
        ({"recipe": ["epochs"]}, "it must be a mapping"),
        ({"models": ["resnet20", "resnet20"]}, "there once"),
        ({"models": [["resnet20"]]}, "models of the study"),
        ({"models": ["../resnet20"]}, "models of the study"),
        ({"seeds": [0, 0]}, "there once"),
        ({"seeds": [2**63]}, "seeds of the study"),
        ({"threads": 2**31}, "threads of the study"),
        ({"threads": 99_999}, "threads of the study"),
        ({"study": "../../x"}, "study of the study is '../../x'"),
        ({"study": ".."}, "study of the study"),
        ({"study": "a\n"}, "study of the study"),
        ({"study": "a/b"}, "study of the study"),
        ({"study": "a" * 101}, "study of the study"),
        ({"protocol": "two\nlines"}, "protocol of the study"),
        ({3: 4}, "unknown key"),
        ({"gradcam": "resnet20"}, "gradcam of the study"),
        ({"grids": 0}, "grids of the study is 0"),
    ],
)
def test_mistakes_in_a_study_are_named(change, message):
    with pytest.raises((RecipeError, UnknownNameError), match=message):
        load_study({**GOOD, **change})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("study: s\nrecipe: {epochs: 1, lr: 1.0, epochs: 2}\n", "epochs twice, in lines 2 and 2"),
        ("study: s\ndata: x\nstudy: t\n", "study twice, in lines 1 and 3"),
        ("study: s\nrecipe: &r {epochs: 1}\nx: {<<: *r}\n", "merges mappings"),
        ("study: caf\xe9\n".encode("latin-1"), "not UTF-8 .line 1."),
        ("\ufeffstudy: s".encode("utf-16"), "not UTF-8"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "{a: " * 5000, "nested too deeply"),
        ("x" * 200_000, "longer than 100,000 bytes"),
        ("study: s\nrecipe: {epochs: 2024-13-45}", "not valid YAML"),
        ("study: s\nthreads: " + "9" * 5000, "not valid YAML"),
        ("study: \x00", "not valid YAML"),
        ("? [a]\n: b", "not valid YAML"),
        ("", "must hold a mapping"),
        ("- a\n", "must hold a mapping"),
        ("study: [", "not valid YAML"),
        (None, "No such file"),
    ],
    ids=lambda value: repr(value[:30]) if isinstance(value, str) else None,
)
def test_study_files_that_cannot_be_meant(tmp_path, content, message):
    path = tmp_path / "study.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecipeError, match=message) as caught:
        load_study(path)
    line = str(caught.value)
    assert "study.yaml" in line
    assert "\n" not in line
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


def test_only_models_of_the_study_can_be_explained():
    load_study({**GOOD, "gradcam": ["resnet20"]}).check_explained()
    study = load_study({**GOOD, "excitation": ["se_resnet20"]})
    with pytest.raises(UnknownNameError, match="unknown model under excitation 'se_resnet20'"):
        study.check_explained()
