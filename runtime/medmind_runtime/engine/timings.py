"""What one generation cost, in tokens and seconds. Counts nothing itself; whoever evaluates and guesses fills it in."""

from dataclasses import asdict, dataclass


@dataclass
class Timings:
    """Updated while a generation runs.

    Attributes:
        prompt_tokens: length of the prompt; reused: how many of them were in the KV cache already.
        prompt_seconds: evaluating the others.
        generated_tokens, generation_seconds: tokens yielded, and the time in the engine from the first sampling on.
        drafted, accepted: tokens guessed from the text at hand, and those of them that were right.
    """

    prompt_tokens: int = 0
    reused: int = 0
    prompt_seconds: float = 0.0
    generated_tokens: int = 0
    generation_seconds: float = 0.0
    drafted: int = 0
    accepted: int = 0

    @property
    def prompt_rate(self) -> float:
        """Prompt tokens evaluated per second; 0 when none were."""
        return (self.prompt_tokens - self.reused) / self.prompt_seconds if self.prompt_seconds else 0.0

    @property
    def generation_rate(self) -> float:
        """Tokens generated per second, without the first one, whose logits the prompt brought; 0 when there is none."""
        return max(0, self.generated_tokens - 1) / self.generation_seconds if self.generation_seconds else 0.0

    def as_json(self) -> dict[str, float]:
        """All fields and both rates."""
        return {
            **asdict(self),
            "prompt_tokens_per_second": self.prompt_rate,
            "generation_tokens_per_second": self.generation_rate,
        }
