"""The command line of `medmind-chat`: commands, options and their help. Everything else it leaves to its neighbours."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from medmind import console
from medmind_runtime.config import ChatConfig, KvType
from medmind_runtime.engine.loading import LoadMode

_DEFAULT = "chat"
_DEFAULTS = ChatConfig()
_WHICH = "GGUF file, run directory or run name; without it the newest converted model"
_Model = Annotated[str | None, typer.Argument(help=_WHICH, show_default=False)]
_Unproved = Annotated[
    bool, typer.Option("--allow-unproved", help="go on where the system cannot take the network away from medmind")
]
_Context = Annotated[int | None, typer.Option(help="tokens remembered", show_default="the model's, at most 4096")]
_Threads = Annotated[int | None, typer.Option(help="compute threads", show_default="physical cores")]
_Library = Annotated[
    Path | None, typer.Option(help="answer from this library (medmind-chat index), with sources", show_default=False)
]
_Adapter = Annotated[
    Path | None,
    typer.Option(help="lay a LoRA over the model: a file of medmind-convert adapter", show_default=False),
]
_Kv = Annotated[
    KvType | None,
    typer.Option(
        "--kv-type",
        help="what is remembered, kept as: q8_0 takes half of the memory, and time far into a conversation",
        show_default="f16; bf16 where guesses are exact with that alone",
    ),
]
_Lookup = Annotated[
    bool,
    typer.Option(help="guess ahead from the text at hand where that gives the same answers sooner: q4_k_m, q6_k, q8_0"),
]
_Load = Annotated[
    LoadMode,
    typer.Option(
        "--load-mode", help="mmap: the file mapped; copy: read whole; auto: mapped, and let go where it was copied"
    ),
]
_GpuLayers = Annotated[
    str, typer.Option("--gpu-layers", help="layers on the GPU, or auto: as many as fit, where llama.cpp has a GPU")
]


class _DefaultGroup(TyperGroup):
    """A group whose first word may also be an argument of its default command: `medmind-chat MODEL`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default command in front unless another command is named."""
        if not args or args[0] not in self.commands:
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Leave the default command's name out of its usage line."""
        name, command, rest = super().resolve_command(ctx, args)
        return ("" if name == _DEFAULT else name), command, rest


app = typer.Typer(cls=_DefaultGroup, pretty_exceptions_enable=False, add_completion=False)


@app.callback()
def group() -> None:
    """Ask a converted model, offline."""


@app.command(_DEFAULT)
def chat(
    call: typer.Context,
    model: _Model = None,
    *,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            "-p",
            help="ask this once, print the answer and leave; -: what stands on standard input",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one shot: answer, usage and timings as JSON")] = False,
    system: Annotated[
        str | None, typer.Option(help="system prompt in place of the model's own; '' for none", show_default=False)
    ] = _DEFAULTS.system,
    temperature: Annotated[
        float, typer.Option(help="0: the same question gets the same answer; higher: more varied")
    ] = _DEFAULTS.temperature,
    seed: Annotated[int | None, typer.Option(help="for temperatures above 0", show_default="random")] = _DEFAULTS.seed,
    max_tokens: Annotated[int, typer.Option(help="longest answer, in tokens")] = _DEFAULTS.max_tokens,
    context: _Context = _DEFAULTS.context,
    threads: _Threads = _DEFAULTS.threads,
    kv_type: _Kv = _DEFAULTS.kv_type,
    load_mode: _Load = _DEFAULTS.load_mode,
    adapter: _Adapter = _DEFAULTS.adapter,
    gpu_layers: _GpuLayers = str(_DEFAULTS.gpu_layers),
    markdown: Annotated[
        bool, typer.Option(help="draw answers as Markdown on a terminal; else as the model writes them")
    ] = _DEFAULTS.markdown,
    history: Annotated[
        Path | None,
        typer.Option(help="keep what is typed in this file, for you alone to read", show_default="kept nowhere"),
    ] = _DEFAULTS.history,
    library: _Library = _DEFAULTS.library,
    lookup: _Lookup = _DEFAULTS.lookup,
    read_ahead: Annotated[
        bool,
        typer.Option(help="compute on the conversation while you read and type: the same answers sooner"),
    ] = _DEFAULTS.read_ahead,
    schema: Annotated[
        Path | None,
        typer.Option(
            help="one shot: the answer is JSON of this JSON schema, shown when it is whole; a dose that no source "
            "gives is left out of a string, and in a number holds the document back (exit code 1); in an emergency "
            "the answer is what to do now instead (exit code 1)",
            show_default=False,
        ),
    ] = None,
    allow_unproved: _Unproved = False,
    prove_offline: Annotated[
        bool, typer.Option("--prove-offline", help="take the network away, try to reach it in every way, and leave")
    ] = False,
) -> None:
    """Chat with a model, offline; nothing that is said is kept.

    With --prompt, or with the question on standard input, it answers once and leaves.
    """
    from medmind_runtime.chat import prove, run

    if prove_offline:
        prove(as_json=as_json, allow_unproved=allow_unproved)
        return
    run(
        model,
        ChatConfig.of(call.params),
        prompt=prompt,
        as_json=as_json,
        schema=schema,
        allow_unproved=allow_unproved,
    )


@app.command()
def serve(
    call: typer.Context,
    model: _Model = None,
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one")] = 8080,
    host: Annotated[str, typer.Option(help="a loopback address: 127.0.0.1 or ::1")] = "127.0.0.1",
    token: Annotated[
        Path | None,
        typer.Option(
            "--token-file", help="clients show its content; made when missing", show_default="medmind/serve-token"
        ),
    ] = None,
    body_limit: Annotated[int, typer.Option(min=1, help="largest request, in KiB")] = 1024,
    time_limit: Annotated[
        float,
        typer.Option(
            min=1,
            help="longest time for one answer, in seconds from its turn on: waiting for other answers, or for a model "
            "that is still loading, does not count; to send a request, clients have 15 s",
        ),
    ] = 300.0,
    waiting: Annotated[int, typer.Option(min=0, help="requests that may wait while one is answered")] = 4,
    system: Annotated[
        str | None, typer.Option(help="system prompt of requests without one; '' for none", show_default=False)
    ] = _DEFAULTS.system,
    temperature: Annotated[float, typer.Option(help="of requests that name none")] = _DEFAULTS.temperature,
    max_tokens: Annotated[int, typer.Option(help="of requests that name none")] = _DEFAULTS.max_tokens,
    context: _Context = _DEFAULTS.context,
    threads: _Threads = _DEFAULTS.threads,
    kv_type: _Kv = _DEFAULTS.kv_type,
    load_mode: _Load = _DEFAULTS.load_mode,
    adapter: _Adapter = _DEFAULTS.adapter,
    gpu_layers: _GpuLayers = str(_DEFAULTS.gpu_layers),
    library: _Library = _DEFAULTS.library,
    lookup: _Lookup = _DEFAULTS.lookup,
    allow_unproved: _Unproved = False,
) -> None:
    """Serve a model to programs on this machine: OpenAI's /v1/chat/completions and /v1/models, on loopback alone.

    Clients show the token as `Authorization: Bearer TOKEN`. One request is answered at a time; nothing is kept of any.

    An answer in JSON comes when it is whole; one with a number that is a dose
    no source gives is refused, in `refusal`. In an emergency the content is
    what to do now instead, as text, and `refusal` too.

    An emergency is heard in every message of the user, until an answer in the
    request holds what to do; examples belong in the system message.
    """
    from medmind_runtime import address_space, core_dumps, models, private_file, session
    from medmind_runtime.config import token_file
    from medmind_runtime.offline import take_network_away
    from medmind_runtime.serve.server import Limits, Server

    config = ChatConfig.of(call.params)
    address_space.demand()
    path, why = models.find(model)
    limits = Limits(body_bytes=body_limit << 10, answer_seconds=time_limit, waiting=waiting)
    file = token or token_file()
    server = Server(host, port, private_file.token(file), limits)
    core_dumps.forbid()
    for note in take_network_away(allow_unproved=allow_unproved, listener=server.socket).notes:
        console.note(note)
    if why:
        console.note(f"model: {path} ({why})")
    console.note(f"The token that clients must show lies in {file}; only you can read it (0600).")
    session.serve(path, config, server)


@app.command("index")
def make_library(
    source: Annotated[Path, typer.Argument(help="MedQuAD: a .jsonl, .csv or .xml file, or a folder of them")],
    output: Annotated[Path, typer.Option("--output", "--out", "-o", help="the library file to write")],
    force: Annotated[bool, typer.Option("--force", help="replace the file if it is there")] = False,
) -> None:
    """Make an offline library of a source's answers, for --library."""
    from medmind_runtime.library import index, read

    answers, passages = index.write(read.answers(source), output, force=force)
    console.note(f"{output}: {answers:,} answers in {passages:,} passages")


@app.command("bundle")
def make_bundle(
    folder: Annotated[Path, typer.Argument(help="the folder to make")],
    model: Annotated[str | None, typer.Option(help=_WHICH, show_default=False)] = None,
    library: Annotated[
        Path | None, typer.Option(help="a library of medmind-chat index to go with it", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace the bundle if it is there")] = False,
) -> None:
    """Gather wheels, model, library, digests and an install script for a machine without a network."""
    from medmind.artifacts import refuse_existing
    from medmind_runtime import bundle, models

    refuse_existing(folder, force=force)
    bundle.refuse_foreign(folder)
    path, why = models.find(model)
    if why:
        console.note(f"model: {path} ({why})")
    contents = bundle.gather(path, library, "runtime")
    with console.progress("bundle", contents.size, "B") as advance:
        written = bundle.write(contents, folder, force=force, advance=advance)
    console.note(
        f"{written.folder}: {console.human_bytes(written.size)}, {written.wheels} wheels; "
        f"carry it over and run: sh {written.folder.name}/install.sh"
    )
