"""One process of a run on several: the steps of `tiny_run` on its rows of a batch, and its part of a checkpoint.

Started by test_meshes.py with what `hosts.start` reads in the environment. Prints the losses.
"""

import json
import sys
from pathlib import Path

base, folder, steps, settings = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), json.loads(sys.argv[4])

from vlm_jax.parallel import hosts  # noqa: E402

hosts.start()

import jax  # noqa: E402
import numpy as np  # noqa: E402

from tests.training.tiny_run import make_trainer  # noqa: E402
from vlm_jax.checkpoint.model_source import open_model  # noqa: E402
from vlm_jax.checkpoint.run_folder import Checkpoints  # noqa: E402
from vlm_jax.parallel import mesh as meshes  # noqa: E402
from vlm_jax.processing.rows import Batch  # noqa: E402

whole = Batch(**np.load(folder / "batch.npz"))
rows = len(whole.tokens)
trainer = make_trainer(base, jax.device_count(), (1, -1, 1), settings)
mesh = trainer.mesh
step = trainer.compile(whole)
trainable, optimizer_state, frozen = trainer.start(
    open_model(str(base)).read(place=trainer.place, sharding=trainer.sharding)
)
here = rows // jax.process_count()
mine = slice(jax.process_index() * here, (jax.process_index() + 1) * here)
losses, together = [], hosts.StopTogether(mesh)
for number in range(steps):
    batch = meshes.to_devices(jax.tree.map(lambda array: array[mine], whole), mesh)
    trainable, optimizer_state, metrics = step(trainable, optimizer_state, frozen, batch, np.int32(number))
    losses.append(float(metrics["loss"]))
    # One of them is asked at step 5; both hear of it at step 6.
    heard = together.now(jax.process_index() == 1 and number == 5)
    assert heard == (number == 6), number
checkpoints = Checkpoints(folder / "run")
checkpoints.save(steps, {**trainable, **frozen}, {"images": {}}, optimizer=optimizer_state, data={"number": steps})
checkpoints.wait()
checkpoints.close()
print(json.dumps(losses))
