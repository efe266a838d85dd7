"""Readers of published traces, over small files that the tests write themselves."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from heddle.simulator.jobs import Job, split
from heddle.simulator.sources import FORMS, read
from heddle.simulator.tables import TableError, span
from heddle.simulator.traces import philly, swf

ITP = """job_id,submission_time,duration,num_gpu
late,100,60,1
early,40,7200,16
odd,50,10,12
"""
PHILLY = """timestamp,duration,num_gpus,gpu_time,cluster
2017-10-09 07:01:55,66.0,1,66.0,11cb48
2017-10-09 07:00:55,2951.5,16,47224.0,6214e9
"""
SWF = """; Version: 2.2
; MaxNodes: 4
; MaxProcs: 30
;
1 0 5 100 16 -1 -1 16 200 -1 1 3 1 -1 2 -1 -1 -1
2 10 -1 -1 -1 -1 -1 -1 -1 -1 5 3 1 -1 2 -1 -1 -1
3 20 30 0 -1 -1 -1 4 600 -1 5 4 1 -1 -1 -1 -1 -1
4 30 0 50 8 -1 -1 -1 -1 -1 0 -1 1 -1 1 -1 -1 -1
5 40 0 10 8 -1 -1 8 20 -1 2 3 1 -1 1 -1 -1 -1
6 50 0 -1 8 -1 -1 8 20 -1 1 3 1 -1 1 -1 -1 -1
"""
OPENB = """name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time,deletion_time
p0,4000,1024,1,460,V100M32|T4,10,70
"""


def saved(folder: Path, text: str, name: str = "trace.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_itp_jobs_of_many_gpus_become_gangs_and_arrive_in_order(tmp_path: Path) -> None:
    found = read(saved(tmp_path, ITP), node_gpus=8)
    assert found.name == "trace"
    assert found.jobs == (
        Job("early", 40, 7200, tasks=2, gpu=8000),
        Job("odd", 50, 10, tasks=2, gpu=6000),
        Job("late", 100, 60),
    )
    assert found.resources == {"gpu": 29}


def test_philly_counts_from_the_first_arrival_and_takes_virtual_clusters_for_queues(tmp_path: Path) -> None:
    found = read(saved(tmp_path, PHILLY), node_gpus=8)
    assert found.jobs == (
        Job("0000003", 0, 2951.5, tasks=2, gpu=8000, queue="6214e9"),
        Job("0000002", 60, 66, queue="11cb48"),
    )


def test_philly_tells_the_size_of_virtual_clusters(tmp_path: Path) -> None:
    sizes = philly.sizes(saved(tmp_path, "vc,node num\na,2\nb,1\n"))
    assert sizes == {"a": 2, "b": 1}
    assert [(queue.name, queue.quota) for queue in philly.queues(sizes, 4)] == [
        ("a", {"gpu": 8000}),
        ("b", {"gpu": 4000}),
    ]


def test_swf_reads_requested_processors_walltimes_users_queues_and_cancellations(tmp_path: Path) -> None:
    found = read(saved(tmp_path, SWF, "log.swf"), node_gpus=8)
    assert found.jobs == (
        Job("1", 0, 100, tasks=2, gpu=8000, queue="queue-2", user="user-3", walltime=200),
        Job("3", 20, 600, gpu=4000, user="user-4", walltime=600, cancel=50),
        Job("4", 30, 50, gpu=8000, queue="queue-1"),
    )
    assert found.left_out == {"no processors": 1, "part of a job that is told as a whole": 1, "no run time": 1}


def test_swf_processors_can_be_counted_several_to_a_gpu(tmp_path: Path) -> None:
    found = read(saved(tmp_path, SWF), processors=12)
    assert found == swf.read(saved(tmp_path, SWF), 8, processors=12)
    assert [job.gpus for job in found.jobs] == [2, 1, 1]
    with pytest.raises(ValueError, match="processors: 0 is not valid"):
        swf.read(saved(tmp_path, SWF), 8, processors=0)


def test_swf_comments_may_be_indented_and_in_any_encoding(tmp_path: Path) -> None:
    path = tmp_path / "log.swf"
    path.write_bytes(b" ; Acknowledge: Dalibor Klus\xe1\xe8ek\n ;MaxNodes: 4 (of 5)\n" + SWF.split(";\n")[1].encode())
    assert [job.name for job in read(path).jobs] == ["1", "3", "4"]
    assert swf.machine(path) == swf.Machine(4, 4)


def test_swf_header_tells_of_the_machine(tmp_path: Path) -> None:
    assert swf.machine(saved(tmp_path, SWF)) == swf.Machine(4, 30)
    with pytest.raises(TableError, match="neither MaxNodes nor MaxProcs; describe the cluster as 128x8"):
        swf.machine(saved(tmp_path, "; Version: 2\n1 2 3\n; MaxProcs: 9\n"))
    with pytest.raises(TableError, match=r"trace.csv:1: MaxProcs: 'many' is not valid"):
        swf.machine(saved(tmp_path, "; MaxProcs: many\n"))


@pytest.mark.parametrize(("ending", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)])
def test_compressed_files_are_read_as_they_are(tmp_path: Path, ending: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"trace.csv.{ending}"
    path.write_bytes(pack(ITP.encode()))
    assert read(path) == read(saved(tmp_path, ITP))
    path.write_bytes(pack(ITP.encode())[:-9])
    with pytest.raises(TableError, match=f"trace.csv.{ending}: cannot be read"):
        read(path, form="itp")


@pytest.mark.parametrize(("form", "text"), [("itp", ITP), ("philly", PHILLY), ("swf", SWF), ("openb", OPENB)])
def test_a_format_is_seen_from_the_first_line(tmp_path: Path, form: str, text: str) -> None:
    path = saved(tmp_path, text)
    assert read(path) == read(str(path), form=form)
    assert set(FORMS) == {"heddle", "itp", "openb", "philly", "swf"}


def test_a_log_without_a_header_is_seen_too(tmp_path: Path) -> None:
    assert len(read(saved(tmp_path, SWF.split(";\n")[1])).jobs) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ITP + "new,x,1,1\n", "trace.csv:5: submission_time: 'x' is not valid"),
        (ITP + "new,-5,1,1\n", "trace.csv:5: submission_time: '-5' is not valid: give 0 seconds or more"),
        (ITP + "new,1,1,2.5\n", "trace.csv:5: num_gpu: '2.5' is not valid: give a whole number"),
        (ITP + "new,1,1,inf\n", "trace.csv:5: num_gpu: 'inf' is not valid"),
        (ITP + "new,1,,1\n", "trace.csv:5: duration is empty; give a value"),
        (ITP + "new,1,1\n", "trace.csv:5: has 3 cells; the header has 4"),
        (ITP + "late,1,1,1\n", "trace.csv:5: the job of line 2 is called 'late' too"),
        (PHILLY + "yesterday,1,1,1,a\n", "trace.csv:4: timestamp: 'yesterday' is not valid: write it as 2017-10-09"),
        (PHILLY + "2017-10-09T07:00:00+02:00,1,1,1,a\n", "trace.csv:4: timestamp: .* write it as"),
        (SWF + "7 1 2\n", "trace.csv:11: has 3 fields; a line of this format has 18"),
        (SWF + "x -2" + " 1" * 16 + "\n", "trace.csv:11: submit: '-2' is not valid"),
        (
            ITP.replace("num_gpu", "gpus"),
            "begins no format that is known: heddle .submit_s.*; itp .job_id.*philly.*swf",
        ),
        (ITP.replace("num_gpu", "job_id"), "begins no format that is known"),
        ("", "begins no format that is known"),
        (OPENB.replace("p0", ""), "trace.csv:2: job .: name is empty; give one"),
    ],
)
def test_broken_files_are_told_with_line_and_column(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(TableError, match=says):
        read(saved(tmp_path, text))


def test_a_column_that_is_missing_or_there_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="has no column num_gpu; it has: job_id, submission_time, duration, gpus"):
        read(saved(tmp_path, ITP.replace("num_gpu", "gpus")), form="itp")
    with pytest.raises(TableError, match="column job_id is there twice"):
        read(saved(tmp_path, ITP.replace("num_gpu", "num_gpu,job_id")), form="itp")


def test_an_unknown_format_or_file_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format: 'excel' is not known; use one of heddle, itp, openb, philly, swf"):
        read(saved(tmp_path, ITP), form="excel")
    with pytest.raises(TableError, match=r"nowhere\.csv: there is no such file"):
        read(tmp_path / "nowhere.csv")


def test_split_makes_as_few_equal_tasks_as_fit() -> None:
    assert [split(gpus, 8) for gpus in (0, 1, 8, 12, 16, 17, 64)] == [
        (1, 0),
        (1, 1),
        (1, 8),
        (2, 6),
        (2, 8),
        (17, 1),
        (8, 8),
    ]
    with pytest.raises(ValueError, match="GPUs of a node: 0 is not valid"):
        split(4, 0)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("45s", 45), ("2h30m", 9000), ("1.5d", 129600)])
def test_spans_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert span(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "2x", "1 h", "3h2", "-1h", "1h,2m"])
def test_other_spans_are_refused(text: str) -> None:
    if text == "3h2":
        assert span(text) == 3 * 3600 + 2  # the last unit may be left out: seconds
        return
    with pytest.raises(ValueError, match="write a span of time"):
        span(text)
