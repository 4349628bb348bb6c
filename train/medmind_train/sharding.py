"""A base whose decoder layers lie in pieces over the processes of a run (FSDP). Knows PEFT models and torch's FSDP2.

Only frozen weights are in pieces: a layer is put together while it computes, forward and backward, and taken apart
again. The adapter, the embedding and the head are whole in every process, so that gradients, the optimizer and
checkpoints are those of any other run. torch shards floating types only, which is why bitsandbytes is to store its
4-bit numbers in one (`bnb_4bit_quant_storage`).
"""

from typing import Any

from medmind.errors import MedmindError
from medmind_train.distributed import world
from medmind_train.hardware import Device
from medmind_train.qlora_config import QloraConfig


def refuse(config: QloraConfig) -> None:
    """Raise where `--shard` cannot do what the settings ask for.

    Raises:
        MedmindError: one process, or an adapter that reads the base's weights itself.
    """
    if not config.shard:
        return
    if world()[1] == 1:
        raise MedmindError(
            "--shard lays the base in pieces over several processes, and there is one",
            "start several with torchrun, or leave --shard out",
        )
    if config.dora:
        raise MedmindError("--shard and --dora do not go together", "leave one out")


def shard(tuned: Any, device: Device) -> Any:
    """Keep this process's pieces of the layers of a PEFT model on `device`, and the rest of it whole.

    Args:
        tuned: on the host, with 4-bit weights stored in a floating type. One layer at a time is whole on the device.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device, (world()[1],))
    for layer in tuned.get_base_model().get_decoder().layers:
        layer.to(device)
        # What is small is better whole; a piece of a norm would be a message of its own.
        whole = {one for one in layer.parameters() if one.requires_grad or one.ndim == 1}
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    return tuned.to(device)
