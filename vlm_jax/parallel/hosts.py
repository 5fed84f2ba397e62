"""Several processes that train one model: how they find each other, who writes, and how they stop together.

Every process runs the same program on its own share of the rows. What is decided must be decided alike by all, or they
wait for each other for ever.
"""

import glob
import importlib.util
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vlm_jax.errors import InputError

EXPLICIT = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""Where the first process listens (host:port), how many processes there are, and which of them this one is."""
CLUSTER_SPEC = "CLUSTER_SPEC"
"""The variable in which Vertex AI tells each replica of a job of all of them."""


def start() -> None:
    """Joins the other processes, where the environment tells of any. Must come before anything asks for devices.

    By `EXPLICIT`, by Slurm (srun with more than one task), on a TPU machine by what its pod says of itself, or by the
    CLUSTER_SPEC of a Vertex AI job with several replicas. A process that has joined them stays: several runs may follow
    each other in it.

    Raises:
      InputError: some of `EXPLICIT` are missing, or are no such numbers; CLUSTER_SPEC is not of the form that Google
        documents; a Slurm job of several tasks did not start this one by srun; or there are several processes, and this
        one has asked for devices already.
    """
    if jax.distributed.is_initialized():
        return
    variables = {name: os.environ[name] for name in EXPLICIT if name in os.environ}
    if variables:
        missing = [name for name in EXPLICIT if name not in variables]
        if missing:
            raise InputError(f"{', '.join(variables)} is set and {', '.join(missing)} is not; set all three, or none")
        count, number = (variables[name] for name in EXPLICIT[1:])
        if not (count.isdecimal() and number.isdecimal() and int(number) < int(count)):
            raise InputError(
                f"JAX_PROCESS_ID is {number!r} of JAX_NUM_PROCESSES {count!r}; wanted 0 to one less than it"
            )
        _join(int(count), coordinator_address=variables[EXPLICIT[0]], num_processes=int(count), process_id=int(number))
    elif int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in os.environ:
        _join(int(os.environ["SLURM_NTASKS"]), cluster_detection_method="slurm", **_slurm_devices())
    elif os.environ.get("JAX_PLATFORMS") != "cpu" and importlib.util.find_spec("libtpu") and _has_tpu():
        _join(None)
    elif replicas := _vertex_replicas():
        _join(replicas["num_processes"], **replicas)


def _join(count: int | None, **options) -> None:
    """`count`: how many processes the environment tells of; None: as many as the devices say."""
    try:
        jax.distributed.initialize(**options)
    except RuntimeError as error:
        if "must be called before" not in str(error):
            raise
        # One that is alone needs no others; it may have loaded a model before it trains.
        if (jax.process_count() if count is None else count) > 1:
            raise InputError(
                "one of several processes has used JAX before it joined the others: call "
                "vlm_jax.parallel.hosts.start() before a model is loaded or devices are asked for"
            ) from None


def _slurm_devices() -> dict:
    """What `jax.distributed.initialize` is told of this task's GPUs: where one task runs a host it has all of them, of
    which JAX would give it the first; otherwise each task has one, as JAX has it. JAX_LOCAL_DEVICE_IDS goes before.

    Raises:
      InputError: a batch script of several tasks started this process itself, and nobody the others.
    """
    if "SLURM_STEP_NODELIST" not in os.environ:
        raise InputError(
            f"this Slurm job has {os.environ['SLURM_NTASKS']} tasks, and srun did not start this one, so nobody starts "
            "the others: put srun before the command, as launch/slurm.sh does, or srun --ntasks=1 for one process"
        )
    alone = os.environ.get("SLURM_STEP_NUM_NODES") == os.environ["SLURM_NTASKS"]
    return {"local_device_ids": []} if alone and "JAX_LOCAL_DEVICE_IDS" not in os.environ else {}


def _has_tpu() -> bool:
    return bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"))


def _vertex_replicas() -> dict | None:
    """What `jax.distributed.initialize` takes in one of several replicas of a Vertex AI job, numbered pool after pool.

    The form is that of Google's page "Distributed training": `cluster` has the host:port of each replica by the name of
    its pool, `task` says which this one is.
    """
    spec = os.environ.get(CLUSTER_SPEC, "")
    try:
        content = json.loads(spec or "{}")
        if not (isinstance(content, dict) and "cluster" in content):  # another system's variable of that name
            return None
        pools = sorted(content["cluster"].items())
        addresses = {(pool, index): address for pool, members in pools for index, address in enumerate(members)}
        if len(addresses) < 2:
            return None
        task = content["task"]["type"], int(content["task"]["index"])
        number = list(addresses).index(task)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{CLUSTER_SPEC} names no replica of its cluster ({type(error).__name__}: {error}); set "
            f"{', '.join(EXPLICIT)} instead"
        ) from error
    first = next(iter(addresses.values()))
    return {"coordinator_address": first, "num_processes": len(addresses), "process_id": number}


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def gathered(content: bytes) -> list[bytes]:
    """What each process has, in their order, to all of them."""
    if jax.process_count() == 1:
        return [content]
    from jax.experimental import multihost_utils

    sizes = np.ravel(multihost_utils.process_allgather(np.int32(len(content))))
    padded = np.zeros(max(1, int(sizes.max())), np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    rows = np.reshape(multihost_utils.process_allgather(padded), (len(sizes), -1))
    return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]


def wait_for_all(where: str) -> None:
    """Returns once every process is at this place of the program."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(where)


def agree(number: int | None, what: str) -> None:
    """Raises InputError, in every process, unless all give the same number."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        numbers = multihost_utils.process_allgather(np.int32(-1 if number is None else number)).ravel().tolist()
        if len(set(numbers)) > 1:
            listed = ", ".join("none" if one < 0 else str(one) for one in numbers)
            raise InputError(
                f"{what}: the hosts find {listed}; take a folder that all of them share, or a gs:// address"
            )


def total(array: np.ndarray) -> np.ndarray:
    """The sum of an array over all processes, each of which has one of the same shape."""
    if jax.process_count() == 1:
        return array
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array)).sum(axis=0)


class StopTogether:
    """Whether any process was asked to stop: the same answer for all at the same step.

    Processes are asked at different moments. Each says what it knows along with every step, and reads with the next
    what all said, which the devices have found out by then.
    """

    def __init__(self, mesh: Mesh):
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._here = sum(device.process_index == jax.process_index() for device in mesh.devices.flat)
        self._any = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._outcome = None

    def now(self, requested: bool) -> bool:
        """To be called once a step by every process."""
        if jax.process_count() == 1:
            return requested
        before = self._outcome
        votes = np.full(self._here, requested, np.int32)
        self._outcome = self._any(jax.make_array_from_process_local_data(self._sharding, votes))
        return before is not None and bool(before)
