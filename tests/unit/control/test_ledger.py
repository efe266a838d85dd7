"""What jobs have used is counted once and outlives them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from heddle.api.meta import Condition, ObjectMeta
from heddle.api.trainingjob import TrainingJob, TrainingJobSpec, TrainingJobStatus
from heddle.api.workload import USER_ANNOTATION
from heddle.control.training import ledger
from heddle.control.training.ledger import Entry


def apply(data: dict[str, str], change: dict[str, str | None]) -> dict[str, str]:
    return {k: v for k, v in (data | change).items() if v is not None}


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from("ab"), st.sampled_from("xy"), st.integers(0, 99))),
    st.integers(1, 8),
)
def test_totals_are_those_of_all_jobs_whatever_is_kept(jobs: list[tuple[int, str, str, int]], kept: int) -> None:
    data: dict[str, str] = {}
    wanted: dict[tuple[str, str], int] = {}
    for n, (_, user, queue, seconds) in enumerate(jobs):
        entry = Entry(user=user, queue=queue, gpu_seconds=seconds, ended=f"{n:05d}")
        data = apply(data, ledger.change(data, str(n), entry, kept))
        data = apply(data, ledger.change(data, str(n), entry, kept))  # a crash in between, and again
        wanted[user, queue] = wanted.get((user, queue), 0) + seconds
        assert len(ledger.entries(data)) <= kept
    found = ledger.usage(data)
    assert {who: e.gpu_seconds for who, e in found.items()} == wanted
    assert sum(e.jobs for e in found.values()) == len(jobs)


def test_a_living_job_counts_until_it_is_recorded() -> None:
    job = TrainingJob(
        metadata=ObjectMeta(name="j", namespace="default", uid="u", annotations={USER_ANNOTATION: "ann"}),
        spec=TrainingJobSpec(command=["true"], queue="q"),
        status=TrainingJobStatus(gpu_seconds=60, phase="Running"),
    )
    assert ledger.usage({}, [job])["ann", "q"].gpu_seconds == 60
    data = apply({}, ledger.change({}, "u", ledger.entry_of(job)))
    assert ledger.usage(data, [job])["ann", "q"].gpu_seconds == 60
    job.status.conditions = [Condition(type="Recorded", status="True")]
    assert ledger.usage(data, [job])["ann", "q"].gpu_seconds == 60
