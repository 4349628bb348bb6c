"""The doctor: what it says of a machine, and that nothing it looks at can bring it down."""

import json
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from medmind import processor
from medmind.doctor import acceleration, host, installing, llama_build, machine, probes, stages
from medmind.doctor.machine import Card, Memory
from medmind.doctor.probes import Answer
from medmind.doctor.report import Check, Report, Stage

DOCTOR = """
import sys
import typer
from medmind import console
from medmind.doctor import probes
for name in sys.argv[1].split(","):
    if name:
        setattr(probes, name, "import os; print('{}', flush=True); os.kill(os.getpid(), 11)")
from medmind_train.doctor_cli import register
app = typer.Typer(pretty_exceptions_enable=False)
@app.callback()
def main(): ...
register(app)
sys.argv = ["medmind-train", "doctor", *sys.argv[2:]]
console.run(app)
"""
QUICK = "TRAINING"
"""Importing torch takes seconds; a test that is not about it lets that probe crash."""
Command = Callable[..., subprocess.CompletedProcess[str]]
CARD = Card("Some Card", 8 << 30, "570.1", "8.6")
GPU_FACTS = {
    "torch": "2.13.0+cu128",
    "cuda": "12.8",
    "cards": [{"name": "Some Card", "memory": 8 << 30, "capability": [8, 6]}],
    "triton": "3.5",
}


def test_json_is_the_only_thing_on_stdout_and_says_what_is_needed(command: Command, fake_hub: Any) -> None:
    pytest.importorskip("torch")
    if find_spec("llama_cpp") is None:  # imported here, it would be the usual build for all tests behind this one
        pytest.skip("llama-cpp-python is not installed")
    done = command(DOCTOR, "", "--json", HF_ENDPOINT=fake_hub.endpoint)
    report = json.loads(done.stdout)
    names = [check["name"] for check in report["checks"]]
    assert {"Python", "GPU", "driver", "torch", "bitsandbytes", "Triton", "C++ compiler", "llama.cpp"} <= set(names)
    assert {"GPU offload", "memory", "disk, here", "disk, hub cache", "hub access", "hub token"} <= set(names)
    assert [stage["name"] for stage in report["stages"]] == ["train", "convert", "chat", "bench"]
    found = {check["name"]: check for check in report["checks"]}
    assert found["torch"]["status"] == found["llama.cpp"]["status"] == "ok"
    assert found["bitsandbytes"]["status"] == "ok"
    assert "round trip" in found["bitsandbytes"]["finding"]
    assert found["hub access"]["status"] == "ok"
    assert done.returncode == (0 if report["ok"] else 1)
    assert all("\n" not in check["finding"] + check["mend"] for check in report["checks"])
    assert done.stderr == ""


def test_a_library_that_crashes_is_a_finding_and_exit_code_1(command: Command) -> None:
    done = command(DOCTOR, "TRAINING,LLAMA", HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    broken = [line for line in done.stdout.splitlines() if line.startswith("broken")]
    assert any("torch" in line and "SIGSEGV" in line for line in broken)
    assert any("llama.cpp" in line and "SIGSEGV" in line for line in broken)


def test_offline_asks_the_hub_nothing(command: Command, fake_hub: Any) -> None:
    done = command(DOCTOR, QUICK, HF_HUB_OFFLINE="1", HF_ENDPOINT=fake_hub.endpoint)
    assert "only models in the cache" in done.stdout
    assert fake_hub.bearers == []


@pytest.mark.parametrize(("token", "said"), [("hf_good", "accepted, of the account someone"), ("hf_stale", "(401)")])
def test_a_token_is_tried_and_never_shown(command: Command, fake_hub: Any, token: str, said: str) -> None:
    done = command(DOCTOR, QUICK, HF_ENDPOINT=fake_hub.endpoint, HF_TOKEN=token)
    assert ("/api/whoami-v2", f"Bearer {token}") in fake_hub.bearers
    assert said in done.stdout
    assert f"{fake_hub.endpoint} answers" in done.stdout
    assert token not in done.stdout + done.stderr


def test_without_any_extra_everything_else_is_missing_with_its_install_line(command: Command, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    for name in ("torch", "llama_cpp", "huggingface_hub", "psutil", "bitsandbytes"):
        (blocked / f"{name}.py").write_text(f"raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')")
    done = command(DOCTOR, "", "--json", HF_HUB_OFFLINE="1", PYTHONPATH=str(blocked))
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 0, done.stdout
    for name, extra in (("torch", "train"), ("bitsandbytes", "train"), ("llama.cpp", "runtime")):
        assert found[name]["status"] == "missing"
        assert found[name]["mend"].endswith(" -B install" if installing.in_checkout() else f"medmind[{extra}]'")


def test_a_probe_past_its_time_keeps_what_it_told() -> None:
    code = 'import time; print(\'{"torch": "9"}\', flush=True); time.sleep(30)'
    answer = probes.ask_python(code, limit=1.5)
    assert answer.facts == {"torch": "9"}
    assert answer.failure.startswith("no answer within")


def test_a_probe_passes_over_a_librarys_own_words() -> None:
    answer = probes.ask_python("print('{not json'); print('hello'); print('{\"a\": 1}')", limit=20)
    assert (answer.facts, answer.failure) == ({"a": 1}, "")


def test_a_module_that_is_missing_is_named() -> None:
    assert probes.ask_python("import nowhere_to_be_found", limit=20).missing == "nowhere_to_be_found"


def test_the_cards_of_torch_are_described_with_their_dtype() -> None:
    check = acceleration.gpu(Answer(GPU_FACTS), [CARD])
    assert check.status == "ok"
    assert "8.00 GiB" in check.finding
    assert "8.6 (bf16)" in check.finding
    old = GPU_FACTS | {"cards": [{"name": "Old", "memory": 1 << 33, "capability": [7, 5]}]}
    assert "fp16" in acceleration.gpu(Answer(old), None).finding


def test_a_cpu_build_of_torch_beside_a_card_is_a_warning_with_the_right_wheel() -> None:
    check = acceleration.gpu(Answer({"torch": "2.13.0+cpu", "cuda": None, "cards": []}), [CARD])
    assert check.status == "warning"
    assert "download.pytorch.org" in check.mend


def test_a_driver_too_old_for_torch_is_broken_and_gives_torchs_reason() -> None:
    facts = {"torch": "2.13.0+cu128", "cuda": "12.8", "cards": [], "warnings": ["The NVIDIA driver is too old"]}
    check = acceleration.gpu(Answer(facts), [CARD])
    assert (check.status, "too old" in check.finding, "570.1" in check.mend) == ("broken", True, True)


@pytest.mark.parametrize(("error", "size", "status"), [(0.1, 2048, "ok"), (1.0, 2048, "broken"), (0.1, 99, "broken")])
def test_bitsandbytes_is_judged_by_its_round_trip(error: float, size: int, status: str) -> None:
    facts = {"torch": "2", "bitsandbytes": "0.50", "error": error, "bytes": size, "device": "cpu"}
    assert acceleration.bitsandbytes(Answer(facts)).status == status


def test_a_bitsandbytes_that_crashes_leaves_torch_ok() -> None:
    answer = Answer({"torch": "2.13", "cuda": None, "cards": []}, "crashed with SIGILL")
    assert acceleration.torch(answer).status == "ok"
    assert acceleration.bitsandbytes(answer).status == "broken"


@pytest.mark.parametrize(("attention", "products"), [(True, True), (True, False), (False, True)])
def test_a_build_has_medminds_own_kernels_only_with_all_of_them(attention: bool, products: bool) -> None:
    pytest.importorskip("llama_cpp")
    before = "from medmind import llama\n"
    before += f"llama.own_attention, llama.own_products = lambda: {attention}, lambda: {products}\n"
    answer = probes.ask_python(before + probes.LLAMA, limit=60)
    assert answer.failure == ""
    assert answer.facts["own"] is (attention and products)


def llama(system: str, *, own: bool = True) -> Answer:
    return Answer({"llama_cpp": "0.3.36", "system": system, "offload": False, "own": own})


AVX2_BUILD = "CPU : SSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | AVX512 = 0 | "
AVX2_CPU = frozenset({"pni", "avx", "avx2", "f16c", "fma"})


@pytest.fixture
def x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


@pytest.mark.usefixtures("x86")
def test_a_build_for_features_that_the_cpu_lacks_is_broken() -> None:
    check = llama_build.build(llama(AVX2_BUILD), frozenset({"pni", "avx", "f16c", "fma"}))
    assert check.status == "broken"
    assert "no AVX2" in check.finding
    assert "GGML_NATIVE" in check.mend


@pytest.mark.usefixtures("x86")
def test_a_build_that_leaves_avx2_unused_is_a_warning() -> None:
    check = llama_build.build(llama("CPU : SSE3 = 1 | "), AVX2_CPU)
    assert check.status == "warning"
    assert "AVX, AVX2, FMA, F16C" in check.finding


@pytest.mark.usefixtures("x86")
def test_a_build_that_fits_is_ok_and_tells_of_unused_avx512() -> None:
    fits = llama_build.build(llama(AVX2_BUILD), AVX2_CPU)
    assert (fits.status, fits.mend) == ("ok", "")
    wide = llama_build.build(llama(AVX2_BUILD), AVX2_CPU | {"avx512f"})
    assert (wide.status, "unused here: AVX512" in wide.finding) == ("ok", True)
    used = llama_build.build(llama(f"{AVX2_BUILD}| AVX512 = 1 | "), AVX2_CPU | {"avx512f", "avx512_bf16"})
    assert (used.status, used.mend) == ("ok", "")


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A checkout that medmind runs from, in its own .venv."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "install.sh").touch()
    monkeypatch.setattr(installing, "_SOURCES", tmp_path)
    monkeypatch.setattr("sys.prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    return tmp_path


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """medmind as a wheel."""
    monkeypatch.setattr(installing, "_SOURCES", tmp_path)
    monkeypatch.setattr("platform.system", lambda: "Linux")


@pytest.mark.usefixtures("x86")
def test_a_checkout_builds_by_make_which_keeps_its_kernels(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mends(*answer: Any, **named: Any) -> str:
        return llama_build.build(llama(*answer, **named), AVX2_CPU | {"avx512f"}).mend

    assert mends(AVX2_BUILD) == f"faster prompts: make -C {sources} install LLAMA_CMAKE_ARGS=-DGGML_NATIVE=ON"
    monkeypatch.chdir(sources)
    assert mends("CPU : SSE3 = 1 | ") == "make install LLAMA_CMAKE_ARGS=-DGGML_NATIVE=ON"
    assert mends(AVX2_BUILD, own=False) == "faster answers: make -B install"
    card = llama_build.offload(llama(AVX2_BUILD), [CARD]).mend
    assert card == "make install LLAMA_CMAKE_ARGS=-DGGML_CUDA=ON"
    assert llama_build.build(Answer({}, "no", missing="llama_cpp"), AVX2_CPU).mend == "make -B install"
    assert stage_summary({})["chat"].mend == "make -B install"
    torch = Answer({}, "crashed with SIGILL")
    assert acceleration.torch(torch).mend == "install again: make clean install"
    monkeypatch.setattr("sys.prefix", str(sources / "other venv"))
    assert mends("CPU : SSE3 = 1 | ").endswith(f" VENV='{sources}/other venv'")


@pytest.mark.usefixtures("x86", "installed")
def test_pip_builds_for_a_wheel_but_not_over_medminds_own_kernels() -> None:
    slow = "CPU : SSE3 = 1 | "
    assert "pip install --force-reinstall" in llama_build.build(llama(slow, own=False), AVX2_CPU).mend
    mend = llama_build.build(llama(slow), AVX2_CPU).mend
    assert mend.startswith("in a checkout of medmind: make install LLAMA_CMAKE_ARGS=-DGGML_NATIVE=ON")
    assert "CMAKE_ARGS" in llama_build.offload(llama(slow, own=False), [CARD]).mend
    assert "in a checkout" in llama_build.offload(llama(slow), [CARD]).mend
    assert llama_build.build(llama(AVX2_BUILD, own=False), AVX2_CPU).mend == ""
    assert "in a fresh venv: pip install" in acceleration.torch(Answer({}, "crashed")).mend


def test_windows_has_no_make(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Windows")
    assert installing.llama("1.2").startswith('$env:CMAKE_ARGS="-DGGML_NATIVE=ON"; pip install')


def test_a_build_is_not_judged_where_the_cpu_is_unknown() -> None:
    assert llama_build.build(llama(AVX2_BUILD), frozenset()).status == "ok"


def test_a_card_without_gpu_offload_is_a_warning() -> None:
    assert llama_build.offload(llama(AVX2_BUILD), [CARD]).status == "warning"
    assert llama_build.offload(llama(AVX2_BUILD), None).status == "ok"


def test_features_of_a_cpu_are_read_from_either_kind_of_cpuinfo(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor : 0\nflags\t\t: fpu AVX2 fma\n")
    assert processor.features(file) == {"fpu", "avx2", "fma"}
    file.write_text("Features\t: fp asimd\n")
    assert processor.features(file) == {"fp", "asimd"}
    assert processor.features(tmp_path / "absent") == frozenset()


def test_a_cpu_has_the_name_that_the_system_gives_it_or_at_least_that_of_its_kind(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("model\t\t: 17\nmodel name\t: One CPU: 2 GHz\nmodel name\t: Another\n")
    assert processor.name(file) == "One CPU: 2 GHz"
    if sys.platform == "linux":
        assert processor.name(tmp_path / "absent") == (platform.processor() or platform.machine())


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands in for nvidia-smi")
def test_the_driver_is_read_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'Some Card, 8192, 570.1, 8.6'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.nvidia_cards() == [CARD]
    assert acceleration.driver(Answer({}), [CARD]).finding == "NVIDIA 570.1"
    tool.write_text(
        '#!/bin/sh\necho "NVIDIA-SMI has failed because it couldn\'t communicate with the driver"; exit 9\n'
    )
    assert machine.nvidia_cards() == []
    assert acceleration.driver(Answer({}), []).status == "warning"


def test_memory_of_this_machine_is_plausible() -> None:
    found = machine.memory()
    assert found.total is None or found.total > 1 << 28
    assert host.memory(Memory(2 << 30, None)).status == "warning"
    assert host.memory(Memory(16 << 30, 8 << 30)).status == "ok"


def test_a_disk_that_is_too_small_is_a_warning(tmp_path: Path) -> None:
    assert host.disk("disk", tmp_path / "not" / "yet", 1 << 60, "a 7B", "elsewhere").status == "warning"
    assert host.disk("disk", tmp_path, 1, "a 7B", "elsewhere").status == "ok"


def test_the_hubs_folders_follow_its_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert host.hub_cache() == tmp_path / "hub"
    assert host.read_token() == ""
    (tmp_path / "token").write_text("hf_x\n")
    assert host.read_token() == "hf_x"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    assert host.hub_cache() == tmp_path / "elsewhere"


def test_a_login_page_is_not_taken_for_the_hub() -> None:
    assert host.hub(Answer({"status": 200, "hub": False})).status == "missing"
    assert host.hub(Answer({"status": 200, "hub": True})).status == "ok"
    assert host.hub(Answer({}, "no answer within 9 seconds")).status == "missing"


def test_credentials_in_the_endpoint_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://user:secret@hub.example:8443")
    check = host.hub(Answer({"status": 200, "hub": True}))
    assert "secret" not in check.finding
    assert "hub.example:8443" in check.finding


def test_tokens_are_judged_by_the_hubs_answer() -> None:
    assert host.token(None, False).status == "missing"
    assert host.token(Answer({"token_status": 401}), True).status == "warning"
    assert "someone" in host.token(Answer({"token_status": 200, "user": "someone"}), True).finding


def stage_summary(found: dict[str, str], **statuses: str) -> dict[str, Stage]:
    names = ("torch", "bitsandbytes", "llama.cpp")
    checks = {name: Check(name, statuses.get(name.replace(".", "_"), "ok"), "") for name in names}  # type: ignore[arg-type]
    summed = stages.summary(checks, card_memory=8 << 30, memory=16 << 30, free=100 << 30, found=found)
    return {stage.name: stage for stage in summed}


RUNTIME = {
    "llama-cpp-python": "0.3.36",
    "jinja2": "3.1.6",
    "numpy": "2.3",
    "packaging": "26.3",
    "prompt-toolkit": "3.0.53",
}


@pytest.mark.usefixtures("installed")
def test_a_stage_names_the_packages_it_lacks_and_the_extra_that_brings_them() -> None:
    found = stage_summary(RUNTIME)
    assert found["chat"].status == "ok"
    assert found["train"].status == "missing"
    assert "torch>=" in found["train"].finding
    assert found["train"].mend == "pip install 'medmind[train]'"


def test_a_package_that_is_too_old_is_named_with_its_version() -> None:
    assert "it is 3.0.2" in stage_summary(RUNTIME | {"jinja2": "3.0.2"})["chat"].finding


def test_a_local_version_meets_its_pin() -> None:
    assert stage_summary(RUNTIME | {"llama-cpp-python": "0.3.36+cu128"})["chat"].status == "ok"
    assert stage_summary(RUNTIME | {"llama-cpp-python": "0.3.35"})["chat"].status == "missing"


def test_a_stage_on_a_broken_library_is_broken() -> None:
    found = stage_summary(RUNTIME, llama_cpp="broken")
    assert found["chat"].status == "broken"
    assert not Report((), tuple(found.values())).ok
