"""`medmind-train`: the commands of the train room. Knows where each is registered, and imports nothing heavy."""

import typer

from medmind import console
from medmind_train import data_cli, doctor_cli, launch, qlora_cli
from medmind_train.plan import cli as plan_cli
from medmind_train.pretrain import cli as pretrain_cli
from medmind_train.score import cli as score_cli
from medmind_train.search import cli as search_cli
from medmind_train.step import cli as step_cli

app = typer.Typer(pretty_exceptions_enable=False, no_args_is_help=True, add_completion=False)


@app.callback()
def _train(context: typer.Context) -> None:
    """Fine-tune a language model on medical questions and answers."""
    launch.hush()
    launch.check(str(context.invoked_subcommand))


for _command in (qlora_cli, plan_cli, data_cli, pretrain_cli, doctor_cli, step_cli, search_cli, score_cli):
    _command.register(app)


def main() -> None:
    """The entry point of `medmind-train`, and of the module, which is how torchrun starts it."""
    with launch.failing_last():
        console.run(app)


if __name__ == "__main__":
    main()
