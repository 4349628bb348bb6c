"""`medmind-train search`: its budget, what a kill leaves, and that one trial knows nothing of another."""

import gc
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from medmind import artifacts
from medmind.errors import MedmindError
from medmind_train import cli, passes
from medmind_train.config import build, read_yaml
from medmind_train.qlora_config import QloraConfig
from medmind_train.search import cost, halving, noise, place, space, trial
from medmind_train.search.config import SearchConfig
from medmind_train.search.space import Candidate

RUN = {"max_steps": "12", "validation_share": "0.2", "accumulate": "1", "context": "64"}
SEARCH = {"budget": "1.5", "min_steps": "1", "try_ranks": "2,4", "lr_from": "1e-4", "lr_to": "2e-2", "trials": "3"}


@pytest.fixture
def arguments(small):
    """A search of a few short trials, later arguments winning."""

    def make(*more: str) -> list[str]:
        own = [part for name, value in (RUN | SEARCH).items() for part in (f"--{name.replace('_', '-')}", value)]
        return small(*own, *more)

    return make


@pytest.fixture
def search(monkeypatch, capsys, tmp_path: Path):
    """Run `medmind-train search` in this process, in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(*given: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["medmind-train", "search", *given])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return (int(stop.value.code or 0), *capsys.readouterr())

    return run


class FakeBench:
    """In place of a model: a trial's loss is how far its learning rate is from 2e-3. Knows what was asked of it."""

    asked: ClassVar[list[tuple[int, int]]] = []
    stops_at: ClassVar[int | None] = None

    def __init__(self, inputs, validation, largest, price) -> None:
        self.rows = {example.row: len(example.ids) - example.answer for example in validation}
        self.price = price

    def run(self, candidate, rung, steps, folder, interrupt) -> place.Outcome:
        if len(self.asked) == self.stops_at:
            raise KeyboardInterrupt
        self.asked.append((candidate.number, rung))
        loss = abs(math.log(candidate.lr / 2e-3))
        sums = {row: (loss + at / 100) * count for at, (row, count) in enumerate(self.rows.items())}
        failed = candidate.lr > 1e-2
        status, reason = ("diverged", f"the loss of candidate {candidate.number} is nan") if failed else ("done", "")
        ended = place.Outcome(
            candidate.number,
            rung,
            steps,
            status,
            reason,
            {} if failed else sums,
            {} if failed else self.rows,
            steps * 10,
            self.price(candidate, steps * 10),
            1.0,
            1,
        )
        folder.mkdir(parents=True)
        place.keep(folder, ended)
        return ended


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr("medmind_train.search.run.Bench", FakeBench)
    monkeypatch.setattr(FakeBench, "asked", [])
    return FakeBench


def losses(document: dict) -> list[tuple]:
    return [(one["candidate"], one["rung"], one["loss"]) for one in document["trials"]]


def test_a_search_keeps_its_budget_and_ends_with_settings_that_qlora_takes(
    search, arguments, qlora, small_base, tmp_path: Path
):
    code, out, err = search(*arguments("--name", "s", "--json"))
    assert code == 0, err
    document = json.loads(out)
    place_of = tmp_path / "runs" / "s"
    assert document == {"search": str(Path("runs/s")), **artifacts.read_json(place_of / "search.json")}

    # what the metrics of all trials say was trained, times what it costs, against the run as given
    matrices = cost.Matrices.of(small_base.path)
    trained = {one["number"]: one["trained"] for one in document["candidates"]}
    flop = 0
    for folder in (place_of / "trials").iterdir():
        result = artifacts.read_json(folder / "result.json")
        tokens = sum(line["tokens"] for line in artifacts.read_jsonl(folder / "metrics.jsonl"))
        assert tokens == result["tokens"]
        flop += tokens * matrices.training(trained[result["candidate"]])
    spent = flop / (document["run"]["tokens"] * matrices.training(matrices.trained("all-linear", 4)))
    assert 0.5 < spent < document["spent"]  # which has the scoring as well
    assert document["spent"] <= document["planned"] <= document["budget"] == 1.5
    assert f"at most {document['planned']:.2f} runs of the 1.5" in err.splitlines()[1]  # before anything is trained

    rungs = document["rungs"]
    assert len(rungs) == 2 and rungs[0]["candidates"] > rungs[1]["candidates"] == 2
    first = document["candidates"][0]
    assert (first["lr"], first["rank"], first["alpha"], first["targets"]) == (1e-3, 4, 32.0, "all-linear")  # as given
    assert all(1e-4 <= one["lr"] <= 2e-2 for one in document["candidates"])
    final = [one for one in document["trials"] if one["rung"] == 2]
    chosen = min(final, key=lambda one: one["loss"])
    assert document["chosen"]["candidate"] == chosen["candidate"] and chosen["above_best"] is None
    assert (place_of / "search.png").read_bytes().startswith(b"\x89PNG")
    report = (place_of / "report.md").read_text(encoding="utf-8")
    assert f"{chosen['loss']:.4f}" in report and "within" in report
    assert not list(place_of.rglob("checkpoints"))

    best = read_yaml(place_of / "best.yaml", QloraConfig)
    assert all(best[name] == document["chosen"][name] for name in ("lr", "rank", "alpha", "targets"))
    result = qlora("--config", "runs/s/best.yaml", "--name", "after", "--max-steps", "1", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["data"]["digest"] == document["data"]["digest"]  # the same rows are trained on


@pytest.mark.slow
def test_a_killed_search_goes_on_to_the_same_result(search, arguments, command, tmp_path: Path):
    code, out, err = search(*arguments("--name", "whole", "--json", "--max-steps", "40", "--checkpoint-every", "2"))
    assert code == 0, err
    whole = json.loads(out)
    own = arguments("--name", "cut", "--max-steps", "40", "--checkpoint-every", "2")
    line = [part if part != "qlora" else "search" for part in command(*own)]
    process = subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    cut = tmp_path / "runs" / "cut"
    deadline = time.monotonic() + 240
    while not list(cut.glob("trials/02-r1/checkpoints/step-*")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in cut.rglob("result.json")}
    assert [path.parent.name for path in done] == ["01-r1"]
    code, out, err = search("--resume", "runs/cut", "--json")
    assert code == 0, err
    assert "candidate 2 goes on after step" in err
    assert losses(json.loads(out)) == losses(whole)
    assert {path: path.stat().st_mtime_ns for path in done} == done  # what was done was not done again


def test_an_interrupted_search_goes_on_and_does_nothing_twice(search, arguments, fake, monkeypatch):
    code, out, err = search(*arguments("--name", "whole", "--json"))
    assert code == 0, err
    whole, order = json.loads(out), list(fake.asked)
    fake.asked.clear()
    monkeypatch.setattr(fake, "stops_at", 3)
    code, out, err = search(*arguments("--name", "cut"))
    assert (code, out) == (130, "")
    assert err.rstrip().endswith("3 trials are done and kept; go on with: medmind-train search --resume runs/cut")
    code, _, err = search(*arguments("--name", "cut"))
    assert code == 1 and "--resume runs/cut" in err
    monkeypatch.setattr(fake, "stops_at", None)
    assert "was started with --rank 4, not 8" in search("--resume", "runs/cut", "--rank", "8")[2]
    code, out, err = search("--resume", "runs/cut", "--json")
    assert code == 0, err
    assert fake.asked == order
    assert losses(json.loads(out)) == losses(whole) and json.loads(out)["chosen"]["lr"] == whole["chosen"]["lr"]
    code, out, err = search("--resume", "runs/cut", "--json")
    assert code == 0 and "is finished" in err and losses(json.loads(out)) == losses(whole)
    assert fake.asked == order


def test_a_candidate_that_diverges_is_a_result_and_not_the_end(search, arguments, fake):
    code, out, err = search(*arguments("--name", "s", "--json", "--lr-from", "1e-3", "--lr-to", "9e-2"))
    assert code == 0, err
    document = json.loads(out)
    failed = [one for one in document["trials"] if one["status"] == "diverged"]
    assert failed and all(one["loss"] is None for one in failed)
    assert document["chosen"]["candidate"] not in {one["candidate"] for one in failed}
    assert "failed:" in search("--resume", "runs/s")[1]
    fake.asked.clear()
    code, out, err = search(*arguments("--name", "t", "--lr", "5e-2", "--lr-from", "2e-2", "--lr-to", "9e-2"))
    last = [number for number, rung in fake.asked if rung == fake.asked[-1][1]]
    assert len(last) > 1 and (code, out) == (1, "")
    assert f"all candidates of the last rung failed; the first: the loss of candidate {last[0]} is nan" in err


def test_a_trial_with_a_loss_that_is_no_number_has_diverged(search, arguments, monkeypatch):
    real, calls = passes.answer_nll, []

    def broken(model, batch):
        nll, owners = real(model, batch)
        calls.append(batch.rows)
        return (nll * float("nan") if len(calls) == 1 else nll), owners

    monkeypatch.setattr(passes, "answer_nll", broken)
    code, out, err = search(*arguments("--name", "s", "--json", "--trials", "2", "--max-steps", "3"))
    assert code == 0, err
    document = json.loads(out)
    assert [one["status"] for one in document["trials"]] == ["diverged", "done"]
    assert document["chosen"]["candidate"] == 2


def test_a_memory_that_is_full_before_the_first_step_is_a_result_and_leaves_the_base_bare(
    search, arguments, monkeypatch
):
    real, trained = trial.ReferencePasses, []

    def full(tuned, **settings):
        trained.append(sum(one.numel() for one in tuned.parameters() if one.requires_grad))
        if len(trained) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(tuned, **settings)

    monkeypatch.setattr(trial, "ReferencePasses", full)
    code, out, err = search(*arguments("--name", "s", "--json", "--trials", "2", "--try-targets", "qv"))
    assert code == 0, err
    document = json.loads(out)
    assert [one["status"] for one in document["trials"]] == ["out of memory", "done"]
    assert [one["targets"] for one in document["candidates"]] == ["all-linear", "qv"]
    assert trained == [one["trained"] for one in document["candidates"]]


def test_a_base_that_does_not_fit_is_one_line(search, arguments, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("medmind_train.model.load_base", full)
    code, out, err = search(*arguments("--name", "s"))
    last = err.rstrip().splitlines()[-1]
    assert (code, out) == (1, "") and last.startswith("error: the memory of "), err
    assert "is full" in last and "go on with: medmind-train search --resume runs/s" in last


def test_targets_are_compared_at_equal_trainable_parameters(search, arguments, fake):
    more = ("--compare", "targets", "--rank", "8", "--trials", "4", "--budget", "3", "--name", "s", "--json")
    code, out, err = search(*arguments(*more))
    assert code == 0, err
    document = json.loads(out)
    groups = {one["targets"]: one for one in document["candidates"]}
    assert set(groups) == {"qv", "all-linear"}
    assert groups["qv"]["trained"] == pytest.approx(groups["all-linear"]["trained"], rel=0.03)
    assert groups["all-linear"]["rank"] == 8 < groups["qv"]["rank"]
    assert groups["qv"]["alpha"] / groups["qv"]["rank"] == groups["all-linear"]["alpha"] / 8
    final = [one for one in document["trials"] if one["rung"] == len(document["rungs"])]
    by_number = {one["number"]: one["targets"] for one in document["candidates"]}
    assert sorted(by_number[one["candidate"]] for one in final) == ["all-linear", "qv"]
    report = Path("runs/s/report.md").read_text(encoding="utf-8")
    assert f"qv, rank {groups['qv']['rank']}" in report and "all-linear, rank 8" in report


@pytest.mark.slow
def test_trials_leave_no_tensor_behind(search, arguments, monkeypatch):
    real, alive = trial.Bench.run, []

    def counting(self, *given):
        ended = real(self, *given)
        gc.collect()
        alive.append(sum(torch.is_tensor(one) for one in gc.get_objects()))
        return ended

    monkeypatch.setattr(trial.Bench, "run", counting)
    for kernels in ("reference", "fused"):
        alive.clear()
        more = ("--gradient-checkpointing", "--kernels", kernels, "--name", kernels, "--try-targets", "all-linear")
        assert search(*arguments(*more, "--max-steps", "6", "--budget", "9", "--trials", "5"))[0] == 0
        assert len(alive) > 4 and max(alive[1:]) <= alive[1], (kernels, alive)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--budget", "0.01"), ("budget of 0.01 runs", "--budget")),
        (("--lr-from", "0.5", "--lr-to", "0.1"), ("--lr-from 0.5 is above",)),
        (("--rank-pattern", "q_proj=4"), ("--rank-pattern", "leave")),
        (("--try-targets", "qv,q_prj"), ("q_prj", "nearest")),
        (("--try-ranks", "4,0"), ("--try-ranks cannot be 0",)),
        (("--try-ranks", "4,x"), ("--try-ranks cannot be 'x'",)),
        (("--try-ranks", "4,,8"), ("--try-ranks",)),
        (("--compare", "ranks"), ("--compare", "nearest: targets")),
        (("--compare", "targets", "--try-targets", "qv"), ("two --try-targets",)),
        (("--validation-share", "0"), ("0 validation rows", "--validation-share")),
        (("--resume", "runs/nowhere"), ("runs/nowhere is no search",)),
    ],
)
def test_what_cannot_be_searched_is_one_line(search, arguments, more, words, tmp_path: Path):
    code, out, err = search(*arguments(*more, "--name", "s"))
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, out, len(lines)) == (1, "", 1), err
    assert all(word in lines[0] for word in words), lines
    assert not (tmp_path / "runs").exists()


def test_settings_come_from_yaml_as_lists(tmp_path: Path):
    file = tmp_path / "s.yaml"
    file.write_text("try-ranks: [4, 8]\ntry_alphas: 2\nlr-to: 1e-2\nrank: 2\n", encoding="utf-8")
    config = build(SearchConfig, read_yaml(file, SearchConfig))
    assert (config.try_ranks, config.try_alphas, config.rates) == ((4, 8), (2.0,), (5e-5, 1e-2))


@pytest.mark.parametrize(("steps", "budget", "count"), [(1000, 1.5, 10), (48, 1.5, 3), (1000, 20, 12)])
def test_a_plan_takes_as_many_candidates_as_its_budget_holds_and_no_more(steps: int, budget: float, count: int):
    config = SearchConfig(budget=budget)
    matrices = cost.Matrices({f"layers.0.{name}": (64, 64) for name in ("q_proj", "v_proj", "o_proj")}, 64)

    def price(one: Candidate, trained_for: int) -> float:
        return trained_for / steps * (1 + one.rank / 100)

    plan = halving.make(config, steps, lambda number: space.propose(config, matrices, number), price)
    assert len(plan.candidates) == plan.rungs[0].candidates == count
    assert plan.cost <= budget
    assert plan.rungs[-1].candidates == 2 and plan.rungs[-1].steps <= steps
    alive = list(plan.candidates)
    spent = 0.0
    for at, rung in enumerate(plan.rungs):
        assert len(alive) == rung.candidates
        spent += sum(price(one, rung.steps) for one in alive)
        if at + 1 < len(plan.rungs):  # the costliest go on: nothing a search does costs more
            worst = {one.number: -price(one, rung.steps) for one in alive}
            alive = halving.survivors(alive, worst, plan.rungs[at + 1].candidates)
    assert spent == pytest.approx(plan.cost)


def test_candidates_are_the_seeds_alone_and_cover_the_range():
    matrices = cost.Matrices({f"layers.0.{name}": (64, 64) for name in ("q_proj", "v_proj", "o_proj")}, 64)
    config = SearchConfig()
    one, two = (space.propose(config, matrices, 13) for _ in range(2))
    assert one == two != space.propose(SearchConfig(seed=1), matrices, 13)
    parts = sorted(math.floor(12 * math.log(found.lr / 5e-5) / math.log(16)) for found in one[1:])
    assert sum(part in parts for part in range(12)) >= 11  # two digits may carry a rate over a border
    for name in ("rank", "targets"):
        counts = [[getattr(found, name) for found in one[1:]].count(value) for value in {getattr(f, name) for f in one}]
        assert max(counts) - min(counts) <= 1


def test_a_paired_difference_is_that_of_the_rows():
    counts = {"a": 10, "b": 20, "c": 30}
    other = {"a": 30.0, "b": 30.0, "c": 90.0}
    shifted = noise.paired({row: value + 0.1 * counts[row] for row, value in other.items()}, other, counts)
    assert shifted.value == pytest.approx(0.1) and shifted.error == pytest.approx(0, abs=1e-12)
    assert shifted.words == noise.CLEAR
    uneven = noise.paired({"a": 31.0, "b": 29.5, "c": 90.2}, other, counts)
    assert uneven.value == pytest.approx(0.7 / 60) and uneven.words == noise.WITHIN
    assert noise._quantile(3) == pytest.approx(3.182, abs=0.05)
    assert noise._quantile(200) == pytest.approx(1.972, abs=0.001)


def test_survivors_are_the_best_of_each_group_and_failures_never_win():
    rung = [Candidate(at, 1e-3, 4, 8, "qv", 10, group) for at, group in enumerate("aabb", 1)]
    found = halving.survivors(rung, {1: 3.0, 2: 2.0, 3: math.inf, 4: 9.0}, 2)
    assert [one.number for one in found] == [2, 4]


def test_a_search_is_replaced_only_by_one_that_can_begin(search, arguments, fake):
    assert search(*arguments("--name", "s"))[0] == 0
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    for more in (("--budget", "0.01"), ("--try-targets", "qv,q_prj")):
        assert search(*arguments("--name", "s", "--force", *more))[0] == 1
        assert {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()} == before
    code, out, err = search(*arguments("--name", "s", "--force", "--budget", "2", "--json"))
    assert code == 0, err
    assert json.loads(out)["budget"] == artifacts.read_json(Path("runs/s/search.json"))["budget"] == 2
    assert [path.name for path in Path("runs").iterdir()] == ["s"]


def test_a_folder_that_is_no_search_is_not_replaced(tmp_path: Path):
    (tmp_path / "own.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(MedmindError, match="is no search"):
        place.refuse_taken(tmp_path, force=True)
    assert (tmp_path / "own.txt").exists()
