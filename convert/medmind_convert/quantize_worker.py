"""The process that calls llama_model_quantize: `python -m medmind_convert.quantize_worker IN OUT FTYPE THREADS`.

A process of its own, because the call cannot be interrupted from Python: whoever waits kills it. It ends when its stdin
does, so that it never outlives its parent. IN and OUT are plain names in the current directory, as llama.cpp opens OUT
by a narrow string that Windows would misread. On stdout, one JSON object a line: `{"done": tensors, "of": tensors}`,
`{"bits": per weight}` or `{"error": text}`.
"""

import json
import os
import re
import signal
import sys
import threading

from medmind import llama
from medmind.errors import MedmindError


def _end_with_parent() -> None:
    while os.read(0, 4096):  # sys.stdin would hold a lock that the interpreter wants at its end
        pass
    os._exit(130)


def _say(**document: object) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Quantize; returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    source, target, ftype, threads = sys.argv[1:]

    def listen(text: str) -> None:
        match = re.match(r"\[\s*(\d+)/\s*(\d+)\]", text)
        if match:
            _say(done=int(match[1]) - 1, of=int(match[2]))
        match = re.search(r"quant size\s*=.*\(([\d.]+) BPW\)", text)
        if match:
            _say(bits=float(match[1]))

    try:
        llama_cpp = llama.load(listen)
    except MedmindError as error:
        _say(error=str(error))
        return 1
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = int(ftype)
    params.nthread = int(threads)
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), params) != 0:
        _say(error=llama.log.last_error() or "no reason given")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
