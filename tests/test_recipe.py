"""The recipe's limits, the learning rate, and the configuration of a study."""

import itertools
from pathlib import Path

import pytest

from senet_lib.errors import RecipeError, UnknownNameError
from senet_lib.recipe import Recipe, learning_rate, load_study

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def test_defaults_are_the_second_sources_protocol():
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.lr) == (300, 128, 0.1)
    assert (recipe.momentum, recipe.weight_decay, recipe.nesterov) == (0.9, 1e-4, False)
    assert (recipe.schedule, recipe.gamma) == ((150, 225), 0.1)
    assert (recipe.padding, recipe.flip, recipe.label_smoothing) == (4, 0.5, 0.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"epochs": 1.5}, "epochs is 1.5; it must be int"),
        ({"epochs": True}, "epochs is True; it must be int"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"lr": 0.0}, "lr is 0.0; it must be above 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": "0.1"}, "lr is '0.1'; it must be float"),
        ({"schedule": (225, 150)}, "schedule is 225 150.*strictly increasing"),
        ({"schedule": (0, 150)}, "above 0"),
        ({"schedule": (1.5,)}, "a list of whole numbers"),
        ({"gamma": 1.5}, r"gamma is 1.5; it must be in \(0, 1\]"),
        ({"warmup": 1.0}, "warmup"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov needs"),
        ({"weight_decay": -1e-4}, "weight_decay"),
        ({"padding": -1}, "padding"),
        ({"flip": 1.1}, "flip"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
    ],
)
def test_values_out_of_range_are_refused(fields, message):
    with pytest.raises(RecipeError, match=message):
        Recipe(**fields)


def test_unknown_names_offer_near_ones():
    with pytest.raises(UnknownNameError, match="did you mean batch_size"):
        Recipe.from_dict({"batchsize": 3})
    with pytest.raises(UnknownNameError, match="one_cycle"):
        Recipe(lr_policy="onecycle")


def test_a_recipe_survives_its_dictionary():
    recipe = Recipe(epochs=7, schedule=(3, 5), lr=1)
    again = Recipe.from_dict(recipe.to_dict())
    assert again == recipe
    assert again.id == recipe.id != Recipe().id


def test_a_number_that_yaml_takes_for_text_is_read():
    assert Recipe.from_dict({"weight_decay": "1e-4"}).weight_decay == 1e-4
    with pytest.raises(RecipeError, match="weight_decay is 'small'"):
        Recipe.from_dict({"weight_decay": "small"})


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
    from senet_lib.models import check_name

    study = load_study(path)
    assert study.study == path.stem
    for model in study.models:
        check_name(model)


def test_the_paper_study_is_the_default_recipe():
    assert load_study(CONFIGS / "paper.yaml").recipe == Recipe()


GOOD = {"study": "s", "protocol": "p", "data": "shapes", "models": ["resnet20"], "seeds": [0]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modles": ["resnet20"]}, "did you mean models"),
        ({"models": []}, "does not say models"),
        ({"models": "resnet20"}, "must be lists"),
        ({"seeds": [-1]}, "seed -1"),
        ({"seeds": ["0"]}, "seed '0'"),
        ({"study": 2026}, "study of the study is 2026; it must be text"),
        ({"threads": "x"}, "threads"),
        ({"precision": "fp16"}, "unknown precision 'fp16'"),
        ({"test_every": 0}, "test_every of the study must be a whole number, 1 or above"),
        ({"axes": "reduction"}, "axes of the study must be a list"),
        ({"axes": ["reductoin"]}, "unknown axis 'reductoin'; did you mean reduction"),
        ({"recipe": {"ema": 1.0}}, r"ema is 1.0; it must be in \[0, 1\)"),
        ({"recipe": {"cutout": -1}}, "cutout is -1; it must be 0"),
        ({"recipe": {"epoch": 3}}, "did you mean epochs"),
        ({"recipe": {"epochs": 0}}, "at least 1"),
    ],
)
def test_mistakes_in_a_study_are_named(change, message):
    with pytest.raises((RecipeError, UnknownNameError), match=message):
        load_study({**GOOD, **change})


def test_unreadable_study_files_are_named(tmp_path):
    with pytest.raises(RecipeError, match="No such file"):
        load_study(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("study: [", encoding="utf-8")
    with pytest.raises(RecipeError, match="not valid YAML"):
        load_study(broken)
    broken.write_text("- a\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="must hold a mapping"):
        load_study(broken)


def test_only_models_of_the_study_can_be_explained():
    content = {
        "study": "s",
        "protocol": "p",
        "data": "shapes",
        "models": ["resnet20"],
        "seeds": [0],
    }
    load_study({**content, "gradcam": ["resnet20"]}).check_explained()
    study = load_study({**content, "excitation": ["se_resnet20"]})
    with pytest.raises(UnknownNameError, match="unknown model under excitation 'se_resnet20'"):
        study.check_explained()
    with pytest.raises(RecipeError, match="gradcam of the study must be a list of its models"):
        load_study({**content, "gradcam": "resnet20"})
    with pytest.raises(RecipeError, match="grids of the study must be a whole number, 1 or above"):
        load_study({**content, "grids": 0})
