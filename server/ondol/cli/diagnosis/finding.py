"""What one check found.

Knows nothing about checking. Invariant: what is not ok says what to do.
"""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report, in the user's language.

    Attributes:
        name: what was checked.
        status: "fail" makes serving impossible, "warn" makes it slower or takes something away.
        message: what is there.
        advice: what to do; empty where all is well.
        exit_code: of the command, where the status is "fail".
    """

    name: str
    status: Status
    message: str
    advice: str = ""
    exit_code: int = 0
