"""All benchmarks, one after the other, with short settings: ``python -m benchmarks``."""

import subprocess
import sys

RUNS = (
    ("benchmarks.engine", "--nodes", "1000"),
    ("benchmarks.store", "--seconds", "1"),
    ("benchmarks.embedded", "--jobs", "20"),
)


def main() -> int:
    failed = 0
    for module, *arguments in RUNS:
        print(f"\n== python -m {module} {' '.join(arguments)}", flush=True)
        failed |= subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
