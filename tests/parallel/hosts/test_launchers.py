"""What the variables of launchers say about this process."""

import jax
import pytest

from pnoise_jax import parallel
from pnoise_jax.parallel.hosts import arrivals, endings, hosts, launchers
from pnoise_jax.parallel.hosts.launchers import find_place

BY_HAND = {
    "JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234",
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": "1",
}
# Of the second task on the second of two nodes, each with four tasks and eight GPUs.
SLURM = {
    "SLURM_JOB_ID": "5000",
    "SLURM_STEP_NODELIST": "node[6-7]",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_GPUS_ON_NODE": "8",
}
EIGHT = "0,1,2,3,4,5,6,7"


@pytest.fixture
def environment(monkeypatch):
    """Sets variables, also for JAX; those of launchers are removed first."""
    for name in list(launchers.os.environ):
        if name.startswith(("SLURM_", "OMPI_", "JAX_", "CUDA_", "ROCR_", "HIP_")):
            monkeypatch.delenv(name)

    def set_all(variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize(
    ("more", "devices"),
    [
        ({}, (2, 3)),  # SLURM_GPUS_ON_NODE says how many there are
        ({"CUDA_VISIBLE_DEVICES": EIGHT}, (2, 3)),
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, (0, 1)),  # bound to this task: counted from 0
        ({"CUDA_VISIBLE_DEVICES": "5"}, (0,)),
        ({"SLURM_STEP_TASKS_PER_NODE": "4,1", "SLURM_LOCALID": "0"}, None),  # all it sees
        ({"SLURM_STEP_TASKS_PER_NODE": "4,8", "SLURM_LOCALID": "7"}, (7,)),
        ({"SLURM_GPUS_ON_NODE": "", "SLURM_LOCALID": "3"}, (3,)),  # as JAX assumes
        ({"ROCR_VISIBLE_DEVICES": "0,1,2,3"}, (1,)),
        ({"JAX_LOCAL_DEVICE_IDS": "4,6"}, (4, 6)),
    ],
)
@pytest.mark.parametrize("by_hand", [False, True])
def test_devices_of_a_slurm_task(environment, more, devices, by_hand):
    variables = SLURM | more | (BY_HAND if by_hand else {})
    environment(variables)
    place = find_place(variables, multi_host=True)
    assert place.local_device_ids == devices
    if not by_hand:
        assert (place.address, place.count, place.index) == ("node6:62344", 8, 5)


def test_devices_that_do_not_divide_among_the_tasks(environment):
    environment(SLURM | {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4"})
    with pytest.raises(ValueError, match=r"4 tasks on this node see 5 devices.*LOCAL_DEVICE_IDS"):
        find_place(multi_host=True)


def test_gpus_that_would_stay_idle_are_named():
    one_task = SLURM | {"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_LOCALID": "0"}
    with pytest.raises(ValueError, match=r"SLURM_GPUS_ON_NODE=8, but the 1 task.* use 1 GPU"):
        launchers.require_whole_node(1, one_task)
    launchers.require_whole_node(8, one_task)
    launchers.require_whole_node(2, SLURM)  # four tasks
    with pytest.raises(ValueError, match=r"the 4 task.* start 8 tasks on each node"):
        launchers.require_whole_node(1, SLURM)
    for fewer in ({"JAX_LOCAL_DEVICE_IDS": "0"}, {"SLURM_GPUS_ON_NODE": ""}):  # on purpose; unknown
        launchers.require_whole_node(1, one_task | fewer)


def test_one_process_in_an_allocation_is_alone(environment):
    """A batch script, a shell of salloc or an IDE on the node has the job's variables."""
    environment({"SLURM_JOB_ID": "5000", "SLURM_NTASKS": "8", "SLURM_NNODES": "2"})
    assert find_place() is None
    environment({"SLURM_STEP_NUM_TASKS": "1"})
    assert find_place() is None


@pytest.mark.parametrize("name", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
def test_one_of_several_tasks_is_not_alone(environment, name):
    environment({name: "4"})
    with pytest.raises(ValueError, match=f"{name}=4: this is one of several tasks"):
        find_place()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (BY_HAND | {"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES='two'"),
        (BY_HAND | {"JAX_PROCESS_ID": "2"}, "JAX_PROCESS_ID='2': processes are numbered from 0"),
        (BY_HAND | {"JAX_COORDINATOR_ADDRESS": "10.0.0.1"}, "as HOST:PORT"),
        (BY_HAND | {"JAX_COORDINATOR_ADDRESS": "node:port"}, "as HOST:PORT"),
        ({"JAX_NUM_PROCESSES": "2"}, "JAX_NUM_PROCESSES='2' without JAX_COORDINATOR_ADDRESS"),
        ({"JAX_PROCESS_ID": "1"}, "JAX_PROCESS_ID='1' without JAX_COORDINATOR_ADDRESS"),
        (BY_HAND | {"JAX_LOCAL_DEVICE_IDS": "all"}, "JAX_LOCAL_DEVICE_IDS='all'"),
    ],
)
def test_invalid_variables_are_named(environment, variables, message):
    environment(variables)
    with pytest.raises(ValueError, match=message):
        find_place()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "found no other hosts .it supports Slurm"),
        ({"SLURM_JOB_ID": "5", "SLURM_NTASKS": "8"}, "start the program through srun"),
    ],
)
def test_multi_host_without_other_hosts(environment, variables, message):
    environment(variables)
    with pytest.raises(ValueError, match=message):
        find_place(multi_host=True)


def test_what_jax_is_started_with(environment, monkeypatch):
    recorded = {}
    monkeypatch.setattr(arrivals, "meet", lambda place, **_: recorded.update(place=place))
    monkeypatch.setattr(hosts, "introduce", lambda *_, **__: recorded.update(introduced=True))
    monkeypatch.setattr(endings, "name_lost_hosts_at_abort", lambda _: None)
    monkeypatch.setattr(
        jax.distributed,
        "initialize",
        lambda *args, **options: recorded.update(args=args, **options),
    )
    environment(SLURM)
    parallel.start(multi_host=True, timeout=1800)
    assert recorded["args"] == ("node6:62344", 8, 5)
    assert recorded["local_device_ids"] == [2, 3]
    assert recorded["cluster_detection_method"] == "deactivate"
    assert recorded["initialization_timeout"] == 1800
    assert recorded["introduced"]


def test_a_single_process_starts_nothing(environment, monkeypatch):
    environment({})
    monkeypatch.setattr(jax.distributed, "initialize", None)  # a call would fail
    parallel.start()
    assert not parallel.are_several()
