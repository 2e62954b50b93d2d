"""What pyproject.toml cannot say: that the folder ``data`` travels inside the package."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["kit*"]), "kit.data"],
    package_dir={"kit.data": "data"},
    package_data={"kit.views": ["*.js", "*.css", "vendor/*"], "kit.data": ["*/*"]},
)
