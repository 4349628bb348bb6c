import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from medmind.errors import MedmindError
from medmind_train.config import build, read_yaml, to_yaml
from medmind_train.qlora_config import QloraConfig, recipe


def test_flags_win_over_the_file_and_the_file_over_the_recipe(tmp_path: Path):
    file = tmp_path / "my.yaml"
    file.write_text("rank: 8\nlr: 2e-4\nheldout-share: 0.2\n", encoding="utf-8")
    config = build(QloraConfig, recipe("medmind-base"), read_yaml(file, QloraConfig), {"rank": 4, "lr": None})
    assert (config.rank, config.lr, config.heldout_share) == (4, 2e-4, 0.2)
    assert config.batch == recipe("medmind-base")["batch"]


def test_resolved_config_reads_back_as_itself(tmp_path: Path):
    config = build(QloraConfig, {"base": "a/b", "system": "be: brief\n# and kind", "lr": 3e-5, "limit": 7})
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config, "a comment"), encoding="utf-8")
    assert build(QloraConfig, read_yaml(file, QloraConfig)) == config


def test_unknown_key_names_the_nearest_known_one(qlora, tmp_path: Path):
    (tmp_path / "my.yaml").write_text("learning_rate: 1e-3\nrnak: 8\n", encoding="utf-8")
    (tmp_path / "two.yaml").write_text("rnak: 8\n", encoding="utf-8")
    qlora("--config", "my.yaml").refused("my.yaml", "'learning_rate'")
    qlora("--config", "two.yaml").refused("'rnak'", "did you mean 'rank'")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rank: 0", ("--rank", "at least 1")),
        ("rank: many", ("--rank", "int")),
        ("rank: 1.5", ("--rank", "int")),
        ("rank: true", ("--rank", "int")),
        ("lr: .nan", ("--lr", "finite")),
        ("dropout: 1.0", ("--dropout", "below 1")),
        ("targets: all_linear", ("--targets", "nearest: all-linear")),
        ("gradient_checkpointing: perhaps", ("--gradient-checkpointing", "bool")),
        ("- rank", ("holds no settings",)),
        ("rank: [", ("not valid YAML",)),
    ],
)
def test_wrong_value_is_one_line_that_names_the_setting(qlora, tmp_path: Path, text: str, words: tuple[str, ...]):
    (tmp_path / "my.yaml").write_text(text, encoding="utf-8")
    qlora("--config", "my.yaml").refused(*words)


def test_missing_config_file_is_one_line(qlora):
    qlora("--config", "nowhere.yaml").refused("nowhere.yaml does not exist")


def test_every_default_is_within_its_own_range():
    assert build(QloraConfig, {field.name: field.default for field in fields(QloraConfig)}) == QloraConfig()
    with pytest.raises(MedmindError):
        build(QloraConfig, {"lr": -1})


def test_help_names_every_setting_and_imports_nothing_heavy():
    code = (
        "import sys\nsys.argv = ['medmind-train', 'qlora', '--help']\nfrom medmind_train.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "import json\nheavy = ('torch', 'transformers', 'peft', 'bitsandbytes', 'datasets', 'matplotlib')\n"
        "print('HEAVY' + json.dumps([name for name in heavy if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    text, _, heavy = done.stdout.partition("HEAVY")
    assert json.loads(heavy) == []
    for field in fields(QloraConfig):
        assert f"--{field.name.replace('_', '-')}" in text
