"""The committed recipes: each resolves, opens with its own command, and fits the card that it is named for."""

import json
import re
import sys
from pathlib import Path

import pytest

from medmind_train import cli, recipes
from medmind_train.config import build, read_yaml
from medmind_train.qlora_config import QloraConfig, recipe

CARDS = {"mistral-7b-6gb": "6GiB", "mistral-7b-12gb": "12GiB", "mistral-7b-24gb": "24GiB"}


def read(name: str) -> dict:
    return read_yaml(recipes.locate(Path(name)), QloraConfig)


@pytest.fixture
def plan(monkeypatch, capsys):
    def run(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["medmind-train", "plan", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return run


def test_the_recipes_are_those_that_were_promised():
    assert set(recipes.names()) == {*CARDS, "embedded-cpu"}


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_opens_with_its_command_and_resolves(name: str):
    text = recipes.locate(Path(name)).read_text(encoding="utf-8")
    assert text.splitlines()[0] == f"# medmind-train qlora --config {name}"
    settings = read(name)
    config = build(QloraConfig, recipe(settings["base"]), settings)
    assert {key: getattr(config, key) for key in settings} == settings
    assert config.packing is name.startswith("mistral") and config.dropout == 0


@pytest.mark.parametrize(("name", "card"), CARDS.items())
def test_plan_says_that_a_recipe_fits_its_card_with_room_for_a_desktop(plan, name: str, card: str):
    code, out, err = plan("--config", name, "--card", card, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["path"] == "fused" and found["placement"]["streamed"] == 0
    gib = int(re.sub(r"\D", "", card))
    room = float(str(read(name)["vram"]).removesuffix("GiB"))
    assert found["peak"] + found["outside_torch"] <= room * 2**30 <= (gib - 0.5) * 2**30


def test_cards_with_less_than_their_name_says_hold_their_recipe(plan):
    for name, card in (("mistral-7b-24gb", "L4"), ("mistral-7b-6gb", "5.8GiB")):
        code, _, err = plan("--config", name, "--card", card)
        assert (code, err) == (0, ""), name


def test_recipes_train_on_about_as_many_examples_a_step_as_the_paper(plan):
    tokens = {read(name)["batch"] * read(name)["accumulate"] * read(name)["context"] for name in CARDS}
    assert tokens == {4096}  # one effective batch on every card: 13 to 14 of MedQuAD's pairs of 297 tokens


def test_the_embedded_recipe_needs_no_card(plan):
    code, out, err = plan("--config", "embedded-cpu", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["disk"]["download of the base"] == 0


def test_a_file_of_the_user_wins_over_a_recipe_of_its_name(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("embedded-cpu").write_text("rank: 3\n", encoding="utf-8")
    assert read("embedded-cpu") == {"rank": 3}


def test_an_unknown_name_is_one_line_with_the_nearest_recipe(plan):
    code, out, err = plan("--config", "mistral-7b-8gb")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "mistral-7b-8gb does not exist" in err and "the nearest is mistral-7b-6gb" in err
