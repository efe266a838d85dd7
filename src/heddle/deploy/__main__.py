"""Write the chart and its documents below a folder: `python -m heddle.deploy .` (`make chart`)."""

import argparse
from pathlib import Path

from heddle.deploy import chart, guide, rights_table

DOCUMENTS = {"docs/kubernetes-security.md": rights_table.page, "docs/kubernetes-install.md": guide.page}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the checkout")
    root: Path = parser.parse_args().folder
    chart.write(root / "deploy" / "helm" / "heddle")
    for name, page in DOCUMENTS.items():
        (root / name).write_text(page())
