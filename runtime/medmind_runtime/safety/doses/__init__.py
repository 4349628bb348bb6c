"""Doses in a model's words: a number with a unit of dose that no passage has for the same drug is not shown as fact."""

from medmind_runtime.safety.doses.cutting import NOTE
from medmind_runtime.safety.doses.document import DoseDocument
from medmind_runtime.safety.doses.watch import DoseWatch

__all__ = ["NOTE", "DoseDocument", "DoseWatch"]
