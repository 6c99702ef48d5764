"""Tells what torch can do here, as one JSON object on stdout.

Run as `python -m ondol.cli.diagnosis.torch_probe`, a process of its own: a broken torch can end the
process that imports it. Knows nothing about findings.
"""

import importlib.util
import json
import sys


def main() -> None:
    """Import torch and ask it."""
    import torch  # noqa: PLC0415 - the import is the check

    gpus = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        gpus.append(
            {
                "name": properties.name,
                "total_bytes": properties.total_memory,
                "capability": f"{properties.major}.{properties.minor}",
            }
        )
    facts = {
        "version": torch.__version__,
        "built_for_cuda": torch.version.cuda,
        "num_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "has_triton": importlib.util.find_spec("triton") is not None,
        "gpus": gpus,
    }
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
