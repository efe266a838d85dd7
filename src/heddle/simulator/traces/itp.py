"""Microsoft ITP: training jobs of ten clusters over two months, with submission, duration and number of GPUs.

Where to get it: https://github.com/microsoft/elasticflow-traces (MIT; ``data/raw-traces.tar.gz``). Source:
Gu et al., "ElasticFlow" (ASPLOS 2023), which ran clusters 4, 7, 8 and 9 on 1,024 GPUs, 1, 2, 3, 5 and 6 on 512, 10 on
256.
"""

from __future__ import annotations

from pathlib import Path

from heddle.engine.model import WHOLE
from heddle.simulator.jobs import Job, Trace, split
from heddle.simulator.tables import Row, seconds, stem, table, whole
from heddle.simulator.traces.rows import trace

COLUMNS = ("job_id", "submission_time", "duration", "num_gpu")


def read(path: Path, node_gpus: int = 8) -> Trace:
    """Jobs of a list with the columns job_id, submission_time [s], duration [s], num_gpu; of more GPUs than a node
    has (``node_gpus``) become gangs.

    Raises:
        TableError: a row is broken.
    """

    def job(row: Row) -> Job:
        tasks, gpus = split(row.read("num_gpu", whole), node_gpus)
        return Job(
            row.read("job_id", str),
            row.read("submission_time", seconds),
            row.read("duration", seconds),
            tasks=tasks,
            gpu=gpus * WHOLE,
        )

    return trace(stem(path), table(path, COLUMNS), job)
