"""Adds what pyproject.toml cannot: two folders of the clone, installed inside the package."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["pnoise_jax*"]),
        *(f"pnoise_jax.{name}" for name in ("launch", "launch.benchmark", "configs")),
    ]
)
