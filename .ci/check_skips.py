"""Fail on tests that were skipped for a reason that nobody has agreed to."""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def main(report: Path, allowed: Path) -> int:
    """Print the skips that are not allowed; their number is the exit status's sign."""
    reasons = [line.strip() for line in allowed.read_text().splitlines() if line.strip() and line[0] != "#"]
    bad = []
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - pytest wrote it
        skip = case.find("skipped")
        if skip is not None and skip.get("type") != "pytest.xfail":
            told = f"{skip.get('message', '')} {skip.text or ''}"
            if not any(reason in told for reason in reasons):
                bad.append(f"{case.get('classname')}.{case.get('name')}: {told.strip()}")
    for line in bad:
        print(f"skipped without leave: {line}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
