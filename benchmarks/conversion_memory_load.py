"""One load of `benchmarks/conversion_memory.py`, in a process of its own: what is in memory before and after.

    .venv/bin/python benchmarks/conversion_memory_load.py --model=FOLDER [--quantise=nf4 [--tables]] [--sharded]

Prints one line of JSON: bytes of the weights, and private resident memory before and after.
"""

import argparse
import json
from pathlib import Path


def private() -> int:
    """Bytes of private resident memory of this process: what is mapped from files does not count."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(status[name].split()[0]) for name in ("RssAnon", "RssShmem")) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--quantise", default=None)
    parser.add_argument("--tables", action="store_true", help="embeddings and output layer in 8 bits, too")
    parser.add_argument("--sharded", action="store_true", help="over all devices, as training holds frozen weights")
    options = parser.parse_args()

    import jax
    import jax.numpy as jnp

    import vlm_jax
    from vlm_jax.checkpoint import description
    from vlm_jax.checkpoint.model_source import open_model
    from vlm_jax.parallel.mesh import MeshShape, make_mesh, spread
    from vlm_jax.parallel.rules import partition

    # What is imported, and the tokenizer, are no weights.
    source = open_model(options.model)
    description.read_processor(source.assets, source.config)
    jax.block_until_ready(jnp.zeros(1))
    before = private()
    if options.sharded:
        mesh = make_mesh(MeshShape(data=1, fsdp=-1))

        def sharding(path, shape):
            return jax.sharding.NamedSharding(mesh, partition(path, shape, mesh))

        def place(path, array):
            return {path: spread(array, sharding(path, array.shape))}

        parameters = source.read(place=place, sharding=sharding)
    else:
        parameters = vlm_jax.load(
            options.model, dtype="bfloat16", quantise=options.quantise, quantise_tables=options.tables
        ).parameters
    jax.block_until_ready(parameters)
    weights = sum(array.nbytes for array in parameters.values())
    print(json.dumps({"weights": weights, "before": before, "after": private(), "devices": jax.device_count()}))


if __name__ == "__main__":
    main()
