"""The package: its command, what it needs, and the extras that bring an accelerator or the test tools."""

import setuptools

setuptools.setup(
    name="prdarts_jax",
    version="0.1.0",
    description="Differentiable architecture search (DARTS, PR-DARTS) as pure functions in JAX",
    license="Apache-2.0",
    license_files=["LICENSE"],
    package_dir={"": "."},  # so that an editable install is found from the folder above a clone named prdarts_jax
    packages=setuptools.find_packages(include=["prdarts_jax", "prdarts_jax.*"]),
    package_data={"prdarts_jax": ["py.typed", "__init__.pyi", "run/report.html", "theory/claims.toml"]},
    entry_points={"console_scripts": ["prdarts = prdarts_jax.main:cli"]},
    python_requires=">=3.11",
    install_requires=[
        "absl-py>=2.1",
        "array_record>=0.8; sys_platform != 'win32'",
        "chex>=0.1.90",
        "flatbuffers>=24",  # jax.export serialises with it without bringing it
        "flax>=0.12",
        "grain>=0.2.15",
        "importlib_resources>=6",  # tensorflow-datasets imports it without declaring it
        "jax>=0.10",
        "lazy_loader>=0.4",
        "matplotlib>=3.9",
        "ml-collections>=1.0",
        "numpy>=2.0",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.12",
        "pillow>=10",
        "pyyaml>=6",
        "scikit-learn>=1.5",
        "scipy>=1.15",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.9",
        "tqdm>=4.66",
    ],
    extras_require={
        "cuda12": ["jax[cuda12]"],
        "tpu": ["jax[tpu]"],
        "torch": ["torch>=2.6"],
        "slurm": ["submitit>=1.5"],
        "docs": ["latex2mathml>=3.77", "mkdocs>=1.6", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"],
        "test": [
            "hypothesis>=6.100",
            "ipykernel>=6",
            "mypy>=1.15",
            "nbclient>=0.10",
            "nbformat>=5",
            "pytest>=8",
            "pytest-xdist>=3.8",
            "ruff>=0.12",
            "submitit>=1.5",
        ],
    },
)
