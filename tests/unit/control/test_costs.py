"""What workloads cost others is summed up by who lost."""

from heddle.api.meta import ObjectMeta
from heddle.api.workload import Cost, Workload, WorkloadSpec, WorkloadStatus
from heddle.control.scheduling.costs import Costs, merged, told


def workload(name: str, *cost: Cost) -> Workload:
    meta = ObjectMeta(name=name, namespace="default")
    return Workload(metadata=meta, spec=WorkloadSpec(queue="q", pod_sets=[]), status=WorkloadStatus(cost=list(cost)))


def test_what_an_earlier_process_wrote_is_added_to() -> None:
    gainer, loser = workload("owed", Cost(workload="default/x", pods=1, gpu_seconds=10)), workload("x")
    costs = Costs()
    costs.charge(gainer, loser, loser.key, 7200)
    assert costs.of(gainer.key, gainer.status) == ([Cost(workload="default/x", pods=2, gpu_seconds=7210)], 0)
    assert costs.of(loser.key, loser.status) == ([], 1)
    assert told(costs.of(gainer.key, gainer.status)[0]) == [
        "default/x: 2 pods stopped for it, 2.0 GPU-hours of work to do again"
    ]
    costs.forget(gainer.key)
    assert costs.of(gainer.key, gainer.status)[0][0].pods == 1


def test_of_many_the_dearest_are_named_and_nothing_is_lost() -> None:
    many = merged(Cost(workload=f"w{at:03}", pods=1, gpu_seconds=at) for at in range(50))
    assert [cost.workload for cost in many[:2]] == ["w049", "w048"]
    assert (many[-1].workload, many[-1].pods) == ("", 30)
    assert sum(cost.pods for cost in many) == 50
    assert sum(cost.gpu_seconds for cost in many) == sum(range(50))
    assert told(many)[-1] == "others: 30 pods stopped for it, 0.1 GPU-hours of work to do again"
    assert sum(cost.pods for cost in merged([*many, Cost(workload="w001", pods=1)])) == 51
