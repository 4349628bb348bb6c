"""What this machine can do for each stage, and how to mend what it cannot.

Learns about heavy libraries by running them in processes of their own: a crashing driver or library is a finding.
"""

from medmind.doctor.examine import examine
from medmind.doctor.report import Check, Report, Stage

__all__ = ["Check", "Report", "Stage", "examine"]
