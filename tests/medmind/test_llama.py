import subprocess
import sys
from pathlib import Path

import pytest

from medmind import elf, llama, processor
from medmind.llama import Log

_INFO, _ERROR, _CONTINUE = 2, 4, 5


def test_buffers_and_errors_are_found_behind_any_number_of_other_lines_until_they_are_marked_as_past() -> None:
    log = Log()
    log.add(_INFO, "load_tensors:   CPU_Mapped model buffer size =  ")
    log.add(_CONTINUE, "10.50 MiB\n")
    log.add(_INFO, "load_tensors:   CPU_REPACK model buffer size =   3.00 MiB\n")
    log.add(_ERROR, "llama_model_load: error loading model: ")
    log.add(_CONTINUE, "it is too short\n")
    for layer in range(5000):
        log.add(_INFO, f"llama_kv_cache: layer {layer}: ")
        log.add(_CONTINUE, "dev = CPU\n")
    log.add(_ERROR, "later: another\n")
    log.add(_INFO, "llama_kv_cache:        CPU KV buffer size =    64.00 MiB\n")
    assert log.buffer_bytes("model") == {"CPU_Mapped": 21 << 19, "CPU_REPACK": 3 << 20}
    assert log.buffer_bytes("KV") == {"CPU": 64 << 20}
    assert log.first_error() == "it is too short"
    log.mark()
    assert not log.buffer_bytes("model")
    assert not log.first_error()


def _builds(folder: Path, **needs: str) -> Path:
    for name, flags in needs.items():
        (folder / name).mkdir()
        (folder / name / "cpu-flags").write_text(f"{flags}\n")
        (folder / name / "libggml-cpu.so.0").touch()
    return folder


def test_the_build_that_needs_most_of_what_the_cpu_has_is_taken(tmp_path: Path) -> None:
    folder = _builds(
        tmp_path, wide="avx512f avx512bw", wider="avx512f avx512bw avx512_vnni", other="sve i8mm svei8mm x"
    )
    flags = {"avx2", "avx512f", "avx512bw"}
    assert llama.cpu_library(folder, flags) == folder / "wide" / "libggml-cpu.so.0"
    assert llama.cpu_library(folder, flags | {"avx512_vnni"}) == folder / "wider" / "libggml-cpu.so.0"


def test_a_cpu_that_lacks_something_gets_the_usual_build(tmp_path: Path) -> None:
    assert llama.cpu_library(_builds(tmp_path, wide="avx512f avx512bw"), {"avx2", "avx512f"}) is None
    assert llama.cpu_library(tmp_path / "absent", {"avx2"}) is None


@pytest.mark.skipif(sys.platform != "linux", reason="the mapped files of a process are read from /proc")
@pytest.mark.parametrize("asked", ["llama.load()", "llama.package('convert')"])
def test_llama_cpp_computes_with_the_build_for_this_cpu(asked: str) -> None:
    code = f"from medmind import llama; {asked}; print(llama.package().__file__); print(open('/proc/self/maps').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    package, *maps = done.stdout.splitlines()
    folder = (Path(package).parent / "lib").resolve()
    mapped = {Path(line.split(maxsplit=5)[5]) for line in maps if "libggml-cpu" in line}
    best = llama.cpu_library(folder, processor.features())
    assert len(mapped) == 1
    assert mapped.pop().parent == (best.parent if best else folder)


@pytest.mark.skipif(sys.platform != "linux", reason="the mapped files of a process are read from /proc")
@pytest.mark.parametrize("damage", ["no library", "cut", "no code"])
def test_a_build_that_is_damaged_is_passed_over(tmp_path: Path, damage: str) -> None:
    damaged = tmp_path / "libggml-cpu.so.0"
    whole = next((Path(str(llama.package().__file__)).parent / "lib").glob("libggml-cpu.so*")).read_bytes()
    damaged.write_bytes(
        {"no library": b"none", "cut": whole[: len(whole) // 2], "no code": whole[:64] + bytes(len(whole) - 64)}[damage]
    )
    code = f"""
import pathlib
from medmind import llama
asked = []
def cpu_library(folder, flags):
    asked.append(folder)
    return pathlib.Path({str(damaged)!r})
llama.cpu_library = cpu_library
print(llama.load().llama_print_system_info().decode())
print(*asked)
print(open("/proc/self/maps").read())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    told, folder, *maps = done.stdout.splitlines()
    assert "AVX2" in told or "NEON" in told
    mapped = {Path(line.split(maxsplit=5)[5]).parent for line in maps if "libggml-cpu" in line}
    assert mapped == {Path(folder).resolve()}


@pytest.mark.skipif(sys.platform != "linux", reason="libraries of Linux")
def test_a_library_is_whole_when_all_that_is_mapped_of_it_is_there(tmp_path: Path) -> None:
    file = tmp_path / "library.so"
    whole = next((Path(str(llama.package().__file__)).parent / "lib").glob("libggml-cpu.so*")).read_bytes()
    for length in (len(whole), *(len(whole) * share // 100 for share in (90, 50, 1)), 100, 63, 0):
        file.write_bytes(whole[:length])
        assert elf.is_whole(file) == (length == len(whole))
    file.write_bytes(whole[:32] + b"\xff" * 8 + whole[40:])  # where the table of what is mapped begins
    assert not elf.is_whole(file)
