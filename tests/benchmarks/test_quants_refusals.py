"""What `medmind-bench quants` refuses: one line, before anything is measured."""

import json
import subprocess
import sys
from pathlib import Path

import bench_model
import pytest
from bench_quants import QUICK, SHORT, bench, refused
from bench_rows import heldout_rows, write_heldout
from gguf import GGUFWriter

from medmind.artifacts import HELDOUT, MANIFEST
from medmind_benchmarks import store


def test_force_does_not_replace_a_folder_that_is_no_report(run_folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "letter.txt").write_text("keep me", encoding="utf-8")
    refused(bench(run_folder, "--out", precious, "--force", *QUICK), "not an earlier report")
    assert (precious / "letter.txt").read_text(encoding="utf-8") == "keep me"


def test_a_cut_off_model_is_refused_before_the_work(run_folder: Path) -> None:
    cut = run_folder / "family.q4_k_m.gguf"
    cut.write_bytes((run_folder / "family.q8_0.gguf").read_bytes()[:-50])
    refused(bench(run_folder, *QUICK), "family.q4_k_m.gguf is cut off")
    assert not (run_folder / "benchmark").exists()


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.gguf"
    text.write_text("not a model", encoding="utf-8")
    refused(bench(text, "--heldout", write_heldout(tmp_path / "h.jsonl", heldout_rows(2)), *QUICK), "not a GGUF file")


def test_a_second_call_into_the_same_folder_is_refused_at_once(run_folder: Path) -> None:
    with store.alone(run_folder / "benchmark"):
        done = bench(run_folder, *QUICK)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: another process is writing")
    assert not (run_folder / "benchmark").exists()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    refused(bench(tmp_path / "none.gguf", *QUICK), "does not exist")


def test_files_without_a_held_out_set_are_told_how_to_give_one(run_folder: Path) -> None:
    (run_folder / HELDOUT).unlink()
    refused(bench(run_folder / "family.f16.gguf", *QUICK), "--heldout FILE")


def test_a_held_out_file_without_answers_is_refused(run_folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"question": "a"}\n', encoding="utf-8")
    refused(bench(run_folder, "--heldout", bad, *QUICK), "row 1 has no answer")
    assert not (run_folder / "benchmark").exists()


def test_models_with_different_vocabularies_are_refused(run_folder: Path) -> None:
    bench_model.write(run_folder / "other.gguf", words=[*bench_model.WORDS[:-1], "▁was"])
    refused(bench(run_folder, *QUICK), "different vocabularies")


def test_models_with_different_templates_are_refused(run_folder: Path) -> None:
    bench_model.write(run_folder / "other.gguf", template=bench_model.TEMPLATE.replace("[INST] ", "[INST]"))
    refused(bench(run_folder, *QUICK), "different chat templates")


def test_models_with_different_system_prompts_are_refused(run_folder: Path) -> None:
    bench_model.write(run_folder / "other.gguf", system="Answer briefly.")
    refused(bench(run_folder, *QUICK), "different system prompts")


def test_a_folder_without_models_is_refused_with_the_command_that_makes_them(tmp_path: Path) -> None:
    refused(bench(tmp_path, *QUICK), f"holds no {MANIFEST}")
    (tmp_path / MANIFEST).write_text('{"format": "medmind-run/1"}', encoding="utf-8")
    refused(bench(tmp_path, *QUICK), "medmind-convert gguf")
    refused(bench(*QUICK, cwd=tmp_path), "no converted model")


def test_a_prompt_longer_than_the_context_is_refused(run_folder: Path) -> None:
    refused(bench(run_folder, "--context", "64", "--prompt-tokens", "64"), "--prompt-tokens 64 does not fit")
    refused(bench(run_folder, "--context", "9999"), "hold 256 tokens")


def test_what_is_given_in_the_wrong_place_is_one_line(run_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    refused(bench(run_folder, "--text", folder), f"--text {folder} is a folder — give a file with --text FILE")
    refused(bench(run_folder, "--heldout", folder), f"{folder} is a folder — give a file with --heldout FILE")
    plain = tmp_path / "plain.txt"
    plain.write_text("mine", encoding="utf-8")
    for force in ([], ["--force"]):
        refused(bench(run_folder, "--out", plain, *force), "is a file, a report is a folder — give another --out")
    matrix = GGUFWriter(tmp_path / "m.gguf", "")
    matrix.add_type("imatrix")
    for part in ("header", "kv_data", "tensors"):
        getattr(matrix, f"write_{part}_to_file")()
    matrix.close()
    refused(
        bench(tmp_path / "m.gguf", "--heldout", run_folder / HELDOUT), "m.gguf holds an importance matrix, no model"
    )


def test_raw_text_shorter_than_two_chunks_is_refused_and_one_out_of_rows_left_out(
    run_folder: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short.txt"
    short.write_text("Rest and water help.", encoding="utf-8")
    refused(bench(run_folder, *SHORT, "--measure", "raw", "--text", short), "short.txt has 17 tokens")
    left_out = bench(run_folder, *QUICK, "--measure", "answers,raw", "--rows", "1", "--chunk", "200", "--json")
    assert left_out.returncode == 0, left_out.stderr
    assert {gap["cell"] for gap in json.loads(left_out.stdout)["levels"][0]["gaps"]} == {"raw text"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--measure", "answers,taste"], "--measure taste is none of"),
        (["--kv", "q3_k"], "--kv q3_k is none of q8_0, q4_0"),
        (["--contexts", "512,-1"], "no list of whole numbers"),
        (["--kl", "fast"], "--kl fast is none of"),
        (["--chunk", "300"], "--chunk 300 is not between 4 and the model's 256"),
        (["--text", "nowhere.txt"], "nowhere.txt does not exist"),
    ],
)
def test_options_that_make_no_sense_are_refused(run_folder: Path, options: list[str], words: str) -> None:
    refused(bench(run_folder, *options), words)


def test_a_missing_extra_is_one_line(run_folder: Path) -> None:
    script = (
        "import sys\nsys.modules['matplotlib'] = None\nfrom medmind_benchmarks.cli import main\n"
        f"sys.argv = ['medmind-bench', 'quants', {str(run_folder)!r}]\nmain()"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    refused(result, "pip install 'medmind[bench]'")
