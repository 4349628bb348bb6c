"""What is given to --resume, or lies among a run's checkpoints, and is not medmind's: named, refused, never deleted."""

import shutil
from pathlib import Path

import pytest

from medmind_train import checkpoint

OTHERS = {
    "a checkpoint of transformers' Trainer": ("trainer_state.json", "optimizer.pt", "adapter_config.json"),
    "an output folder of transformers' Trainer": ("checkpoint-500/trainer_state.json", "adapter_config.json"),
    "a checkpoint of DeepSpeed": ("global_step10/mp_rank_00_model_states.pt", "config.json"),
    "a PEFT adapter": ("adapter_config.json", "adapter_model.safetensors"),
    "a model": ("config.json", "model.safetensors"),
}


def fill(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}", encoding="utf-8")
    return paths


@pytest.mark.parametrize("what", OTHERS)
def test_resume_of_another_programs_folder_names_it(qlora, tmp_path: Path, what: str):
    paths = fill(tmp_path / "theirs", *OTHERS[what])
    qlora("--resume", "theirs").refused(f"theirs is {what}", "no medmind run")
    assert all(path.exists() for path in paths)


def test_resume_of_nothing_or_of_anything_is_refused(qlora, tmp_path: Path):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "note.txt").touch()
    qlora("--resume", "holiday").refused("holiday is no medmind run")
    qlora("--resume", "note.txt").refused("note.txt is a file, no medmind run")
    qlora("--resume", "nowhere").refused("nowhere does not exist")


FOREIGN = [
    (["checkpoint-500/trainer_state.json"], ["checkpoint-500", "transformers' Trainer"]),
    (["step-9/adapter_config.json", "step-9/adapter_model.safetensors"], ["step-9", "a PEFT adapter"]),
    (["step-9/state.json"], ["step-9"]),
    (["notes.txt"], ["notes.txt"]),
]


def test_part_of_a_run_and_foreign_things_among_its_checkpoints_are_named_and_stay(qlora, unfinished: Path):
    for part in ("checkpoints", "checkpoints/step-2"):
        qlora("--resume", f"runs/begun/{part}").refused("is a part of a run", "--resume runs/begun")
    before = sorted(unfinished.rglob("*"))
    for names, words in FOREIGN:
        paths = fill(unfinished / "checkpoints", *names)
        qlora("--resume", "runs/begun").refused(*words, "no checkpoint of medmind's")
        for path in paths:
            path.unlink()
            if path.parent.name != "checkpoints" and not any(path.parent.iterdir()):
                path.parent.rmdir()
        assert sorted(unfinished.rglob("*")) == before
    # Nor is a foreign folder pruned; a hidden file is nobody's, and what a kill left is removed.
    hidden, partial = fill(unfinished / "checkpoints", ".DS_Store", ".step-1.77.partial/rng.safetensors")
    for names in (["their.bin"], ["adapter_config.json", "adapter_model.safetensors"]):
        theirs = fill(unfinished / "checkpoints" / "step-1", *names)
        checkpoint._prune(unfinished / "checkpoints")
        assert all(path.exists() for path in theirs)
        shutil.rmtree(theirs[0].parent)
    assert qlora("--resume", "runs/begun").code == 0
    assert hidden.exists() and not partial.parent.exists()
