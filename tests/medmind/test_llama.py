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
    assert log.last_error() == "another"
    log.mark()
    assert not log.buffer_bytes("model")
    assert not log.first_error()
